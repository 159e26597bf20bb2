//! `/exec`: a WebSocket (`v5` or `v4.channel.k8s.io`) joined to a process in a container.
//!
//! The process is started by containerd's task service rather than by CRI's Exec: the stream that
//! containerd 1.6 offers for CRI can't close a process's input without ending the whole exec, and
//! `… | kubectl exec -i` needs just that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::channels::{
    self, CLOSE_CHANNEL, ERROR, PING, RESIZE, STDERR, STDIN, STDOUT, Streams, closing, frame,
    outcome, refuse,
};
use super::logs::text;
use crate::containerd::{self, Any, ExecProcessRequest, Process};
use crate::kubelet::Kubelet;

/// After a process's end its output is read to the end, or until nothing came for so long (a child in
/// the background may hold it open).
const DRAIN: Duration = Duration::from_millis(500);
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

pub(super) async fn serve(
    State(k): State<Arc<Kubelet>>,
    UrlPath(container): UrlPath<channels::Container>,
    RawQuery(query): RawQuery,
    upgrade: channels::Upgrade,
) -> Response {
    let options = match channels::streams(query.as_deref().unwrap_or("")) {
        Ok(o) => o,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    if options.command.is_empty() {
        return text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container",
        );
    }
    channels::session(k, container, upgrade, move |k, socket, id| async move {
        run(&k, socket, &id, options).await
    })
    .await
}

/// The named pipes of one process, gone with it.
struct Pipes {
    dir: PathBuf,
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Pipes {
    fn make(dir: PathBuf, o: &Streams) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let pipes = Pipes { dir };
        // The shim starts no process that lacks an output, whoever wants to read it.
        for (name, wanted) in [("stdin", o.stdin), ("stdout", true), ("stderr", !o.tty)] {
            if wanted {
                nix::unistd::mkfifo(
                    &pipes.dir.join(name),
                    nix::sys::stat::Mode::from_bits_truncate(0o600),
                )?;
            }
        }
        Ok(pipes)
    }

    /// The path for containerd; empty if there is no such pipe.
    fn path(&self, name: &str) -> String {
        let p = self.dir.join(name);
        if p.exists() {
            p.to_string_lossy().into_owned()
        } else {
            String::new()
        }
    }

    /// Opened both ways a pipe never blocks or ends, whoever else has it open.
    fn hold(&self, name: &str) -> std::io::Result<Option<pipe::Receiver>> {
        match self.path(name) {
            p if p.is_empty() => Ok(None),
            p => pipe::OpenOptions::new()
                .read_write(true)
                .open_receiver(p)
                .map(Some),
        }
    }

    fn reader(&self, name: &str) -> std::io::Result<Option<pipe::Receiver>> {
        match self.path(name) {
            p if p.is_empty() => Ok(None),
            p => pipe::OpenOptions::new().open_receiver(p).map(Some),
        }
    }
}

/// A started process with its ends of the pipes.
struct Started {
    process: Process,
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    _pipes: Pipes,
}

async fn start(k: &Kubelet, id: &str, o: &Streams) -> Result<Started, String> {
    let channel = k.cri.channel();
    let spec = containerd::container_spec(&channel, id)
        .await
        .map_err(|s| s.message().to_string())?;
    let mut process_spec = spec.get("process").cloned().unwrap_or_else(|| json!({}));
    let cwd_missing = process_spec.get("cwd").is_none();
    if let Some(map) = process_spec.as_object_mut() {
        map.insert("args".into(), json!(o.command));
        map.insert("terminal".into(), json!(o.tty));
        map.remove("consoleSize");
        if cwd_missing {
            map.insert("cwd".into(), json!("/"));
        }
        if o.tty
            && let Some(env) = map.entry("env").or_insert_with(|| json!([])).as_array_mut()
        {
            env.push(json!("TERM=xterm"));
        }
    }
    let exec_id = uuid::Uuid::new_v4().simple().to_string();
    let process = Process {
        channel,
        container_id: id.to_string(),
        exec_id: exec_id.clone(),
    };
    let dir = k.config.root_dir.join("exec").join(&exec_id);
    let io = |e: std::io::Error| format!("making the pipes in {}: {e}", dir.display());
    let pipes = Pipes::make(dir.clone(), o).map_err(io)?;
    let held = [
        pipes.hold("stdin").map_err(io)?,
        pipes.hold("stdout").map_err(io)?,
        pipes.hold("stderr").map_err(io)?,
    ];
    process
        .create(ExecProcessRequest {
            container_id: id.into(),
            stdin: pipes.path("stdin"),
            stdout: pipes.path("stdout"),
            stderr: pipes.path("stderr"),
            terminal: o.tty,
            spec: Some(Any {
                type_url: PROCESS_TYPE.into(),
                value: serde_json::to_vec(&process_spec).map_err(|e| e.to_string())?,
            }),
            exec_id,
        })
        .await
        .map_err(|s| s.message().to_string())?;
    if let Err(status) = process.start().await {
        let _ = process.delete().await;
        return Err(status.message().to_string());
    }
    // Now the shim has its ends open, so that ours see the true end.
    let stdin = match pipes.path("stdin") {
        p if p.is_empty() => None,
        // No reader: the process has ended already.
        p => pipe::OpenOptions::new().open_sender(p).ok(),
    };
    let stdout = pipes.reader("stdout").map_err(io)?;
    let stderr = pipes.reader("stderr").map_err(io)?;
    drop(held);
    Ok(Started {
        process,
        stdin,
        stdout,
        stderr,
        _pipes: pipes,
    })
}

