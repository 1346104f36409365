//! The server's side of TLS, with a certificate for `localhost` by an authority that nobody else trusts.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fixture;

/// The file with the authority's certificate.
pub fn authority() -> PathBuf {
    fixture("tls/ca.cert.pem").into()
}

/// The handshake is made by the first read.
pub(super) fn accept(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let certificate = CertificateDer::from_pem_file(fixture("tls/issued.cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("tls/issued.key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}
