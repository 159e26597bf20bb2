//! Attachments that the runtime has forgotten: containerd calls no GC, and what it loses, by a crash or with
//! its state, it never deletes.
//!
//! Nobody's word alone is enough. An attachment goes when the runtime, asked twice, has no such sandbox, and
//! either its interface is gone or the API has no such pod. It goes by its revision: whoever touches it
//! meanwhile keeps it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    ListPodSandboxRequest, PodSandbox, PodSandboxStatusRequest,
    runtime_service_client::RuntimeServiceClient,
};
use rhumb_cni::{
    attachment::{Attachment, Key, PortMapping},
    attachments::{Attachments, Deletion},
    kernel::netlink::Netlink,
    rebuild::Sandbox,
    spec::runtime::Requested,
};
use serde_json::{Map, Value, json};
use tokio::{net::UnixStream, time::sleep};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tracing::{info, warn};

use crate::{engine::Shared, metrics::Metrics};

/// Where runtimes usually listen.
const USUAL: [&str; 3] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];
const ANSWER: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = 32 << 20;

/// `--cri-endpoint` that says that there is no runtime to ask.
pub const NONE: &str = "none";

/// The runtime's socket: the one that is named (`unix://…` or a path), else a usual one that is there. To be asked
/// for each time: the runtime may start later.
fn socket(named: Option<&str>) -> Result<PathBuf, String> {
    match named {
        Some(NONE) => Err("there is none, by --cri-endpoint".into()),
        Some(named) => Ok(named.strip_prefix("unix://").unwrap_or(named).into()),
        None => {
            let usual = USUAL.iter().map(PathBuf::from).find(|path| path.exists());
            usual.ok_or_else(|| "no usual socket is there: name it (--cri-endpoint)".into())
        }
    }
}

pub struct Reconciler {
    /// `--cri-endpoint`.
    pub cri: Option<String>,
    pub interval: Duration,
    pub attachments: Attachments,
    pub world: Shared,
    pub metrics: Arc<Metrics>,
}

impl Reconciler {
    /// Looks now and then, for as long as the process lives.
    pub async fn run(self) {
        let mut missing = HashSet::new();
        let mut last_problem = String::new();
        loop {
            sleep(self.interval).await;
            match self.look(&missing).await {
                Ok(now) => {
                    missing = now;
                    last_problem.clear();
                }
                Err(problem) => {
                    // What was missing before may have come back unseen.
                    missing.clear();
                    if problem != last_problem {
                        warn!(
                            problem,
                            "the runtime can't be asked for its sandboxes; leaked addresses are not looked for"
                        );
                        last_problem = problem;
                    }
                }
            }
        }
    }

    /// One look; returns what the runtime did not know, with the revision that it had.
    async fn look(&self, before: &HashSet<(Key, u64)>) -> Result<HashSet<(Key, u64)>, String> {
        // Before the runtime is asked: what comes later is not judged.
        let (_, attachments) = self.attachments.list().map_err(|e| e.to_string())?;
        let runtime = connect(&socket(self.cri.as_deref())?);
        let sandboxes = sandboxes(runtime).await?;
        let known: BTreeSet<String> = sandboxes.into_iter().map(|s| s.id).collect();
        let of_pods = || attachments.iter().filter(|a| !a.pod.is_empty());
        if of_pods().count() > 1 && !of_pods().any(|a| known.contains(&a.container_id)) {
            // All at once are not forgotten: it is another runtime, or one that is just starting.
            return Err("it knows no pod of this node".into());
        }
        let mut missing = HashSet::new();
        for a in attachments {
            // What was attached without Kubernetes' names is not of this runtime's pods.
            if a.pod.is_empty() || known.contains(&a.container_id) {
                continue;
            }
            let now = (a.key(), a.revision);
            if before.contains(&now) && self.second_word(&a) {
                self.delete(a).await?;
            } else {
                missing.insert(now);
            }
        }
        Ok(missing)
    }

    /// Whether the kernel or the API too says that the pod is gone.
    fn second_word(&self, a: &Attachment) -> bool {
        if link_is_gone(a).unwrap_or(false) {
            return true;
        }
        let world = self.world.read();
        if world.gate.proof().is_none() {
            return false;
        }
        let pod = rhumb_core::model::ObjectName::new(&*a.namespace, &*a.pod);
        let same = |uid: &str| a.uid.is_empty() || uid.is_empty() || uid == a.uid;
        !world.snapshot.pods.get(&pod).is_some_and(|p| same(&p.uid))
    }

