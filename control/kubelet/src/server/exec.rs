//! `/exec`: a WebSocket (`v5` or `v4.channel.k8s.io`) joined to the runtime's exec stream.
//! <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message as RuntimeMessage, Utf8Bytes};
use tracing::debug;

use super::logs::text;
use crate::kubelet::Kubelet;
use crate::labels;
use crate::pure::env::find_container;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// v5: the client closes one of its channels; the next byte is which.
const CLOSE_CHANNEL: u8 = 255;
const ERROR_CHANNEL: u8 = 3;
const PING: Duration = Duration::from_secs(10);

/// What is asked for. API servers say `stdin`, `stdout`, `stderr`, or `input`, `output`, `error`.
#[derive(Debug, Default, PartialEq)]
struct ExecOptions {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = vec![];
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = std::str::from_utf8(bytes.get(i + 1..i + 3)?).ok()?;
                out.push(u8::from_str_radix(hex, 16).ok()?);
                i += 2;
            }
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).ok()
}

fn options(query: &str) -> Result<ExecOptions, String> {
    let mut o = ExecOptions::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescape(value)
            .ok_or_else(|| format!("the query has a malformed escape in {key:?}"))?;
        let on = matches!(value.as_str(), "1" | "true");
        match key {
            "command" => o.command.push(value),
            "stdin" | "input" => o.stdin = on,
            "stdout" | "output" => o.stdout = on,
            "stderr" | "error" => o.stderr = on,
            "tty" => o.tty = on,
            _ => {}
        }
    }
    if o.command.is_empty() {
        return Err("you must specify at least 1 command for the container".into());
    }
    if !(o.stdin || o.stdout || o.stderr) {
        return Err("you must specify at least 1 of stdin, stdout, stderr".into());
    }
    // A terminal has one output.
    o.stderr &= !o.tty;
    Ok(o)
}

/// SPDY isn't spoken here.
pub(super) async fn spdy() -> Response {
    text(
        StatusCode::BAD_REQUEST,
        "exec is by WebSocket (v5.channel.k8s.io or v4.channel.k8s.io); SPDY is not served",
    )
}

pub(super) async fn serve(
    State(k): State<Arc<Kubelet>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return spdy().await;
    };
    let options = match options(query.as_deref().unwrap_or("")) {
        Ok(o) => o,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let Some(pod) = k.find_pod(&namespace, &name) else {
        return text(
            StatusCode::NOT_FOUND,
            format!("pod {name:?} does not exist on this node"),
        );
    };
    if find_container(&pod, &container).is_none() {
        return text(
            StatusCode::NOT_FOUND,
            format!("container {container:?} is not part of pod {name:?}"),
        );
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let list = match k.cri.list_containers(Some(uid)).await {
        Ok(l) => l,
        Err(e) => return text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    };
    let running = cri::ContainerState::ContainerRunning as i32;
    let target = list.iter().find(|c| {
        c.state == running
            && c.labels
                .get(labels::CONTAINER_NAME)
                .is_some_and(|n| *n == container)
    });
    let Some(target) = target else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("container {container:?} in pod {name:?} is not running"),
        );
    };
    let id = target.id.clone();
    let offered = upgrade.protocols([V5, V4]);
    if offered.selected_protocol().is_none() {
        return text(
            StatusCode::BAD_REQUEST,
            format!("offer the WebSocket protocol {V5} or {V4}"),
        );
    }
    offered.on_upgrade(move |socket| async move {
        if let Err(why) = join(&k, socket, &id, options).await {
            debug!(id, why, "exec ended");
        }
    })
}

/// A failure as the client's error channel has it.
fn internal_error(message: &str) -> Vec<u8> {
    let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {message}"),
        "details": {"causes": [{"message": message}]}});
    let mut out = vec![ERROR_CHANNEL];
    out.extend_from_slice(status.to_string().as_bytes());
    out
}

