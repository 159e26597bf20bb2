//! The cluster's certificates and keys, in `<data dir>/pki`: made once, only readable by the owner.

pub mod ca;
pub mod files;
pub mod kubeconfig;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use ca::{Authority, Identity, Pair};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{doing} {path}: {source}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{doing}: {source}")]
    Certificate {
        doing: String,
        #[source]
        source: rcgen::Error,
    },
    #[error(
        "{path}: not a usable {what}: {why}. Restore it from a backup; a new one would not be \
         accepted by the cluster's nodes and users"
    )]
    Unusable {
        path: PathBuf,
        what: &'static str,
        why: String,
    },
    #[error(
        "{path} is there and {missing} is not: restore the missing one, or remove both to make a new authority"
    )]
    Half { path: PathBuf, missing: PathBuf },
    #[error("a certificate holds {most} groups at most, {given} were given")]
    TooManyGroups { given: usize, most: usize },
    #[error("the usage {0:?} is no signer's here")]
    Usage(String),
    #[error("{0:?} is neither an IP address nor a DNS name")]
    BadName(String),
}

/// Everything that the server needs, from files that exist or are made now.
pub struct Pki {
    pub authority: Authority,
    /// What the server shows to clients. Issued anew at each start.
    pub server: Pair,
    /// PEM of the key that signs service-account tokens.
    pub service_account_key: String,
    pub service_account_public: String,
    /// PEM of more public keys whose tokens are accepted.
    pub accepted_keys: Vec<String>,
}

impl Pki {
    /// `names`: the DNS names and addresses under which the server is reached.
    /// `signing_key` signs service-account tokens instead of `pki/sa.key`, whose tokens then count
    /// only if it is among `more_keys`.
    pub fn open(
        data_dir: &Path,
        names: &[String],
        signing_key: Option<&Path>,
        more_keys: &[PathBuf],
    ) -> Result<Pki, PkiError> {
        let dir = data_dir.join("pki");
        files::private_dir(data_dir)?;
        files::private_dir(&dir)?;
        let authority = Authority::open(&dir)?;
        let server = authority.issue(
            &Identity {
                user: "kube-apiserver".into(),
                groups: vec![],
            },
            names,
        )?;
        files::write_private(&dir.join("server.crt"), &server.certificate)?;
        files::write_private(&dir.join("server.key"), &server.key)?;
        let path = signing_key.map_or_else(|| dir.join("sa.key"), Path::to_owned);
        let unusable = |path: &Path, why: String| PkiError::Unusable {
            path: path.to_owned(),
            what: "service-account key",
            why,
        };
        let missing = |path: &Path| unusable(path, "there is no such file".into());
        let key = match files::read(&path)? {
            Some(pem) => {
                rcgen::KeyPair::from_pem(&pem).map_err(|e| unusable(&path, e.to_string()))?
            }
            None if signing_key.is_some() => return Err(missing(&path)),
            None => {
                let key = ca::generate_key()?;
                files::write_private(&path, &key.serialize_pem())?;
                key
            }
        };
        let mut accepted_keys = Vec::new();
        for path in more_keys {
            let pem = files::read(path)?.ok_or_else(|| missing(path))?;
            accepted_keys.push(match pem.contains("PRIVATE KEY") {
                true => rcgen::KeyPair::from_pem(&pem)
                    .map_err(|e| unusable(path, e.to_string()))?
                    .public_key_pem(),
                false => pem,
            });
        }
        Ok(Pki {
            authority,
            server,
            service_account_key: key.serialize_pem(),
            service_account_public: key.public_key_pem(),
            accepted_keys,
        })
    }
}

/// Names under which clients reach the API server.
pub fn server_names(
    advertise: IpAddr,
    listen: &[IpAddr],
    service_ips: &[IpAddr],
    extra: &[String],
) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "::1",
    ]
    .map(String::from)
    .into();
    let addresses = listen
        .iter()
        .filter(|ip| !ip.is_unspecified())
        .chain(std::iter::once(&advertise))
        .chain(service_ips);
    names.extend(addresses.map(IpAddr::to_string));
    names.extend(extra.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
