//! Which pods belong on this node: the API's watch, a worker for each, and what is left of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::kubelet::{Entry, Kubelet, lock};
use crate::labels;
use crate::volumes;
use crate::worker::{Desired, Worker};

/// How often leftovers of pods that are gone are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long after its failure a worker is followed by another.
const RESPAWN: Duration = Duration::from_secs(1);

struct Handle {
    tx: watch::Sender<Desired>,
    ending: CancellationToken,
    wake: Arc<Notify>,
}

/// The workers' keeper.
struct Manager {
    k: Arc<Kubelet>,
    handles: HashMap<String, Handle>,
    /// A worker gives its pod's uid, and whether it ended as it should.
    workers: tokio::task::JoinSet<(String, bool)>,
}

/// The conditions that the kubelet writes; others belong to others.
pub(crate) const OWN_CONDITIONS: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
];

/// Whether a change of the object is one that a worker acts on, other than its own status writes.
fn matters(old: &Pod, new: &Pod) -> bool {
    let foreign = |p: &Pod| -> Vec<PodCondition> {
        let all = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()))
            .cloned()
            .collect()
    };
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.deletion_grace_period_seconds != new.metadata.deletion_grace_period_seconds
        || foreign(old) != foreign(new)
}

impl Manager {
    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let pod = Arc::new(pod);
        if let Some(h) = self.handles.get(&uid) {
            if let Some(e) = lock(&self.k.pods).get_mut(&uid) {
                e.pod = pod.clone();
            }
            let desired = Desired { pod, gone: false };
            if desired.ending() {
                h.ending.cancel();
            }
            h.tx.send_if_modified(|d| {
                let wakes = matters(&d.pod, &desired.pod);
                *d = desired;
                wakes
            });
            return;
        }
        debug!(
            pod = pod.metadata.name,
            namespace = pod.metadata.namespace,
            uid,
            "a pod for this node"
        );
        let desired = Desired {
            pod: pod.clone(),
            gone: false,
        };
        let ending = CancellationToken::new();
        if desired.ending() {
            ending.cancel();
        }
        let wake = Arc::new(Notify::new());
        lock(&self.k.pods).insert(
            uid.clone(),
            Entry {
                pod,
                wake: wake.clone(),
            },
        );
        let (tx, rx) = watch::channel(desired);
        let worker = Worker::new(
            self.k.clone(),
            uid.clone(),
            rx,
            wake.clone(),
            ending.clone(),
        );
        let done = uid.clone();
        self.workers.spawn(async move {
            let ended = std::panic::AssertUnwindSafe(worker.run())
                .catch_unwind()
                .await;
            if ended.is_err() {
                // What failed at once would fail again at once.
                tokio::time::sleep(RESPAWN).await;
            }
            (done, ended.is_ok())
        });
        self.handles.insert(uid, Handle { tx, ending, wake });
    }

    /// A worker ended. Only one that ended well leaves nothing behind: the pod of another stays known, or
    /// the sweep would take it away while it runs.
    fn ended(&mut self, uid: &str, well: bool) {
        let handle = self.handles.remove(uid);
        if well {
            lock(&self.k.pods).remove(uid);
        } else if let Some(h) = handle {
            // One pod's trouble stays its own.
            error!(uid, "the worker of a pod failed, starting another");
            let desired = h.tx.borrow().clone();
            self.apply((*desired.pod).clone());
            if desired.gone {
                self.gone(uid);
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(h) = self.handles.get(uid) {
            h.ending.cancel();
            h.tx.send_if_modified(|d| !std::mem::replace(&mut d.gone, true));
            h.wake.notify_one();
        }
    }
}

/// Removes what the runtime, the file system and the cgroups still have of pods that the API doesn't
/// have. Only called after a complete list. A pod is looked up after its remains are seen: its worker
/// is registered before it makes anything.
async fn clean_up_orphans(k: Arc<Kubelet>) {
    let (Ok(sandboxes), Ok(containers)) = (
        k.cri.list_sandboxes(None).await,
        k.cri.list_containers(None).await,
    ) else {
        return;
    };
    let known = |uid: &str| lock(&k.pods).contains_key(uid);
    let mut left: HashSet<String> = HashSet::new();
    for s in &sandboxes {
        // Only what a kubelet made has our label.
        let Some(uid) = s.labels.get(labels::POD_UID).filter(|uid| !known(uid)) else {
            continue;
        };
        info!(
            id = s.id,
            pod = s.labels.get(labels::POD_NAME),
            "removing the sandbox of a pod that is gone"
        );
        for c in containers.iter().filter(|c| c.pod_sandbox_id == s.id) {
            let grace = c
                .annotations
                .get(labels::POD_GRACE)
                .and_then(|g| g.parse().ok())
                .unwrap_or(30)
                .min(30);
            if let Err(error) = k.cri.stop_container(&c.id, grace).await {
                warn!(%error, id = c.id, "cannot stop a container of a pod that is gone");
            }
        }
        let removed = match k.cri.stop_sandbox(&s.id).await {
            Ok(()) => k.cri.remove_sandbox(&s.id).await,
            Err(e) => Err(e),
        };
        if let Err(error) = removed {
            warn!(%error, id = s.id, "cannot remove a sandbox, trying again later");
            left.insert(uid.clone());
            continue;
        }
        if let (Some(ns), Some(name)) = (
            s.labels.get(labels::POD_NAMESPACE),
            s.labels.get(labels::POD_NAME),
        ) {
            let _ = std::fs::remove_dir_all(k.config.pod_log_dir(ns, name, uid));
        }
    }
    let pods_dir = k.config.root_dir.join("pods");
    let on_disk = std::fs::read_dir(&pods_dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str().map(str::to_string));
    for uid in on_disk.filter(|u| !left.contains(u) && !known(u)) {
        if let Err(error) = volumes::tear_down(&pods_dir.join(&uid)) {
            warn!(%error, uid, "cannot remove the files of a pod that is gone");
        }
    }
    for uid in k
        .cgroups
        .pods()
        .into_iter()
        .filter(|u| !left.contains(u) && !known(u))
    {
        if let Err(error) = k.cgroups.remove_pod(&uid) {
            debug!(%error, uid, "the cgroup of a pod that is gone is busy");
        }
    }
}

/// Follows the API's pods of this node until shutdown. Running pods keep running then.
pub async fn run(k: Arc<Kubelet>, shutdown: CancellationToken) {
    let api: Api<Pod> = Api::all(k.client.clone());
    let config =
        watcher::Config::default().fields(&format!("spec.nodeName={}", k.config.node_name));
    let stream = watcher(api, config).backoff(crate::api_backoff());
    pin_mut!(stream);
    let mut manager = Manager {
        k,
        handles: HashMap::new(),
        workers: tokio::task::JoinSet::new(),
    };
    let mut listed: HashSet<String> = HashSet::new();
    let mut synced = false;
    // At most one sweep; it ends with this function, also when that is dropped.
    let mut sweeping = tokio::task::JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            event = stream.next() => match event {
                Some(Ok(watcher::Event::Apply(pod))) => manager.apply(pod),
                Some(Ok(watcher::Event::Delete(pod))) => {
                    if let Some(uid) = pod.metadata.uid.clone() {
                        // Its last state holds the grace period of a forced deletion.
                        if manager.handles.contains_key(&uid) {
                            manager.apply(pod);
                        }
                        manager.gone(&uid);
                    }
                }
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(pod))) => {
                    listed.extend(pod.metadata.uid.clone());
                    manager.apply(pod);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let missing: Vec<String> =
                        manager.handles.keys().filter(|u| !listed.contains(*u)).cloned().collect();
                    for uid in missing {
                        manager.gone(&uid);
                    }
                    synced = true;
                    sweep.reset_immediately();
                }
                Some(Err(error)) => warn!(%error, "watching the pods of this node"),
                None => break,
            },
            Some(done) = manager.workers.join_next() => {
                if let Ok((uid, well)) = done {
                    manager.ended(&uid, well);
                }
            },
            _ = sweep.tick() => {
                while sweeping.try_join_next().is_some() {}
                if synced && sweeping.is_empty() {
                    sweeping.spawn(clean_up_orphans(manager.k.clone()));
                }
            },
        }
    }
    sweeping.shutdown().await;
    manager.workers.abort_all();
}
