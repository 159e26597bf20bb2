//! What exec, attach and port-forward share: the channels of `v5` and `v4.channel.k8s.io`.
//! <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use tracing::debug;

use super::logs::text;
use crate::kubelet::Kubelet;
use crate::labels;
use crate::pure::ephemeral::has_container;

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;
/// v5: the client closes one of its channels; the next byte is which.
pub const CLOSE_CHANNEL: u8 = 255;
pub const PING: Duration = Duration::from_secs(10);

/// What is asked for. API servers say `stdin`, `stdout`, `stderr`, or `input`, `output`, `error`.
#[derive(Debug, Default, PartialEq)]
pub struct Streams {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
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

/// The names and values of a query, in its order.
pub fn pairs(query: &str) -> Result<Vec<(&str, String)>, String> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value)
                .ok_or_else(|| format!("the query has a malformed escape in {key:?}"))?;
            Ok((key, value))
        })
        .collect()
}

pub fn streams(query: &str) -> Result<Streams, String> {
    let mut o = Streams::default();
    for (key, value) in pairs(query)? {
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
    if !(o.stdin || o.stdout || o.stderr) {
        return Err("you must specify at least 1 of stdin, stdout, stderr".into());
    }
    // A terminal has one output.
    o.stderr &= !o.tty;
    Ok(o)
}

/// SPDY isn't spoken here.
pub async fn spdy() -> Response {
    text(
        StatusCode::BAD_REQUEST,
        "streams are by WebSocket; SPDY by itself is not served",
    )
}

pub type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Namespace, pod and container of a request's path.
pub type Container = (String, String, String);

/// Answers a request for streams of a running container: `run` gets the socket and the container's id.
pub async fn session<F>(
    k: Arc<Kubelet>,
    (namespace, name, container): Container,
    upgrade: Upgrade,
    run: impl FnOnce(Arc<Kubelet>, WebSocket, String) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Result<(), String>> + Send,
{
    let Ok(upgrade) = upgrade else {
        return spdy().await;
    };
    let offered = upgrade.protocols([V5, V4]);
    if offered.selected_protocol().is_none() {
        return text(
            StatusCode::BAD_REQUEST,
            format!("offer the WebSocket protocol {V5} or {V4}"),
        );
    }
    // Refusals come over the WebSocket too: a client that is refused the upgrade tries SPDY, and then
    // shows only that this failed.
    offered.on_upgrade(move |socket| async move {
        let ended = match target(&k, &namespace, &name, &container).await {
            Ok(id) => run(k, socket, id).await,
            Err(why) => {
                refuse(socket, &why).await;
                Err(why)
            }
        };
        if let Err(why) = ended {
            debug!(pod = name, container, why, "a session ended");
        }
    })
}

/// The id of the running container that is meant.
async fn target(
    k: &Kubelet,
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<String, String> {
    let pod = k
        .find_pod(namespace, name)
        .ok_or_else(|| format!("pod {name:?} does not exist on this node"))?;
    if !has_container(&pod, container) {
        return Err(format!(
            "container {container:?} is not part of pod {name:?}"
        ));
    }
    let list = k
        .cri
        .list_containers(Some(pod.metadata.uid.as_deref().unwrap_or("")))
        .await
        .map_err(|e| e.to_string())?;
    let running = cri::ContainerState::ContainerRunning as i32;
    list.into_iter()
        .find(|c| {
            c.state == running
                && c.labels
                    .get(labels::CONTAINER_NAME)
                    .is_some_and(|n| n == container)
        })
        .map(|c| c.id)
        .ok_or_else(|| format!("container {container:?} in pod {name:?} is not running"))
}

/// Ends a session that did not begin.
pub async fn refuse(client: WebSocket, why: &str) {
    let (mut to_client, mut from_client) = client.split();
    let _ = to_client
        .send(frame(
            ERROR,
            outcome(Err(why.to_string())).to_string().as_bytes(),
        ))
        .await;
    let _ = to_client.send(closing()).await;
    let rest = async { while let Some(Ok(_)) = from_client.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
}

/// The last message of an exec or attach.
pub fn outcome(result: Result<u32, String>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        Err(why) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {why}"),
            "details": {"causes": [{"message": why}]}})
        }
    }
}

pub fn frame(channel: u8, data: &[u8]) -> Message {
    let mut out = Vec::with_capacity(data.len() + 1);
    out.push(channel);
    out.extend_from_slice(data);
    Message::Binary(out.into())
}

/// The end in order: clients take another code for a broken connection.
pub fn closing() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let o = streams("command=sh&command=-c&command=echo+%22a%20b%22%3B+exit+3&stdin=true&output=1&tty=false").unwrap();
        assert_eq!(o.command, ["sh", "-c", "echo \"a b\"; exit 3"]);
        assert!(o.stdin && o.stdout && !o.stderr && !o.tty);
        assert!(
            streams("command=x")
                .unwrap_err()
                .contains("stdin, stdout, stderr")
        );
        assert!(streams("command=%zz&stdout=1").is_err());
        assert!(!streams("command=x&stdout=1&stderr=1&tty=1").unwrap().stderr);
    }

    #[test]
    fn outcomes() {
        assert_eq!(outcome(Ok(0))["status"], "Success");
        let failed = outcome(Ok(3));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0]["message"], "3");
        assert_eq!(outcome(Err("x".into()))["code"], 500);
    }

    #[test]
    fn whatever_is_asked() {
        const WORDS: &[&str] = &[
            "command", "=", "&", "%", "%2", "%zz", "é", "stdin", "tty", "1", "+",
        ];
        rhumb_fuzz::run("streams", 5000, |dice| {
            let _ = streams(&rhumb_fuzz::soup(WORDS, dice));
        });
    }
}
