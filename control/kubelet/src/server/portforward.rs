//! `/portForward`: connections to ports of a pod's loopback, over a WebSocket. kubectl tunnels SPDY/3.1
//! through it (a pair of streams a connection); `v4.channel.k8s.io` has two channels a port.
//! <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Blocking};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::channels::{self, PING, V4, closing};
use super::logs::text;
use super::spdy::Broken;
use super::spdy::frame::{self, Decoder, Frame};
use super::spdy::headers::{self, Headers};
use crate::containerd;
use crate::kubelet::Kubelet;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const DIAL: Duration = Duration::from_secs(10);
/// Streams of one client; more are refused.
const MAX_STREAMS: usize = 4096;
/// Ports of one request by channels, whose numbers are bytes.
const MAX_PORTS: usize = 100;
const CHUNK: usize = 32 << 10;

pub(super) async fn serve(
    State(k): State<Arc<Kubelet>>,
    UrlPath((namespace, name)): UrlPath<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: channels::Upgrade,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return channels::spdy().await;
    };
    let pod = match Target::find(&k, &namespace, &name).await {
        Ok(pod) => pod,
        Err((code, why)) => return text(code, why),
    };
    let offered = upgrade.protocols([TUNNEL, V4]);
    match offered.selected_protocol().map(|p| p == TUNNEL) {
        Some(true) => offered.on_upgrade(move |socket| tunnel(pod, socket)),
        Some(false) => match ports(query.as_deref().unwrap_or("")) {
            Ok(ports) => offered.on_upgrade(move |socket| by_channels(pod, socket, ports)),
            Err(why) => text(StatusCode::BAD_REQUEST, why),
        },
        None => text(
            StatusCode::BAD_REQUEST,
            format!("offer the WebSocket protocol {TUNNEL} or {V4}"),
        ),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("unable to parse {text:?} as a port")),
        Ok(port) => Ok(port),
    }
}

/// The ports of a query; API servers say `ports`, `port`, several times or with commas.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (key, value) in channels::pairs(query)? {
        if matches!(key, "port" | "ports") {
            for one in value.split(',') {
                ports.push(port(one)?);
            }
        }
    }
    match ports.len() {
        0 => Err("query parameter \"port\" is required".into()),
        1..=MAX_PORTS => Ok(ports),
        _ => Err(format!("at most {MAX_PORTS} ports are forwarded at once")),
    }
}

/// The pod whose loopback is meant.
#[derive(Clone)]
struct Target {
    name: Arc<str>,
    uid: Arc<str>,
    /// None for pods in the node's own network.
    netns: Option<PathBuf>,
}

impl Target {
    async fn find(
        k: &Kubelet,
        namespace: &str,
        name: &str,
    ) -> Result<Target, (StatusCode, String)> {
        let pod = k.find_pod(namespace, name).ok_or_else(|| {
            let why = format!("pod {name:?} does not exist on this node");
            (StatusCode::NOT_FOUND, why)
        })?;
        let internal = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, why);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let sandboxes = k.cri.list_sandboxes(Some(&uid)).await;
        let sandbox = sandboxes
            .map_err(|e| internal(e.to_string()))?
            .into_iter()
            .filter(|s| s.state == cri::PodSandboxState::SandboxReady as i32)
            .max_by_key(|s| s.created_at)
            .ok_or_else(|| {
                let why = format!("unable to forward port because pod {name:?} is not running");
                (StatusCode::BAD_REQUEST, why)
            })?;
        let spec = containerd::container_spec(&k.cri.channel(), &sandbox.id).await;
        let spec = spec.map_err(|s| internal(s.message().to_string()))?;
        let namespaces = spec["linux"]["namespaces"].as_array();
        let network = namespaces
            .into_iter()
            .flatten()
            .find(|n| n["type"] == "network");
        Ok(Target {
            name: name.into(),
            uid: uid.as_str().into(),
            netns: network.and_then(|n| n["path"].as_str()).map(PathBuf::from),
        })
    }

    /// Connects to a port of the pod's loopback.
    async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let netns = self.netns.clone();
        let (tx, rx) = oneshot::channel();
        // A thread of its own: it ends in the pod's namespace.
        let spawned = std::thread::Builder::new()
            .name("port-forward".into())
            .spawn(move || {
                let _ = tx.send(connect(netns.as_deref(), port));
            });
        spawned.map_err(|e| format!("starting a thread: {e}"))?;
        let stream = rx.await.map_err(|_| "connecting failed".to_string())??;
        TcpStream::from_std(stream).map_err(|e| e.to_string())
    }

    fn failed(&self, port: u16, why: &str) -> String {
        let (name, uid) = (&self.name, &self.uid);
        format!("error forwarding port {port} to pod {name}, uid {uid}: {why}")
    }
}

