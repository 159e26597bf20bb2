//! The node authorizer: a kubelet sees its Node, its Lease, the pods bound to it and what those
//! need. What it may write of that is the business of admission (`verbs::node_restriction`).
//! Source: Kubernetes `plugin/pkg/auth/authorizer/node`.

use std::sync::Arc;

use rhumb_api::json;
use rhumb_api::node_restriction::MIRROR;
use rhumb_api::rbac::Rule;
use rhumb_api::registry::{self, Kind};
use serde_json::Value;

use super::authorize::{Attributes, Lookup};
use crate::cache::{Cache, Collection};

/// `Err`: no opinion, and if there is a reason worth telling, that.
pub fn decide(
    node: &str,
    a: &Attributes<'_>,
    rules: &[Rule],
    lookup: &dyn Lookup,
) -> Result<(), Option<String>> {
    let no = |why: String| Err(Some(why));
    let related = || match lookup.node_uses(node, a.namespace, a.resource, a.name) {
        true => Ok(()),
        false => no(format!(
            "no relationship found between node '{node}' and this object"
        )),
    };
    let one = |what: &dyn Fn() -> Result<(), Option<String>>| match a.name {
        "" => no("No Object name found".into()),
        _ => what(),
    };
    let own_pod = || {
        let bound = lookup.node_of(a.namespace, a.name);
        match bound.as_deref() == Some(node) {
            true => Ok(()),
            false => no(format!(
                "no relationship found between node '{node}' and this object"
            )),
        }
    };
    match (a.group, a.resource) {
        ("", "secrets" | "configmaps") => match (a.verb, a.subresource) {
            ("get" | "list" | "watch", "") if a.namespace.is_empty() => {
                no("can only read namespaced object of this type".into())
            }
            ("get" | "list" | "watch", "") => one(&related),
            ("get" | "list" | "watch", _) => no("cannot read subresource".into()),
            _ => no("can only read resources of this type".into()),
        },
        ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
            "update" | "patch" => one(&related),
            _ => no("can only get/update/patch this type".into()),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes")
        | ("storage.k8s.io", "volumeattachments")
        | ("resource.k8s.io", "resourceclaims") => match (a.verb, a.subresource) {
            ("get", "") => one(&related),
            ("get", _) => no("cannot get subresource".into()),
            _ => no("can only get individual resources of this type".into()),
        },
        ("", "serviceaccounts") => match (a.verb, a.subresource) {
            ("create", "token") => one(&related),
            ("create", _) => no("can only create token subresource of serviceaccount".into()),
            _ => no("can only create tokens for individual service accounts".into()),
        },
        ("coordination.k8s.io", "leases") => match a.verb {
            _ if a.namespace != "kube-node-lease" => {
                no("can only access leases in the \"kube-node-lease\" system namespace".into())
            }
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if a.name == node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                no("can only access node lease with the same name as the requesting node".into())
            }
            _ => no("can only get, create, update, patch, or delete a node lease".into()),
        },
        ("storage.k8s.io", "csinodes") => match a.verb {
            _ if !a.subresource.is_empty() => no("cannot authorize CSINode subresources".into()),
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if a.name == node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                no("can only access CSINode with the same name as the requesting node".into())
            }
            _ => no("can only get, create, update, patch, or delete a CSINode".into()),
        },
        ("", "nodes") => match (a.verb, a.subresource) {
            ("create" | "update" | "patch", "") | ("update" | "patch", "status") => Ok(()),
            ("get" | "list" | "watch", "" | "status") if a.name == node => Ok(()),
            ("get" | "list" | "watch", "") if a.name.is_empty() => no(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            ("get" | "list" | "watch", "") => no(format!(
                "node '{node}' cannot read '{}', only its own Node object",
                a.name
            )),
            _ => Err(None),
        },
        ("", "pods") => match (a.verb, a.subresource) {
            ("get", "" | "status") => one(&own_pod),
            ("list" | "watch", "") if a.node_field == Some(node) => Ok(()),
            ("list" | "watch", "") if !a.name.is_empty() => own_pod(),
            ("list" | "watch", "") => {
                no("can only list/watch pods with spec.nodeName field selector".into())
            }
            ("create" | "delete", "") | ("update" | "patch", "status") | ("create", "eviction") => {
                Ok(())
            }
            _ => Err(None),
        },
        _ if rules.iter().any(|rule| rule.allows(&a.action())) => Ok(()),
        _ => Err(None),
    }
}

fn collection(cache: &Cache, group: &str, plural: &str) -> Option<Arc<Collection>> {
    let kind: &'static Arc<Kind> = registry::find(group, "v1", plural)?;
    cache.collection(kind)
}

impl Lookup for Cache {
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String> {
        let pod = collection(self, "", "pods")?.get(namespace, pod)?;
        let index = pod.index();
        let node = json::text(&index, "spec.nodeName");
        (!node.is_empty()).then(|| node.to_string())
    }

    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
        let object = |group: &str| {
            let found = collection(self, group, resource)?.get("", name)?;
            Some(found.value())
        };
        match resource {
            // A volume is needed with the claim that it is bound to.
            "persistentvolumes" => object("").is_some_and(|volume| {
                let claim = |field: &str| json::text(&volume, &format!("spec.claimRef.{field}"));
                let (namespace, name) = (claim("namespace"), claim("name"));
                !name.is_empty() && self.node_uses(node, namespace, "persistentvolumeclaims", name)
            }),
            "volumeattachments" => object("storage.k8s.io")
                .is_some_and(|attachment| json::text(&attachment, "spec.nodeName") == node),
            _ => {
                let Some(pods) = collection(self, "", "pods") else {
                    return false;
                };
                pods.list(namespace)
                    .iter()
                    .filter(|pod| json::text(&pod.index(), "spec.nodeName") == node)
                    .any(|pod| names(&pod.value(), resource, name))
            }
        }
    }
}

/// Whether the pod names the object in its spec.
pub fn names(pod: &Value, resource: &str, name: &str) -> bool {
    // A kubelet makes mirror pods itself, and could name anything in them.
    let mirror = json::map(pod, "metadata.annotations").is_some_and(|a| a.contains_key(MIRROR));
    !mirror && rhumb_api::pod::references(pod, resource).contains(&name)
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
