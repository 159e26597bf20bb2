//! What a kubelet may write of what it may reach: its own Node without taints and foreign labels,
//! the pods bound to it, mirror pods that refer to nothing, its own lease.
//! Source: Kubernetes `plugin/pkg/admission/noderestriction`. Each check returns the reason of a
//! refusal, as it stands after `… is forbidden: `.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::{at, flag, list, map, text};

type Verdict = Result<(), String>;

const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' namespaces that kubelets set.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
];
const OWN_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a label's namespace is the given one, or below it.
fn within(namespace: &str, root: &str) -> bool {
    namespace
        .strip_suffix(root)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    if within(namespace, RESTRICTED) {
        return true;
    }
    let kubernetes = within(namespace, "kubernetes.io") || within(namespace, "k8s.io");
    let own = OWN_LABELS.contains(&label) || OWN_NAMESPACES.iter().any(|o| within(namespace, o));
    kubernetes && !own
}

/// Labels that differ, and that are not the kubelet's to change.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let labels = |object| map(object, "metadata.labels");
    let of = |object, key: &str| labels(object).and_then(|l| l.get(key));
    let keys: BTreeSet<&String> = [new, old]
        .into_iter()
        .filter_map(labels)
        .flat_map(|l| l.keys())
        .collect();
    let changed: Vec<&str> = keys
        .into_iter()
        .filter(|key| of(new, key) != of(old, key))
        .filter(|key| is_forbidden(key))
        .map(String::as_str)
        .collect();
    changed.join(", ")
}

