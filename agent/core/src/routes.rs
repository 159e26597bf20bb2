//! ROUTES (what kind of place a destination is) and the routes to other nodes' pods.

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

/// A route of the host's stack: `cidr` through another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    pub cidr: IpNetwork,
    pub via: IpAddr,
}

pub fn node_routes(snapshot: &Snapshot) -> BTreeSet<NodeRoute> {
    let mut out: BTreeMap<IpNetwork, IpAddr> = BTreeMap::new();
    for node in snapshot.nodes.values() {
        if node.name == snapshot.node_name {
            continue;
        }
        for cidr in &node.pod_cidrs {
            let via = node.internal.iter().find(|a| a.is_ipv4() == cidr.is_ipv4());
            if let Some(via) = via {
                // Two nodes with one CIDR: the first by name, not the last seen.
                out.entry(*cidr).or_insert(*via);
            }
        }
    }
    out.into_iter()
        .map(|(cidr, via)| NodeRoute { cidr, via })
        .collect()
}
