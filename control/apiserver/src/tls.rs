//! PEM to rustls, and the one crypto provider.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::VerifierBuilderError;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::pki::{Pair, Pki};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading a certificate or key: {0}")]
    Pem(#[source] pem::PemError),
    #[error("setting up TLS: {0}")]
    Rustls(#[source] rustls::Error),
    #[error("setting up the check of client certificates: {0}")]
    Verifier(#[source] VerifierBuilderError),
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(pem::parse_many(pem)
        .map_err(TlsError::Pem)?
        .into_iter()
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect())
}

pub fn key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let block = pem::parse(pem).map_err(TlsError::Pem)?;
    Ok(PrivatePkcs8KeyDer::from(block.into_contents()).into())
}

/// For calls to kubelets: their certificate is of the cluster's authority, and ours shows who
/// asks.
pub fn client_config(pki: &Pki, pair: &Pair) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pki.authority.certificate)? {
        roots.add(certificate).map_err(TlsError::Rustls)?;
    }
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&pair.certificate)?, key(&pair.key)?)
        .map_err(TlsError::Rustls)
}
