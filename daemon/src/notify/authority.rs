//! `tls_ca`: certificates of authorities that are trusted in addition to those of the system.

use std::path::Path;

use anyhow::{Context, bail};

/// The text of a PEM file with at least one certificate.
pub(super) async fn read(path: &str, base_dir: &Path) -> anyhow::Result<Vec<u8>> {
    let path = base_dir.join(path);
    let pem = tokio::fs::read(&path).await.with_context(|| format!("read {}", path.display()))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|window| window == begin) {
        bail!("{} has no certificate: expected a PEM file", path.display());
    }
    Ok(pem)
}