async fn join(k: &Kubelet, mut client: WebSocket, id: &str, o: ExecOptions) -> Result<(), String> {
    let runtime = match open_runtime(k, id, &o).await {
        Ok(r) => r,
        Err(why) => {
            let _ = client
                .send(Message::Binary(internal_error(&why).into()))
                .await;
            let _ = client.send(Message::Close(None)).await;
            return Err(why);
        }
    };
    let (mut to_runtime, mut from_runtime) = runtime.split();
    let (mut to_client, mut from_client) = client.split();
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    loop {
        tokio::select! {
            message = from_runtime.next() => match message {
                Some(Ok(RuntimeMessage::Binary(data))) => {
                    // containerd opens every channel with an empty frame; so do Kubernetes' servers.
                    let last = data.first() == Some(&ERROR_CHANNEL) && data.len() > 1;
                    to_client.send(Message::Binary(data)).await.map_err(|e| e.to_string())?;
                    if last {
                        break;
                    }
                }
                Some(Ok(RuntimeMessage::Text(data))) => {
                    to_client.send(Message::Text(data.as_str().into())).await.map_err(|e| e.to_string())?;
                }
                Some(Ok(RuntimeMessage::Close(_))) | None => break,
                Some(Ok(_)) => {}
                Some(Err(e)) => {
                    let _ = to_client.send(Message::Binary(internal_error(&e.to_string()).into())).await;
                    break;
                }
            },
            message = from_client.next() => match message {
                Some(Ok(Message::Binary(data))) => {
                    if data.first() == Some(&CLOSE_CHANNEL) {
                        continue;
                    }
                    to_runtime.send(RuntimeMessage::Binary(data)).await.map_err(|e| e.to_string())?;
                }
                Some(Ok(Message::Text(data))) => {
                    let data = Utf8Bytes::from(data.as_str());
                    to_runtime.send(RuntimeMessage::Text(data)).await.map_err(|e| e.to_string())?;
                }
                Some(Ok(Message::Close(_))) | None => {
                    // The runtime then closes the process's input.
                    let _ = to_runtime.send(RuntimeMessage::Close(None)).await;
                    return Ok(());
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.to_string()),
            },
            _ = ping.tick() => {
                to_client.send(Message::Ping(Default::default())).await.map_err(|e| e.to_string())?;
            }
        }
    }
    let close = CloseFrame {
        code: axum::extract::ws::close_code::NORMAL,
        reason: "".into(),
    };
    let _ = to_client.send(Message::Close(Some(close))).await;
    // The client's close ends the connection in order.
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        while let Some(Ok(_)) = from_client.next().await {}
    })
    .await;
    Ok(())
}

type RuntimeSocket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// Starts the exec and connects to the stream that the runtime offers.
async fn open_runtime(k: &Kubelet, id: &str, o: &ExecOptions) -> Result<RuntimeSocket, String> {
    let url = k
        .cri
        .exec(cri::ExecRequest {
            container_id: id.into(),
            cmd: o.command.clone(),
            tty: o.tty,
            stdin: o.stdin,
            stdout: o.stdout,
            stderr: o.stderr,
        })
        .await
        .map_err(|e| e.to_string())?;
    let at = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("the runtime streams at {url:?}, which isn't http"))?;
    let authority = at.split('/').next().unwrap_or("");
    let mut request = format!("ws://{at}")
        .into_client_request()
        .map_err(|e| format!("{url}: {e}"))?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(V4));
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|e| format!("connecting to the runtime's stream {authority}: {e}"))?;
    let _ = stream.set_nodelay(true);
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|e| format!("the runtime's stream at {authority}: {e}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let o = options("command=sh&command=-c&command=echo+%22a%20b%22%3B+exit+3&stdin=true&output=1&tty=false").unwrap();
        assert_eq!(o.command, ["sh", "-c", "echo \"a b\"; exit 3"]);
        assert!(o.stdin && o.stdout && !o.stderr && !o.tty);
        assert!(options("stdout=true").unwrap_err().contains("command"));
        assert!(
            options("command=x")
                .unwrap_err()
                .contains("stdin, stdout, stderr")
        );
        assert!(options("command=%zz&stdout=1").is_err());
        assert!(!options("command=x&stdout=1&stderr=1&tty=1").unwrap().stderr);
    }
}
