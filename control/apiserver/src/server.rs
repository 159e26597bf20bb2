//! The server as a whole: opened, served, stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rhumb_api::registry::Registry;
use rhumb_store::{Embedded, Options, Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, AuditError, AuditLog};
use crate::auth::MASTERS;
use crate::auth::authorize::Authorizer;
use crate::auth::token::{TokenError, Tokens};
use crate::auth::token_file::{TokenFile, TokenFileError};
use crate::bootstrap::{self, BootstrapError};
use crate::bootstrap_rbac;
use crate::cache::Cache;
use crate::definitions::{Definitions, Settled};
use crate::flows::Flows;
use crate::http::serve;
use crate::ip_addresses;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::pki::{self, Identity, Pki, PkiError, kubeconfig};
use crate::sealed::{self, KeyError, Keys, Sealed};
use crate::service_ips::{Range, RangeError, ServiceIps};
use crate::tls::{self, TlsError};
use crate::verbs::admission::dynamic::Configured;
use crate::verbs::admission::quota::Turns;
use crate::verbs::admit;

/// How long open requests may go on after a stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often what every cluster has is looked after.
const KEEP: Duration = Duration::from_secs(10);
/// How long the cache may take to replay the store's history at start.
const REPLAY: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Config {
    /// Holds the store, `pki/` and `admin.kubeconfig`.
    pub data_dir: PathBuf,
    pub listen: Vec<SocketAddr>,
    /// Listening sockets that were handed over; they may belong to another network namespace.
    pub inherited: Vec<std::net::TcpListener>,
    /// Where pods and nodes reach the server; the first of `listen` if absent.
    pub advertise: Option<IpAddr>,
    /// One range a family; the first is the default.
    pub service_cidrs: Vec<String>,
    /// More names and addresses for the server's certificate.
    pub tls_sans: Vec<String>,
    /// Tokens that an admin has given out: kube-apiserver's CSV.
    pub token_auth_file: Option<PathBuf>,
    /// The key that signs service-account tokens; `pki/sa.key` if absent.
    pub service_account_signing_key: Option<PathBuf>,
    /// More keys, private or public, whose tokens are accepted.
    pub service_account_keys: Vec<PathBuf>,
    /// Where requests are logged, if anywhere.
    pub audit: Option<AuditLog>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("--token-auth-file: {0}")]
    TokenFile(#[from] TokenFileError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("--service-cidr: {0}")]
    Range(#[from] RangeError),
    #[error("listening on {address}: {source}. Choose another address with --listen")]
    Listen {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("there is nothing to listen on: give --listen ADDR:PORT")]
    NoListener,
    #[error("the cache did not follow the store within {} s", REPLAY.as_secs())]
    Replay,
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// What every request shares.
pub struct Api {
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    pub authorizer: Authorizer,
    registry: ArcSwap<Registry>,
    pub openapi: OpenApi,
    pub definitions: Settled,
    pub tokens: Tokens,
    pub token_file: TokenFile,
    pub service_ips: Arc<ServiceIps>,
    pub hooks: Configured,
    pub quota_turns: Turns,
    pub metrics: Metrics,
    pub flows: Arc<Flows>,
    pub audit: Option<Audit>,
    pub kubelet_tls: Arc<ClientConfig>,
    /// For `https:` behind pods and Services.
    pub unverified_tls: Arc<ClientConfig>,
    /// `host:port`, for discovery.
    pub server_address: String,
    /// Cancelled when the server stops: watches and log streams end.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    /// Why the server can't go on.
    failure: watch::Sender<Option<String>>,
}

impl Api {
    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    fn fail(&self, why: String) {
        tracing::error!(why, "the server can't go on");
        self.failure.send_replace(Some(why));
    }

    pub fn serve(&self, registry: Registry) {
        self.registry.store(Arc::new(registry));
    }

    /// Whether the store and the cache work.
    pub fn ready(&self) -> bool {
        self.failure.borrow().is_none()
    }
}

pub struct Server {
    pub api: Arc<Api>,
    /// Addresses served, inherited ones last.
    pub addresses: Vec<SocketAddr>,
    /// Where this process reaches its own API.
    pub loopback: SocketAddr,
    pki: Arc<Pki>,
}

impl Server {
    /// Opens everything and serves. Returns when requests are answered.
    pub async fn start(config: Config) -> Result<Server, ServerError> {
        let mut own = Vec::new();
        for address in &config.listen {
            own.push(listen(*address).await?);
        }
        let mut inherited = Vec::new();
        for listener in config.inherited {
            let failed = |source| ServerError::Listen {
                address: "a socket that was handed over".into(),
                source,
            };
            listener.set_nonblocking(true).map_err(failed)?;
            inherited.push(TcpListener::from_std(listener).map_err(failed)?);
        }
        if own.is_empty() && inherited.is_empty() {
            return Err(ServerError::NoListener);
        }
        if own.is_empty() {
            // A socket of another namespace can't be dialed from here.
            own.push(listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?);
        }
        let address_of = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| ServerError::Listen {
                address: "an open socket".into(),
                source,
            })
        };
        let own_addresses = own.iter().map(address_of).collect::<Result<Vec<_>, _>>()?;
        let inherited_addresses = inherited
            .iter()
            .map(address_of)
            .collect::<Result<Vec<_>, _>>()?;
        let loopback = reachable(own_addresses[0]);
        let advertise = config.advertise.unwrap_or_else(|| loopback.ip());

        let ranges = config
            .service_cidrs
            .iter()
            .map(|text| Range::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let kubernetes_ips: Vec<IpAddr> = ranges.iter().map(Range::kubernetes).collect();
        let service_ips = Arc::new(ServiceIps::new(ranges)?);

        let all: Vec<SocketAddr> = own_addresses
            .iter()
            .chain(&inherited_addresses)
            .copied()
            .collect();
        let listen_ips: Vec<IpAddr> = all.iter().map(SocketAddr::ip).collect();
        let names = pki::server_names(advertise, &listen_ips, &kubernetes_ips, &config.tls_sans);
        let pki = Arc::new(Pki::open(
            &config.data_dir,
            &names,
            config.service_account_signing_key.as_deref(),
            &config.service_account_keys,
        )?);
        let token_file = match &config.token_auth_file {
            Some(path) => TokenFile::read(path)?,
            None => TokenFile::default(),
        };
        // People come from the machine itself: a socket on loopback, handed over or not.
        let admin = inherited_addresses
            .iter()
            .chain(&own_addresses)
            .find(|a| a.ip().is_loopback() || a.ip().is_unspecified())
            .copied()
            .unwrap_or(own_addresses[0]);
        write_admin(&config.data_dir, &pki, reachable(admin))?;

        let keys = Keys::open(&config.data_dir.join("pki/secrets.keys"))?;
        let store = Embedded::open(&config.data_dir.join("store.db"), Options::default())?;
        let store = Sealed::new(Arc::new(store), sealed::SECRETS, keys);
        let renewed = store.renew().await?;
        if renewed > 0 {
            tracing::info!(renewed, "Secrets encrypted with the first key");
        }
        let store: Arc<dyn Store> = Arc::new(store);
        let (definitions, registry) = Definitions::load(&*store).await?;
        let registry = Arc::new(registry);
        let cache = Arc::new(Cache::load(&*store, &registry).await?);
        let kubelet_pair = pki.authority.issue(
            &Identity {
                user: "kube-apiserver-kubelet-client".into(),
                groups: vec![MASTERS.into()],
            },
            &[],
        )?;
        let api = Arc::new(Api {
            tokens: Tokens::new(
                &pki.service_account_key,
                &pki.service_account_public,
                &pki.accepted_keys,
            )?,
            token_file,
            kubelet_tls: Arc::new(tls::client_config(&pki, &kubelet_pair)?),
            unverified_tls: Arc::new(tls::unverified_config()?),
            server_address: SocketAddr::new(advertise, loopback.port()).to_string(),
            store: store.clone(),
            cache: cache.clone(),
            authorizer: Authorizer::new(cache.clone()),
            registry: ArcSwap::from(registry),
            definitions: Settled::default(),
            openapi: OpenApi::default(),
            service_ips: service_ips.clone(),
            hooks: Configured::new(cache.clone()),
            quota_turns: Turns::default(),
            metrics: Metrics::default(),
            flows: Arc::default(),
            audit: config.audit.map(Audit::open).transpose()?,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failure: watch::Sender::new(None),
        });
        spawn_follower(api.clone());
        api.tasks.spawn(definitions.run(api.clone()));
        cache
            .reach(store.revision(), REPLAY)
            .await
            .map_err(|_| ServerError::Replay)?;
        take_service_ips(&cache, &service_ips);
        ip_addresses::repair(&api).await?;
        let reached_at = SocketAddr::new(advertise, loopback.port());
        bootstrap::run(&api, &kubernetes_ips, reached_at).await?;
        bootstrap_rbac::run(&api).await?;
        spawn_keeper(api.clone(), kubernetes_ips, reached_at);

        let tls = Arc::new(serve::tls_config(&pki)?);
        for listener in own.into_iter().chain(inherited) {
            let accept = serve::accept(
                listener,
                tls.clone(),
                api.clone(),
                api.tasks.clone(),
                api.stop.clone(),
            );
            api.tasks.spawn(accept);
        }
        Ok(Server {
            api,
            addresses: all,
            loopback,
            pki,
        })
    }

    /// A kubeconfig for a component in this process.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> Result<String, PkiError> {
        let identity = Identity {
            user: user.into(),
            groups: groups.iter().map(|g| g.to_string()).collect(),
        };
        let pair = self.pki.authority.issue(&identity, &[])?;
        Ok(kubeconfig::kubeconfig(
            &format!("https://{}", self.loopback),
            &self.pki.authority.certificate,
            user,
            &pair,
        ))
    }

    /// Resolves, with the reason, once the server can't go on and has to be started anew. It
    /// answers `/livez` and `/readyz` with 500 from then on.
    pub async fn failed(&self) -> String {
        let mut failure = self.api.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is part of `self`.
            Err(_) => "it is closed".into(),
        }
    }

    /// PEM of the cluster's authority.
    pub fn ca_certificate(&self) -> &str {
        &self.pki.authority.certificate
    }

    /// Takes no new connections, ends watches, and lets open requests finish for a while.
    pub async fn stop(self) {
        self.api.stop.cancel();
        self.api.tasks.close();
        if tokio::time::timeout(DRAIN, self.api.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = self.api.tasks.len(),
                "requests were still open when the server stopped"
            );
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen {
            address: address.to_string(),
            source,
        })
}