    async fn delete(&self, a: Attachment) -> Result<(), String> {
        let (attachments, key, revision) = (self.attachments.clone(), a.key(), a.revision);
        let deleted = tokio::task::spawn_blocking(move || attachments.delete(&key, revision));
        let deleted = deleted.await.map_err(|e| e.to_string())?;
        match deleted.map_err(|e| e.to_string())? {
            Deletion::Deleted => {
                self.metrics.leaked_attachments.inc();
                info!(
                    attachment = %a.key(), pod = format!("{}/{}", a.namespace, a.pod), ips = ?a.ips,
                    "took down what the runtime has forgotten; its addresses are free"
                );
            }
            Deletion::Absent | Deletion::Moved | Deletion::Busy => {}
        }
        Ok(())
    }
}

async fn sandboxes(mut runtime: RuntimeServiceClient<Channel>) -> Result<Vec<PodSandbox>, String> {
    let asked = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
    let answer = tokio::time::timeout(ANSWER, asked)
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|status| status.to_string())?;
    Ok(answer.into_inner().items)
}

/// Whose the attachments are, by their sandboxes' ids. One that the runtime doesn't know is left out.
/// If it knows none at all, it is another runtime.
pub async fn describe(cri: Option<&str>, keys: &[Key]) -> Result<HashMap<String, Sandbox>, String> {
    let socket = socket(cri)?;
    let asked = tokio::time::timeout(ANSWER, ask_for(&socket, keys)).await;
    let answer = asked.unwrap_or_else(|_| Err("no answer".into()));
    match answer {
        Ok(described) if described.is_empty() => Err(format!(
            "{} knows none of them: is it the runtime of this node's pods (--cri-endpoint)? What nobody knows any \
             more goes by `ip link del`, or at a reboot",
            socket.display()
        )),
        answer => answer.map_err(|problem| format!("{}: {problem}", socket.display())),
    }
}

async fn ask_for(socket: &Path, keys: &[Key]) -> Result<HashMap<String, Sandbox>, String> {
    let mut runtime = connect(socket);
    let mut found = HashMap::new();
    for sandbox in sandboxes(runtime.clone()).await? {
        if !keys.iter().any(|key| key.container_id == sandbox.id) {
            continue;
        }
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.id.clone(),
            verbose: true,
        };
        let info = match runtime.pod_sandbox_status(request).await {
            Ok(status) => status.into_inner().info,
            // It has gone meanwhile.
            Err(status) if status.code() == Code::NotFound => continue,
            Err(status) => return Err(status.to_string()),
        };
        let of = sandbox.metadata.unwrap_or_default();
        let info = info.get("info").and_then(|i| serde_json::from_str(i).ok());
        let (netns, ports) = details(&info.unwrap_or_default());
        let described = Sandbox {
            namespace: of.namespace,
            name: of.name,
            uid: of.uid,
            netns,
            ports,
        };
        found.insert(sandbox.id, described);
    }
    Ok(found)
}

/// The network namespace and the ports in containerd's verbose status of a sandbox: the OCI specification and the
/// sandbox's CRI configuration, where a protocol is the CRI's number and TCP is left out.
fn details(info: &Value) -> (PathBuf, Vec<PortMapping>) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let namespaces = list(&info["runtimeSpec"]["linux"]["namespaces"]);
    let network = namespaces.iter().find(|n| n["type"] == "network");
    let netns = network.and_then(|n| n["path"].as_str()).unwrap_or_default();
    let mappings = list(&info["config"]["port_mappings"]).into_iter().map(|p| {
        let protocol = match p["protocol"].as_u64() {
            None | Some(0) => "tcp",
            Some(1) => "udp",
            Some(_) => "sctp",
        };
        json!({
            "hostPort": p["host_port"], "containerPort": p["container_port"],
            "hostIP": p["host_ip"], "protocol": protocol,
        })
    });
    // As the runtime has asked the plugin for them.
    let asked = Map::from_iter([("portMappings".to_owned(), mappings.collect())]);
    let ports = Requested::parse(&asked).map_or(vec![], |requested| requested.ports);
    (netns.into(), ports)
}

fn link_is_gone(a: &Attachment) -> io::Result<bool> {
    let link = Netlink::open()?.link(&a.host_ifname)?;
    Ok(link.is_none_or(|l| l.header.index != a.ifindex))
}

fn connect(socket: &Path) -> RuntimeServiceClient<Channel> {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is only a placeholder that tonic asks for.
    let channel = Endpoint::from_static("http://cri.local").connect_with_connector_lazy(connector);
    RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}
