//! The status of a disruption budget: pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};

use crate::{deployment::rolling::amount, pod};

const CONDITION: &str = "DisruptionAllowed";
/// An eviction whose pod is still there after this long didn't happen.
const PATIENCE: i64 = 120;

/// How many pods there should be, and how many of them must be healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub pods: i32,
    pub healthy: i32,
}

/// Whether the number of pods that should be there has to be known.
pub fn needs_scales(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// `pods` are those that are selected, `scales` what their controllers are scaled to.
pub fn expected(spec: &PodDisruptionBudgetSpec, pods: usize, scales: i32) -> Expected {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => Expected {
            pods: scales,
            healthy: (scales - amount(max, scales, true)).max(0),
        },
        (None, Some(IntOrString::Int(min))) => Expected {
            pods: i32::try_from(pods).unwrap_or(i32::MAX),
            healthy: *min,
        },
        (None, Some(min)) => Expected {
            pods: scales,
            healthy: amount(min, scales, true),
        },
        (None, None) => Expected {
            pods: i32::try_from(pods).unwrap_or(i32::MAX),
            healthy: 0,
        },
    }
}

/// A status, when to look again, and the pods that were evicted and didn't go.
#[derive(Debug)]
pub struct Found {
    pub status: PodDisruptionBudgetStatus,
    pub wait: Option<Duration>,
    pub overdue: Vec<Arc<Pod>>,
}

pub fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    now: Timestamp,
) -> Found {
    let old = budget.status.clone().unwrap_or_default();
    let (mut disrupted, mut overdue) = (BTreeMap::new(), Vec::new());
    let mut wait: Option<i64> = None;
    for (name, time) in old.disrupted_pods.iter().flatten() {
        let there = pods.iter().find(|p| p.metadata.name.as_ref() == Some(name));
        // Gone, or going: it is not counted any more.
        let Some(p) = there.filter(|p| !pod::is_terminating(p)) else {
            continue;
        };
        let left = time.0.as_second() + PATIENCE - now.as_second();
        if left <= 0 {
            overdue.push(p.clone());
            continue;
        }
        wait = Some(wait.map_or(left, |w| w.min(left)));
        disrupted.insert(name.clone(), time.clone());
    }
    let healthy = pods
        .iter()
        .filter(|p| {
            let name = p.metadata.name.as_deref().unwrap_or_default();
            !pod::is_terminating(p) && !disrupted.contains_key(name) && pod::is_ready(p)
        })
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let allowed = match expected.pods > 0 {
        true => (healthy - expected.healthy).max(0),
        false => 0,
    };
    let reason = match allowed > 0 {
        true => "SufficientPods",
        false => "InsufficientPods",
    };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, allowed > 0, reason, "", now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        expected_pods: Some(expected.pods),
        observed_generation: budget.metadata.generation,
    };
    Found {
        status,
        wait: wait.map(|s| Duration::from_secs(s.unsigned_abs())),
        overdue,
    }
}

/// The status while nobody knows how many pods there should be: nothing may be evicted.
pub fn closed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, false, "SyncFailed", why, now)),
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        ..old
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = budget
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let state = if allowed { "True" } else { "False" };
    let old = all.iter().find(|c| c.type_ == CONDITION);
    let since = old
        .filter(|c| c.status == state)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION.into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    };
    match all.iter_mut().find(|c| c.type_ == CONDITION) {
        Some(slot) => *slot = condition,
        None => all.push(condition),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn spec(spec: Value) -> PodDisruptionBudgetSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_must_stay() {
        let of = |s: Value, pods: usize, scales: i32| {
            let e = expected(&spec(s), pods, scales);
            (e.pods, e.healthy)
        };
        assert_eq!(of(json!({"minAvailable": 2}), 3, 0), (3, 2));
        assert_eq!(of(json!({"minAvailable": "50%"}), 3, 5), (5, 3));
        assert_eq!(of(json!({"maxUnavailable": 1}), 3, 5), (5, 4));
        assert_eq!(of(json!({"maxUnavailable": "30%"}), 3, 5), (5, 3));
        assert_eq!(of(json!({"maxUnavailable": 9}), 3, 5), (5, 0));
        assert!(!needs_scales(&spec(json!({"minAvailable": 2}))));
        assert!(needs_scales(&spec(json!({"minAvailable": "2%"}))));
        assert!(needs_scales(&spec(json!({"maxUnavailable": 2}))));
    }

    fn pod(name: &str, ready: bool, going: bool) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }},
            ]},
        });
        if going {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z".into();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn budget(disrupted: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": "b", "generation": 4},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0,
                       "expectedPods": 0, "disruptedPods": disrupted},
        }))
        .unwrap()
    }

    #[test]
    fn pods_that_are_evicted_do_not_count_until_they_fail_to_go() {
        let pods = [
            pod("a", true, false),
            pod("b", true, false),
            pod("c", true, true),
            pod("d", false, false),
            pod("e", true, false),
        ];
        let wanted = Expected {
            pods: 5,
            healthy: 1,
        };
        let budget = budget(json!({
            "b": "2026-01-01T00:59:50Z", "c": "2026-01-01T00:59:50Z",
            "e": "2026-01-01T00:50:00Z", "gone": "2026-01-01T00:59:50Z",
        }));
        let found = status(&budget, &pods, wanted, now());
        let status = &found.status;
        assert_eq!(status.current_healthy, Some(2), "a and e");
        assert_eq!(status.disruptions_allowed, Some(1));
        assert_eq!(status.observed_generation, Some(4));
        let kept: Vec<&String> = status.disrupted_pods.as_ref().unwrap().keys().collect();
        assert_eq!(kept, ["b"]);
        assert_eq!(found.wait, Some(Duration::from_secs(110)));
        assert_eq!(found.overdue[0].metadata.name.as_deref(), Some("e"));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("True", "SufficientPods")
        );
    }

    #[test]
    fn nothing_is_allowed_where_nothing_is_expected_or_known() {
        let none = Expected {
            pods: 0,
            healthy: 0,
        };
        let pods = [pod("a", true, false)];
        let found = status(&budget(json!({})), &pods, none, now());
        assert_eq!(found.status.disruptions_allowed, Some(0));
        assert_eq!(
            found.status.conditions.as_ref().unwrap()[0].reason,
            "InsufficientPods"
        );
        let closed = closed(&budget(json!({})), "no idea", now());
        let condition = &closed.conditions.unwrap()[0];
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("SyncFailed", "no idea")
        );
    }
}