/// Sends what a pipe gives as frames until its end; what the client didn't ask for is only read.
async fn pump(
    channel: u8,
    reader: Option<pipe::Receiver>,
    wanted: bool,
    tx: mpsc::Sender<Message>,
) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; 32 << 10];
    while let Ok(n) = reader.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        if wanted && tx.send(frame(channel, &buffer[..n])).await.is_err() {
            return;
        }
    }
}

/// Writes what the client sends; the end of the queue is the end of the input.
async fn feed(process: Process, stdin: Option<pipe::Sender>, mut rx: mpsc::Receiver<Vec<u8>>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(data) = rx.recv().await {
        if stdin.write_all(&data).await.is_err() {
            // The process doesn't read any more.
            break;
        }
    }
    drop(stdin);
    // The shim keeps the pipe open until it is told.
    if let Err(status) = process.close_stdin().await {
        debug!(%status, "closing the input of an exec");
    }
}

async fn run(k: &Kubelet, client: WebSocket, id: &str, o: Streams) -> Result<(), String> {
    let started = match start(k, id, &o).await {
        Ok(s) => s,
        Err(why) => {
            refuse(client, &why).await;
            return Err(why);
        }
    };
    let (mut to_client, mut from_client) = client.split();
    let process = started.process.clone();
    let (out_tx, mut out_rx) = mpsc::channel::<Message>(16);
    let stdout = tokio::spawn(pump(
        STDOUT,
        started.stdout,
        o.stdout || o.tty,
        out_tx.clone(),
    ));
    let stderr = tokio::spawn(pump(STDERR, started.stderr, o.stderr, out_tx));
    let (in_tx, in_rx) = mpsc::channel::<Vec<u8>>(16);
    let input = tokio::spawn(feed(process.clone(), started.stdin, in_rx));
    let reader_of = process.clone();
    // By itself, so that input that waits for the process never holds output up.
    let mut reader = tokio::spawn(async move {
        let mut in_tx = Some(in_tx);
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(data) => receive(&reader_of, &data, &mut in_tx).await,
                Message::Close(_) => return,
                _ => {}
            }
        }
    });
    let wait = process.wait();
    tokio::pin!(wait);
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    let mut exit: Option<Result<u32, String>> = None;
    let mut left = false;
    loop {
        tokio::select! {
            biased;
            message = out_rx.recv() => match message {
                Some(m) => if to_client.send(m).await.is_err() {
                    left = true;
                    break;
                },
                // All output is read.
                None if exit.is_some() => break,
                None => {
                    exit = Some((&mut wait).await.map_err(|s| s.message().to_string()));
                    break;
                }
            },
            result = &mut wait, if exit.is_none() => {
                exit = Some(result.map_err(|s| s.message().to_string()));
            }
            _ = &mut reader, if exit.is_none() => {
                left = true;
                break;
            }
            _ = ping.tick() => if to_client.send(Message::Ping(Default::default())).await.is_err() {
                left = true;
                break;
            },
            () = tokio::time::sleep(DRAIN), if exit.is_some() => break,
        }
    }
    if left {
        // Nobody is there to see it end.
        if let Err(status) = process.kill().await {
            debug!(%status, "killing the process of an exec whose client left");
        }
        let _ = tokio::time::timeout(Duration::from_secs(10), &mut wait).await;
    } else {
        let result = exit.unwrap_or_else(|| Err("the exit status is not known".into()));
        let _ = to_client
            .send(frame(ERROR, outcome(result).to_string().as_bytes()))
            .await;
        let _ = to_client.send(closing()).await;
        // The client's close ends the connection in order.
        if !reader.is_finished() {
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut reader).await;
        }
    }
    stdout.abort();
    stderr.abort();
    input.abort();
    reader.abort();
    if let Err(status) = process.delete().await {
        warn!(%status, id, "removing the process of an exec");
    }
    Ok(())
}

/// One message of the client.
async fn receive(process: &Process, data: &[u8], input: &mut Option<mpsc::Sender<Vec<u8>>>) {
    let Some((channel, rest)) = data.split_first() else {
        return;
    };
    match *channel {
        // A full queue waits here: that is the flow control.
        STDIN if !rest.is_empty() => {
            if let Some(tx) = input {
                let _ = tx.send(rest.to_vec()).await;
            }
        }
        CLOSE_CHANNEL if rest.first() == Some(&STDIN) => *input = None,
        RESIZE => {
            let size: Value = serde_json::from_slice(rest).unwrap_or(Value::Null);
            let side = |k: &str| {
                size.get(k)
                    .and_then(Value::as_u64)
                    .and_then(|v| u32::try_from(v).ok())
            };
            if let (Some(w), Some(h)) = (side("Width"), side("Height"))
                && let Err(status) = process.resize(w, h).await
            {
                debug!(%status, "resizing a terminal");
            }
        }
        _ => {}
    }
}

/// Removes pipes that a killed kubelet left.
pub fn remove_leftovers(root_dir: &Path) {
    let _ = std::fs::remove_dir_all(root_dir.join("exec"));
}
