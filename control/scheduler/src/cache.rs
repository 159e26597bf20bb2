//! The scheduler's picture of the cluster: nodes, the pods on them, and the pods that it has decided on
//! and whose binding it hasn't seen yet ("assumed").

use std::{collections::HashMap, sync::Arc};

use rhumb_client::ObjectKey;

use crate::{
    node::{NodeInfo, NodeSpec},
    pod::PodInfo,
    selectors::{Labels, PodSelector},
};

#[derive(Debug, Clone)]
struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    assumed: bool,
}

#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<String, usize>,
    pods: HashMap<ObjectKey, Placed>,
    affinity_pods: usize,
    pub namespaces: HashMap<String, Labels>,
    /// Selectors of the Services of each namespace, by name.
    pub services: HashMap<String, HashMap<String, PodSelector>>,
}

impl Cache {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// Pods on nodes that have terms about other pods.
    pub fn affinity_pods(&self) -> usize {
        self.affinity_pods
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i])
    }

    /// Takes in a node; says whether anything that matters to placing pods has changed.
    pub fn put_node(&mut self, spec: NodeSpec) -> bool {
        if let Some(i) = self.by_name.get(&spec.name) {
            let node = &mut self.nodes[*i];
            if node.spec == spec {
                return false;
            }
            node.spec = spec;
            return true;
        }
        let mut node = NodeInfo::default();
        for placed in self.pods.values().filter(|p| p.node == spec.name) {
            node.add(placed.pod.clone());
        }
        self.by_name.insert(spec.name.clone(), self.nodes.len());
        node.spec = spec;
        self.nodes.push(node);
        true
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(i) = self.by_name.remove(name) else {
            return;
        };
        self.nodes.swap_remove(i);
        if let Some(moved) = self.nodes.get(i) {
            self.by_name.insert(moved.spec.name.clone(), i);
        }
    }

    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.spec.name.clone()).collect()
    }

    /// Takes in a pod that is on a node. A pod without a node doesn't undo an assumption: the update may
    /// be older than the binding.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        let Some(node) = pod.node.clone() else {
            return;
        };
        self.place(pod, node, false);
    }

    /// Counts `pod` as being on `node` from now on.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node.to_string(), true);
    }

    /// Takes an assumption back: the binding failed. A pod that was seen on a node stays.
    pub fn forget(&mut self, key: &ObjectKey, uid: &str) {
        if self
            .pods
            .get(key)
            .is_some_and(|p| p.assumed && p.pod.uid == uid)
        {
            self.remove_pod(key);
        }
    }

    pub fn is_assumed(&self, key: &ObjectKey, uid: &str) -> bool {
        self.pods.get(key).is_some_and(|p| p.pod.uid == uid)
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: String, assumed: bool) {
        self.remove_pod(&pod.key);
        if let Some(i) = self.by_name.get(&node) {
            self.nodes[*i].add(pod.clone());
        }
        self.affinity_pods += usize::from(!pod.affinity.is_empty());
        self.pods
            .insert(pod.key.clone(), Placed { pod, node, assumed });
    }

    /// Takes a pod out; says whether it was on a node.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(placed) = self.pods.remove(key) else {
            return false;
        };
        self.affinity_pods -= usize::from(!placed.pod.affinity.is_empty());
        if let Some(i) = self.by_name.get(&placed.node) {
            self.nodes[*i].remove(key);
        }
        true
    }

    pub fn pod_keys(&self) -> Vec<ObjectKey> {
        self.pods.keys().cloned().collect()
    }

    /// The Services of `pod`'s namespace that select it.
    pub fn services_of(&self, pod: &PodInfo) -> Vec<&PodSelector> {
        self.services
            .get(&pod.key.namespace)
            .into_iter()
            .flat_map(HashMap::values)
            .filter(|s| s.matches(&pod.labels))
            .collect()
    }
}
