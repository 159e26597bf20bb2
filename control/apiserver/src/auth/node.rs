//! The node rule: a kubelet sees its Node, its Lease, the pods bound to it and what those name.

use std::sync::Arc;

use rhumb_api::json;
use rhumb_api::registry::{self, Kind};
use serde_json::Value;

use super::authorize::{Attributes, Lookup};
use crate::cache::Cache;

pub fn allowed(node: &str, a: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    let one = matches!(a.verb, "get" | "patch" | "update");
    let collection = matches!(a.verb, "list" | "watch");
    match (a.group, a.resource, a.subresource) {
        ("", "nodes", "") => {
            a.verb == "create"
                || (one && a.name == node)
                || (collection && a.name_field == Some(node))
        }
        ("", "nodes", "status") => one && a.name == node,
        ("coordination.k8s.io", "leases", "") => {
            a.namespace == "kube-node-lease"
                && (a.verb == "create" || ((one || a.verb == "delete") && a.name == node))
        }
        ("", "pods", "") => {
            (collection && a.node_field == Some(node))
                || (matches!(a.verb, "get" | "delete") && on_node(node, a, lookup))
        }
        ("", "pods", "status") => one && on_node(node, a, lookup),
        ("", "configmaps" | "secrets", "") => {
            let name = match a.verb {
                "get" => a.name,
                "list" | "watch" => a.name_field.unwrap_or(""),
                _ => "",
            };
            !name.is_empty() && lookup.node_uses(node, a.namespace, a.resource, name)
        }
        ("", "serviceaccounts", "token") => {
            a.verb == "create" && lookup.node_uses(node, a.namespace, a.resource, a.name)
        }
        // Their addresses and ports go into the environment of pods.
        ("", "services", "") => a.verb == "get" || collection,
        ("" | "events.k8s.io", "events", "") => matches!(a.verb, "create" | "patch" | "update"),
        _ => false,
    }
}

fn on_node(node: &str, a: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    !a.name.is_empty() && lookup.node_of(a.namespace, a.name).as_deref() == Some(node)
}

fn pods() -> Option<&'static Arc<Kind>> {
    registry::find("", "v1", "pods")
}

impl Lookup for Cache {
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String> {
        let pod = self.collection(pods()?)?.get(namespace, pod)?;
        let index = pod.index();
        let node = json::text(&index, "spec.nodeName");
        (!node.is_empty()).then(|| node.to_string())
    }

    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
        let Some(pods) = pods().and_then(|kind| self.collection(kind)) else {
            return false;
        };
        pods.list(namespace)
            .iter()
            .filter(|pod| json::text(&pod.index(), "spec.nodeName") == node)
            .any(|pod| names(&pod.value(), resource, name))
    }
}

/// Whether the pod names the object in its spec.
fn names(pod: &Value, resource: &str, name: &str) -> bool {
    let is = |value: &Value, path: &str| json::text(value, path) == name;
    if resource == "serviceaccounts" {
        return is(pod, "spec.serviceAccountName");
    }
    let (volume, source, from, key) = match resource {
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
        _ => return false,
    };
    let key = format!("valueFrom.{key}.name");
    let in_volumes = json::list(pod, "spec.volumes").iter().any(|v| {
        is(v, volume)
            || json::list(v, "projected.sources")
                .iter()
                .any(|s| is(s, source))
    });
    let containers = [
        "spec.containers",
        "spec.initContainers",
        "spec.ephemeralContainers",
    ];
    let in_containers = containers
        .iter()
        .flat_map(|path| json::list(pod, path))
        .any(|c| {
            json::list(c, "envFrom").iter().any(|e| is(e, from))
                || json::list(c, "env").iter().any(|e| is(e, &key))
        });
    let pulls = resource == "secrets"
        && json::list(pod, "spec.imagePullSecrets")
            .iter()
            .any(|s| is(s, "name"));
    in_volumes || in_containers || pulls
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_name_an_object() {
        let pod = json!({"spec": {
            "serviceAccountName": "sa",
            "volumes": [
                {"name": "a", "configMap": {"name": "cm-volume"}},
                {"name": "b", "secret": {"secretName": "s-volume"}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "cm-projected"}}, {"secret": {"name": "s-projected"}}]}}],
            "containers": [{"env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm-env"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s-env"}}}]}],
            "initContainers": [{"envFrom": [
                {"configMapRef": {"name": "cm-from"}}, {"secretRef": {"name": "s-from"}}]}],
            "imagePullSecrets": [{"name": "s-pull"}]}});
        for name in ["cm-volume", "cm-projected", "cm-env", "cm-from"] {
            assert!(names(&pod, "configmaps", name), "{name}");
            assert!(!names(&pod, "secrets", name), "{name}");
        }
        for name in ["s-volume", "s-projected", "s-env", "s-from", "s-pull"] {
            assert!(names(&pod, "secrets", name), "{name}");
            assert!(!names(&pod, "configmaps", name), "{name}");
        }
        assert!(names(&pod, "serviceaccounts", "sa"));
        assert!(!names(&pod, "serviceaccounts", ""));
        assert!(!names(&pod, "secrets", "sa"));
    }
}
