//! Which nodes a DaemonSet's pods run on, and the pod for one of them: pure.
//! Source: Kubernetes `NodeShouldRunDaemonPod` and `pkg/controller/daemon/util`.

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{
            Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            Pod, PodSpec, Taint, Toleration,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rhumb_client::selectors::{Labels, NodeTerm, tolerates};

use super::plan::{GENERATION_LABEL, HASH_LABEL};
use crate::owner::controller_reference;

/// What a set's template says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It wants a pod.
    Run,
    /// It gets none, and keeps the one that it has.
    Stay,
    /// It must have none.
    Leave,
}

/// What every pod of a DaemonSet tolerates: it stays with its node in good times and bad.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The tolerations of the set's pods.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = spec.host_network.unwrap_or(false);
    let extra = network.then_some(&NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.iter().chain(extra) {
        let wanted = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        if !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    all
}

fn template_spec(set: &DaemonSet) -> PodSpec {
    set.spec
        .as_ref()
        .and_then(|s| s.template.spec.clone())
        .unwrap_or_default()
}

/// The node's taints, with the one that the node controller adds for a cordon.
fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    spec.taints.unwrap_or_default()
}

pub fn placement(set: &DaemonSet, node: &Node) -> Placement {
    let spec = template_spec(set);
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if spec
        .node_name
        .as_deref()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != name)
    {
        return Placement::Leave;
    }
    let empty = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    if !matches_affinity(&spec, name, labels) {
        return Placement::Leave;
    }
    let tolerations = tolerations(&spec);
    let untolerated = |effects: &[&str]| {
        taints(node).iter().any(|taint| {
            effects.contains(&taint.effect.as_str())
                && !tolerations.iter().any(|t| tolerates(t, taint))
        })
    };
    if untolerated(&["NoExecute"]) {
        Placement::Leave
    } else if untolerated(&["NoSchedule"]) {
        Placement::Stay
    } else {
        Placement::Run
    }
}

fn matches_affinity(spec: &PodSpec, name: &str, labels: &Labels) -> bool {
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    selected
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| NodeTerm::from(term).matches(name, labels))
        })
}

/// The pod for a node: its affinity names the node, and the scheduler puts it there.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str, generation: i64) -> Pod {
    let template = set
        .spec
        .as_ref()
        .map(|s| s.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    labels.insert(GENERATION_LABEL.into(), generation.to_string());
    let mut spec = template.spec.unwrap_or_default();
    spec.tolerations = Some(tolerations(&spec));
    bind_to(&mut spec, node);
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!(
                "{}-",
                set.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Replaces what the template requires of nodes, which the node fulfils, by the node's name.
fn bind_to(spec: &mut PodSpec, node: &str) {
    let by_name = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.into()]),
        }]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![by_name],
    });
}

/// Whether a change of a node may change what a set wants of it.
pub fn matters(old: &Node, new: &Node) -> bool {
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(pod: Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u"},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}},
        }))
        .unwrap()
    }

    fn node(labels: Value, taints: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_are_chosen_by_selector_affinity_name_and_taints() {
        let plain = node(json!({"disk": "ssd"}), json!([]));
        let taint = |effect: &str| node(json!({}), json!([{"key": "k", "effect": effect}]));
        let cordoned = node(
            json!({}),
            json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
        );
        let silent = node(
            json!({}),
            json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
        );
        let any = json!({"containers": []});
        let affinity = |op: &str| {
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": op}]},
                ]},
            }}})
        };
        for (pod, node, expected) in [
            (any.clone(), &plain, Placement::Run),
            (
                json!({"containers": [], "nodeSelector": {"disk": "ssd"}}),
                &plain,
                Placement::Run,
            ),
            (
                json!({"containers": [], "nodeSelector": {"disk": "hdd"}}),
                &plain,
                Placement::Leave,
            ),
            (
                json!({"containers": [], "nodeName": "n2"}),
                &plain,
                Placement::Leave,
            ),
            (affinity("Exists"), &plain, Placement::Run),
            (affinity("DoesNotExist"), &plain, Placement::Leave),
            (any.clone(), &taint("NoSchedule"), Placement::Stay),
            (any.clone(), &taint("NoExecute"), Placement::Leave),
            (any.clone(), &taint("PreferNoSchedule"), Placement::Run),
            (
                json!({"containers": [], "tolerations": [{"operator": "Exists"}]}),
                &taint("NoExecute"),
                Placement::Run,
            ),
            (any.clone(), &cordoned, Placement::Run),
            (any, &silent, Placement::Run),
        ] {
            assert_eq!(placement(&set(pod.clone()), node), expected, "{pod}");
        }
    }

    #[test]
    fn a_pod_names_its_node_and_its_revision() {
        let pod = pod_for(
            &set(json!({"containers": [], "hostNetwork": true})),
            "n1",
            "h",
            3,
        );
        let labels = pod.metadata.labels.clone().unwrap();
        assert_eq!(labels["controller-revision-hash"], "h");
        assert_eq!(labels["pod-template-generation"], "3");
        assert_eq!(labels["a"], "b");
        assert_eq!(crate::daemonset::plan::target(&pod).as_deref(), Some("n1"));
        assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), 7);
    }
}
