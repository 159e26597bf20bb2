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

/// The names of the objects of a kind that a pod's spec refers to.
pub fn references<'a>(pod: &'a Value, resource: &str) -> Vec<&'a str> {
    let mut out = Vec::new();
    let (volume, source, from, key) = match resource {
        "serviceaccounts" => {
            out.push(text(pod, "spec.serviceAccountName"));
            out.retain(|name| !name.is_empty());
            return out;
        }
        "persistentvolumeclaims" => return claims(pod),
        "configmaps" => (
            "configMap.name",
            "configMap.name",
            "configMapRef.name",
            "configMapKeyRef",
        ),
        "secrets" => (
            "secret.secretName",
            "secret.name",
            "secretRef.name",
            "secretKeyRef",
        ),
        _ => return out,
    };
    let key = format!("valueFrom.{key}.name");
    for entry in list(pod, "spec.volumes") {
        out.push(text(entry, volume));
        let sources = list(entry, "projected.sources");
        out.extend(sources.iter().map(|s| text(s, source)));
    }
    let containers = [
        "spec.containers",
        "spec.initContainers",
        "spec.ephemeralContainers",
    ];
    for container in containers.iter().flat_map(|path| list(pod, path)) {
        let envs = list(container, "envFrom").iter();
        out.extend(envs.map(|e| text(e, from)));
        let envs = list(container, "env").iter();
        out.extend(envs.map(|e| text(e, &key)));
    }
    if resource == "secrets" {
        let pulls = list(pod, "spec.imagePullSecrets").iter();
        out.extend(pulls.map(|s| text(s, "name")));
    }
    out.retain(|name| !name.is_empty());
    out
}

fn claims(pod: &Value) -> Vec<&str> {
    let volumes = list(pod, "spec.volumes").iter();
    volumes
        .map(|v| text(v, "persistentVolumeClaim.claimName"))
        .filter(|name| !name.is_empty())
        .collect()
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