fn connect(netns: Option<&Path>, port: u16) -> Result<Blocking, String> {
    if let Some(path) = netns {
        let enter = || -> io::Result<()> {
            let file = File::open(path)?;
            Ok(nix::sched::setns(
                file,
                nix::sched::CloneFlags::CLONE_NEWNET,
            )?)
        };
        enter().map_err(|e| {
            format!(
                "entering the pod's network namespace {}: {e}",
                path.display()
            )
        })?;
    }
    let to = |ip: IpAddr| -> io::Result<Blocking> {
        let stream = Blocking::connect_timeout(&SocketAddr::new(ip, port), DIAL)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    to(Ipv4Addr::LOCALHOST.into()).or_else(|v4| {
        to(Ipv6Addr::LOCALHOST.into()).map_err(|v6| {
            format!("failed to connect to localhost:{port} inside the pod's network: IPv4: {v4}; IPv6: {v6}")
        })
    })
}

/// How one connection looks on the WebSocket.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Spdy { data: u32, error: u32 },
    Channels { data: u8 },
}

impl Lane {
    fn data(self, bytes: &[u8]) -> Message {
        match self {
            Lane::Spdy { data, .. } => binary(frame::data(data, false, bytes)),
            Lane::Channels { data } => channels::frame(data, bytes),
        }
    }

    fn error(self, why: &str) -> Message {
        match self {
            Lane::Spdy { error, .. } => binary(frame::data(error, false, why.as_bytes())),
            Lane::Channels { data } => channels::frame(data + 1, why.as_bytes()),
        }
    }

    /// The pod sends no more, and nothing went wrong or it has been told. Clients look for an error
    /// only after the data's end.
    fn ends(self) -> Vec<Message> {
        match self {
            Lane::Spdy { data, error } => vec![
                binary(frame::data(data, true, b"")),
                binary(frame::data(error, true, b"")),
            ],
            Lane::Channels { .. } => vec![],
        }
    }
}

fn binary(bytes: Vec<u8>) -> Message {
    Message::Binary(bytes.into())
}

/// One connection from its dial to its end.
async fn forward(
    pod: Target,
    port: u16,
    lane: Lane,
    mut from_client: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
    reset: CancellationToken,
) {
    let joined = async {
        let stream = match pod.dial(port).await {
            Ok(stream) => stream,
            Err(why) => {
                let _ = out.send(lane.error(&pod.failed(port, &why))).await;
                return;
            }
        };
        let (mut read, mut write) = stream.into_split();
        let up = async {
            while let Some(data) = from_client.recv().await {
                if write.write_all(&data).await.is_err() {
                    break;
                }
            }
            let _ = write.shutdown().await;
        };
        let down = async {
            let mut buffer = vec![0; CHUNK];
            while let Ok(n) = read.read(&mut buffer).await {
                if n == 0 || out.send(lane.data(&buffer[..n])).await.is_err() {
                    break;
                }
            }
            if let Lane::Spdy { data, .. } = lane {
                let _ = out.send(binary(frame::data(data, true, b""))).await;
            }
        };
        match lane {
            Lane::Spdy { .. } => {
                tokio::join!(up, down);
            }
            // These channels have no end of their own: the pod's is the connection's.
            Lane::Channels { .. } => tokio::select! {
                () = async { up.await; std::future::pending().await } => {}
                () = down => {}
            },
        }
    };
    tokio::select! {
        () = joined => {}
        () = reset.cancelled() => {}
    }
    for end in lane.ends() {
        let _ = out.send(end).await;
    }
}

