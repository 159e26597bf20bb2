//! Removes pods that nobody else will: those of nodes that are gone, those that were deleted before they had
//! a node, and finished ones beyond a number.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use rhumb_client::{EventKind, ObjectKey, Recorder, is_conflict, is_not_found};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{context::Context, pod};

const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must have been missing: it may be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);

pub struct PodGc {
    ctx: Arc<Context>,
    recorder: Recorder,
    finished_kept: usize,
}

/// The oldest of the finished pods beyond `kept`.
fn surplus(pods: &[Arc<Pod>], kept: usize) -> Vec<Arc<Pod>> {
    let mut finished: Vec<_> = pods
        .iter()
        .filter(|p| pod::is_finished(p) && !pod::is_terminating(p))
        .cloned()
        .collect();
    if finished.len() <= kept {
        return Vec::new();
    }
    finished.sort_by_key(|p| {
        (
            p.metadata.creation_timestamp.clone(),
            p.metadata.name.clone(),
        )
    });
    finished.truncate(finished.len() - kept);
    finished
}

/// Names of nodes that pods are on and that aren't there, each with the time since when.
#[derive(Debug, Default)]
struct Missing(HashMap<String, Instant>);

impl Missing {
    /// Takes a look; returns those missing for long enough.
    fn look(
        &mut self,
        pods: &[Arc<Pod>],
        there: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<String> {
        let mut absent: HashMap<String, Instant> = HashMap::new();
        for name in pods
            .iter()
            .filter_map(|p| pod::node_name(p))
            .filter(|n| !there(n))
        {
            let since = self.0.get(name).copied().unwrap_or(now);
            absent.insert(name.to_string(), since);
        }
        self.0 = absent;
        self.0
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= QUARANTINE)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl PodGc {
    pub fn new(ctx: &Arc<Context>, finished_kept: usize) -> Arc<Self> {
        Arc::new(Self {
            ctx: ctx.clone(),
            recorder: ctx.recorder("pod-garbage-collector"),
            finished_kept,
        })
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(ctx.pods.synced(), ctx.nodes.synced());
        let mut missing = Missing::default();
        loop {
            let pods = self.ctx.pods.all();
            let gone = missing.look(
                &pods,
                |name| self.ctx.nodes.get(&ObjectKey::new("", name)).is_some(),
                Instant::now(),
            );
            for p in surplus(&pods, self.finished_kept) {
                self.remove(&p, "terminated pods exceed the number to keep", None)
                    .await;
            }
            for name in gone {
                self.clear_node(&name, &pods).await;
            }
            for p in pods
                .iter()
                .filter(|p| pod::is_terminating(p) && pod::node_name(p).is_none())
            {
                self.remove(p, "deleted before it was given a node", None)
                    .await;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn clear_node(&self, name: &str, pods: &[Arc<Pod>]) {
        // The cache may lag; the server must agree that the node is gone.
        match Api::<Node>::all(self.ctx.client.clone())
            .get_opt(name)
            .await
        {
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(error) => {
                warn!(
                    node = name,
                    error = rhumb_client::error::message(&error),
                    "can't tell whether the node is gone, its pods stay for now"
                );
                return;
            }
        }
        info!(node = name, "the node is gone, removing its pods");
        for p in pods.iter().filter(|p| pod::node_name(p) == Some(name)) {
            let condition = serde_json::json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now()),
            });
            self.remove(p, "its node is gone", Some(condition)).await;
        }
    }

    async fn remove(&self, p: &Pod, why: &str, condition: Option<serde_json::Value>) {
        let key = ObjectKey::of(p);
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        if let Some(condition) = condition
            && !pod::is_finished(p)
        {
            let patch = serde_json::json!({
                "metadata": { "uid": p.metadata.uid },
                "status": { "phase": "Failed", "conditions": [condition] },
            });
            if let Err(error) = api
                .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
                && !is_not_found(&error)
            {
                warn!(pod = %key, error = rhumb_client::error::message(&error), "can't mark the pod as failed, trying again later");
                return;
            }
            self.recorder.record(
                p,
                EventKind::Normal,
                "DeletionByPodGC",
                "PodGC: node no longer exists",
            );
        }
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions {
                uid: p.metadata.uid.clone(),
                resource_version: None,
            });
        match api.delete(&key.name, &params).await {
            Ok(_) => info!(pod = %key, why, "pod removed"),
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => {
                warn!(pod = %key, why, error = rhumb_client::error::message(&error), "can't remove the pod, trying again later")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, created: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "creationTimestamp": created },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "phase": phase },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_oldest_finished_pods_go() {
        let pods = [
            pod("new", "n", "Succeeded", "2026-01-03T00:00:00Z"),
            pod("old", "n", "Failed", "2026-01-01T00:00:00Z"),
            pod("running", "n", "Running", "2025-01-01T00:00:00Z"),
            pod("mid", "n", "Succeeded", "2026-01-02T00:00:00Z"),
        ];
        let names = |kept| {
            surplus(&pods, kept)
                .iter()
                .map(|p| p.metadata.name.clone().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["old", "mid"]);
        assert!(names(3).is_empty());
    }

    #[test]
    fn a_node_is_missing_only_after_a_while_without_a_break() {
        let pods = [
            pod("a", "n", "Running", "2026-01-01T00:00:00Z"),
            pod("b", "", "Pending", "2026-01-01T00:00:00Z"),
        ];
        let t0 = Instant::now();
        let mut missing = Missing::default();
        assert!(missing.look(&pods, |_| false, t0).is_empty());
        assert!(
            missing.look(&pods, |_| true, t0 + QUARANTINE).is_empty(),
            "it is back"
        );
        assert!(missing.look(&pods, |_| false, t0 + QUARANTINE).is_empty());
        assert_eq!(missing.look(&pods, |_| false, t0 + 2 * QUARANTINE), ["n"]);
    }
}
