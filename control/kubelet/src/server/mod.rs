//! The kubelet's TLS port: health, pods, logs, exec, attach, port-forward.

mod attach;
mod channels;
pub mod exec;
pub mod identity;
pub mod logs;
mod portforward;
mod spdy;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::kubelet::{Kubelet, lock};
use identity::Identity;

/// Who may use the port besides `/healthz`.
const MASTERS: &str = "system:masters";
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The groups of a client's certificate.
#[derive(Clone, Debug, Default)]
struct Groups(Vec<String>);

/// A bound server.
pub struct Serving {
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
}

/// Binds the port on all addresses.
pub async fn bind(k: Arc<Kubelet>, identity: Identity) -> anyhow::Result<Serving> {
    let port = k.config.port;
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(v6).await {
        Ok(l) => l,
        // Machines without IPv6.
        Err(_) => TcpListener::bind(v4)
            .await
            .with_context(|| format!("listening on port {port}: choose another with --port"))?,
    };
    info!(port, "serving logs, exec, attach and port-forward");
    let tls = TlsAcceptor::from(Arc::new(identity.server_config()?));
    Ok(Serving {
        listener,
        tls,
        router: router(k),
    })
}

fn router(k: Arc<Kubelet>) -> Router {
    let guarded = Router::new()
        .route("/pods", get(pods))
        .route("/pods/", get(pods))
        .route("/metrics", get(metrics))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::serve),
        )
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(exec::serve).post(channels::spdy),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(attach::serve).post(channels::spdy),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(portforward::serve).post(channels::spdy),
        )
        .layer(middleware::from_fn(masters_only));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .merge(guarded)
        .with_state(k)
}

async fn masters_only(request: Request, next: Next) -> Response {
    match request.extensions().get::<Groups>() {
        Some(g) if g.0.iter().any(|g| g == MASTERS) => next.run(request).await,
        Some(g) if !g.0.is_empty() => (
            StatusCode::FORBIDDEN,
            format!("the kubelet serves clients of the group {MASTERS} only\n"),
        )
            .into_response(),
        _ => (
            StatusCode::UNAUTHORIZED,
            "a client certificate of the cluster's CA is needed\n",
        )
            .into_response(),
    }
}

async fn pods(State(k): State<Arc<Kubelet>>) -> Response {
    let items: Vec<_> = lock(&k.pods).values().map(|e| e.pod.clone()).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    axum::Json(list).into_response()
}

async fn metrics(State(k): State<Arc<Kubelet>>) -> Response {
    let pods = lock(&k.pods).len();
    let running = k.cri.list_containers(None).await.map(|l| {
        l.iter()
            .filter(|c| c.state == k8s_cri::v1::ContainerState::ContainerRunning as i32)
            .count()
    });
    let mut out = format!(
        "# HELP kubelet_active_pods Number of pods that the kubelet works on.\n# TYPE kubelet_active_pods gauge\n\
kubelet_active_pods {pods}\n"
    );
    if let Ok(n) = running {
        out.push_str(&format!(
            "# HELP kubelet_running_containers Number of containers by state.\n\
# TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {n}\n"
        ));
    }
    out.into_response()
}

impl Serving {
    /// Serves until shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                a = self.listener.accept() => a,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (tls, router) = (self.tls.clone(), self.router.clone());
                    tokio::spawn(async move {
                        if let Err(error) = connection(stream, tls, router).await {
                            debug!(%peer, error = format!("{error:#}"), "connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, perhaps: give others time to close theirs.
                    warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, router: Router) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream))
        .await
        .context("TLS handshake")??;
    let groups = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|c| c.first())
        .map(|c| identity::groups(c));
    let service = router.layer(axum::Extension(Groups(groups.unwrap_or_default())));
    Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
        .await
        .map_err(|e| anyhow::anyhow!("{e}"))
}
