//! Which certificates a server is trusted by.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Longest file of certificates, in bytes.
const LARGEST_CERTIFICATES: u64 = 8 << 20;

/// Trust in servers: the certificates of `SSL_CERT_FILE`, else the built-in list.
pub(crate) fn config(env: &dyn Fn(&str) -> Option<OsString>) -> Result<TlsConfig> {
    let Some(path) = env("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(TlsConfig::builder().build());
    };
    let path = std::path::PathBuf::from(path);
    let failed = || {
        format!(
            "failed to read the certificates in `{}`, which `SSL_CERT_FILE` names",
            path.display()
        )
    };
    let size = std::fs::metadata(&path).with_context(failed)?.len();
    ensure!(
        size <= LARGEST_CERTIFICATES,
        "{}: it has more than {LARGEST_CERTIFICATES} bytes",
        failed()
    );
    let bytes = std::fs::read(&path).with_context(failed)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.with_context(failed)? {
            certificates.push(certificate);
        }
    }
    ensure!(!certificates.is_empty(), "{}: it holds none", failed());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::from(certificates))
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_from_the_named_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let env = |name: &str| (name == "SSL_CERT_FILE").then(|| path.clone().into_os_string());
        let error =
            |env: &dyn Fn(&str) -> Option<OsString>| format!("{:#}", config(env).err().unwrap());
        assert!(error(&env).contains("`SSL_CERT_FILE` names"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(error(&env).ends_with("it holds none"));
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, pem).unwrap();
        assert!(matches!(
            config(&env).unwrap().root_certs(),
            RootCerts::Specific(list) if list.len() == 1
        ));
        assert!(matches!(
            config(&|_| None).unwrap().root_certs(),
            RootCerts::WebPki
        ));
    }
}
