//! Which nodes can take a pod, and in kube-scheduler's words why the others can't.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Taint;

use crate::{node::NodeInfo, pod::PodInfo};

/// Why a node can't take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Unschedulable,
    Taint(String),
    NodeAffinity,
    HostPorts,
    TooManyPods,
    Insufficient(Arc<str>),
    SpreadConstraint,
    SpreadLabelMissing,
    PodAffinity,
    PodAntiAffinity,
    ExistingAntiAffinity,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::Taint(taint) => write!(f, "node(s) had untolerated taint {{{taint}}}"),
            Reason::NodeAffinity => {
                f.write_str("node(s) didn't match Pod's node affinity/selector")
            }
            Reason::HostPorts => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Reason::SpreadConstraint => {
                f.write_str("node(s) didn't match pod topology spread constraints")
            }
            Reason::SpreadLabelMissing => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Reason::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Reason::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Reason::ExistingAntiAffinity => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// The taint that `kubectl cordon` stands for: a pod that tolerates it may go to a cordoned node.
fn cordon() -> Taint {
    Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        value: None,
        time_added: None,
    }
}

/// The filters that look at one node only. Spread and affinity between pods look at all of them: see
/// [`crate::topology`].
pub fn node_fits(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<Reason>> {
    if node.spec.unschedulable && !pod.tolerates(&cordon()) {
        return Err(vec![Reason::Unschedulable]);
    }
    if let Some(taint) = node.spec.taints.iter().find(|t| !pod.tolerates(t)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Err(vec![Reason::Taint(format!("{}: {value}", taint.key))]);
    }
    if !matches_node_affinity(pod, node) {
        return Err(vec![Reason::NodeAffinity]);
    }
    if !pod.host_ports.is_empty() && node.with_host_ports > 0 {
        let taken = node
            .pods
            .values()
            .flat_map(|p| &p.host_ports)
            .any(|used| pod.host_ports.iter().any(|wanted| wanted.conflicts(used)));
        if taken {
            return Err(vec![Reason::HostPorts]);
        }
    }
    let mut short = Vec::new();
    if node.pods.len() as i64 + 1 > node.spec.allowed_pods {
        short.push(Reason::TooManyPods);
    }
    pod.requests
        .resources
        .lacking(&node.spec.allocatable, &node.requested, |name| {
            short.push(Reason::Insufficient(name))
        });
    if short.is_empty() { Ok(()) } else { Err(short) }
}

/// nodeSelector and required node affinity.
pub fn matches_node_affinity(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector
        .iter()
        .all(|(k, v)| node.spec.labels.get(k) == Some(v))
        && pod.node_required.as_ref().is_none_or(|terms| {
            terms
                .iter()
                .any(|t| t.matches(&node.spec.name, &node.spec.labels))
        })
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn message(nodes: usize, reasons: &[Vec<Reason>]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reason in reasons.iter().flatten() {
        *counts.entry(reason.to_string()).or_insert(0) += 1;
    }
    let mut parts: Vec<String> = counts
        .iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}
