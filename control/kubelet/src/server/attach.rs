//! `/attach`: a WebSocket joined to the input and output of a container's first process.
//!
//! The container's streams are containerd's, which offers them on its streaming server over
//! `v4.channel.k8s.io`. That protocol can't end the input alone; so input has a connection of its own,
//! and closing that one is the end of the input (`echo … | kubectl run -i`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::channels::{
    self, CLOSE_CHANNEL, ERROR, PING, RESIZE, STDERR, STDIN, STDOUT, Streams, V4, closing, frame,
    outcome, refuse,
};
use super::logs::text;
use crate::kubelet::Kubelet;

const DIAL: Duration = Duration::from_secs(10);

type Runtime = WebSocketStream<MaybeTlsStream<TcpStream>>;
type ToRuntime = SplitSink<Runtime, tungstenite::Message>;
type FromRuntime = SplitStream<Runtime>;

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
async fn dial(k: &Kubelet, request: cri::AttachRequest) -> Result<Runtime, String> {
    let url = k.cri.attach(request).await.map_err(|e| e.to_string())?;
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(format!(
            "the container runtime offers its streams at {url}, and only http is spoken here: \
             leave its stream server without TLS (it listens on loopback)"
        ));
    };
    let failed = |e: &dyn std::fmt::Display| format!("the container runtime's stream server: {e}");
    let mut request = format!("ws://{rest}")
        .into_client_request()
        .map_err(|e| failed(&e))?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", http::HeaderValue::from_static(V4));
    match tokio::time::timeout(DIAL, tokio_tungstenite::connect_async(request)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(e)) => Err(failed(&e)),
        Err(_) => Err(failed(&"it takes too long")),
    }
}

/// The connections for input and output; with a terminal they are one, which its size goes over too.
struct Joined {
    input: Option<ToRuntime>,
    output: FromRuntime,
    /// Kept open for as long as there is output.
    _rest: Option<ToRuntime>,
    _input_replies: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(task) = &self._input_replies {
            task.abort();
        }
    }
}

async fn join(k: &Kubelet, id: &str, o: &Streams) -> Result<Joined, String> {
    let request = |stdin: bool, output: bool| cri::AttachRequest {
        container_id: id.into(),
        stdin: stdin && o.stdin,
        tty: o.tty,
        stdout: output && (o.stdout || o.tty),
        stderr: output && o.stderr,
    };
    if o.tty || !(o.stdout || o.stderr) {
        let (input, output) = dial(k, request(true, true)).await?.split();
        return Ok(Joined {
            input: Some(input),
            output,
            _rest: None,
            _input_replies: None,
        });
    }
    let (rest, output) = dial(k, request(false, true)).await?.split();
    let mut joined = Joined {
        input: None,
        output,
        _rest: Some(rest),
        _input_replies: None,
    };
    if o.stdin {
        let (input, mut replies) = dial(k, request(true, false)).await?.split();
        joined.input = Some(input);
        // Pings are answered while somebody reads.
        joined._input_replies = Some(tokio::spawn(async move {
            while let Some(Ok(_)) = replies.next().await {}
        }));
    }
    Ok(joined)
}

async fn run(k: &Kubelet, client: WebSocket, id: &str, o: Streams) -> Result<(), String> {
    let mut joined = match join(k, id, &o).await {
        Ok(j) => j,
        Err(why) => {
            refuse(client, &why).await;
            return Err(why);
        }
    };
    let (mut to_client, mut from_client) = client.split();
    let input = joined.input.take();
    let tty = o.tty;
    // By itself, so that input that waits for the process never holds output up.
    let mut reader = tokio::spawn(async move {
        let mut input = input;
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(data) => receive(&data, &mut input, tty).await,
                Message::Close(_) => break,
                _ => {}
            }
        }
    });
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    let ended = loop {
        tokio::select! {
            biased;
            message = joined.output.next() => match message {
                Some(Ok(tungstenite::Message::Binary(data))) => match data.first() {
                    Some(&(STDOUT | STDERR)) if data.len() > 1 => {
                        if to_client.send(Message::Binary(data)).await.is_err() {
                            break None;
                        }
                    }
                    // What the runtime says at the end is its own view; only failures matter.
                    Some(&ERROR) => if let Some(why) = failure(&data[1..]) {
                        break Some(Err(why));
                    },
                    _ => {}
                },
                Some(Ok(tungstenite::Message::Close(_))) | None => break Some(Ok(0)),
                Some(Ok(_)) => {}
                Some(Err(_)) => break Some(Ok(0)),
            },
            _ = &mut reader => break None,
            _ = ping.tick() => if to_client.send(Message::Ping(Default::default())).await.is_err() {
                break None;
            },
        }
    };
    if let Some(result) = ended {
        let _ = to_client
            .send(frame(ERROR, outcome(result).to_string().as_bytes()))
            .await;
        let _ = to_client.send(closing()).await;
        if !reader.is_finished() {
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut reader).await;
        }
    }
    reader.abort();
    Ok(())
}

/// The message of a Status, if it is one of failure.
fn failure(status: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    (status["status"] == "Failure").then(|| {
        status["message"]
            .as_str()
            .unwrap_or("attaching failed")
            .into()
    })
}

/// One message of the client.
async fn receive(data: &[u8], input: &mut Option<ToRuntime>, tty: bool) {
    match data {
        [STDIN, rest @ ..] if !rest.is_empty() => forward(data, input).await,
        [RESIZE, ..] if tty => forward(data, input).await,
        [CLOSE_CHANNEL, STDIN, ..] if !tty => {
            if let Some(mut connection) = input.take() {
                let _ = connection.close().await;
            }
        }
        _ => {}
    }
}

async fn forward(data: &[u8], input: &mut Option<ToRuntime>) {
    if let Some(connection) = input {
        let message = tungstenite::Message::Binary(data.to_vec().into());
        if connection.send(message).await.is_err() {
            *input = None;
        }
    }
}