/// Sends what the connections give, and keeps the WebSocket alive.
async fn write(mut to_client: SplitSink<WebSocket, Message>, mut out: mpsc::Receiver<Message>) {
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    loop {
        let message = tokio::select! {
            message = out.recv() => match message {
                Some(message) => message,
                None => break,
            },
            _ = ping.tick() => Message::Ping(Default::default()),
        };
        if to_client.send(message).await.is_err() {
            return;
        }
    }
    let _ = to_client.send(closing()).await;
}

/// `v4.channel.k8s.io`: channel 2i is the i-th port's connection, 2i + 1 its error.
async fn by_channels(pod: Target, socket: WebSocket, ports: Vec<u16>) {
    let (to_client, mut from_client) = socket.split();
    let (out, out_rx) = mpsc::channel(16);
    let mut writer = tokio::spawn(write(to_client, out_rx));
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (i, port) in ports.into_iter().enumerate() {
        // `ports` bounds their number.
        let data = (2 * i) as u8;
        for channel in [data, data + 1] {
            let hello = channels::frame(channel, &port.to_le_bytes());
            let _ = out.send(hello).await;
        }
        let (tx, rx) = mpsc::channel(16);
        inputs.push(tx);
        let lane = Lane::Channels { data };
        let reset = CancellationToken::new();
        connections.spawn(forward(pod.clone(), port, lane, rx, out.clone(), reset));
    }
    drop(out);
    let reader = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(data) => {
                    let channel = usize::from(data.first().copied().unwrap_or(u8::MAX));
                    if channel.is_multiple_of(2)
                        && data.len() > 1
                        && let Some(tx) = inputs.get(channel / 2)
                    {
                        let _ = tx.send(data.slice(1..)).await;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = reader => {}
        _ = &mut writer => return,
        () = async { while connections.join_next().await.is_some() {} } => {
            // The writer says goodbye once it has sent the rest.
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut writer).await;
        }
    }
    writer.abort();
}

/// SPDY in a WebSocket, until either side ends it.
async fn tunnel(pod: Target, socket: WebSocket) {
    let name = pod.name.clone();
    let (to_client, from_client) = socket.split();
    let (out, out_rx) = mpsc::channel(16);
    let mut writer = tokio::spawn(write(to_client, out_rx));
    let ended = tokio::select! {
        ended = Tunnel::new(pod, out).and_run(from_client) => ended,
        _ = &mut writer => Ok(()),
    };
    if let Err(why) = ended {
        debug!(pod = &*name, %why, "a port-forward ended");
    }
    // The tunnel has dropped its side: the writer says goodbye.
    let _ = tokio::time::timeout(Duration::from_secs(2), &mut writer).await;
    writer.abort();
}

/// The two streams of one connection, by the request id that both carry.
struct Pair {
    port: u16,
    error: Option<u32>,
    data: Option<u32>,
}

/// What a stream of the client's is.
struct Stream {
    request: String,
    /// Of a data stream: where its data goes.
    input: Option<mpsc::Sender<Bytes>>,
    /// Of a data stream that waits for its pair: what the connection will read.
    waiting: Option<mpsc::Receiver<Bytes>>,
    reset: CancellationToken,
}

struct Tunnel {
    pod: Target,
    out: mpsc::Sender<Message>,
    headers: Option<headers::Writer>,
    pairs: HashMap<String, Pair>,
    streams: HashMap<u32, Stream>,
    /// Connections; each gives the request that it was for.
    connections: JoinSet<String>,
}

