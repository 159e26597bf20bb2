//! Downward API: pod fields and container resources as text.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;

use super::quantity;

/// Values that the pod object doesn't hold yet when a container starts.
#[derive(Debug, Clone, Default)]
pub struct LiveFields {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
}

/// The node's allocatable amounts: what a missing limit means.
#[derive(Debug, Clone, Default)]
pub struct Allocatable {
    pub cpu: String,
    pub memory: String,
    pub ephemeral_storage: String,
}

fn quoted(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={v:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `metadata.labels['key']` as ("metadata.labels", "key").
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key
        .strip_prefix('\'')
        .and_then(|k| k.strip_suffix('\''))
        .or_else(|| key.strip_prefix('"').and_then(|k| k.strip_suffix('"')))?;
    Some((field, key))
}

/// The text of a `fieldRef`; `None` for a path that the downward API doesn't have.
pub fn field(pod: &Pod, live: &LiveFields, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    if let Some((field, key)) = subscript(path) {
        let map = match field {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return None,
        };
        return Some(
            map.as_ref()
                .and_then(|m| m.get(key))
                .cloned()
                .unwrap_or_default(),
        );
    }
    let spec = pod.spec.as_ref();
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(quoted(meta.labels.as_ref())),
        "metadata.annotations" => Some(quoted(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()),
        "status.podIP" => live.pod_ips.first().cloned(),
        "status.podIPs" => Some(live.pod_ips.join(",")),
        "status.hostIP" => live.host_ips.first().cloned(),
        "status.hostIPs" => Some(live.host_ips.join(",")),
        _ => return None,
    };
    Some(text.unwrap_or_default())
}

/// The text of a `resourceFieldRef` for a container; an error says why there is none.
pub fn resource(
    c: &Container,
    node: &Allocatable,
    sel: &ResourceFieldSelector,
) -> Result<String, String> {
    let (kind, name) = sel
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported resource {:?}", sel.resource))?;
    let r = c.resources.as_ref();
    let limits = r.and_then(|r| r.limits.as_ref());
    let requests = r.and_then(|r| r.requests.as_ref());
    let value = match kind {
        "limits" => limits.and_then(|m| m.get(name)),
        "requests" => requests
            .and_then(|m| m.get(name))
            .or_else(|| limits.and_then(|m| m.get(name))),
        _ => return Err(format!("unsupported resource {:?}", sel.resource)),
    };
    let value = match (value, kind, name) {
        (Some(q), _, "cpu" | "memory" | "ephemeral-storage") => q.0.as_str(),
        (None, "limits", "cpu") => node.cpu.as_str(),
        (None, "limits", "memory") => node.memory.as_str(),
        (None, "limits", "ephemeral-storage") => node.ephemeral_storage.as_str(),
        (None, "requests", "cpu" | "memory" | "ephemeral-storage") => "0",
        _ => return Err(format!("unsupported resource {:?}", sel.resource)),
    };
    let divisor = sel.divisor.as_ref().map_or("1", |q| q.0.as_str());
    quantity::divided(value, divisor)
        .map(|v| v.to_string())
        .ok_or_else(|| {
            format!(
                "cannot divide {value:?} by {divisor:?} for {:?}",
                sel.resource
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "x", "b.c/d": "q\"q"}},
            "spec": {"containers": [], "nodeName": "node1", "serviceAccountName": "sa"}}))
        .unwrap();
        let live = LiveFields {
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            host_ips: vec!["1.1.1.1".into()],
        };
        for (path, want) in [
            ("metadata.name", Some("p")),
            ("metadata.labels['a']", Some("x")),
            ("metadata.labels['b.c/d']", Some("q\"q")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("a=\"x\"\nb.c/d=\"q\\\"q\"")),
            ("spec.nodeName", Some("node1")),
            ("status.podIP", Some("10.0.0.1")),
            ("status.podIPs", Some("10.0.0.1,fd00::1")),
            ("status.hostIP", Some("1.1.1.1")),
            ("status.phase", None),
            ("spec.labels['a']", None),
        ] {
            assert_eq!(field(&pod, &live, path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn resources_fall_back_to_the_node() {
        let c: Container = serde_json::from_value(
            json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}}}),
        )
        .unwrap();
        let node = Allocatable {
            cpu: "2".into(),
            memory: "16Gi".into(),
            ephemeral_storage: "1Gi".into(),
        };
        let get = |resource: &str, divisor: &str| {
            let sel =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            super::resource(&c, &node, &sel)
        };
        assert_eq!(get("limits.memory", "1Mi").unwrap(), "64");
        assert_eq!(get("requests.memory", "1Mi").unwrap(), "64");
        assert_eq!(get("limits.cpu", "0").unwrap(), "2");
        assert_eq!(get("requests.cpu", "1").unwrap(), "0");
        assert!(get("limits.gpu", "1").is_err());
    }
}
