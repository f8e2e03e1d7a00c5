//! What every HTTP client here shares: proxies, certificates, waits, and secrets kept out of texts.

pub(crate) mod proxy;
pub(crate) mod retry_after;
pub(crate) mod secret;
#[cfg(test)]
pub(crate) mod server;
pub(crate) mod tls;
