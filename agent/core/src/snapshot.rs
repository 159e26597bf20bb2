//! Everything known of the cluster and of this node, with one revision.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use crate::model::{
    EndpointSlice, LocalEndpoint, Namespace, NetworkPolicy, Node, ObjectName, Pod, Service,
};

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change that was taken in.
    pub revision: u64,
    pub node_name: String,
    pub non_masquerade: BTreeSet<IpNetwork>,
    pub host_addresses: BTreeSet<IpAddr>,
    pub nodes: BTreeMap<String, Node>,
    pub namespaces: BTreeMap<String, Namespace>,
    pub pods: BTreeMap<ObjectName, Pod>,
    pub services: BTreeMap<ObjectName, Service>,
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// By container id and interface.
    pub endpoints: BTreeMap<(String, String), LocalEndpoint>,
    /// Pods of local endpoints that were asked for directly, before the watch told of them.
    pub adopted: BTreeMap<ObjectName, Pod>,
    /// Names of the slices of a Service.
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
}

/// A cluster object as it is now, or that it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    Node(String, Option<Node>),
    Namespace(String, Option<Namespace>),
    Pod(ObjectName, Option<Pod>),
    /// A pod of a local endpoint that was asked for directly; the watch's word is preferred.
    Adopt(Pod),
    Service(ObjectName, Option<Service>),
    Slice(ObjectName, Option<EndpointSlice>),
    Policy(ObjectName, Option<NetworkPolicy>),
    Endpoint((String, String), Option<LocalEndpoint>),
    HostAddresses(BTreeSet<IpAddr>),
}

/// What has to be decided again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    pub services: BTreeSet<ObjectName>,
    pub policy: bool,
    pub routes: bool,
}

impl Dirty {
    pub fn is_clean(&self) -> bool {
        self.services.is_empty() && !self.policy && !self.routes
    }

    pub fn merge(&mut self, other: Dirty) {
        self.services.extend(other.services);
        self.policy |= other.policy;
        self.routes |= other.routes;
    }

    /// Everything: after a start, or when the kernel's content is in doubt.
    pub fn all(snapshot: &Snapshot) -> Dirty {
        Dirty {
            services: snapshot.services.keys().cloned().collect(),
            policy: true,
            routes: true,
        }
    }
}

/// Replaces or removes; tells whether anything is different.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) => {
            if map.get(&key) == Some(&value) {
                return false;
            }
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}

impl Snapshot {
    pub fn new(node_name: impl Into<String>) -> Snapshot {
        Snapshot {
            node_name: node_name.into(),
            ..Snapshot::default()
        }
    }

    pub fn apply(&mut self, change: Change) -> Dirty {
        let mut dirty = Dirty::default();
        match change {
            Change::Node(name, node) => dirty.routes = put(&mut self.nodes, name, node),
            Change::HostAddresses(addresses) => {
                dirty.routes = self.host_addresses != addresses;
                self.host_addresses = addresses;
            }
            Change::Namespace(name, namespace) => {
                dirty.policy = put(&mut self.namespaces, name, namespace);
            }
            Change::Pod(name, pod) => {
                if pod.is_some() {
                    self.adopted.remove(&name);
                }
                dirty.policy = put(&mut self.pods, name, pod);
            }
            Change::Adopt(pod) => {
                let known = self.pods.get(&pod.name).is_some_and(|p| p.uid == pod.uid);
                if !known {
                    dirty.policy = put(&mut self.adopted, pod.name.clone(), Some(pod));
                }
            }
            Change::Policy(name, policy) => {
                dirty.policy = put(&mut self.policies, name, policy);
            }
            Change::Endpoint(key, endpoint) => {
                dirty.policy = put(&mut self.endpoints, key, endpoint);
                let endpoints = &self.endpoints;
                self.adopted
                    .retain(|name, _| endpoints.values().any(|e| e.pod == *name));
            }
            Change::Service(name, service) => {
                if put(&mut self.services, name.clone(), service) {
                    dirty.services.insert(name);
                }
            }
            Change::Slice(name, slice) => {
                let owner = |s: &EndpointSlice| ObjectName::new(&name.namespace, &s.service);
                let before = self.slices.get(&name).map(owner);
                let after = slice.as_ref().map(owner);
                if put(&mut self.slices, name.clone(), slice) {
                    if before != after
                        && let Some(service) = &before
                        && let Some(names) = self.slices_of.get_mut(service)
                    {
                        names.remove(&name);
                        if names.is_empty() {
                            self.slices_of.remove(service);
                        }
                    }
                    if let Some(service) = &after {
                        self.slices_of
                            .entry(service.clone())
                            .or_default()
                            .insert(name);
                    }
                    dirty.services.extend(before.into_iter().chain(after));
                }
            }
        }
        if !dirty.is_clean() {
            self.revision += 1;
        }
        dirty
    }

    pub fn slices_of<'a>(
        &'a self,
        service: &ObjectName,
    ) -> impl Iterator<Item = &'a EndpointSlice> + Clone + 'a {
        self.slices_of
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|name| self.slices.get(name))
    }

    /// The pod of a local endpoint, if it is the same pod and not an earlier one of that name.
    pub fn pod_of(&self, endpoint: &LocalEndpoint) -> Option<&Pod> {
        [&self.pods, &self.adopted]
            .into_iter()
            .filter_map(|pods| pods.get(&endpoint.pod))
            .find(|p| endpoint.uid.is_empty() || p.uid.is_empty() || p.uid == endpoint.uid)
    }

    pub fn this_node(&self) -> Option<&Node> {
        self.nodes.get(&self.node_name)
    }
}
