//! Plans of the DaemonSet controller.

use super::*;
use crate::daemonset::plan::{HASH_LABEL, Plan, by_node, manage, status, update};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}},
        },
    }))
    .unwrap()
}

fn in_place(unavailable: Value) -> DaemonSet {
    set(
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": 0}}),
    )
}

fn surging(surge: Value) -> DaemonSet {
    set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": surge}}))
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names
        .iter()
        .map(|name| {
            let node = json!({"metadata": {"name": name}});
            Arc::new(serde_json::from_value(node).unwrap())
        })
        .collect()
}

/// `node hash state`: ready, new (not ready), failed or going.
fn pods(all: &[&str]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let pods: Vec<Arc<Pod>> = all
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let words: Vec<&str> = text.split(' ').collect();
            let (node, hash, state) = (words[0], words[1], words[2]);
            let mut pod = json!({
                "metadata": {
                    "name": format!("{node}-{hash}-{i}"), "uid": i.to_string(),
                    "labels": {"a": "b", (HASH_LABEL): hash},
                    "creationTimestamp": format!("2026-01-01T00:00:{i:02}Z"),
                },
                "spec": {"nodeName": node, "containers": []},
                "status": {
                    "phase": if state == "failed" { "Failed" } else { "Running" },
                    "conditions": [{
                        "type": "Ready", "status": if state == "ready" { "True" } else { "False" },
                        "lastTransitionTime": "2026-01-01T00:00:00Z",
                    }],
                },
            });
            if state == "going" {
                pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        })
        .collect();
    by_node(&pods)
}

fn names(plan: &Plan) -> (Vec<String>, Vec<String>) {
    let deleted = plan
        .delete
        .iter()
        .map(|p| p.metadata.name.clone().unwrap())
        .collect();
    (plan.create.clone(), deleted)
}

#[test]
fn each_node_gets_one_pod() {
    let set = in_place(json!(1));
    let there = pods(&["n1 h ready", "n2 h ready", "n2 h ready", "n4 h ready"]);
    let plan = manage(&set, &nodes(&["n1", "n2", "n3"]), &there, "h", now());
    // Of two the older one stays. What is bound to a node that is gone is the pod collector's.
    assert_eq!(
        names(&plan),
        (vec!["n3".to_string()], vec!["n2-h-2".to_string()])
    );
}

#[test]
fn what_ended_is_named() {
    let set = in_place(json!(1));
    let plan = manage(&set, &nodes(&["n1"]), &pods(&["n1 h failed"]), "h", now());
    assert_eq!(names(&plan), (vec![], vec![]));
    assert_eq!(plan.ended.len(), 1);
    assert!(plan.ended[0].1.failed);
}

#[test]
fn nodes_that_must_have_no_pod_lose_it() {
    let set = in_place(json!(1));
    let tainted = |effect: &str| -> Vec<Arc<Node>> {
        let node = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k", "effect": effect}]}});
        vec![Arc::new(serde_json::from_value(node).unwrap())]
    };
    let there = pods(&["n1 h ready"]);
    let plan = manage(&set, &tainted("NoExecute"), &there, "h", now());
    assert_eq!(names(&plan).1, ["n1-h-0"]);
    let plan = manage(&set, &tainted("NoSchedule"), &there, "h", now());
    assert_eq!(names(&plan), (vec![], vec![]));
    let plan = manage(&set, &tainted("NoSchedule"), &pods(&[]), "h", now());
    assert_eq!(names(&plan), (vec![], vec![]), "nor does it get one");
}

#[test]
fn a_rolling_update_keeps_within_its_bounds() {
    let all = nodes(&["n1", "n2", "n3", "n4"]);
    let deleted = |set: &DaemonSet, there: &[&str]| {
        names(&update(set, &all, &pods(there), "new", now()))
            .1
            .len()
    };
    let old = [
        "n1 old ready",
        "n2 old ready",
        "n3 old ready",
        "n4 old ready",
    ];
    assert_eq!(deleted(&in_place(json!(1)), &old), 1);
    assert_eq!(deleted(&in_place(json!("50%")), &old), 2);
    assert_eq!(deleted(&in_place(json!("1%")), &old), 1, "rounded up");
    assert_eq!(deleted(&set(json!({"type": "OnDelete"})), &old), 0);
    // One is on its way: the others wait.
    let under_way = [
        "n1 new pending",
        "n2 old ready",
        "n3 old ready",
        "n4 old ready",
    ];
    assert_eq!(deleted(&in_place(json!(1)), &under_way), 0);
    let going = [
        "n1 old going",
        "n2 old ready",
        "n3 old ready",
        "n4 old ready",
    ];
    assert_eq!(deleted(&in_place(json!(1)), &going), 0);
    let missing = ["n2 old ready", "n3 old ready", "n4 old ready"];
    assert_eq!(deleted(&in_place(json!(1)), &missing), 0);
    // One that serves nobody goes in any case.
    let broken = [
        "n1 new pending",
        "n2 old broken",
        "n3 old ready",
        "n4 old ready",
    ];
    assert_eq!(deleted(&in_place(json!(1)), &broken), 1);
    let done = [
        "n1 new ready",
        "n2 new ready",
        "n3 new ready",
        "n4 new ready",
    ];
    assert_eq!(deleted(&in_place(json!(1)), &done), 0);
}

#[test]
fn a_surge_makes_the_new_pod_first() {
    let all = nodes(&["n1", "n2", "n3"]);
    let step = |there: &[&str]| {
        let set = surging(json!(1));
        let there = pods(there);
        (
            names(&manage(&set, &all, &there, "new", now())),
            names(&update(&set, &all, &there, "new", now())),
        )
    };
    let nothing = (vec![], vec![]);
    let (managed, updated) = step(&["n1 old ready", "n2 old ready", "n3 old ready"]);
    assert_eq!(managed, nothing);
    assert_eq!(updated, (vec!["n1".to_string()], vec![]));
    let (managed, updated) = step(&[
        "n1 old ready",
        "n1 new pending",
        "n2 old ready",
        "n3 old ready",
    ]);
    assert_eq!((managed, updated), (nothing.clone(), nothing));
    let (managed, updated) = step(&[
        "n1 old ready",
        "n1 new ready",
        "n2 old ready",
        "n3 old ready",
    ]);
    assert_eq!(managed.1, ["n1-old-0"]);
    assert_eq!(
        updated,
        (vec!["n2".to_string()], vec!["n1-old-0".to_string()])
    );
}

#[test]
fn the_status_counts_nodes() {
    let set = in_place(json!(1));
    let there = pods(&["n1 new ready", "n2 old broken", "n9 old ready"]);
    let mut all = nodes(&["n1", "n2", "n3"]);
    let away = json!({"metadata": {"name": "n9"}, "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    all.push(Arc::new(serde_json::from_value(away).unwrap()));
    let status = status(&set, &all, &there, "new", now());
    assert_eq!(
        serde_json::to_value(status).unwrap(),
        json!({
            "currentNumberScheduled": 2, "desiredNumberScheduled": 3, "numberMisscheduled": 1,
            "numberReady": 1, "numberAvailable": 1, "numberUnavailable": 2,
            "updatedNumberScheduled": 1, "observedGeneration": 2,
        })
    );
}
