//! The agent's maps in kernel types, and the steps that change them.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use rhumb_common::{
    addr::{Ip, prefix_len},
    maps::{
        Backend, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route, Service, ServiceKey, SlotKey,
    },
};

/// A CIDR in the 128-bit space of [`Ip`], as the LPM tries key it. Ordered by length first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    pub len: u32,
    pub addr: Ip,
}

impl From<IpNetwork> for Prefix {
    fn from(n: IpNetwork) -> Prefix {
        Prefix {
            len: prefix_len(n.is_ipv4(), n.prefix()),
            addr: n.network().into(),
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ::ffff:0:0/96 and longer is IPv4 space.
        if self.addr.is_v4() && self.len >= 96 {
            write!(f, "{}/{}", self.addr, self.len - 96)
        } else {
            write!(f, "{}/{}", self.addr, self.len)
        }
    }
}

/// Key of a POLICY row. Ordered by length first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub len: u32,
    pub key: PolicyKey,
}

/// One write. Consecutive ones of a kind may be batched; the order of kinds is not to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    PutRoute(Prefix, Route),
    PutBackend(u32, Backend),
    PutSlot(SlotKey, u32),
    PutService(ServiceKey, Service),
    PutRow(RowKey, PolicyVal),
    PutPeerCidr(Prefix, Peer),
    PutPeer(Ip, Peer),
    PutEndpointPolicy(Ip, EndpointPolicy),
    PutIsolated(u64, u32),
    /// Flows that were judged before are judged again.
    BumpEpoch,
    DeleteService(ServiceKey),
    DeleteSlot(SlotKey),
    DeleteBackend(u32),
    DeleteEndpointPolicy(Ip),
    DeletePeer(Ip),
    DeletePeerCidr(Prefix),
    DeleteRow(RowKey),
    DeleteIsolated(u64),
    DeleteRoute(Prefix),
}

impl Step {
    pub fn is_delete(&self) -> bool {
        matches!(
            self,
            Step::DeleteService(_)
                | Step::DeleteSlot(_)
                | Step::DeleteBackend(_)
                | Step::DeleteEndpointPolicy(_)
                | Step::DeletePeer(_)
                | Step::DeletePeerCidr(_)
                | Step::DeleteRow(_)
                | Step::DeleteIsolated(_)
                | Step::DeleteRoute(_)
        )
    }
}

/// What the agent's maps hold: read from the kernel at start, dumped for people, and the kernel's
/// stand-in for the pure tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub routes: BTreeMap<Prefix, Route>,
    pub services: BTreeMap<ServiceKey, Service>,
    pub slots: BTreeMap<SlotKey, u32>,
    pub backends: BTreeMap<u32, Backend>,
    pub rows: BTreeMap<RowKey, PolicyVal>,
    pub peers: BTreeMap<Ip, Peer>,
    pub peer_cidrs: BTreeMap<Prefix, Peer>,
    pub endpoint_policy: BTreeMap<Ip, EndpointPolicy>,
    pub isolated: BTreeMap<u64, u32>,
}

impl Tables {
    pub fn apply(&mut self, step: &Step) {
        match *step {
            Step::PutRoute(k, v) => drop(self.routes.insert(k, v)),
            Step::PutBackend(k, v) => drop(self.backends.insert(k, v)),
            Step::PutSlot(k, v) => drop(self.slots.insert(k, v)),
            Step::PutService(k, v) => drop(self.services.insert(k, v)),
            Step::PutRow(k, v) => drop(self.rows.insert(k, v)),
            Step::PutPeerCidr(k, v) => drop(self.peer_cidrs.insert(k, v)),
            Step::PutPeer(k, v) => drop(self.peers.insert(k, v)),
            Step::PutEndpointPolicy(k, v) => drop(self.endpoint_policy.insert(k, v)),
            Step::PutIsolated(k, v) => drop(self.isolated.insert(k, v)),
            Step::BumpEpoch => {}
            Step::DeleteService(k) => drop(self.services.remove(&k)),
            Step::DeleteSlot(k) => drop(self.slots.remove(&k)),
            Step::DeleteBackend(k) => drop(self.backends.remove(&k)),
            Step::DeleteEndpointPolicy(k) => drop(self.endpoint_policy.remove(&k)),
            Step::DeletePeer(k) => drop(self.peers.remove(&k)),
            Step::DeletePeerCidr(k) => drop(self.peer_cidrs.remove(&k)),
            Step::DeleteRow(k) => drop(self.rows.remove(&k)),
            Step::DeleteIsolated(k) => drop(self.isolated.remove(&k)),
            Step::DeleteRoute(k) => drop(self.routes.remove(&k)),
        }
    }
}
