//! The one integration-test binary; every module is a topic.

<<<<<<< HEAD
mod engine;
mod kill;
mod space;
mod tidy;
=======
mod store;
>>>>>>> store
