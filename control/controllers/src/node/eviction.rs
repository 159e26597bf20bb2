//! Evicts pods from nodes with NoExecute taints, when their tolerations end.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use rhumb_client::{
    Change, EventKind, ObjectKey, Recorder, WorkQueue, is_conflict, is_not_found,
    selectors::tolerates,
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, run_queue},
    pod,
};

/// When a pod has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Never,
    /// Seconds from now, 0 or less for at once.
    In(i64),
}

/// When a pod with these tolerations, on the node since `arrived`, has to leave it for these taints. The
/// time runs from when both are there, so that it doesn't start anew with the controller.
pub fn due(
    tolerations: &[Toleration],
    taints: &[Taint],
    arrived: Timestamp,
    now: Timestamp,
) -> Due {
    let mut due = Due::Never;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let left = match tolerations.iter().find(|t| tolerates(t, taint)) {
            None => 0,
            Some(toleration) => match toleration.toleration_seconds {
                None => continue,
                Some(seconds) if seconds <= 0 => 0,
                Some(seconds) => {
                    let added = taint.time_added.as_ref().map_or(arrived, |t| t.0);
                    let since = added.max(arrived).as_second();
                    since.saturating_add(seconds) - now.as_second()
                }
            },
        };
        due = match due {
            Due::In(earlier) if earlier <= left => due,
            _ => Due::In(left),
        };
    }
    due
}

pub struct TaintEviction {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
}

impl TaintEviction {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("taint-eviction-controller"),
        });
        let (q, nodes) = (queue.clone(), ctx.nodes.clone());
        ctx.pods.on_change(move |change| {
            // Only pods on tainted nodes: the others are woken by their node's change.
            if let Some(node) = pod::node_name(change.object())
                && nodes
                    .get(&ObjectKey::new("", node))
                    .is_some_and(|n| !taints_of(&n).is_empty())
            {
                q.add(ObjectKey::of(change.object().as_ref()));
            }
        });
        let (q, pods) = (queue, ctx.pods.clone());
        ctx.nodes.on_change(move |change| {
            let changed = match change {
                Change::Updated { old, new } => taints_of(old) != taints_of(new),
                Change::Added(node) => !taints_of(node).is_empty(),
                Change::Deleted(_) => false,
            };
            if changed {
                for p in pods.by_index(
                    "node",
                    change.object().metadata.name.as_deref().unwrap_or_default(),
                ) {
                    q.add(ObjectKey::of(p.as_ref()));
                }
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(ctx.nodes.synced(), ctx.pods.synced());
        // Pods that were listed before their node.
        for node in ctx.nodes.all().iter().filter(|n| !taints_of(n).is_empty()) {
            for p in ctx
                .pods
                .by_index("node", node.metadata.name.as_deref().unwrap_or_default())
            {
                self.queue.add(ObjectKey::of(p.as_ref()));
            }
        }
        let queue = self.queue.clone();
        run_queue(queue, 4, "taint-eviction", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(p) = self.ctx.pods.get(key).filter(|p| pod::is_active(p)) else {
            return Ok(None);
        };
        let Some(node) =
            pod::node_name(&p).and_then(|n| self.ctx.nodes.get(&ObjectKey::new("", n)))
        else {
            return Ok(None);
        };
        let tolerations = p
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.clone())
            .unwrap_or_default();
        let now = Timestamp::now();
        match due(&tolerations, &taints_of(&node), arrived(&p, now), now) {
            Due::Never => Ok(None),
            Due::In(seconds) if seconds > 0 => {
                Ok(Some(Duration::from_secs(seconds.unsigned_abs())))
            }
            Due::In(_) => {
                self.evict(&p, key).await?;
                Ok(None)
            }
        }
    }

    async fn evict(&self, p: &Pod, key: &ObjectKey) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        self.recorder.record(
            p,
            EventKind::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {key}"),
        );
        let condition = serde_json::json!({
            "metadata": { "uid": p.metadata.uid },
            "status": { "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(Timestamp::now()),
            }] },
        });
        match api
            .patch_status(
                &key.name,
                &PatchParams::default(),
                &Patch::Strategic(condition),
            )
            .await
        {
            Ok(_) => {}
            Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
            Err(error) => return Err(error).context("writing its condition DisruptionTarget"),
        }
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: p.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(&key.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error).context("deleting it"),
        }
    }
}

/// When the pod came to its node.
fn arrived(pod: &Pod, now: Timestamp) -> Timestamp {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let scheduled = conditions
        .filter(|c| c.type_ == "PodScheduled" && c.status == "True")
        .find_map(|c| c.last_transition_time.as_ref());
    let made = pod.metadata.creation_timestamp.as_ref();
    scheduled.max(made).map_or(now, |time| time.0)
}

fn taints_of(node: &k8s_openapi::api::core::v1::Node) -> Vec<Taint> {
    node.spec
        .iter()
        .flat_map(|s| s.taints.iter().flatten())
        .filter(|t| t.effect == "NoExecute")
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, added: Option<&str>) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: added.map(|t| Time(t.parse().unwrap())),
        }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            value: None,
            toleration_seconds: seconds,
        }
    }

    #[test]
    fn the_first_toleration_to_end_decides() {
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().unwrap();
        let (a, b) = (
            taint("a", Some("2026-01-01T00:00:00Z")),
            taint("b", Some("2026-01-01T00:00:50Z")),
        );
        let long_ago: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let due = |tolerations: &[Toleration], taints: &[Taint], now| {
            super::due(tolerations, taints, long_ago, now)
        };
        assert_eq!(due(&[], &[], now), Due::Never);
        assert_eq!(due(&[], std::slice::from_ref(&a), now), Due::In(0));
        assert_eq!(
            due(&[toleration("a", None)], std::slice::from_ref(&a), now),
            Due::Never
        );
        assert_eq!(
            due(&[toleration("a", Some(300))], std::slice::from_ref(&a), now),
            Due::In(200)
        );
        assert_eq!(
            due(
                &[toleration("a", Some(300)), toleration("b", Some(60))],
                &[a.clone(), b],
                now
            ),
            Due::In(10)
        );
        assert_eq!(due(&[toleration("a", Some(-1))], &[a], now), Due::In(0));
        // The time runs from when the pod came, if that was later.
        let arrived: Timestamp = "2026-01-01T00:01:30Z".parse().unwrap();
        for (taint, left) in [
            (taint("a", None), 20),
            (taint("a", Some("2026-01-01T00:00:00Z")), 20),
        ] {
            assert_eq!(
                super::due(&[toleration("a", Some(30))], &[taint], arrived, now),
                Due::In(left)
            );
        }
    }
}
