//! Facts about pods that several parts need: QoS class, containers, resources.

use serde_json::Value;

use crate::json::{self, list, text};
use crate::quantity::Quantity;

/// Containers of a pod spec, the init containers first.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(spec, "initContainers")
        .iter()
        .chain(list(spec, "containers"))
}

/// A parsed quantity of a resource list; `None` if absent or malformed.
pub fn resource(container: &Value, list: &str, name: &str) -> Option<Quantity> {
    let value = container.get("resources")?.get(list)?.get(name)?;
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`. Source: `pkg/apis/core/helper/qos`.
pub fn qos_class(pod: &Value) -> &'static str {
    let Some(spec) = json::at(pod, "spec") else {
        return "BestEffort";
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in all_containers(spec) {
        for name in ["cpu", "memory"] {
            let positive =
                |which| resource(container, which, name).filter(|q: &Quantity| !q.is_zero());
            let (request, limit) = (positive("requests"), positive("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some()
                && request.unwrap_or(Quantity::ZERO) == limit.unwrap_or(Quantity::ZERO);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether an init container is a sidecar (restarts always).
pub fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn qos() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(
            qos_class(&pod(json!({"requests": {"cpu": "1"}}))),
            "Burstable"
        );
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            qos_class(&pod(json!({"limits": both, "requests": both}))),
            "Guaranteed"
        );
        assert_eq!(
            qos_class(&pod(
                json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}})
            )),
            "Burstable"
        );
    }
}