/// A Node, or its status: `old` is `None` for a create.
pub fn node(kubelet: &str, new: &Value, old: Option<&Value>) -> Verdict {
    let name = text(old.unwrap_or(new), "metadata.name");
    if name != kubelet {
        return Err(format!(
            "node {kubelet:?} is not allowed to modify node {name:?}"
        ));
    }
    let source = |node| at(node, "spec.configSource");
    let Some(old) = old else {
        if source(new).is_some() {
            return Err(format!(
                "node {kubelet:?} is not allowed to create pods with a non-nil configSource"
            ));
        }
        return match forbidden_labels(new, &Value::Null).as_str() {
            "" => Ok(()),
            labels => Err(format!(
                "node {kubelet:?} is not allowed to set the following labels: {labels}"
            )),
        };
    };
    if source(new).is_some() && source(new) != source(old) {
        return Err(format!(
            "node {kubelet:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if list(new, "spec.taints") != list(old, "spec.taints") {
        return Err(format!("node {kubelet:?} is not allowed to modify taints"));
    }
    if list(new, "metadata.ownerReferences") != list(old, "metadata.ownerReferences") {
        return Err(format!(
            "node {kubelet:?} is not allowed to modify ownerReferences"
        ));
    }
    match forbidden_labels(new, old).as_str() {
        "" => Ok(()),
        labels => Err(format!("is not allowed to modify labels: {labels}")),
    }
}

/// The delete of a Node.
pub fn node_delete(kubelet: &str, name: &str) -> Verdict {
    match name == kubelet {
        true => Ok(()),
        false => Err(format!(
            "node {kubelet:?} is not allowed to modify node {name:?}"
        )),
    }
}

pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// A new pod, before admission adds to it. `node_uid` is that of the kubelet's Node, if there is one.
pub fn pod_create(kubelet: &str, pod: &Value, node_uid: Option<&str>) -> Verdict {
    let only = |what: &str| Err(format!("node {kubelet:?} can only create pods with {what}"));
    let no_reference = |what: &str| {
        Err(format!(
            "node {kubelet:?} can not create pods that reference {what}"
        ))
    };
    if !map(pod, "metadata.annotations").is_some_and(|a| a.contains_key(MIRROR)) {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {kubelet:?} can only create mirror pods"
        ));
    }
    if text(pod, "spec.nodeName") != kubelet {
        return only("spec.nodeName set to itself");
    }
    let own = "an owner reference set to itself";
    let owner = match list(pod, "metadata.ownerReferences") {
        [] => return only(own),
        [one] => one,
        _ => return only("a single owner reference set to itself"),
    };
    if (text(owner, "apiVersion"), text(owner, "kind")) != ("v1", "Node")
        || text(owner, "name") != kubelet
    {
        return only(own);
    }
    if !flag(owner, "controller") {
        return only("a controller owner reference set to itself");
    }
    if flag(owner, "blockOwnerDeletion") {
        return Err(format!(
            "node {kubelet:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let Some(uid) = node_uid else {
        return Err(format!(
            "error looking up node {kubelet} to verify uid: node {kubelet:?} not found"
        ));
    };
    if text(owner, "uid") != uid {
        return Err(format!(
            "node {kubelet} UID mismatch: expected {} got {uid}",
            text(owner, "uid")
        ));
    }
    if !text(pod, "spec.serviceAccountName").is_empty() {
        return no_reference("a service account");
    }
    for (resource, what) in [
        ("secrets", "secrets"),
        ("configmaps", "configmaps"),
        ("persistentvolumeclaims", "persistentvolumeclaims"),
    ] {
        if !crate::pod::references(pod, resource).is_empty() {
            return no_reference(what);
        }
    }
    let bundles = list(pod, "spec.volumes")
        .iter()
        .flat_map(|v| list(v, "projected.sources"))
        .any(|source| at(source, "clusterTrustBundle").is_some());
    if bundles {
        return no_reference("clustertrustbundles");
    }
    Ok(())
}

/// An update of a pod that is no update of its status.
pub fn pod_update(kubelet: &str) -> Verdict {
    Err(format!(
        "unexpected operation \"UPDATE\", node {kubelet:?} can only create and delete mirror pods"
    ))
}

/// An update of a part of a pod that isn't its status.
pub fn pod_subresource(name: &str) -> Verdict {
    Err(format!(
        "unexpected pod subresource {name:?}, only 'status' and 'eviction' are allowed"
    ))
}

pub fn pod_delete(kubelet: &str, pod: &Value) -> Verdict {
    match text(pod, "spec.nodeName") == kubelet {
        true => Ok(()),
        false => Err(format!(
            "node {kubelet:?} can only delete pods with spec.nodeName set to itself"
        )),
    }
}

pub fn pod_evict(kubelet: &str, pod: &Value) -> Verdict {
    match text(pod, "spec.nodeName") == kubelet {
        true => Ok(()),
        false => Err(format!(
            "node {kubelet} can only evict pods with spec.nodeName set to itself"
        )),
    }
}

pub fn pod_status(kubelet: &str, new: &Value, old: &Value) -> Verdict {
    if text(old, "spec.nodeName") != kubelet {
        return Err(format!(
            "node {kubelet:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if at(new, "metadata.labels") != at(old, "metadata.labels") {
        return Err(format!(
            "node {kubelet:?} cannot update labels through pod status"
        ));
    }
    let claims = "status.resourceClaimStatuses";
    if list(new, claims) != list(old, claims) {
        return Err(format!(
            "node {kubelet:?} cannot update resource claim statues"
        ));
    }
    Ok(())
}

pub fn lease(kubelet: &str, namespace: &str, name: &str) -> Verdict {
    if namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    match name == kubelet {
        true => Ok(()),
        false => Err("can only access node lease with the same name as the requesting node".into()),
    }
}

pub fn csi_node(kubelet: &str, name: &str) -> Verdict {
    match name == kubelet {
        true => Ok(()),
        false => Err("can only access CSINode with the same name as the requesting node".into()),
    }
}

/// The status of a claim: its capacity and conditions, and nothing else.
pub fn claim_status(kubelet: &str, new: &Value, old: &Value) -> Verdict {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(status) = crate::json::child(&mut claim, "status") {
            for field in [
                "capacity",
                "conditions",
                "allocatedResources",
                "allocatedResourceStatuses",
            ] {
                crate::json::remove(status, field);
            }
        }
        if let Some(metadata) = crate::json::child(&mut claim, "metadata") {
            crate::json::remove(metadata, "managedFields");
        }
        claim
    };
    match rest(new) == rest(old) {
        true => Ok(()),
        false => Err(format!(
            "node {kubelet:?} is not allowed to update fields other than status.capacity and status.conditions"
        )),
    }
}

/// A TokenRequest. `bound` is the pod that it names, if that is there.
/// The audience of the API itself, and the issuer of its tokens.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

pub fn token(kubelet: &str, request: &Value, bound: Option<&Value>) -> Verdict {
    let of = |field: &str| text(request, &format!("spec.boundObjectRef.{field}"));
    if (of("apiVersion"), of("kind")) != ("v1", "Pod") || of("name").is_empty() {
        return Err("node requested token not bound to a pod".into());
    }
    if of("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = bound else {
        return Err(format!("pod {:?} not found", of("name")));
    };
    if text(pod, "metadata.uid") != of("uid") {
        return Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            of("uid")
        ));
    }
    if text(pod, "spec.nodeName") != kubelet {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    let projected: Vec<&str> = list(pod, "spec.volumes")
        .iter()
        .flat_map(|volume| list(volume, "projected.sources"))
        .map(|source| text(source, "serviceAccountToken.audience"))
        .collect();
    for audience in list(request, "spec.audiences")
        .iter()
        .filter_map(Value::as_str)
    {
        if audience != API_AUDIENCE && !audience.is_empty() && !projected.contains(&audience) {
            return Err(format!(
                "audience {audience:?} not found in pod spec volume, {kubelet} is not authorized to request tokens for this audience"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels() {
        for (label, forbidden) in [
            ("app", false),
            ("example.com/x", false),
            ("kubernetes.io/hostname", false),
            ("kubernetes.io/other", true),
            ("topology.kubernetes.io/zone", false),
            ("topology.kubernetes.io/rack", true),
            ("node.kubernetes.io/anything", false),
            ("sub.kubelet.kubernetes.io/x", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/pci", true),
            ("sub.node-restriction.kubernetes.io/pci", true),
            ("x.k8s.io/y", true),
            ("notkubernetes.io/y", false),
        ] {
            assert_eq!(is_forbidden(label), forbidden, "{label}");
        }
    }

    #[test]
    fn nodes() {
        let of = |name: &str, labels: Value, taints: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        let old = of(
            "n",
            json!({"a": "b", "node-role.kubernetes.io/x": ""}),
            json!([]),
        );
        // A create may bring taints, a change may not touch them.
        let born = of(
            "n",
            json!({"kubernetes.io/os": "linux"}),
            json!([{"key": "t"}]),
        );
        assert_eq!(node("n", &born, None), Ok(()));
        assert_eq!(
            node("m", &born, None).unwrap_err(),
            "node \"m\" is not allowed to modify node \"n\""
        );
        assert_eq!(
            node("n", &old, None).unwrap_err(),
            "node \"n\" is not allowed to set the following labels: node-role.kubernetes.io/x"
        );
        assert_eq!(node("n", &old, Some(&old)), Ok(()));
        let mut new = old.clone();
        new["metadata"]["labels"]["a"] = "c".into();
        assert_eq!(node("n", &new, Some(&old)), Ok(()));
        let new = of("n", json!({}), json!([]));
        assert_eq!(
            node("n", &new, Some(&old)).unwrap_err(),
            "is not allowed to modify labels: node-role.kubernetes.io/x"
        );
        let mut new = old.clone();
        new["spec"]["taints"] = json!([{"key": "t"}]);
        assert_eq!(
            node("n", &new, Some(&old)).unwrap_err(),
            "node \"n\" is not allowed to modify taints"
        );
        assert!(node_delete("n", "m").is_err());
    }

    fn mirror() -> Value {
        json!({"metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]}})
    }

    #[test]
    fn mirror_pods() {
        assert_eq!(pod_create("n", &mirror(), Some("u")), Ok(()));
        type Change = fn(&mut Value);
        let table: &[(Change, &str)] = &[
            (
                |p| p["metadata"]["annotations"] = json!({}),
                "can only create mirror pods",
            ),
            (
                |p| p["spec"]["nodeName"] = "m".into(),
                "spec.nodeName set to itself",
            ),
            (
                |p| p["metadata"]["ownerReferences"] = json!([]),
                "an owner reference set to itself",
            ),
            (
                |p| p["metadata"]["ownerReferences"][0]["controller"] = false.into(),
                "a controller owner",
            ),
            (
                |p| p["metadata"]["ownerReferences"][0]["uid"] = "v".into(),
                "UID mismatch: expected v got u",
            ),
            (
                |p| p["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into(),
                "blockOwnerDeletion",
            ),
            (
                |p| p["spec"]["serviceAccountName"] = "x".into(),
                "reference a service account",
            ),
            (
                |p| p["spec"]["volumes"] = json!([{"secret": {"secretName": "s"}}]),
                "reference secrets",
            ),
            (
                |p| {
                    p["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "s"}}])
                },
                "reference configmaps",
            ),
            (
                |p| p["spec"]["volumes"] = json!([{"persistentVolumeClaim": {"claimName": "s"}}]),
                "reference persistentvolumeclaims",
            ),
        ];
        for (change, why) in table {
            let mut pod = mirror();
            change(&mut pod);
            let error = pod_create("n", &pod, Some("u")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(pod_create("n", &mirror(), None).is_err());
    }

    #[test]
    fn pods_leases_and_tokens() {
        let pod =
            json!({"metadata": {"uid": "u", "labels": {"a": "b"}}, "spec": {"nodeName": "n"}});
        assert_eq!(pod_status("n", &pod, &pod), Ok(()));
        assert!(pod_status("m", &pod, &pod).is_err());
        let mut new = pod.clone();
        new["metadata"]["labels"]["a"] = "c".into();
        assert!(pod_status("n", &new, &pod).is_err());
        assert_eq!(pod_delete("n", &pod), Ok(()));
        assert!(pod_delete("m", &pod).is_err() && pod_evict("m", &pod).is_err());
        assert!(pod_update("n").is_err());
        assert_eq!(lease("n", "kube-node-lease", "n"), Ok(()));
        assert!(lease("n", "kube-node-lease", "m").is_err());
        assert!(lease("n", "default", "n").is_err());
        let ask = |uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}});
        assert_eq!(token("n", &ask("u"), Some(&pod)), Ok(()));
        assert!(token("n", &ask(""), Some(&pod)).is_err());
        assert!(token("n", &ask("v"), Some(&pod)).is_err());
        assert!(token("m", &ask("u"), Some(&pod)).is_err());
        assert!(token("n", &ask("u"), None).is_err());
        assert!(token("n", &json!({"spec": {}}), None).is_err());
        // Tokens for others than the API only where the pod mounts one.
        let to = |audience: &str| {
            let mut asked = ask("u");
            asked["spec"]["audiences"] = json!([audience]);
            asked
        };
        assert_eq!(token("n", &to(API_AUDIENCE), Some(&pod)), Ok(()));
        assert!(token("n", &to("vault"), Some(&pod)).is_err());
        let mut mounts = pod.clone();
        mounts["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]);
        assert_eq!(token("n", &to("vault"), Some(&mounts)), Ok(()));
    }

    #[test]
    fn claims() {
        let old = json!({"metadata": {"name": "c"}, "status": {"phase": "Bound"}});
        let mut new = old.clone();
        new["status"]["capacity"] = json!({"storage": "1Gi"});
        assert_eq!(claim_status("n", &new, &old), Ok(()));
        new["status"]["phase"] = "Lost".into();
        assert!(claim_status("n", &new, &old).is_err());
    }
}
