//! Connections: TLS with optional client certificates, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rhumb_api::status::ApiError;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{User, authenticate};
use crate::handler;
use crate::http::reply::{self, Body};
use crate::pki::Pki;
use crate::proxy::Caller;
use crate::route;
use crate::server::Api;
use crate::tls;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);

/// The server's side of TLS: clients may show a certificate of the cluster's authority.
pub fn tls_config(pki: &Pki) -> Result<ServerConfig, tls::TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(&pki.authority.certificate)? {
        roots.add(certificate).map_err(tls::TlsError::Rustls)?;
    }
    let provider = tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(tls::TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls::TlsError::Rustls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            tls::certificates(&pki.server.certificate)?,
            tls::key(&pki.server.key)?,
        )
        .map_err(tls::TlsError::Rustls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts until `stop`; connections run on in `tasks`.
pub async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Arc<Api>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, api, stop) = (acceptor.clone(), api.clone(), stop.clone());
                tasks.spawn(async move {
                    if let Err(error) = connection(stream, peer.ip(), acceptor, api, stop).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: others have to close first.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("TLS handshake: {0}")]
    Handshake(#[source] std::io::Error),
    #[error("TLS handshake took too long")]
    Slow,
    #[error("HTTP: {0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs a request that may write in a task of its own. hyper drops a request's future when its
/// client goes away; in the midst of a write that would take back what the write has reserved,
/// while the object that has it is stored all the same.
async fn to_its_end(
    tasks: &TaskTracker,
    request: impl Future<Output = Response<Body>> + Send + 'static,
) -> Response<Body> {
    tasks.spawn(request).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request failed");
        reply::error(&ApiError::internal("the request failed within the server"))
    })
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    acceptor: TlsAcceptor,
    api: Arc<Api>,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| ConnectionError::Slow)?
        .map_err(ConnectionError::Handshake)?;
    let user: Option<Arc<User>> = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| authenticate::from_certificate(certificate))
        .map(Arc::new);
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, user) = (api.clone(), user.clone());
        async move {
            // What a stream began is to be in the audit log, whether its client stays or not.
            let stream = route::is_stream(request.uri().path());
            let gone = CancellationToken::new();
            let _here = gone.clone().drop_guard();
            let mut request = request;
            request.extensions_mut().insert(Caller { peer, gone });
            if !stream && matches!(*request.method(), Method::GET | Method::HEAD) {
                return Ok::<_, Infallible>(handler::handle(api, peer, user, request).await);
            }
            let tasks = api.tasks.clone();
            Ok(to_its_end(&tasks, handler::handle(api, peer, user, request)).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(ConnectionError::Http),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_write_outlives_its_client() {
        let tasks = TaskTracker::new();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel();
        let request = to_its_end(&tasks, async move {
            let _ = wait.await;
            let _ = done.send(());
            Response::new(reply::full(""))
        });
        // Polled once, then dropped, as for a client that goes away.
        assert!(request.now_or_never().is_none());
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let response = to_its_end(&TaskTracker::new(), async { panic!("on purpose") }).await;
        assert_eq!(response.status(), 500);
    }
}