impl Tunnel {
    fn new(pod: Target, out: mpsc::Sender<Message>) -> Tunnel {
        Tunnel {
            pod,
            out,
            headers: None,
            pairs: HashMap::new(),
            streams: HashMap::new(),
            connections: JoinSet::new(),
        }
    }

    async fn and_run(mut self, mut from_client: SplitStream<WebSocket>) -> Result<(), Broken> {
        let mut decoder = Decoder::default();
        loop {
            tokio::select! {
                message = from_client.next() => match message {
                    Some(Ok(Message::Binary(data))) => {
                        decoder.push(&data);
                        while let Some(frame) = decoder.next()? {
                            self.frame(frame).await?;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                    Some(Ok(_)) => {}
                },
                Some(ended) = self.connections.join_next() => if let Ok(request) = ended {
                    self.forget(&request);
                },
            }
        }
    }

    fn forget(&mut self, request: &str) {
        if let Some(pair) = self.pairs.remove(request) {
            for stream in [pair.error, pair.data].into_iter().flatten() {
                self.streams.remove(&stream);
            }
        }
    }

    async fn send(&self, bytes: Vec<u8>) {
        // When nobody is left to send it to, the writer's end ends this side too.
        let _ = self.out.send(binary(bytes)).await;
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Broken> {
        match frame {
            Frame::Open {
                stream,
                fin,
                headers,
            } => match self.open(stream, fin, &headers) {
                Ok(()) => {
                    let writer = match &mut self.headers {
                        Some(writer) => writer,
                        none => none.insert(headers::Writer::new()?),
                    };
                    let reply = frame::reply(stream, writer)?;
                    self.send(reply).await;
                    self.start(stream);
                }
                Err(why) => {
                    debug!(why, "refusing a stream of a port-forward");
                    self.send(frame::reset(stream)).await;
                }
            },
            Frame::Data { stream, fin, data } => self.data(stream, fin, data).await,
            Frame::Reset { stream } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.reset.cancel();
                    stream.input = None;
                }
            }
            // Odd ids are the client's own questions.
            Frame::Ping { id } if id % 2 == 1 => self.send(frame::pong(id)).await,
            Frame::Ping { .. } | Frame::GoAway => {}
        }
        Ok(())
    }

    fn open(&mut self, id: u32, fin: bool, headers: &Headers) -> Result<(), String> {
        if id.is_multiple_of(2) || self.streams.contains_key(&id) {
            return Err(format!("stream id {id} is not a new one of a client"));
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(format!("more than {MAX_STREAMS} streams at once"));
        }
        let named = |name: &str| headers::get(headers, name).unwrap_or_default();
        let port = port(named("port"))?;
        // Clients older than request ids open the error stream, then the data stream.
        let request = match (named("requestid"), named("streamtype")) {
            ("", "error") => id.to_string(),
            ("", _) => id.saturating_sub(2).to_string(),
            (request, _) => request.to_string(),
        };
        let pair = self.pairs.entry(request.clone()).or_insert(Pair {
            port,
            error: None,
            data: None,
        });
        let (side, channel) = match named("streamtype") {
            "error" => (&mut pair.error, None),
            "data" => (&mut pair.data, Some(mpsc::channel(16))),
            other => return Err(format!("invalid stream type {other:?}")),
        };
        if side.is_some() || pair.port != port {
            return Err(format!("request {request} has its streams already"));
        }
        *side = Some(id);
        let (input, waiting) = channel.unzip();
        self.streams.insert(
            id,
            Stream {
                request,
                input: input.filter(|_| !fin),
                waiting,
                reset: CancellationToken::new(),
            },
        );
        Ok(())
    }

    /// Starts the connection once both of its streams are there.
    fn start(&mut self, id: u32) {
        let Some(request) = self.streams.get(&id).map(|s| s.request.clone()) else {
            return;
        };
        let Some(&Pair {
            port,
            error: Some(error),
            data: Some(data),
        }) = self.pairs.get(&request)
        else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&data) else {
            return;
        };
        let Some(rx) = stream.waiting.take() else {
            return;
        };
        let lane = Lane::Spdy { data, error };
        let work = forward(
            self.pod.clone(),
            port,
            lane,
            rx,
            self.out.clone(),
            stream.reset.clone(),
        );
        self.connections.spawn(async move {
            work.await;
            request
        });
    }

