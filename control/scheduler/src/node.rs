//! A node as the scheduler sees it: what it offers, and what the pods on it take.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};
use rhumb_client::ObjectKey;

use crate::{
    pod::PodInfo,
    resources::{self, Resources},
    selectors::Labels,
};

pub const HOSTNAME: &str = "kubernetes.io/hostname";
pub const ZONE: &str = "topology.kubernetes.io/zone";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// What of a Node object decides where pods go. Compared to tell a heartbeat from a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeSpec {
    pub name: String,
    pub labels: Labels,
    /// Taints that keep pods off (NoSchedule, NoExecute), that of a node that isn't ready included
    /// even where no controller has set it yet.
    pub taints: Vec<Taint>,
    pub soft_taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Image name to size in bytes.
    pub images: BTreeMap<String, i64>,
}

impl NodeSpec {
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let (soft_taints, mut taints): (Vec<_>, Vec<_>) = spec
            .and_then(|s| s.taints.clone())
            .unwrap_or_default()
            .into_iter()
            .partition(|t| t.effect == "PreferNoSchedule");
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|c| c.iter().find(|c| c.type_ == "Ready"))
            .map(|c| c.status.as_str());
        let implied = match ready {
            Some("True") => None,
            Some("Unknown") => Some(UNREACHABLE),
            _ => Some(NOT_READY),
        };
        if let Some(key) = implied
            && !taints
                .iter()
                .any(|t| t.key == key && t.effect == "NoSchedule")
        {
            taints.push(Taint {
                key: key.into(),
                effect: "NoSchedule".into(),
                value: None,
                time_added: None,
            });
        }
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let (allocatable, allowed_pods) = allocatable
            .map(resources::node_allocatable)
            .unwrap_or_default();
        let mut images = BTreeMap::new();
        for image in status.and_then(|s| s.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints,
            soft_taints,
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable,
            allowed_pods,
            images,
        }
    }
}

/// A node and the sums over its pods, kept up to date pod by pod.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub spec: NodeSpec,
    pub pods: HashMap<ObjectKey, Arc<PodInfo>>,
    pub requested: Resources,
    /// Milli-CPU and bytes of memory, with a default for containers that request none: for scores.
    pub nonzero: (i64, i64),
    /// Pods of each controller.
    pub owners: HashMap<String, u32>,
    /// How many of the pods have affinity terms, and how many have required anti-affinity.
    pub with_affinity: usize,
    pub with_anti_affinity: usize,
    pub with_host_ports: usize,
}

impl NodeInfo {
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        if let Some(old) = self.pods.get(&pod.key).cloned() {
            self.remove(&old.key);
        }
        self.requested.add(&pod.requests.resources);
        self.nonzero.0 += pod.requests.nonzero.0;
        self.nonzero.1 += pod.requests.nonzero.1;
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_insert(0) += 1;
        }
        self.with_affinity += usize::from(!pod.affinity.is_empty());
        self.with_anti_affinity += usize::from(!pod.affinity.anti_required.is_empty());
        self.with_host_ports += usize::from(!pod.host_ports.is_empty());
        self.pods.insert(pod.key.clone(), pod);
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.remove(key) else {
            return;
        };
        self.requested.sub(&pod.requests.resources);
        self.nonzero.0 -= pod.requests.nonzero.0;
        self.nonzero.1 -= pod.requests.nonzero.1;
        if let Some(owner) = &pod.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
        self.with_affinity -= usize::from(!pod.affinity.is_empty());
        self.with_anti_affinity -= usize::from(!pod.affinity.anti_required.is_empty());
        self.with_host_ports -= usize::from(!pod.host_ports.is_empty());
    }
}