/// An address to dial for one that is listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        // A socket on [::] serves IPv4 too, and IPv4 loopback is everywhere.
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

fn write_admin(data_dir: &std::path::Path, pki: &Pki, address: SocketAddr) -> Result<(), PkiError> {
    let user = "kubernetes-admin";
    let pair = pki.authority.issue(
        &Identity {
            user: user.into(),
            groups: vec![MASTERS.into()],
        },
        &[],
    )?;
    let server = format!("https://{address}");
    let config = kubeconfig::kubeconfig(&server, &pki.authority.certificate, user, &pair);
    pki::files::write_private(&data_dir.join("admin.kubeconfig"), &config)
}

fn spawn_follower(api: Arc<Api>) {
    let stop = api.stop.clone();
    api.tasks.clone().spawn(async move {
        tokio::select! {
            ended = api.cache.follow(&*api.store) => {
                let why = ended.err().map_or_else(|| "it ended".into(), |e| e.to_string());
                api.fail(format!("the cache can't follow the store: {why}"));
            }
            why = api.store.failure() => api.fail(format!("the store has failed: {why}")),
            () = stop.cancelled() => {}
        }
    });
}

/// What every cluster has comes back when somebody deletes it.
fn spawn_keeper(api: Arc<Api>, kubernetes_ips: Vec<IpAddr>, reached_at: SocketAddr) {
    let stop = api.stop.clone();
    api.tasks.clone().spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(KEEP) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = bootstrap::run(&api, &kubernetes_ips, reached_at).await {
                tracing::warn!(%error, "trying again");
            }
        }
    });
}

/// The stored Services are the record of addresses in use.
fn take_service_ips(cache: &Cache, service_ips: &ServiceIps) {
    let services =
        rhumb_api::registry::find("", "v1", "services").and_then(|kind| cache.collection(kind));
    for service in services.iter().flat_map(|c| c.list("")) {
        service_ips.take(&admit::held_ips(&service.value()));
    }
}
