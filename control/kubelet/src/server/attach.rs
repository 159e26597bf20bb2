//! `/attach`: a WebSocket joined to the input and output of a container's first process.
//!
//! The container's streams are containerd's, which offers them on its streaming server by SPDY (its
//! WebSockets can't end the input by itself, and an attach without input ends a container's input).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::debug;

use super::channels::{
    self, CLOSE_CHANNEL, ERROR, PING, RESIZE, STDERR, STDIN, STDOUT, Streams, V4, closing, outcome,
    refuse,
};
use super::logs::text;
use super::spdy::frame::{self, Decoder, Frame};
use super::spdy::headers::Writer;
use crate::kubelet::Kubelet;

const DIAL: Duration = Duration::from_secs(10);

/// The streams that a client of the remote command protocol opens, in its order.
const ERROR_STREAM: u32 = 1;
const STDIN_STREAM: u32 = 3;
const STDOUT_STREAM: u32 = 5;
const STDERR_STREAM: u32 = 7;
const RESIZE_STREAM: u32 = 9;

type Io = TokioIo<Upgraded>;

pub(super) async fn serve(
    State(k): State<Arc<Kubelet>>,
    UrlPath(container): UrlPath<channels::Container>,
    RawQuery(query): RawQuery,
    upgrade: channels::Upgrade,
) -> Response {
    let streams = match channels::streams(query.as_deref().unwrap_or("")) {
        Ok(o) => o,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    channels::session(k, container, upgrade, move |k, socket, id| async move {
        run(&k, socket, &id, streams).await
    })
    .await
}

/// A connection to containerd's streams of a container.
async fn dial(k: &Kubelet, request: cri::AttachRequest) -> Result<Io, String> {
    let url = k.cri.attach(request).await.map_err(|e| e.to_string())?;
    let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!(
            "the container runtime offers its streams at {url}, and only http is spoken here: \
             leave its stream server without TLS (it listens on loopback)"
        ));
    };
    let address = authority.to_string();
    let failed = |e: &dyn std::fmt::Display| {
        format!("the container runtime's stream server at {address}: {e}")
    };
    let join = async {
        let stream = TcpStream::connect(&address).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "the connection to the runtime's streams ended");
            }
        });
        let host = HeaderValue::from_str(&address).map_err(|e| failed(&e))?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let request = Request::post(path)
            .header(HOST, host)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "SPDY/3.1")
            .header("X-Stream-Protocol-Version", V4)
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed(&format!("it answered {}", answer.status())));
        }
        hyper::upgrade::on(answer).await.map_err(|e| failed(&e))
    };
    match tokio::time::timeout(DIAL, join).await {
        Ok(upgraded) => upgraded.map(TokioIo::new),
        Err(_) => Err(failed(&"it takes too long")),
    }
}

/// Opens the streams, and gives the two directions.
async fn join(k: &Kubelet, id: &str, o: &Streams) -> Result<(ReadHalf<Io>, WriteHalf<Io>), String> {
    let io = dial(
        k,
        cri::AttachRequest {
            container_id: id.into(),
            stdin: o.stdin,
            tty: o.tty,
            stdout: o.stdout,
            stderr: o.stderr,
        },
    )
    .await?;
    let (read, mut write) = tokio::io::split(io);
    let mut headers = Writer::new().map_err(|e| e.to_string())?;
    for (stream, name, wanted) in [
        (ERROR_STREAM, "error", true),
        (STDIN_STREAM, "stdin", o.stdin),
        (STDOUT_STREAM, "stdout", o.stdout),
        (STDERR_STREAM, "stderr", o.stderr),
        (RESIZE_STREAM, "resize", o.tty),
    ] {
        if wanted {
            // Only input and sizes go that way.
            let fin = !matches!(stream, STDIN_STREAM | RESIZE_STREAM);
            let open = frame::open(stream, fin, &[("streamtype", name)], &mut headers);
            let open = open.map_err(|e| e.to_string())?;
            write.write_all(&open).await.map_err(|e| e.to_string())?;
        }
    }
    Ok((read, write))
}

