//! TLS by rustls, with a certificate and a key from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use silverd_core::config::Tls;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate that new connections see.
pub(in crate::http) struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    config: Mutex<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Fails if the files are not there, or do not belong together.
    pub(in crate::http) fn load(tls: &Tls, base_dir: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (base_dir.join(&tls.certificate), base_dir.join(&tls.key));
        let config = Mutex::new(read(&certificate, &key)?);
        Ok(Self { certificate, key, config })
    }

    /// Reads the files again. If that fails, the certificate of before stays.
    pub(in crate::http) fn reload(&self) -> anyhow::Result<()> {
        *self.config.lock() = read(&self.certificate, &self.key)?;
        Ok(())
    }

    pub(in crate::http) fn files(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.lock().clone().into()
    }
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let context = |what: &str, path: &Path| format!("[http.tls] {what}: read {}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| context("certificate", certificate))?;
    if chain.is_empty() {
        bail!("{}: expected a PEM file with `BEGIN CERTIFICATE`", context("certificate", certificate));
    }
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| {
        format!("{}: expected a PEM file with `BEGIN PRIVATE KEY`, without a password", context("key", key))
    })?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| {
            format!("[http.tls]: {} and {} do not belong together", certificate.display(), key.display())
        })?;
    Ok(Arc::new(config))
}
