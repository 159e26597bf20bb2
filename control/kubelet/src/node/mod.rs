//! The Node object: registration, status, Lease.

pub mod facts;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::events::{NORMAL, WARNING};
use crate::kubelet::Kubelet;

/// Lease renewals.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often the runtime and the machine are looked at; a change is written at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the status is written without a change.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// Eviction thresholds that Kubernetes has by default.
const MEMORY_FLOOR: i64 = 100 << 20;
const INODES_FLOOR_PERCENT: u64 = 5;

/// A condition before it has times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// What the conditions are judged by.
#[derive(Debug, Clone, Default)]
struct Readings {
    memory_available: i64,
    /// Percent of the file system of the root directory.
    disk_free: u64,
    min_disk_free: u64,
    inodes_free: u64,
    threads: u64,
    threads_max: u64,
    /// Why the runtime or its network isn't ready.
    not_ready: Option<String>,
}

fn judge(r: &Readings) -> Vec<Finding> {
    let finding = |kind, status, yes: (&'static str, &str), no: (&'static str, &str)| {
        let (reason, message) = if status { yes } else { no };
        Finding {
            kind,
            status,
            reason,
            message: message.into(),
        }
    };
    let ready = match &r.not_ready {
        None => Finding {
            kind: "Ready",
            status: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".into(),
        },
        Some(why) => Finding {
            kind: "Ready",
            status: false,
            reason: "KubeletNotReady",
            message: why.clone(),
        },
    };
    vec![
        finding(
            "MemoryPressure",
            r.memory_available < MEMORY_FLOOR,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        finding(
            "DiskPressure",
            r.disk_free < r.min_disk_free || r.inodes_free < INODES_FLOOR_PERCENT,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        finding(
            "PIDPressure",
            r.threads.saturating_mul(100) > r.threads_max.saturating_mul(95),
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
            (
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ),
        ready,
    ]
}

async fn look(k: &Kubelet) -> Readings {
    let mut r = Readings {
        min_disk_free: k.config.min_disk_free,
        ..Readings::default()
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    r.memory_available = facts::meminfo(&meminfo, "MemAvailable").unwrap_or(i64::MAX);
    if let Ok(s) = nix::sys::statvfs::statvfs(&k.config.root_dir) {
        let percent =
            |free: u64, all: u64| free.saturating_mul(100).checked_div(all).unwrap_or(100);
        r.disk_free = percent(s.blocks_available(), s.blocks());
        r.inodes_free = percent(s.files_available(), s.files());
    } else {
        (r.disk_free, r.inodes_free) = (100, 100);
    }
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    r.threads = loadavg
        .split_whitespace()
        .nth(3)
        .and_then(|t| t.split_once('/')?.1.parse().ok())
        .unwrap_or(0);
    let max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    r.threads_max = max.trim().parse().unwrap_or(u64::MAX);
    r.not_ready = match k.cri.status().await {
        Err(e) => Some(format!("container runtime is down: {e}")),
        Ok(status) => {
            let find = |kind: &str| status.conditions.iter().find(|c| c.r#type == kind);
            match (find("RuntimeReady"), find("NetworkReady")) {
                (Some(c), _) if !c.status => Some(format!(
                    "container runtime not ready: RuntimeReady=false reason:{} message:{}",
                    c.reason, c.message
                )),
                (_, Some(c)) if !c.status => Some(format!(
                    "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                    c.reason, c.message
                )),
                _ => None,
            }
        }
    };
    r
}

fn labels(k: &Kubelet) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", k.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", facts::architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", facts::architecture()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect()
}

/// Makes the Node, or brings an old one's labels up to date.
async fn register(k: &Kubelet) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(k.client.clone());
    let name = &k.config.node_name;
    match api.get_opt(name).await? {
        Some(old) => {
            let have = old.metadata.labels.unwrap_or_default();
            let missing: BTreeMap<String, String> = labels(k)
                .into_iter()
                .filter(|(key, v)| have.get(key) != Some(v))
                .collect();
            if !missing.is_empty() {
                let patch = json!({"metadata": {"labels": missing}});
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
            }
        }
        None => {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels(k)),
                    ..Default::default()
                },
                ..Default::default()
            };
            match api.create(&PostParams::default(), &node).await {
                Ok(_) => info!(node = name, "registered the node"),
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn addresses(k: &Kubelet) -> Vec<Value> {
    let mut out: Vec<Value> = k
        .node
        .host_ips
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip}))
        .collect();
    out.push(json!({"type": "Hostname", "address": k.config.node_name}));
    out
}

/// Conditions with times; others' are kept.
fn with_times(found: &[Finding], old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let mut out: Vec<NodeCondition> = old
        .iter()
        .filter(|o| !found.iter().any(|f| f.kind == o.type_))
        .cloned()
        .collect();
    for f in found {
        let status = if f.status { "True" } else { "False" };
        let since = old
            .iter()
            .find(|o| o.type_ == f.kind && o.status == status)
            .and_then(|o| o.last_transition_time.clone())
            .unwrap_or(Time(now));
        out.push(NodeCondition {
            type_: f.kind.into(),
            status: status.into(),
            reason: Some(f.reason.into()),
            message: Some(f.message.clone()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(since),
        });
    }
    out
}

async fn write_status(
    k: &Kubelet,
    found: &[Finding],
    images: &[Value],
) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(k.client.clone());
    let old = api.get(&k.config.node_name).await?;
    let old_conditions = old.status.and_then(|s| s.conditions).unwrap_or_default();
    let f = &k.node;
    let resources = json!({
        "cpu": f.allocatable.cpu,
        "memory": format!("{}Ki", f.memory >> 10),
        "ephemeral-storage": f.allocatable.ephemeral_storage,
        "pods": k.config.max_pods.to_string(),
    });
    let patch = json!({"status": {
        "addresses": addresses(k),
        "capacity": resources,
        "allocatable": resources,
        "conditions": with_times(found, &old_conditions, Timestamp::now()),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": k.config.port}},
        "nodeInfo": f.info,
        "images": images,
    }});
    api.patch_status(
        &k.config.node_name,
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
}

async fn images(k: &Kubelet) -> Vec<Value> {
    let mut list = k.cri.list_images().await.unwrap_or_default();
    list.sort_by_key(|i| std::cmp::Reverse(i.size));
    list.iter()
        .filter(|i| !i.repo_tags.is_empty() || !i.repo_digests.is_empty())
        .take(50)
        .map(|i| {
            let names: Vec<&String> = i.repo_digests.iter().chain(&i.repo_tags).collect();
            json!({"names": names, "sizeBytes": i.size})
        })
        .collect()
}

/// Registers the node and keeps its status true until shutdown.
pub async fn run_status(k: Arc<Kubelet>, shutdown: CancellationToken) {
    let mut written: Option<Vec<Finding>> = None;
    let mut written_at = Instant::now();
    let mut pod_cidr = String::new();
    let mut registered = false;
    loop {
        if !registered {
            match register(&k).await {
                Ok(()) => {
                    registered = true;
                    k.events
                        .node(&k.config.node_name, NORMAL, "Starting", "Starting kubelet.");
                }
                Err(error) => {
                    warn!(%error, node = k.config.node_name, "cannot register the node, trying again")
                }
            }
        }
        if registered {
            let found = judge(&look(&k).await);
            if written.as_ref() != Some(&found) || written_at.elapsed() >= WRITE_EVERY {
                match write_status(&k, &found, &images(&k).await).await {
                    Ok(node) => {
                        report_changes(&k, written.as_deref(), &found);
                        let cidr = node
                            .spec
                            .and_then(|s| s.pod_cidrs.map(|c| c.join(",")).or(s.pod_cidr));
                        if let Some(cidr) = cidr.filter(|c| !c.is_empty() && *c != pod_cidr) {
                            match k.cri.update_pod_cidr(&cidr).await {
                                Ok(()) => pod_cidr = cidr,
                                Err(error) => {
                                    warn!(%error, cidr, "cannot tell the runtime the pod CIDR")
                                }
                            }
                        }
                        written = Some(found);
                        written_at = Instant::now();
                    }
                    Err(kube::Error::Api(e)) if e.code == 404 => {
                        // Someone deleted the Node.
                        registered = false;
                        written = None;
                    }
                    Err(error) => warn!(%error, "cannot write the node's status"),
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn report_changes(k: &Kubelet, before: Option<&[Finding]>, now: &[Finding]) {
    for f in now {
        let changed = before
            .and_then(|b| b.iter().find(|o| o.kind == f.kind))
            .is_none_or(|o| o.status != f.status);
        if !changed {
            continue;
        }
        let (kind, reason) = match (f.kind, f.status) {
            ("Ready", true) => (NORMAL, "NodeReady"),
            ("Ready", false) => (WARNING, "NodeNotReady"),
            _ => (NORMAL, f.reason),
        };
        let name = &k.config.node_name;
        k.events.node(
            name,
            kind,
            reason,
            format!("Node {name} status is now: {reason}"),
        );
        info!(
            condition = f.kind,
            status = f.status,
            message = f.message,
            "node condition"
        );
    }
}

/// Renews the node's Lease until shutdown.
pub async fn run_lease(k: Arc<Kubelet>, shutdown: CancellationToken) {
    loop {
        let wait = match renew(&k).await {
            Ok(()) => LEASE_EVERY,
            Err(error) => {
                debug!(
                    error = format!("{error:#}"),
                    "cannot renew the node's Lease, trying again"
                );
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn renew(k: &Kubelet) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(k.client.clone(), "kube-node-lease");
    let name = &k.config.node_name;
    let now = MicroTime(Timestamp::now());
    match leases.get_opt(name).await.context("reading the Lease")? {
        Some(mut lease) => {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(name.clone());
            spec.lease_duration_seconds = Some(LEASE_SECONDS);
            spec.renew_time = Some(now);
            // Our Lease has one writer, so its resource version is current.
            leases
                .replace(name, &PostParams::default(), &lease)
                .await
                .context("renewing the Lease")?;
        }
        None => {
            let nodes: Api<Node> = Api::all(k.client.clone());
            let owner = nodes
                .get_opt(name)
                .await
                .context("reading the Node")?
                .and_then(|n| n.metadata.uid);
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some("kube-node-lease".into()),
                    owner_references: owner.map(|uid| {
                        vec![OwnerReference {
                            api_version: "v1".into(),
                            kind: "Node".into(),
                            name: name.clone(),
                            uid,
                            ..Default::default()
                        }]
                    }),
                    ..Default::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..Default::default()
                }),
            };
            leases
                .create(&PostParams::default(), &lease)
                .await
                .context("making the Lease")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Readings {
        Readings {
            memory_available: 1 << 30,
            disk_free: 50,
            min_disk_free: 10,
            inodes_free: 50,
            threads: 100,
            threads_max: 4_194_304,
            not_ready: None,
        }
    }

    fn status(r: &Readings) -> Vec<(&'static str, bool)> {
        judge(r).into_iter().map(|f| (f.kind, f.status)).collect()
    }

    #[test]
    fn conditions() {
        assert_eq!(
            status(&good()),
            [
                ("MemoryPressure", false),
                ("DiskPressure", false),
                ("PIDPressure", false),
                ("Ready", true)
            ]
        );
        let bad = Readings {
            memory_available: 1,
            disk_free: 3,
            threads: 4_194_000,
            not_ready: Some("no network".into()),
            ..good()
        };
        assert_eq!(
            status(&bad),
            [
                ("MemoryPressure", true),
                ("DiskPressure", true),
                ("PIDPressure", true),
                ("Ready", false)
            ]
        );
    }

    #[test]
    fn times_and_others_are_kept() {
        let t = |s| Timestamp::from_second(s).unwrap();
        let old = with_times(&judge(&good()), &[], t(1));
        let mut other = old[0].clone();
        other.type_ = "NetworkUnavailable".into();
        let mut all = old.clone();
        all.push(other);
        let bad = Readings {
            not_ready: Some("x".into()),
            ..good()
        };
        let new = with_times(&judge(&bad), &all, t(9));
        let get = |kind: &str| new.iter().find(|c| c.type_ == kind).unwrap();
        assert_eq!(get("Ready").last_transition_time, Some(Time(t(9))));
        assert_eq!(get("MemoryPressure").last_transition_time, Some(Time(t(1))));
        assert_eq!(get("MemoryPressure").last_heartbeat_time, Some(Time(t(9))));
        assert_eq!(new.len(), 5);
    }
}
