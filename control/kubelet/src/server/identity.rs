//! The node's certificate, from its kubeconfig: it also serves the kubelet's port.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use base64::Engine;
use kube::config::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Certificate, key and the cluster's CA, as PEM.
pub struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

fn load(
    kubeconfig: &Path,
    data: Option<&str>,
    file: Option<&str>,
    what: &str,
) -> anyhow::Result<Vec<u8>> {
    if let Some(data) = data {
        return base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .with_context(|| format!("decoding {what}-data in {}", kubeconfig.display()));
    }
    let file = file.with_context(|| {
        format!(
            "{} has no {what}: make it by `rhumb-control kubeconfig --user system:node:NAME --group system:nodes --san …`",
            kubeconfig.display()
        )
    })?;
    let path = kubeconfig.parent().unwrap_or(Path::new("/")).join(file);
    fs::read(&path).with_context(|| format!("reading {what} {}", path.display()))
}

impl Identity {
    /// Takes the parts of the current context.
    pub fn from_kubeconfig(path: &Path, k: &Kubeconfig) -> anyhow::Result<Self> {
        use kube::config::{AuthInfo, Cluster};
        let current = k
            .current_context
            .as_deref()
            .with_context(|| format!("{} has no current-context", path.display()))?;
        let context = k
            .contexts
            .iter()
            .find(|c| c.name == current)
            .and_then(|c| c.context.as_ref())
            .with_context(|| format!("{} has no context {current:?}", path.display()))?;
        let cluster: &Cluster = k
            .clusters
            .iter()
            .find(|c| c.name == context.cluster)
            .and_then(|c| c.cluster.as_ref())
            .with_context(|| format!("{} has no cluster {:?}", path.display(), context.cluster))?;
        let user = context.user.clone().unwrap_or_default();
        let auth: &AuthInfo = k
            .auth_infos
            .iter()
            .find(|u| u.name == user)
            .and_then(|u| u.auth_info.as_ref())
            .with_context(|| format!("{} has no user {user:?}", path.display()))?;
        use secrecy_expose::expose;
        let key = expose(auth);
        Ok(Identity {
            certificate: load(
                path,
                auth.client_certificate_data.as_deref(),
                auth.client_certificate.as_deref(),
                "client-certificate",
            )?,
            key: load(
                path,
                key.as_deref(),
                auth.client_key.as_deref(),
                "client-key",
            )?,
            ca: load(
                path,
                cluster.certificate_authority_data.as_deref(),
                cluster.certificate_authority.as_deref(),
                "certificate-authority",
            )?,
        })
    }

    /// TLS that asks clients for a certificate of the cluster's CA; `/healthz` needs none.
    pub fn server_config(&self) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&self.certificate)
                .collect::<Result<_, _>>()
                .context("reading the kubeconfig's client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .context("reading the kubeconfig's client key")?;
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(&self.ca) {
            roots
                .add(ca.context("reading the cluster's CA")?)
                .context("using the cluster's CA")?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .context("making the client verifier")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, key)
            .context("the kubeconfig's client certificate can't serve")?;
        // WebSockets are upgraded from HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The one place that takes the key out of its wrapper.
mod secrecy_expose {
    use kube::config::AuthInfo;

    /// The key's base64 text. Kubeconfig's secrets serialize as themselves.
    pub fn expose(auth: &AuthInfo) -> Option<String> {
        let value = serde_json::to_value(auth).ok()?;
        value.get("client-key-data")?.as_str().map(str::to_string)
    }
}

/// The organisations (Kubernetes: groups) of a certificate.
pub fn groups(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, c)) = x509_parser::parse_x509_certificate(certificate) else {
        return vec![];
    };
    c.subject()
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(str::to_string))
        .collect()
}
