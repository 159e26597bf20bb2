//! Requests that are handed on to a kubelet, a pod or a node: the connection there, and bytes in
//! both directions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use super::reply::Body;
use crate::server::Api;

const DIAL: Duration = Duration::from_secs(10);

/// Why there is no connection, in Go's words, which people search for.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {0}: i/o timeout")]
    Slow(SocketAddr),
    #[error("dial tcp {address}: connect: {}", said(source))]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("tls: {0}")]
    Tls(#[source] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// "Connection refused (os error 111)" as the C library says it.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Connects, with TLS if there is a configuration for it.
pub async fn dial<B>(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
) -> Result<SendRequest<B>, DialError>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let work = async {
        let stream = TcpStream::connect(address)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| DialError::Connect { address, source })?;
        match tls {
            None => join(stream).await,
            Some(tls) => {
                let name = ServerName::from(address.ip());
                let stream = TlsConnector::from(tls).connect(name, stream).await;
                join(stream.map_err(DialError::Tls)?).await
            }
        }
    };
    tokio::time::timeout(DIAL, work)
        .await
        .map_err(|_| DialError::Slow(address))?
}

async fn join<S, B>(stream: S) -> Result<SendRequest<B>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection that was handed on ended");
        }
    });
    Ok(sender)
}

pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Whether the client asks for another protocol on its connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade")
}

/// The answer's body as it comes, until the server stops. One that breaks off breaks off here too.
pub fn body(body: Incoming, stop: CancellationToken) -> Body {
    let frames = futures::stream::unfold(Some((body, stop)), |state| async move {
        let (mut body, stop) = state?;
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = stop.cancelled() => Some(Ok(Frame::data(Bytes::new()))),
        };
        match frame {
            _ if stop.is_cancelled() => None,
            Some(Ok(frame)) => Some((Ok(frame), Some((body, stop)))),
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer broke off");
                Some((Err(io::Error::other(error)), None))
            }
            None => None,
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Joins the two connections once both are upgraded.
pub fn bridge(api: &Api, client: OnUpgrade, upstream: OnUpgrade) {
    let stop = api.stop.clone();
    api.tasks.spawn(async move {
        let bridge = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // How it ends is the two sides' affair.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            ended = bridge => if let Err(error) = ended {
                tracing::debug!(%error, "a stream did not open");
            },
            () = stop.cancelled() => {}
        }
    });
}
