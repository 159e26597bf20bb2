//! Watches over the nodes: one whose kubelet isn't heard of any more becomes Unknown, its taints follow
//! its conditions, and its pods no longer count as ready.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use rhumb_client::{Change, EventKind, ObjectKey, Recorder, WorkQueue, is_conflict, is_not_found};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{condition, is_ready, taints, zone};
use crate::{
    config::Config,
    context::{Context, NODE_LEASES, run_queue},
    pod,
};

/// How often a node is looked at if nothing happens.
const PERIOD: Duration = Duration::from_secs(5);
/// Conditions that are the kubelet's to report.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last sign of life, by our own clock: clocks of nodes may be off.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    sign: String,
    at: Instant,
}

/// What changes whenever the kubelet reports: the time in its Lease and in its Ready condition.
fn sign_of_life(node: &Node, lease: Option<&Lease>) -> String {
    let renewed = lease
        .and_then(|l| l.spec.as_ref())
        .and_then(|s| s.renew_time.as_ref())
        .map(|t| t.0);
    let ready = condition(node, "Ready");
    // Our own "Unknown" leaves the time of the heartbeat as it was.
    let beat = ready
        .and_then(|c| c.last_heartbeat_time.as_ref())
        .map(|t| t.0);
    format!("{renewed:?} {beat:?}")
}

/// The conditions to write for a node that is silent, or none if they say so already.
fn silent(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    REPORTED
        .iter()
        .filter_map(|type_| {
            let (reason, message, beat) = match condition(node, type_) {
                Some(c) if c.status == "Unknown" => return None,
                Some(c) => (
                    "NodeStatusUnknown",
                    "Kubelet stopped posting node status.",
                    c.last_heartbeat_time.clone(),
                ),
                None => (
                    "NodeStatusNeverUpdated",
                    "Kubelet never posted node status.",
                    node.metadata.creation_timestamp.clone(),
                ),
            };
            Some(NodeCondition {
                type_: (*type_).into(),
                status: "Unknown".into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: beat,
                last_transition_time: Some(Time(now)),
            })
        })
        .collect()
}

/// How long to wait between one node's eviction and the next in a zone with this many nodes; `None`: evict
/// none. Kubernetes' defaults: one in ten seconds; where 55 % of a zone (and at least three nodes) are gone,
/// the trouble is more likely in between: none, or one in a hundred seconds in a large zone; where all
/// zones are gone, it is us who are cut off.
fn eviction_interval(ready: usize, not_ready: usize, any_ready_anywhere: bool) -> Option<Duration> {
    const NORMAL: Duration = Duration::from_secs(10);
    if !any_ready_anywhere {
        return None;
    }
    let total = ready + not_ready;
    if ready > 0 && not_ready > 2 && not_ready * 100 >= total * 55 {
        return (total > 50).then_some(Duration::from_secs(100));
    }
    Some(NORMAL)
}

pub struct NodeLifecycle {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    grace: Duration,
    startup_grace: Duration,
    heard: Mutex<HashMap<String, Heard>>,
    /// When the next node of a zone may be evicted.
    next_eviction: Mutex<HashMap<String, Instant>>,
}

