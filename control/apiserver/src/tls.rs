//! PEM to rustls, and the one crypto provider.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::{ParsedCertificate, VerifierBuilderError};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::{Pair, Pki};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading a certificate or key: {0}")]
    Pem(#[source] pem::PemError),
    #[error("setting up TLS: {0}")]
    Rustls(#[source] rustls::Error),
    #[error("setting up the check of certificates: {0}")]
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

/// For whom one of these authorities has signed, or who is one of them: a certificate that signs itself is
/// mostly marked as an authority. Go takes it for a server's when it is in the bundle; webpki does not.
pub fn trusting(bundle: &[u8]) -> Result<ClientConfig, TlsError> {
    let bundle = certificates(&String::from_utf8_lossy(bundle))?;
    let mut roots = RootCertStore::empty();
    for certificate in &bundle {
        roots.add(certificate.clone()).map_err(TlsError::Rustls)?;
    }
    let signed = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
        .build()
        .map_err(TlsError::Verifier)?;
    let verifier = Arc::new(Bundle { bundle, signed });
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

#[derive(Debug)]
struct Bundle {
    bundle: Vec<CertificateDer<'static>>,
    /// For what the bundle has signed.
    signed: Arc<WebPkiServerVerifier>,
}

impl Bundle {
    /// A server's certificate that is itself in the bundle: its name, time and use count.
    fn verify_member(
        end_entity: &CertificateDer<'_>,
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (_, parsed) = X509Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        let uses = parsed
            .extended_key_usage()
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        if uses.is_some_and(|uses| !uses.value.any && !uses.value.server_auth) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.bundle.iter().any(|known| known == end_entity) {
            return Bundle::verify_member(end_entity, server, now);
        }
        self.signed
            .verify_server_cert(end_entity, intermediates, server, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// For what is behind a pod or a Service by `https:`: nobody knows who signs there, and Kubernetes
/// asks no certificate either. No credential of ours is shown.
pub fn unverified_config() -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Anybody(provider()));
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