async fn run(k: &Kubelet, client: WebSocket, id: &str, o: Streams) -> Result<(), String> {
    let (mut from_runtime, mut to_runtime) = match join(k, id, &o).await {
        Ok(halves) => halves,
        Err(why) => {
            refuse(client, &why).await;
            return Err(why);
        }
    };
    let (mut to_client, mut from_client) = client.split();
    let (frames, mut queue) = mpsc::channel::<Vec<u8>>(16);
    let pongs = frames.clone();
    // Each direction by itself, so that input that waits for the process never holds output up.
    let writer = tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if to_runtime.write_all(&frame).await.is_err() {
                break;
            }
        }
    });
    let mut reader = tokio::spawn(async move {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(data) => {
                    if let Some(frame) = to_frame(&data)
                        && frames.send(frame).await.is_err()
                    {
                        break;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    });
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 32 << 10];
    let mut result = Ok(0);
    let stayed = 'session: loop {
        tokio::select! {
            biased;
            n = from_runtime.read(&mut buffer) => {
                let n = match n {
                    Ok(0) | Err(_) => break true,
                    Ok(n) => n,
                };
                decoder.push(&buffer[..n]);
                loop {
                    let sent = match decoder.next() {
                        Ok(Some(Frame::Data { stream, data, .. })) => match stream {
                            STDOUT_STREAM if !data.is_empty() => to_client.send(channels::frame(STDOUT, &data)).await,
                            STDERR_STREAM if !data.is_empty() => to_client.send(channels::frame(STDERR, &data)).await,
                            ERROR_STREAM => {
                                if let Some(why) = failure(&data) {
                                    result = Err(why);
                                }
                                Ok(())
                            }
                            _ => Ok(()),
                        },
                        Ok(Some(Frame::Ping { id })) if id.is_multiple_of(2) => {
                            let _ = pongs.try_send(frame::pong(id));
                            Ok(())
                        }
                        Ok(Some(_)) => Ok(()),
                        Ok(None) => break,
                        Err(why) => {
                            result = Err(format!("the container runtime's streams: {why}"));
                            break 'session true;
                        }
                    };
                    if sent.is_err() {
                        break 'session false;
                    }
                }
            }
            _ = &mut reader => break false,
            _ = ping.tick() => if to_client.send(Message::Ping(Default::default())).await.is_err() {
                break false;
            },
        }
    };
    if stayed {
        let status = outcome(result).to_string();
        let _ = to_client
            .send(channels::frame(ERROR, status.as_bytes()))
            .await;
        let _ = to_client.send(closing()).await;
        if !reader.is_finished() {
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut reader).await;
        }
    }
    reader.abort();
    writer.abort();
    Ok(())
}

/// The message of a Status, if it is one of failure.
fn failure(status: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    (status["status"] == "Failure").then(|| {
        let message = status["message"].as_str();
        message.unwrap_or("attaching failed").into()
    })
}

/// What one message of the client is for the runtime.
fn to_frame(data: &[u8]) -> Option<Vec<u8>> {
    match data {
        [STDIN, rest @ ..] if !rest.is_empty() => Some(frame::data(STDIN_STREAM, false, rest)),
        [RESIZE, rest @ ..] => Some(frame::data(RESIZE_STREAM, false, rest)),
        [CLOSE_CHANNEL, STDIN, ..] => Some(frame::data(STDIN_STREAM, true, b"")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_frames() {
        assert_eq!(
            to_frame(b"\x00ab"),
            Some(frame::data(STDIN_STREAM, false, b"ab"))
        );
        assert_eq!(
            to_frame(b"\xff\x00"),
            Some(frame::data(STDIN_STREAM, true, b""))
        );
        assert_eq!(
            to_frame(b"\x04{}"),
            Some(frame::data(RESIZE_STREAM, false, b"{}"))
        );
        for nothing in [&b""[..], b"\x00", b"\x01x", b"\xff\x01"] {
            assert_eq!(to_frame(nothing), None);
        }
    }

    #[test]
    fn failures_are_told() {
        let status = |s: &str| format!(r#"{{"status":"{s}","message":"m"}}"#);
        assert_eq!(failure(status("Failure").as_bytes()).as_deref(), Some("m"));
        assert_eq!(failure(status("Success").as_bytes()), None);
        assert_eq!(failure(b"nonsense"), None);
    }
}