impl NodeLifecycle {
    pub fn new(ctx: &Arc<Context>, config: &Config) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("node-controller"),
            grace: config.node_grace,
            startup_grace: config.node_startup_grace,
            heard: Mutex::new(HashMap::new()),
            next_eviction: Mutex::new(HashMap::new()),
        });
        let q = queue.clone();
        let weak = Arc::downgrade(&this);
        ctx.nodes.on_change(move |change| {
            if let Some(this) = weak.upgrade() {
                this.hear(change.object());
            }
            q.add(ObjectKey::of(change.object().as_ref()));
        });
        let (weak, q) = (Arc::downgrade(&this), queue);
        ctx.node_leases.on_change(move |change| {
            let name = change.object().metadata.name.as_deref().unwrap_or_default();
            let Some(this) = weak.upgrade() else {
                return;
            };
            if let Some(node) = this.ctx.nodes.get(&ObjectKey::new("", name)) {
                this.hear(&node);
                // Back from silence: look at once.
                if matches!(change, Change::Added(_)) || !is_ready(&node) {
                    q.add(ObjectKey::new("", name));
                }
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.nodes.synced(),
            ctx.node_leases.synced(),
            ctx.pods.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 2, "node-lifecycle", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    /// Notes a sign of life, if it is a new one; says how long ago the last was.
    fn hear(&self, node: &Node) -> Duration {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self
            .ctx
            .node_leases
            .get(&ObjectKey::new(NODE_LEASES, name.clone()));
        let sign = sign_of_life(node, lease.as_deref());
        let mut heard = self.heard.lock();
        let now = Instant::now();
        match heard.get(&name) {
            Some(last) if last.sign == sign => now.duration_since(last.at),
            _ => {
                heard.insert(name, Heard { sign, at: now });
                Duration::ZERO
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(node) = self.ctx.nodes.get(key) else {
            self.heard.lock().remove(&key.name);
            return Ok(None);
        };
        let mut node = node.as_ref().clone();
        let silence = self.hear(&node);
        let grace = if condition(&node, "Ready").is_some() {
            self.grace
        } else {
            self.startup_grace
        };
        if silence >= grace {
            let unknown = silent(&node, Timestamp::now());
            if !unknown.is_empty() {
                info!(node = %key, ?silence, "node isn't heard of any more");
                let patch = serde_json::json!({ "metadata": { "uid": node.metadata.uid }, "status": { "conditions": unknown } });
                node = match Api::<Node>::all(self.ctx.client.clone())
                    .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await
                {
                    Ok(node) => node,
                    Err(error) if is_not_found(&error) => return Ok(None),
                    Err(error) => return Err(error).context("writing its conditions"),
                };
                self.recorder.record(
                    &node,
                    EventKind::Normal,
                    "NodeNotReady",
                    format!("Node {} status is now: NodeNotReady", key.name),
                );
            }
        }
        let ready = condition(&node, "Ready").map(|c| c.status.clone());
        // A node that has never reported has no pods to evict yet, and may be about to report.
        let evict = ready.as_deref().is_some_and(|r| r != "True")
            && !taints::evicts(&node)
            && self.may_evict(&node);
        self.write_taints(&node, evict).await?;
        // While its kubelet is heard of, the pods' readiness is the kubelet's to say.
        if ready.as_deref() == Some("Unknown") {
            self.mark_pods(&key.name).await?;
        }
        let left = grace.saturating_sub(silence);
        Ok(Some(if left.is_zero() {
            PERIOD
        } else {
            PERIOD.min(left)
        }))
    }

    /// Whether the node's pods may be evicted now; if so, the next of its zone has to wait.
    fn may_evict(&self, node: &Node) -> bool {
        let here = zone(node);
        let (mut ready, mut not_ready, mut any) = (0, 0, false);
        for other in self.ctx.nodes.all() {
            any |= is_ready(&other);
            if zone(&other) == here {
                if is_ready(&other) {
                    ready += 1;
                } else {
                    not_ready += 1;
                }
            }
        }
        let Some(interval) = eviction_interval(ready, not_ready, any) else {
            return false;
        };
        let now = Instant::now();
        let mut next = self.next_eviction.lock();
        if next.get(&here).is_some_and(|at| *at > now) {
            return false;
        }
        next.insert(here, now + interval);
        true
    }

    async fn write_taints(&self, node: &Node, evict: bool) -> anyhow::Result<()> {
        let there = node
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        let wanted = taints::wanted(node, evict, Timestamp::now());
        let same = there.len() == wanted.len() && wanted.iter().all(|t| there.contains(t));
        if same {
            return Ok(());
        }
        // The list is replaced as a whole: not over someone else's change.
        let patch = serde_json::json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": wanted },
        });
        let name = node.metadata.name.as_deref().unwrap_or_default();
        match Api::<Node>::all(self.ctx.client.clone())
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("writing its taints"),
        }
    }

    /// Takes the node's pods out of Services: nobody can say that they are still ready.
    async fn mark_pods(&self, node: &str) -> anyhow::Result<()> {
        for p in self.ctx.pods.by_index("node", node) {
            if !pod::is_ready(&p) {
                continue;
            }
            let key = ObjectKey::of(p.as_ref());
            let patch = serde_json::json!({
                "metadata": { "uid": p.metadata.uid },
                "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now()) }] },
            });
            match Api::<Pod>::namespaced(self.ctx.client.clone(), &key.namespace)
                .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => self.recorder.record(
                    p.as_ref(),
                    EventKind::Warning,
                    "NodeNotReady",
                    "Node is not ready",
                ),
                Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("marking pod {key} as not ready"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_silent_node_loses_what_it_reported_and_only_once() {
        let mut node: Node = serde_json::from_value(json!({
            "metadata": { "name": "n", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "status": { "conditions": [
                { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T01:00:00Z" },
                { "type": "NetworkUnavailable", "status": "False" },
            ] },
        }))
        .unwrap();
        let unknown = silent(&node, Timestamp::now());
        let said: Vec<_> = unknown
            .iter()
            .map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(said[0], ("Ready", "NodeStatusUnknown"));
        assert_eq!(said[1], ("MemoryPressure", "NodeStatusNeverUpdated"));
        assert_eq!(said.len(), 4, "the network isn't the kubelet's to report");
        node.status.as_mut().unwrap().conditions = Some(unknown);
        assert!(silent(&node, Timestamp::now()).is_empty());
    }

    #[test]
    fn both_lease_and_status_are_signs_of_life() {
        let node = |beat: &str| -> Node {
            serde_json::from_value(json!({ "metadata": {}, "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": beat }] } })).unwrap()
        };
        let lease = |time: &str| -> Lease {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "renewTime": time } }))
                .unwrap()
        };
        let base = sign_of_life(
            &node("2026-01-01T00:00:00Z"),
            Some(&lease("2026-01-01T00:00:00.000000Z")),
        );
        assert_ne!(
            base,
            sign_of_life(
                &node("2026-01-01T00:00:00Z"),
                Some(&lease("2026-01-01T00:00:10.000000Z"))
            )
        );
        assert_ne!(
            base,
            sign_of_life(
                &node("2026-01-01T00:00:01Z"),
                Some(&lease("2026-01-01T00:00:00.000000Z"))
            )
        );
        assert_eq!(
            base,
            sign_of_life(
                &node("2026-01-01T00:00:00Z"),
                Some(&lease("2026-01-01T00:00:00.000000Z"))
            )
        );
    }

    #[test]
    fn evictions_slow_down_and_stop_when_most_is_gone() {
        let seconds = |r, n, any| eviction_interval(r, n, any).map(|d| d.as_secs());
        assert_eq!(seconds(9, 1, true), Some(10));
        assert_eq!(seconds(1, 1, true), Some(10));
        assert_eq!(seconds(4, 6, true), None);
        assert_eq!(seconds(40, 60, true), Some(100));
        assert_eq!(seconds(0, 3, true), Some(10), "other zones are fine");
        assert_eq!(seconds(0, 3, false), None, "we are cut off");
    }
}
