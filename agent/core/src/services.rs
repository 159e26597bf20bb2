//! From a Service and its slices to frontends and their backends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rhumb_common::maps::{ServiceKey, service_scope};

use crate::{
    model::{BackendAddr, EndpointSlice, HostPort, ObjectName, Service, ServicePort, protocol},
    snapshot::Snapshot,
};

/// What a frontend leads to. `backends` is sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    pub affinity: u32,
    pub backends: Vec<BackendAddr>,
}

/// The frontends of the node's own ports, by who wants them: of two pods that want one, the older has it,
/// and the other takes it over when that one goes.
pub fn host_ports(snapshot: &Snapshot) -> BTreeMap<ObjectName, Vec<(ServiceKey, Frontend)>> {
    let mut out = BTreeMap::new();
    for endpoint in snapshot.endpoints.values() {
        let mut frontends = Vec::new();
        for port in &endpoint.ports {
            for ip in &endpoint.ips {
                let backend = BackendAddr {
                    addr: *ip,
                    port: port.port,
                    protocol: port.protocol,
                };
                for key in host_keys(snapshot, port, ip.is_ipv4()) {
                    let backends = vec![backend];
                    frontends.push((
                        key,
                        Frontend {
                            affinity: 0,
                            backends,
                        },
                    ));
                }
            }
        }
        if !frontends.is_empty() {
            let name = format!(
                "{:020} {} {}",
                endpoint.revision, endpoint.pod, endpoint.ifname
            );
            out.insert(ObjectName::new(HOST_PORTS, name), frontends);
        }
    }
    out
}

/// In place of a namespace, in the names of those who want a port of the node.
pub const HOST_PORTS: &str = "(host port)";

/// Where a port of the node is reached, in one family.
fn host_keys(snapshot: &Snapshot, port: &HostPort, v4: bool) -> Vec<ServiceKey> {
    let loopback: IpAddr = match v4 {
        true => Ipv4Addr::LOCALHOST.into(),
        false => Ipv6Addr::LOCALHOST.into(),
    };
    let own = snapshot.host_addresses.iter().filter(|a| !a.is_loopback());
    let own = own.chain([&loopback]).filter(|a| a.is_ipv4() == v4);
    own.filter(|a| port.host_ip.is_none_or(|only| only == **a))
        .map(|a| ServiceKey {
            scope: match a.is_loopback() {
                true => service_scope::LOOPBACK,
                false => service_scope::CLUSTER,
            },
            ..service_key(*a, port.host_port, port.protocol)
        })
        .collect()
}

pub fn service_key(vip: IpAddr, port: u16, protocol: u8) -> ServiceKey {
    ServiceKey {
        vip: vip.into(),
        port_be: port.to_be(),
        protocol,
        scope: service_scope::CLUSTER,
        _pad: 0,
    }
}

/// The frontends of one Service, and the rows of its addresses. Depends on nothing else.
pub fn frontends<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
) -> Vec<(ServiceKey, Frontend)> {
    let mut out = BTreeMap::new();
    for vip in &service.cluster_ips {
        // What asks the address for another port is refused, and not sent out of the cluster.
        out.insert(ServiceKey::address((*vip).into()), Frontend::default());
    }
    for port in &service.ports {
        // The kernel programs translate TCP and UDP.
        if port.protocol != protocol::TCP && port.protocol != protocol::UDP {
            continue;
        }
        let usable = backends(port, slices.clone());
        for vip in &service.cluster_ips {
            let backends = usable
                .iter()
                .copied()
                .filter(|b| b.addr.is_ipv4() == vip.is_ipv4())
                .collect();
            out.insert(
                service_key(*vip, port.port, port.protocol),
                Frontend {
                    affinity: service.affinity.unwrap_or(0),
                    backends,
                },
            );
        }
    }
    out.into_iter().collect()
}

/// Ready endpoints; without any (in a family), those that still serve while they terminate.
/// <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions>
fn backends<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeSet<BackendAddr> {
    let mut ready = BTreeSet::new();
    let mut draining = BTreeSet::new();
    for slice in slices {
        let target = slice
            .ports
            .iter()
            .find(|p| p.name == port.name && p.protocol == port.protocol);
        let Some(target) = target else { continue };
        for endpoint in &slice.endpoints {
            let backend = BackendAddr {
                addr: endpoint.address,
                port: target.port,
                protocol: port.protocol,
            };
            if endpoint.ready {
                ready.insert(backend);
            } else if endpoint.serving && endpoint.terminating {
                draining.insert(backend);
            }
        }
    }
    for v4 in [true, false] {
        if !ready.iter().any(|b| b.addr.is_ipv4() == v4) {
            ready.extend(draining.iter().filter(|b| b.addr.is_ipv4() == v4));
        }
    }
    ready
}

/// Who claims which frontend. Two Services with one address (which an API server prevents, but a
/// deletion and creation can show in either order) are settled by name, not by order.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_key: HashMap<ServiceKey, BTreeMap<ObjectName, Frontend>>,
    by_service: HashMap<ObjectName, Vec<ServiceKey>>,
}

impl Claims {
    /// Replaces what `service` claims; returns the frontends to look at again.
    pub fn set(
        &mut self,
        service: &ObjectName,
        frontends: Vec<(ServiceKey, Frontend)>,
    ) -> BTreeSet<ServiceKey> {
        let mut changed: BTreeSet<ServiceKey> = self
            .by_service
            .remove(service)
            .unwrap_or_default()
            .into_iter()
            .collect();
        for key in &changed {
            if let Some(claims) = self.by_key.get_mut(key) {
                claims.remove(service);
                if claims.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        let mut keys = Vec::with_capacity(frontends.len());
        for (key, frontend) in frontends {
            keys.push(key);
            changed.insert(key);
            self.by_key
                .entry(key)
                .or_default()
                .insert(service.clone(), frontend);
        }
        if !keys.is_empty() {
            self.by_service.insert(service.clone(), keys);
        }
        changed
    }

    pub fn get(&self, key: &ServiceKey) -> Option<(&ObjectName, &Frontend)> {
        self.by_key.get(key)?.first_key_value()
    }

    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_key.keys()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
