//! The taints that follow from a node's conditions.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::condition;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition types that keep new pods off, with the status that does, and their taints.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// The key of the taint that a node's readiness calls for, if it isn't ready.
pub fn readiness(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        // A node that has not reported yet.
        _ => Some(NOT_READY),
    }
}

/// The taints that `node` should have. `evict` allows a new NoExecute taint; one that is there stays as
/// long as the node isn't ready (and becomes the other when its readiness changes), whatever `evict` says.
pub fn wanted(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let there = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    let managed = |t: &Taint| {
        (t.effect == "NoSchedule"
            && (t.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| *key == t.key)))
            || (t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
    };
    let mut wanted: Vec<Taint> = there.iter().filter(|t| !managed(t)).cloned().collect();
    let mut add = |key: &str, effect: &str| {
        let old = there.iter().find(|t| t.key == key && t.effect == effect);
        wanted.push(old.cloned().unwrap_or_else(|| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(Time(now)),
        }));
    };
    if node
        .spec
        .as_ref()
        .and_then(|s| s.unschedulable)
        .unwrap_or(false)
    {
        add(UNSCHEDULABLE, "NoSchedule");
    }
    let readiness = readiness(node);
    if let Some(key) = readiness {
        add(key, "NoSchedule");
    }
    for (type_, status, key) in BY_CONDITION.iter().filter(|(t, ..)| *t != "Ready") {
        if condition(node, type_).is_some_and(|c| c.status == *status) {
            add(key, "NoSchedule");
        }
    }
    if let Some(key) = readiness
        && (evict || evicts(node))
    {
        add(key, "NoExecute");
    }
    wanted
}

/// Whether the node has a NoExecute taint for not being ready already.
pub fn evicts(node: &Node) -> bool {
    node.spec
        .iter()
        .flat_map(|s| s.taints.iter().flatten())
        .any(|t| t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "spec": { "taints": taints },
            "status": { "conditions": [{ "type": "Ready", "status": ready }, { "type": "DiskPressure", "status": "True" }] },
        }))
        .unwrap()
    }

    fn names(taints: &[Taint]) -> Vec<String> {
        taints
            .iter()
            .map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect))
            .collect()
    }

    #[test]
    fn taints_follow_conditions_and_strangers_stay() {
        let now = Timestamp::now();
        let own = json!([{ "key": "mine", "effect": "NoExecute" }]);
        assert_eq!(
            names(&wanted(&node("True", own.clone()), true, now)),
            ["mine:NoExecute", "disk-pressure:NoSchedule"]
        );
        assert_eq!(
            names(&wanted(&node("False", own.clone()), false, now)),
            [
                "mine:NoExecute",
                "not-ready:NoSchedule",
                "disk-pressure:NoSchedule"
            ]
        );
        assert_eq!(
            names(&wanted(&node("Unknown", own), true, now)),
            [
                "mine:NoExecute",
                "unreachable:NoSchedule",
                "disk-pressure:NoSchedule",
                "unreachable:NoExecute"
            ]
        );
    }

    #[test]
    fn the_time_of_a_taint_is_kept_and_ready_takes_it_off() {
        let taint = json!([{ "key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }]);
        let kept = wanted(&node("Unknown", taint.clone()), false, Timestamp::now());
        let no_execute = kept.iter().find(|t| t.effect == "NoExecute").unwrap();
        assert_eq!(
            no_execute.time_added.as_ref().unwrap().0.to_string(),
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(
            names(&wanted(
                &node("False", taint.clone()),
                false,
                Timestamp::now()
            )),
            [
                "not-ready:NoSchedule",
                "disk-pressure:NoSchedule",
                "not-ready:NoExecute"
            ]
        );
        assert_eq!(
            names(&wanted(&node("True", taint), true, Timestamp::now())),
            ["disk-pressure:NoSchedule"]
        );
    }
}
