//! What a ReplicaSet needs done now: how many pods to make, which to delete, and its status.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::pod;

/// Pods made or deleted in one pass at most.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Debug, Default)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
}

/// `active` are the pods that count (see [`pod::is_active`]); `related` those of all ReplicaSets with the same owner,
/// which say where pods are crowded.
pub fn plan(wanted: i32, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() <= wanted {
        return Plan {
            create: (wanted - active.len()).min(BURST),
            delete: Vec::new(),
        };
    }
    let surplus = (active.len() - wanted).min(BURST);
    let mut ranked = active.to_vec();
    if surplus < active.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for node in related
            .iter()
            .filter(|p| pod::is_active(p))
            .filter_map(|p| pod::node_name(p))
        {
            *on_node.entry(node).or_insert(0) += 1;
        }
        ranked.sort_by_cached_key(|p| deletion_rank(p, &on_node, now));
    }
    ranked.truncate(surplus);
    Plan {
        create: 0,
        delete: ranked,
    }
}

/// Ages are compared by their order of magnitude, so that pods of about one age are told apart at random
/// (here: by uid) rather than by seconds.
fn age_bucket(since: i64, now: Timestamp) -> u32 {
    let age = now.as_second().saturating_sub(since).max(0);
    if age == 0 { 0 } else { age.ilog2() + 1 }
}

type Rank = (
    bool,
    u8,
    bool,
    i32,
    Reverse<usize>,
    u32,
    Reverse<i32>,
    u32,
    String,
);

/// Kubernetes' order of preference: the lowest goes first.
fn deletion_rank(p: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Rank {
    let node = pod::node_name(p);
    let phase = match pod::phase(p) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = p
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(DELETION_COST))
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let crowd = node.and_then(|n| on_node.get(n)).copied().unwrap_or(0);
    let restarts = p
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .map(|c| c.restart_count)
        .max()
        .unwrap_or(0);
    let created = p
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(i64::MAX, |t| t.0.as_second());
    (
        node.is_some(),
        phase,
        pod::is_ready(p),
        cost,
        Reverse(crowd),
        // Ready for a shorter time goes first.
        pod::ready_since(p).map_or(0, |t| age_bucket(t, now)),
        Reverse(restarts),
        age_bucket(created, now),
        p.metadata.uid.clone().unwrap_or_default(),
    )
}

