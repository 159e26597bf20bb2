//! Everything known of the cluster and of this node, with one revision.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
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
    pub pods: BTreeMap<ObjectName, Arc<Pod>>,
    pub services: BTreeMap<ObjectName, Service>,
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// By container id and interface.
    pub endpoints: BTreeMap<EndpointKey, LocalEndpoint>,
    /// Pods of local endpoints that were asked for directly, before the watch told of them.
    pub adopted: BTreeMap<ObjectName, Arc<Pod>>,
    /// Names of the slices of a Service.
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// Pods that claim an address.
    claims: HashMap<IpAddr, Vec<Arc<Pod>>>,
    endpoints_at: HashMap<IpAddr, BTreeSet<EndpointKey>>,
}

/// Container id and interface.
pub type EndpointKey = (String, String);

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
    Endpoint(EndpointKey, Option<LocalEndpoint>),
    HostAddresses(BTreeSet<IpAddr>),
}

/// What has to be decided again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    pub services: BTreeSet<ObjectName>,
    /// Anything about policy: the fields below say what.
    pub policy: bool,
    /// What isolates the node's pods.
    pub sets: bool,
    /// Addresses that have, had, or may have another pod, or one with other labels.
    pub addresses: BTreeSet<IpAddr>,
    /// Whose labels are others.
    pub namespaces: BTreeSet<String>,
    pub routes: bool,
    /// Ports of the node that lead to pods, or the node's addresses.
    pub host_ports: bool,
    /// What is written is in doubt: all of it is to be compared.
    pub everything: bool,
}

impl Dirty {
    pub fn is_clean(&self) -> bool {
        self.services.is_empty() && !self.policy && !self.routes && !self.host_ports
    }

    pub fn merge(&mut self, other: Dirty) {
        self.services.extend(other.services);
        self.policy |= other.policy;
        self.sets |= other.sets;
        self.addresses.extend(other.addresses);
        self.namespaces.extend(other.namespaces);
        self.routes |= other.routes;
        self.host_ports |= other.host_ports;
        self.everything |= other.everything;
    }

