//! What the scheduler needs to know of a pod, worked out once.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration};
use kube::core::{Selector, SelectorExt};
use rhumb_client::{ObjectKey, informer::controller_of};

use crate::{
    resources::{self, Requests},
    selectors::{Labels, NodeTerm, PodSelector},
};

/// The scheduler that a pod gets when it names none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two ports conflict when number and protocol agree and their addresses overlap.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

#[derive(Debug, Clone)]
pub struct AffinityTerm {
    pub selector: PodSelector,
    pub topology_key: String,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

impl AffinityTerm {
    fn compile(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_string());
        }
        Self {
            selector: PodSelector::compile(
                term.label_selector.as_ref(),
                labels,
                term.match_label_keys.as_deref().unwrap_or_default(),
                term.mismatch_label_keys.as_deref().unwrap_or_default(),
            ),
            topology_key: term.topology_key.clone(),
            namespaces,
            namespace_selector: term
                .namespace_selector
                .clone()
                .and_then(|s| Selector::try_from(s).ok()),
        }
    }

    /// Whether the term means `pod`; `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
        let namespace = self.namespaces.contains(&pod.key.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| s.matches(namespace_labels.unwrap_or(&Labels::new())));
        namespace && self.selector.matches(&pod.labels)
    }
}

#[derive(Debug, Clone)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    pub selector: PodSelector,
    /// DoNotSchedule rather than ScheduleAnyway.
    pub hard: bool,
    pub min_domains: Option<i32>,
    pub honor_node_affinity: bool,
    pub honor_node_taints: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Affinities {
    pub required: Vec<AffinityTerm>,
    pub preferred: Vec<(i64, AffinityTerm)>,
    pub anti_required: Vec<AffinityTerm>,
    pub anti_preferred: Vec<(i64, AffinityTerm)>,
}

impl Affinities {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.preferred.is_empty()
            && self.anti_required.is_empty()
            && self.anti_preferred.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub labels: Labels,
    /// Set once the pod is bound.
    pub node: Option<String>,
    pub priority: i32,
    /// Seconds since the epoch.
    pub created: i64,
    pub terminating: bool,
    /// Succeeded or Failed: it holds nothing of its node any more.
    pub finished: bool,
    /// To be scheduled by us: names our scheduler and has no gate.
    pub ours: bool,
    pub requests: Requests,
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub node_selector: Labels,
    /// `requiredDuringScheduling…` of the node affinity: one of the terms has to match.
    pub node_required: Option<Vec<NodeTerm>>,
    pub node_preferred: Vec<(i64, NodeTerm)>,
    pub affinity: Affinities,
    pub spread: Vec<SpreadConstraint>,
    /// The controller's uid: pods of one controller are spread by default.
    pub owner: Option<String>,
    pub images: Vec<String>,
    /// A field that would have to be honoured to place this pod and isn't supported.
    pub unsupported: Option<String>,
    /// The message of its PodScheduled condition, if that is False.
    pub unschedulable_message: Option<String>,
}

impl PodInfo {
    pub fn of(pod: &Pod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let key = ObjectKey::of(pod);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let scheduler = spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER);
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|g| !g.is_empty());
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let node_affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: spec.node_name.clone().filter(|n| !n.is_empty()),
            priority: spec.priority.unwrap_or(0),
            created: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_second()),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            ours: (scheduler.is_empty() || scheduler == DEFAULT_SCHEDULER) && !gated,
            requests: resources::pod_requests(spec),
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_required: node_affinity
                .and_then(|a| {
                    a.required_during_scheduling_ignored_during_execution
                        .as_ref()
                })
                .map(|s| s.node_selector_terms.iter().map(NodeTerm::from).collect()),
            node_preferred: node_affinity
                .and_then(|a| {
                    a.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                })
                .map(|terms| {
                    terms
                        .iter()
                        .map(|t| (i64::from(t.weight), NodeTerm::from(&t.preference)))
                        .collect()
                })
                .unwrap_or_default(),
            affinity: affinities(spec, &key.namespace, &labels),
            spread: spread(spec, &labels),
            owner: controller_of(pod).map(|r| r.uid.clone()),
            images: spec
                .containers
                .iter()
                .filter_map(|c| c.image.clone())
                .collect(),
            unsupported: unsupported(spec),
            unschedulable_message: pod
                .status
                .as_ref()
                .and_then(|s| s.conditions.as_ref())
                .and_then(|c| {
                    c.iter()
                        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
                })
                .and_then(|c| c.message.clone()),
            key,
            labels,
        }
    }

    /// Whether the pod waits to be given a node by us.
    pub fn is_pending(&self) -> bool {
        self.ours && self.node.is_none() && !self.finished && !self.terminating
    }

    pub fn tolerates(&self, taint: &k8s_openapi::api::core::v1::Taint) -> bool {
        self.tolerations
            .iter()
            .any(|t| crate::selectors::tolerates(t, taint))
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            Some(HostPort {
                ip: p.host_ip.clone().unwrap_or_default(),
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port,
            })
        })
        .collect()
}

fn affinities(spec: &PodSpec, namespace: &str, labels: &Labels) -> Affinities {
    let Some(affinity) = &spec.affinity else {
        return Affinities::default();
    };
    let compile = |t: &PodAffinityTerm| AffinityTerm::compile(t, namespace, labels);
    let mut out = Affinities::default();
    if let Some(a) = &affinity.pod_affinity {
        out.required = a
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(compile)
            .collect();
        out.preferred = a
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(|t| (i64::from(t.weight), compile(&t.pod_affinity_term)))
            .collect();
    }
    if let Some(a) = &affinity.pod_anti_affinity {
        out.anti_required = a
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(compile)
            .collect();
        out.anti_preferred = a
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(|t| (i64::from(t.weight), compile(&t.pod_affinity_term)))
            .collect();
    }
    out
}

fn spread(spec: &PodSpec, labels: &Labels) -> Vec<SpreadConstraint> {
    spec.topology_spread_constraints
        .iter()
        .flatten()
        .map(|c| SpreadConstraint {
            max_skew: i64::from(c.max_skew.max(1)),
            topology_key: c.topology_key.clone(),
            selector: PodSelector::compile(
                c.label_selector.as_ref(),
                labels,
                c.match_label_keys.as_deref().unwrap_or_default(),
                &[],
            ),
            hard: c.when_unsatisfiable != "ScheduleAnyway",
            min_domains: c.min_domains,
            honor_node_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_node_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        })
        .collect()
}

/// Placing a pod that asks for these takes a decision that isn't made here; it stays Pending and says so.
fn unsupported(spec: &PodSpec) -> Option<String> {
    if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        return Some("spec.resourceClaims".into());
    }
    if spec.scheduling_group.is_some() {
        return Some("spec.schedulingGroup".into());
    }
    spec.volumes
        .iter()
        .flatten()
        .enumerate()
        .find_map(|(i, v)| {
            if v.persistent_volume_claim.is_some() {
                Some(format!("spec.volumes[{i}].persistentVolumeClaim"))
            } else if v.ephemeral.is_some() {
                Some(format!("spec.volumes[{i}].ephemeral"))
            } else {
                None
            }
        })
}
