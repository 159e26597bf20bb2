//! Calls of a webhook: HTTPS to a URL or to a Service, over connections that are kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rhumb_api::admission::dynamic::ClientConfig;
use tokio::net::TcpStream;

use crate::cache::Cache;
use crate::service_backend;
use crate::tls::{self, TlsError};

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;
const IDLE: Duration = Duration::from_secs(90);

#[derive(Clone)]
pub struct WebhookClient {
    /// As errors show it.
    url: String,
    uri: Uri,
    http: Client<HttpsConnector<Dial>, Full<Bytes>>,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook's address can't be used: {0}")]
    Address(#[from] http::Error),
    #[error("the webhook's caBundle can't be used: {0}")]
    Authorities(#[source] TlsError),
    #[error("the system's certificate authorities can't be read: {0}")]
    System(#[source] io::Error),
}

impl WebhookClient {
    /// `ca_bundle`: PEM; without one the system's authorities count.
    pub fn new(
        config: &ClientConfig,
        ca_bundle: &[u8],
        timeout_seconds: u64,
        cache: &Arc<Cache>,
    ) -> Result<WebhookClient, WebhookError> {
        let (base, service) = match config {
            ClientConfig::Url(url) => (url.clone(), None),
            ClientConfig::Service {
                namespace,
                name,
                port,
                path,
            } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                let service = Service {
                    cache: cache.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    port: *port,
                };
                let url = format!("https://{name}.{namespace}.svc:{port}{slash}{path}");
                (url, Some(Arc::new(service)))
            }
        };
        let url = format!("{base}?timeout={timeout_seconds}s");
        let uri = url.parse::<Uri>().map_err(http::Error::from)?;
        let builder = HttpsConnectorBuilder::new();
        let builder = match ca_bundle {
            [] => builder
                .with_provider_and_native_roots(tls::provider())
                .map_err(WebhookError::System)?,
            pem => builder.with_tls_config(tls::trusting(pem).map_err(WebhookError::Authorities)?),
        };
        let connector = builder
            .https_only()
            .enable_http1()
            .wrap_connector(Dial { service });
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(WebhookClient { url, uri, http })
    }

    /// Posts a review; the answer, or what went wrong, as client-go says it.
    pub async fn post(&self, body: Bytes, within: Duration) -> Result<Bytes, String> {
        let posted = |why: &str| format!("failed to call webhook: Post {:?}: {why}", self.url);
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|e| posted(&e.to_string()))?;
        let call = async {
            let response = self.http.request(request).await;
            let response = response.map_err(|e| posted(&innermost(&e)))?;
            let (status, body) = (response.status(), response.into_body());
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|e| posted(&e.to_string()))?.to_bytes();
            match status.is_success() {
                true => Ok(body),
                false => Err(format!(
                    "failed to call webhook: {}",
                    rejected(status, &body)
                )),
            }
        };
        let called = tokio::time::timeout(within, call).await;
        called.unwrap_or_else(|_| Err(posted("context deadline exceeded")))
    }
}

fn rejected(status: StatusCode, body: &[u8]) -> String {
    match status {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".into(),
        status if status.is_server_error() => {
            let body = String::from_utf8_lossy(&body[..body.len().min(1024)]);
            let body = body.trim();
            format!("an error on the server ({body:?}) has prevented the request from succeeding")
        }
        status => format!("the server answered {status}"),
    }
}

/// Where the trouble began: what is around it only says that a client failed.
fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    let mut found: &dyn std::error::Error = error;
    while let Some(source) = found.source() {
        found = source;
    }
    found.to_string()
}

struct Service {
    cache: Arc<Cache>,
    namespace: String,
    name: String,
    port: u16,
}

/// Opens TCP connections: to an endpoint of the Service, or to the host of the URL.
#[derive(Clone)]
struct Dial {
    service: Option<Arc<Service>>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let service = self.service.clone();
        Box::pin(async move {
            let shown;
            let connected = match &service {
                Some(s) => {
                    let found = service_backend::endpoint(&s.cache, &s.namespace, &s.name, s.port);
                    let address = found.map_err(io::Error::other)?;
                    shown = address.to_string();
                    TcpStream::connect(address).await
                }
                None => {
                    let host = uri.host().unwrap_or("").trim_matches(['[', ']']);
                    let port = uri.port_u16().unwrap_or(443);
                    shown = format!("{host}:{port}");
                    TcpStream::connect((host, port)).await
                }
            };
            let stream = connected
                .map_err(|e| io::Error::new(e.kind(), format!("dial tcp {shown}: connect: {e}")))?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
