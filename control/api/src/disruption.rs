//! Disruption budgets, as the eviction of a pod asks them. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{self, at, int, list, text};
use crate::time;

/// Whether the pod has come to its end, or is going already.
pub fn is_ended(pod: &Value) -> bool {
    matches!(text(pod, "status.phase"), "Succeeded" | "Failed")
        || at(pod, "metadata.deletionTimestamp").is_some()
}

/// Whether a budget has to be asked: a pod that doesn't run yet or any more is nobody's loss.
pub fn needs_budget(pod: &Value) -> bool {
    !is_ended(pod) && text(pod, "status.phase") != "Pending"
}

fn is_ready(pod: &Value) -> bool {
    list(pod, "status.conditions")
        .iter()
        .any(|c| text(c, "type") == "Ready" && text(c, "status") == "True")
}

/// Whether a pod that isn't ready may go without being counted.
pub fn may_go_unready(pod: &Value, budget: &Value) -> bool {
    if is_ready(pod) {
        return false;
    }
    if text(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow" {
        return true;
    }
    let count = |field: &str| int(budget, &format!("status.{field}")).unwrap_or(0);
    count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy")
}

/// The budget with one disruption less, for this pod.
pub fn take_one(budget: &Value, pod: &str, now: Timestamp) -> Value {
    let mut taken = budget.clone();
    let left = int(budget, "status.disruptionsAllowed").unwrap_or(0) - 1;
    let generation = int(budget, "metadata.generation");
    let Some(status) = json::child(&mut taken, "status") else {
        return taken;
    };
    status["disruptionsAllowed"] = left.into();
    if let Some(pods) = json::child(status, "disruptedPods") {
        pods[pod] = time::format(now).into();
    }
    if left == 0 {
        set_condition(status, false, generation, now);
    }
    taken
}

/// The condition `DisruptionAllowed` of a budget's status.
pub fn set_condition(status: &mut Value, allowed: bool, generation: Option<i64>, now: Timestamp) {
    let (state, reason) = if allowed {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    json::default(status, "conditions", json!([]));
    let Some(conditions) = json::list_mut(status, "conditions") else {
        return;
    };
    let old = conditions
        .iter()
        .find(|c| text(c, "type") == "DisruptionAllowed" && text(c, "status") == state)
        .and_then(|c| c.get("lastTransitionTime").cloned());
    let condition = json!({
        "type": "DisruptionAllowed", "status": state, "reason": reason, "message": "",
        "observedGeneration": generation.unwrap_or(0),
        "lastTransitionTime": old.unwrap_or_else(|| time::format(now).into()),
    });
    match conditions
        .iter_mut()
        .find(|c| text(c, "type") == "DisruptionAllowed")
    {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, ready: &str) -> Value {
        json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn who_needs_a_budget() {
        assert!(needs_budget(&pod("Running", "True")));
        for phase in ["Pending", "Succeeded", "Failed"] {
            assert!(!needs_budget(&pod(phase, "False")), "{phase}");
        }
        let budget = |policy: &str, healthy: i64| {
            json!({
                "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": healthy, "desiredHealthy": 2},
            })
        };
        assert!(!may_go_unready(&pod("Running", "True"), &budget("", 5)));
        assert!(may_go_unready(&pod("Running", "False"), &budget("", 2)));
        assert!(!may_go_unready(&pod("Running", "False"), &budget("", 1)));
        assert!(may_go_unready(
            &pod("Running", "False"),
            &budget("AlwaysAllow", 0)
        ));
    }

    #[test]
    fn the_last_disruption_closes_the_budget() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let budget = json!({"metadata": {"generation": 3}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(
            take_one(&budget, "p", now)["status"],
            json!({
                "disruptionsAllowed": 0,
                "disruptedPods": {"p": "2026-01-01T00:00:00Z"},
                "conditions": [{
                    "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                    "message": "", "observedGeneration": 3,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            })
        );
    }
}