    async fn data(&mut self, id: u32, fin: bool, data: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(input) = &stream.input
            && !data.is_empty()
        {
            let taken = match &stream.waiting {
                // A full queue waits here: that is the flow control.
                None => input.send(data).await.is_ok(),
                Some(_) => input.try_send(data).is_ok(),
            };
            if !taken && stream.waiting.is_some() {
                // Much data before its pair is there: not a client of this protocol.
                stream.input = None;
                self.send(frame::reset(id)).await;
                return;
            }
        }
        if fin {
            stream.input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        assert_eq!(ports("port=80&port=81").unwrap(), [80, 81]);
        assert_eq!(ports("ports=80,443").unwrap(), [80, 443]);
        assert!(ports("").unwrap_err().contains("required"));
        for bad in ["port=0", "port=65536", "port=x", "port="] {
            assert!(ports(bad).unwrap_err().contains("as a port"), "{bad}");
        }
        assert!(ports(&"port=1&".repeat(101)).is_err());
    }

    fn pod() -> Target {
        Target {
            name: "p".into(),
            uid: "u".into(),
            netns: None,
        }
    }

    fn headers(kind: &str, port: &str, request: &str) -> Headers {
        [("streamType", kind), ("port", port), ("requestID", request)]
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .to_vec()
    }

    /// A connection in both directions, a refused one, and streams that aren't right.
    #[tokio::test]
    async fn streams_become_connections() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.reverse();
            stream.write_all(&all).await.unwrap();
        });
        let (out, mut sent) = mpsc::channel(64);
        let mut tunnel = Tunnel::new(pod(), out);
        let open = |stream, fin, headers| Frame::Open {
            stream,
            fin,
            headers,
        };
        for frame in [
            open(1, true, headers("error", &port, "0")),
            open(3, false, headers("data", &port, "0")),
            Frame::Data {
                stream: 3,
                fin: true,
                data: Bytes::from_static(b"abc"),
            },
        ] {
            tunnel.frame(frame).await.unwrap();
        }
        assert_eq!(tunnel.connections.join_next().await.unwrap().unwrap(), "0");
        echo.await.unwrap();
        let mut got = Vec::new();
        while let Ok(Message::Binary(bytes)) = sent.try_recv() {
            got.push(bytes.to_vec());
        }
        // Two replies, then data, its end, the end of the error stream.
        assert_eq!(got[2], frame::data(3, false, b"cba"));
        assert_eq!(got[3], frame::data(3, true, b""));
        assert_eq!(got.last().unwrap(), &frame::data(1, true, b""));
        tunnel.forget("0");
        assert!(tunnel.streams.is_empty() && tunnel.pairs.is_empty());

        // Nobody listens any more.
        tunnel
            .frame(open(5, true, headers("error", &port, "1")))
            .await
            .unwrap();
        tunnel
            .frame(open(7, false, headers("data", &port, "1")))
            .await
            .unwrap();
        tunnel.connections.join_next().await.unwrap().unwrap();
        let mut said = String::new();
        while let Ok(Message::Binary(bytes)) = sent.try_recv() {
            said += &String::from_utf8_lossy(&bytes);
        }
        assert!(said.contains("error forwarding port"), "{said}");
        assert!(said.contains("refused"), "{said}");

        for (id, headers) in [
            (2, headers("error", "80", "2")),
            (9, headers("other", "80", "3")),
            (11, headers("data", "none", "4")),
        ] {
            tunnel.frame(open(id, false, headers)).await.unwrap();
            assert_eq!(sent.try_recv().unwrap(), binary(frame::reset(id)), "{id}");
        }
    }
}