    /// Everything: after a start, or when the kernel's content is in doubt.
    pub fn all(snapshot: &Snapshot) -> Dirty {
        Dirty {
            services: snapshot.services.keys().cloned().collect(),
            policy: true,
            sets: true,
            addresses: snapshot.addresses().collect(),
            namespaces: snapshot.namespaces.keys().cloned().collect(),
            routes: true,
            host_ports: true,
            everything: true,
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
            Change::Node(name, node) => self.put_node(name, node, &mut dirty),
            Change::HostAddresses(addresses) => {
                dirty.routes = self.host_addresses != addresses;
                dirty.host_ports = dirty.routes && self.has_host_ports();
                self.host_addresses = addresses;
            }
            Change::Namespace(name, namespace) => {
                if put(&mut self.namespaces, name.clone(), namespace) {
                    dirty.policy = true;
                    dirty.namespaces.insert(name);
                }
            }
            Change::Pod(name, pod) => {
                self.put_pod(name, pod.map(Arc::new), &mut dirty);
            }
            Change::Adopt(pod) => {
                let known = self.pods.get(&pod.name).is_some_and(|p| p.uid == pod.uid);
                let name = pod.name.clone();
                if !known && put(&mut self.adopted, name.clone(), Some(Arc::new(pod))) {
                    self.touch_endpoints_of(&name, &mut dirty);
                }
            }
            Change::Policy(name, policy) => {
                dirty.policy = put(&mut self.policies, name, policy);
                dirty.sets = dirty.policy;
            }
            Change::Endpoint(key, endpoint) => {
                self.put_endpoint(key, endpoint, &mut dirty);
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

    fn put_node(&mut self, name: String, node: Option<Node>, dirty: &mut Dirty) {
        let cidrs = |node: Option<&Node>| node.map(|n| n.pod_cidrs.clone()).unwrap_or_default();
        let before = cidrs(self.nodes.get(&name));
        let others = cidrs(node.as_ref()) != before;
        dirty.routes = put(&mut self.nodes, name.clone(), node);
        if others {
            let of_node = self.pods.values().filter(|p| p.node == name);
            dirty.addresses.extend(of_node.flat_map(|p| &p.announced));
            dirty.policy |= !dirty.addresses.is_empty();
        }
    }

    fn put_pod(&mut self, name: ObjectName, pod: Option<Arc<Pod>>, dirty: &mut Dirty) {
        let before = self.pods.get(&name).cloned();
        let disowned = pod.is_some() && self.adopted.remove(&name).is_some();
        if !put(&mut self.pods, name.clone(), pod.clone()) {
            if disowned {
                self.touch_endpoints_of(&name, dirty);
            }
            return;
        }
        dirty.policy = true;
        for old in before.iter().filter(|p| p.claims_addresses()) {
            for ip in old.addresses() {
                dirty.addresses.insert(ip);
                if let Some(claims) = self.claims.get_mut(&ip) {
                    claims.retain(|p| p.name != name);
                    if claims.is_empty() {
                        self.claims.remove(&ip);
                    }
                }
            }
        }
        for new in pod.iter().filter(|p| p.claims_addresses()) {
            for ip in new.addresses() {
                dirty.addresses.insert(ip);
                self.claims.entry(ip).or_default().push(new.clone());
            }
        }
        self.touch_endpoints_of(&name, dirty);
    }

    /// The pod behind these endpoints is another, or known otherwise.
    fn touch_endpoints_of(&self, pod: &ObjectName, dirty: &mut Dirty) {
        for endpoint in self.endpoints.values().filter(|e| e.pod == *pod) {
            dirty.policy = true;
            dirty.sets = true;
            dirty.addresses.extend(&endpoint.ips);
        }
    }

    fn put_endpoint(
        &mut self,
        key: EndpointKey,
        endpoint: Option<LocalEndpoint>,
        dirty: &mut Dirty,
    ) {
        let old = self.endpoints.get(&key);
        let has_ports = |e: Option<&LocalEndpoint>| e.is_some_and(|e| !e.ports.is_empty());
        let ports = has_ports(old) || has_ports(endpoint.as_ref());
        let before = old.map(|e| e.ips.clone());
        let after = endpoint.as_ref().map(|e| e.ips.clone());
        if !put(&mut self.endpoints, key.clone(), endpoint) {
            return;
        }
        dirty.policy = true;
        dirty.sets = true;
        dirty.host_ports |= ports;
        for ip in before.into_iter().flatten() {
            dirty.addresses.insert(ip);
            if let Some(keys) = self.endpoints_at.get_mut(&ip) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.endpoints_at.remove(&ip);
                }
            }
        }
        for ip in after.into_iter().flatten() {
            dirty.addresses.insert(ip);
            self.endpoints_at.entry(ip).or_default().insert(key.clone());
        }
    }

    /// Addresses that pods may have; some may come twice.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.keys().chain(self.endpoints_at.keys()).copied()
    }

    /// The pod that has the address now.
    pub fn holder(&self, ip: IpAddr) -> Option<&Arc<Pod>> {
        // On this node the journal knows better than any status, and earlier.
        if let Some(key) = self.endpoints_at.get(&ip).and_then(BTreeSet::last) {
            return self.pod_of(self.endpoints.get(key)?);
        }
        // Two pods that claim one address as well: one status is stale. By uid, so that the order of
        // events has no say.
        let claims = self.claims.get(&ip)?.iter();
        let claims = claims.filter(|p| p.ips.contains(&ip) || self.may_announce(p, ip));
        claims.max_by(|a, b| (a.claim(ip), &a.uid, &b.name).cmp(&(b.claim(ip), &b.uid, &a.name)))
    }

    /// Whoever may annotate a pod can write an announcement: it counts for addresses of the pod's node alone.
    fn may_announce(&self, pod: &Pod, ip: IpAddr) -> bool {
        let node = self.nodes.get(&pod.node);
        node.is_some_and(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(ip)))
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
    pub fn pod_of(&self, endpoint: &LocalEndpoint) -> Option<&Arc<Pod>> {
        [&self.pods, &self.adopted]
            .into_iter()
            .filter_map(|pods| pods.get(&endpoint.pod))
            .find(|p| endpoint.uid.is_empty() || p.uid.is_empty() || p.uid == endpoint.uid)
    }

    /// Whether any port of the node leads to a pod.
    pub fn has_host_ports(&self) -> bool {
        self.endpoints.values().any(|e| !e.ports.is_empty())
    }

    pub fn this_node(&self) -> Option<&Node> {
        self.nodes.get(&self.node_name)
    }
}