/// The status of `rs` with these pods; `failure` is what went wrong while making or deleting some.
pub fn status(
    rs: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let min_ready = rs
        .spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0);
    let labels = rs
        .spec
        .as_ref()
        .and_then(|s| s.template.as_ref())
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    let count = |f: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|p| f(p)).count()).unwrap_or(i32::MAX)
    };
    let nonzero = |n: i32| (n != 0).then_some(n);
    let labelled = count(&|p| {
        labels
            .iter()
            .all(|(k, v)| p.metadata.labels.as_ref().and_then(|l| l.get(k)) == Some(v))
    });
    let mut conditions = rs
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    match failure {
        Some((reason, message)) => {
            if !conditions.iter().any(|c| c.type_ == REPLICA_FAILURE) {
                conditions.push(ReplicaSetCondition {
                    type_: REPLICA_FAILURE.into(),
                    status: "True".into(),
                    reason: Some(reason.into()),
                    message: Some(message),
                    last_transition_time: Some(Time(now)),
                });
            }
        }
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: nonzero(labelled),
        ready_replicas: nonzero(count(&|p| pod::is_ready(p))),
        available_replicas: nonzero(count(&|p| pod::is_available(p, min_ready, now))),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: rs.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// In how many seconds the next of the pods that are ready becomes available.
pub fn next_available(rs: &ReplicaSet, active: &[Arc<Pod>], now: Timestamp) -> Option<i64> {
    let min_ready = rs.spec.as_ref()?.min_ready_seconds.filter(|s| *s > 0)?;
    active
        .iter()
        .filter(|p| pod::is_ready(p) && !pod::is_available(p, min_ready, now))
        .filter_map(|p| pod::ready_since(p))
        .map(|since| (since + i64::from(min_ready) - now.as_second()).max(1))
        .min()
}

/// Sizes of the batches in which `count` pods are made: one, then double as long as all goes well, so that
/// a template that is refused is refused once and not hundreds of times.
pub fn slow_start(count: usize) -> impl Iterator<Item = usize> {
    let mut left = count;
    let mut size = 1;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let batch = size.min(left);
        left -= batch;
        size *= 2;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, more: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": "web" } },
            "spec": { "containers": [], "nodeName": "n1" },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z" }] },
        });
        merge(&mut pod, &more);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn merge(base: &mut Value, patch: &Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (k, v) in patch {
                    merge(base.entry(k).or_insert(Value::Null), v);
                }
            }
            (base, patch) => *base = patch.clone(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-02T00:00:00Z".parse().unwrap()
    }

    fn first_to_go(pods: Vec<Arc<Pod>>) -> String {
        let plan = plan(pods.len() as i32 - 1, &pods, &pods, now());
        plan.delete[0].metadata.name.clone().unwrap()
    }

    #[test]
    fn the_order_of_deletion_is_that_of_kubernetes() {
        let good = || pod("good", json!({}));
        for (name, worse) in [
            ("unassigned", json!({ "spec": { "nodeName": "" } })),
            ("pending", json!({ "status": { "phase": "Pending" } })),
            (
                "unready",
                json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }),
            ),
            (
                "cheap",
                json!({ "metadata": { "annotations": { (DELETION_COST): "-5" } } }),
            ),
            (
                "fresh",
                json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T23:59:00Z" }] } }),
            ),
            (
                "restarted",
                json!({ "status": { "containerStatuses": [{ "name": "c", "ready": true, "restartCount": 3, "image": "", "imageID": "" }] } }),
            ),
            (
                "young",
                json!({ "metadata": { "creationTimestamp": "2026-01-01T20:00:00Z" } }),
            ),
        ] {
            assert_eq!(first_to_go(vec![good(), pod(name, worse)]), name);
        }
    }

    #[test]
    fn a_crowded_node_loses_a_pod_first() {
        let on = |name: &str, node: &str| pod(name, json!({ "spec": { "nodeName": node } }));
        assert_eq!(
            first_to_go(vec![on("a", "n1"), on("z", "n2"), on("y", "n2")]),
            "y"
        );
    }

    #[test]
    fn numbers_are_made_up_and_brought_down() {
        assert_eq!(plan(3, &[pod("a", json!({}))], &[], now()).create, 2);
        assert_eq!(plan(0, &[pod("a", json!({}))], &[], now()).delete.len(), 1);
        assert_eq!(plan(10_000, &[], &[], now()).create, BURST);
        let settled = plan(1, &[pod("a", json!({}))], &[], now());
        assert_eq!((settled.create, settled.delete.len()), (0, 0));
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let mut rs = ReplicaSet::default();
        rs.spec.get_or_insert_default().min_ready_seconds = Some(30);
        let pods = vec![pod("a", json!({}))];
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let early = at("2026-01-01T00:00:25Z");
        let s = status(&rs, &pods, 0, None, early);
        assert_eq!((s.ready_replicas, s.available_replicas), (Some(1), None));
        assert_eq!(next_available(&rs, &pods, early), Some(15));
        assert_eq!(
            status(&rs, &pods, 0, None, at("2026-01-01T00:00:40Z")).available_replicas,
            Some(1)
        );
    }

    #[test]
    fn a_failure_is_kept_as_a_condition_until_it_is_over() {
        let mut rs = ReplicaSet::default();
        rs.status = Some(status(
            &rs,
            &[],
            0,
            Some(("FailedCreate", "quota".into())),
            now(),
        ));
        let again = status(&rs, &[], 0, Some(("FailedCreate", "other".into())), now());
        assert_eq!(
            again.conditions.unwrap()[0].message.as_deref(),
            Some("quota")
        );
        assert_eq!(status(&rs, &[], 0, None, now()).conditions, None);
    }

    #[test]
    fn batches_double() {
        assert_eq!(slow_start(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
        assert_eq!(slow_start(0).count(), 0);
    }
}
