//! `cni.sock`: the plugin tells of a pod and waits until its policy is in force.
//! The protocol stands in ARCHITECTURE.md, "Plugin configuration".

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rhumb_cni::agent::{Op, Request, Response};
use rhumb_core::model::{LocalEndpoint, ObjectName};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    engine::{Command, Handle, Shared, knows_pod},
    journal,
    metrics::Metrics,
    watch::PodApi,
};

/// Longest request line.
const LINE: u64 = 64 * 1024;
const READ: Duration = Duration::from_secs(5);
/// The watch usually tells of a pod long before its sandbox is made.
const ASK_AFTER: Duration = Duration::from_millis(100);
/// Less than the plugin's patience, so that it hears why.
const GIVE_UP: Duration = Duration::from_millis(4500);

#[derive(Clone)]
pub struct Server {
    pub engine: Handle,
    pub world: Shared,
    pub api: PodApi,
    /// Whether pods' addresses are noted on them.
    pub announce: bool,
    pub metrics: Arc<Metrics>,
}

/// A listener at `path`, for root alone; one left behind by an earlier process is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Bound beside and moved into place: there is never a moment without a socket that an earlier
    // process left, and never one with wide permissions.
    let new: PathBuf = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

impl Server {
    pub async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = server.connection(stream).await {
                            debug!(%error, "a plugin's connection ended early");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: others will be closed.
                    warn!(%error, "cannot accept a plugin's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut line = Vec::new();
        let mut reader = BufReader::new(read).take(LINE);
        timeout(READ, reader.read_until(b'\n', &mut line)).await??;
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => self.answer(request).await,
            Err(error) => Some(refused(format!("the request can't be read: {error}"))),
        };
        // No answer means: as if there were no agent. The plugin then starts the pod by what the
        // kernel's tables say of its namespace (design: "agent down").
        let Some(response) = response else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        write.write_all(&text).await
    }

    async fn answer(&self, request: Request) -> Option<Response> {
        match request.op {
            Op::Add => self.add(request).await,
            Op::Del => {
                self.engine.send(Command::Del {
                    key: (request.container_id, request.ifname),
                    revision: request.revision,
                });
                Some(Response {
                    ok: true,
                    ..Response::default()
                })
            }
        }
    }

    async fn add(&self, request: Request) -> Option<Response> {
        let start = Instant::now();
        if request.pod.is_empty() {
            return None;
        }
        let pod = ObjectName::new(request.namespace, request.pod);
        if self.announce {
            self.announce(pod.clone(), request.ips.clone());
        }
        let (reply, mut done) = oneshot::channel();
        self.engine.send(Command::Add {
            endpoint: LocalEndpoint {
                container_id: request.container_id,
                ifname: request.ifname,
                pod: pod.clone(),
                uid: request.uid.clone(),
                netns_cookie: request.netns_cookie,
                ips: request.ips,
                ports: journal::host_ports(&request.ports),
                revision: request.revision,
            },
            revision: request.revision,
            reply,
        });
        let mut asked = Ok(());
        let mut outcome = timeout(ASK_AFTER, &mut done).await;
        if outcome.is_err() {
            let known = knows_pod(&self.world.read(), &pod, &request.uid);
            if !known {
                asked = self.ask(&pod).await;
            }
            if asked.is_ok() {
                outcome = timeout(GIVE_UP.saturating_sub(start.elapsed()), &mut done).await;
            }
        }
        match outcome {
            Ok(Ok(revision)) => {
                self.metrics
                    .cni_seconds
                    .observe(start.elapsed().as_secs_f64());
                debug!(%pod, revision, ms = start.elapsed().as_millis() as u64, "policy in force");
                return Some(Response {
                    ok: true,
                    policy_revision: Some(revision),
                    error: None,
                });
            }
            Ok(Err(_)) => {
                self.metrics.cni_failures.inc();
                return Some(refused(format!(
                    "{pod} was deleted while it was being added"
                )));
            }
            Err(_) => {}
        }
        self.metrics.cni_failures.inc();
        let why = self.why_not(&pod, &request.uid, asked);
        warn!(%pod, why, "a pod starts by what is known of its namespace");
        None
    }

    /// In the background: nobody here waits for it.
    fn announce(&self, pod: ObjectName, ips: Vec<IpAddr>) {
        let api = self.api.clone();
        tokio::spawn(async move {
            let announced = timeout(Duration::from_secs(10), api.announce(&pod, &ips)).await;
            // A static pod may have no object yet; its status tells as well, later.
            if let Ok(Err(error)) = announced {
                debug!(%pod, %error, "other nodes learn the pod's addresses from its status only");
            }
        });
    }

    async fn ask(&self, pod: &ObjectName) -> Result<(), String> {
        match timeout(Duration::from_secs(3), self.api.get(pod)).await {
            Ok(Ok(Some(change))) => {
                self.engine.send(Command::Changes(vec![change]));
                Ok(())
            }
            Ok(Ok(None)) => Err(format!("the API has no pod {pod}")),
            Ok(Err(error)) => Err(format!("asking the API for pod {pod}: {error}")),
            Err(_) => Err(format!("asking the API for pod {pod}: no answer in 3 s")),
        }
    }

    fn why_not(&self, pod: &ObjectName, uid: &str, asked: Result<(), String>) -> String {
        let world = self.world.read();
        let missing: Vec<&str> = world.gate.missing().iter().map(|s| s.name()).collect();
        if !missing.is_empty() {
            return format!(
                "the agent has not read {} from the API yet",
                missing.join(", ")
            );
        }
        if let Some(error) = &world.last_error {
            return format!("the kernel's tables can't be written: {error}");
        }
        match asked {
            Err(why) => why,
            Ok(()) => format!("pod {pod} with uid {uid:?} is not known to the API"),
        }
    }
}

fn refused(why: String) -> Response {
    Response {
        ok: false,
        policy_revision: None,
        error: Some(why),
    }
}
