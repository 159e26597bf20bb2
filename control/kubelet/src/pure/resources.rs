//! Requests and limits as cgroup numbers, and the QoS class.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use super::quantity;

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// CFS period in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
/// The kernel refuses a smaller quota.
const MIN_QUOTA: i64 = 1000;

/// QoS class of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
}

fn limit<'a>(r: &'a ResourceRequirements, name: &str) -> Option<&'a str> {
    r.limits.as_ref()?.get(name).map(|q| q.0.as_str())
}

/// A request; a missing one is the limit, as the API's defaulting has it.
fn request<'a>(r: &'a ResourceRequirements, name: &str) -> Option<&'a str> {
    r.requests
        .as_ref()
        .and_then(|m| m.get(name))
        .map(|q| q.0.as_str())
        .or_else(|| limit(r, name))
}

/// The class by Kubernetes' rule: all containers with equal CPU and memory requests and limits are
/// Guaranteed; none with any is BestEffort; else Burstable.
pub fn qos(spec: &PodSpec) -> Qos {
    let mut any = false;
    let mut guaranteed = true;
    for c in all_containers(spec) {
        for name in ["cpu", "memory"] {
            let (req, lim) = match &c.resources {
                Some(r) => (
                    request(r, name)
                        .and_then(quantity::milli)
                        .filter(|v| *v > 0),
                    limit(r, name).and_then(quantity::milli).filter(|v| *v > 0),
                ),
                None => (None, None),
            };
            any |= req.is_some() || lim.is_some();
            guaranteed &= lim.is_some() && req == lim;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// `cpu.shares` for a request in thousandths of a CPU.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 {
        MIN_SHARES
    } else {
        (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
    }
}

/// CFS quota in microseconds per [`CPU_PERIOD`] for a limit in thousandths of a CPU; 0 is no limit.
pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 {
        0
    } else {
        (milli_cpu.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA)
    }
}

/// Cgroup v2 weight for v1 shares (kubelet's and runc's formula).
pub fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999) / 262_142
}

/// Cgroup numbers of one container or a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub shares: i64,
    /// 0 is no limit.
    pub quota: i64,
    /// Bytes; 0 is no limit.
    pub memory: i64,
}

/// Numbers of one container.
pub fn container_limits(c: &Container) -> Limits {
    let empty = ResourceRequirements::default();
    let r = c.resources.as_ref().unwrap_or(&empty);
    Limits {
        shares: shares(request(r, "cpu").and_then(quantity::milli).unwrap_or(0)),
        quota: quota(limit(r, "cpu").and_then(quantity::milli).unwrap_or(0)),
        memory: limit(r, "memory")
            .and_then(quantity::whole)
            .unwrap_or(0)
            .max(0),
    }
}

/// Numbers of the pod's own cgroup. A limit exists only if every container has one.
pub fn pod_limits(spec: &PodSpec) -> Limits {
    let value = |c: &Container, want_limit: bool, name: &str| -> Option<i64> {
        let r = c.resources.as_ref()?;
        let text = if want_limit {
            limit(r, name)
        } else {
            request(r, name)
        }?;
        if name == "cpu" {
            quantity::milli(text)
        } else {
            quantity::whole(text)
        }
    };
    // A pod needs the larger of: all its containers with all its sidecars; any one init container
    // with the sidecars that started before it.
    let total = |want_limit: bool, name: &str| -> Option<i64> {
        let mut complete = true;
        let mut get = |c: &Container| {
            let v = value(c, want_limit, name);
            complete &= v.is_some();
            v.unwrap_or(0)
        };
        let mut sidecars = 0i64;
        let mut init_peak = 0i64;
        for c in spec.init_containers.iter().flatten() {
            let v = get(c);
            if is_sidecar(c) {
                sidecars = sidecars.saturating_add(v);
                init_peak = init_peak.max(sidecars);
            } else {
                init_peak = init_peak.max(sidecars.saturating_add(v));
            }
        }
        let regular = spec
            .containers
            .iter()
            .fold(0i64, |sum, c| sum.saturating_add(get(c)));
        let sum = regular.saturating_add(sidecars).max(init_peak);
        (complete || !want_limit).then_some(sum)
    };
    Limits {
        shares: shares(total(false, "cpu").unwrap_or(0)),
        quota: quota(total(true, "cpu").unwrap_or(0)),
        memory: total(true, "memory").unwrap_or(0),
    }
}

/// Whether an init container is a native sidecar.
pub fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

/// The OOM score by QoS class, as Kubernetes computes it.
pub fn oom_score_adj(spec: &PodSpec, c: &Container, node_memory: i64) -> i64 {
    if matches!(
        spec.priority_class_name.as_deref(),
        Some("system-node-critical")
    ) {
        return -997;
    }
    match qos(spec) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let req = c
                .resources
                .as_ref()
                .and_then(|r| request(r, "memory"))
                .and_then(quantity::whole)
                .unwrap_or(0);
            let adj = 1000 - (1000i128 * i128::from(req) / i128::from(node_memory.max(1))) as i64;
            adj.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(v: serde_json::Value) -> PodSpec {
        serde_json::from_value(v).unwrap()
    }

    #[test]
    fn classes() {
        let none = spec(json!({"containers": [{"name": "a"}]}));
        assert_eq!(qos(&none), Qos::BestEffort);
        let full = spec(
            json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}),
        );
        assert_eq!(qos(&full), Qos::Guaranteed);
        let less = spec(json!({"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}}}]}));
        assert_eq!(qos(&less), Qos::Burstable);
        let second = spec(json!({"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]}));
        assert_eq!(qos(&second), Qos::Burstable);
        let init = spec(
            json!({"initContainers": [{"name": "i", "resources": {"requests": {"memory": "1"}}}],
            "containers": [{"name": "a"}]}),
        );
        assert_eq!(qos(&init), Qos::Burstable);
    }

    #[test]
    fn numbers() {
        assert_eq!(shares(0), 2);
        assert_eq!(shares(500), 512);
        assert_eq!(shares(i64::MAX), 262_144);
        assert_eq!(quota(0), 0);
        assert_eq!(quota(1), 1000);
        assert_eq!(quota(1500), 150_000);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }

    #[test]
    fn a_pod_limit_needs_every_container() {
        let s = spec(json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}}}]}));
        assert_eq!(
            pod_limits(&s),
            Limits {
                shares: shares(300),
                quota: 0,
                memory: 128 << 20
            }
        );
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let s = spec(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"limits": {"cpu": "100m"}}},
                {"name": "big", "resources": {"limits": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "300m"}}}]}));
        assert_eq!(pod_limits(&s).quota, quota(2100));
    }

    #[test]
    fn oom_scores() {
        let s = spec(
            json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "4Gi"}}}]}),
        );
        assert_eq!(oom_score_adj(&s, &s.containers[0], 16 << 30), 750);
        let s = spec(json!({"containers": [{"name": "a"}]}));
        assert_eq!(oom_score_adj(&s, &s.containers[0], 16 << 30), 1000);
    }
}
