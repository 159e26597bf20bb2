//! What the control plane does for nodes: their part of the pod network, and what follows when one isn't
//! heard of any more.

pub mod cidr;
pub mod eviction;
pub mod ipam;
pub mod lifecycle;
pub mod taints;

use k8s_openapi::api::core::v1::{Node, NodeCondition};

pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == type_)
}

pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// Region and zone, as one name of a failure domain.
pub fn zone(node: &Node) -> String {
    let label = |key: &str| {
        node.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(key))
            .cloned()
            .unwrap_or_default()
    };
    format!(
        "{}:{}",
        label("topology.kubernetes.io/region"),
        label("topology.kubernetes.io/zone")
    )
}
