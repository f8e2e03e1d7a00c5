//! The one integration-test binary; every module is a topic.

mod store;
