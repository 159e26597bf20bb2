//! ROUTES (what kind of place a destination is) and the host's own routes to pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use rhumb_common::maps::{Route, route_class};

use crate::{snapshot::Snapshot, tables::Prefix};

fn host(addr: IpAddr) -> Prefix {
    IpNetwork::from(addr).into()
}

fn route(class: u32) -> Route {
    Route { class, _pad: 0 }
}

/// Where rules meet, the nearer wins: this node's own addresses, its pods, then the cluster.
pub fn desired(snapshot: &Snapshot) -> BTreeMap<Prefix, Route> {
    let mut out = BTreeMap::new();
    for cidr in &snapshot.non_masquerade {
        out.insert(Prefix::from(*cidr), route(route_class::CLUSTER));
    }
    let (ours, others): (Vec<_>, Vec<_>) = snapshot
        .nodes
        .values()
        .partition(|n| n.name == snapshot.node_name);
    for node in others {
        for cidr in &node.pod_cidrs {
            out.insert((*cidr).into(), route(route_class::CLUSTER));
        }
        for addr in &node.addresses {
            out.insert(host(*addr), route(route_class::CLUSTER));
        }
    }
    for node in ours {
        for cidr in &node.pod_cidrs {
            out.insert((*cidr).into(), route(route_class::LOCAL_PODS));
        }
        for addr in &node.addresses {
            out.insert(host(*addr), route(route_class::THIS_NODE));
        }
    }
    for addr in &snapshot.host_addresses {
        out.insert(host(*addr), route(route_class::THIS_NODE));
    }
    out
}

/// A route of the host's stack to pods' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    pub cidr: IpNetwork,
    pub to: Hop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// Through another node.
    Via(IpAddr),
    /// Pods of this node have routes of their own; to an address that no pod has leads none, and
    /// least of all the default route.
    Unreachable,
}

pub fn host_routes(snapshot: &Snapshot) -> BTreeSet<HostRoute> {
    let mut out: BTreeMap<IpNetwork, Hop> = BTreeMap::new();
    if let Some(this) = snapshot.this_node() {
        out.extend(this.pod_cidrs.iter().map(|cidr| (*cidr, Hop::Unreachable)));
    }
    for node in snapshot.nodes.values() {
        if node.name == snapshot.node_name {
            continue;
        }
        for cidr in &node.pod_cidrs {
            let via = node.internal.iter().find(|a| a.is_ipv4() == cidr.is_ipv4());
            if let Some(via) = via {
                // Two nodes with one CIDR: ours, else the first by name, not the last seen.
                out.entry(*cidr).or_insert(Hop::Via(*via));
            }
        }
    }
    out.into_iter()
        .map(|(cidr, to)| HostRoute { cidr, to })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{object, snapshot::Change};

    #[test]
    fn a_nodes_own_cidrs_lead_nowhere_and_others_through_their_nodes() {
        let mut snapshot = Snapshot::new("n1");
        let node = |name: &str, ip: &str, cidrs: &[&str]| -> Change {
            let value = serde_json::json!({
                "metadata": {"name": name}, "spec": {"podCIDRs": cidrs},
                "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
            });
            object::change("Node", &value).unwrap().unwrap().object
        };
        snapshot.apply(node("n1", "192.0.2.1", &["10.244.1.0/24", "fd00:1::/64"]));
        // No IPv6 address to go through; and a CIDR that is ours.
        let others = ["10.244.2.0/24", "fd00:2::/64", "10.244.1.0/24"];
        snapshot.apply(node("n0", "192.0.2.2", &others));
        let route = |cidr: &str, to| HostRoute {
            cidr: cidr.parse().unwrap(),
            to,
        };
        let expected = [
            route("10.244.1.0/24", Hop::Unreachable),
            route("10.244.2.0/24", Hop::Via("192.0.2.2".parse().unwrap())),
            route("fd00:1::/64", Hop::Unreachable),
        ];
        assert_eq!(host_routes(&snapshot), BTreeSet::from(expected));
    }
}
