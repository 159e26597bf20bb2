//! The tables that the logic reads and writes: maps in the kernel, collections on the host.

use super::parse::Meta;
use super::{flows, policy};
use crate::addr::Ip;
use crate::event::Reason;
use crate::flow::{Flow, FlowKey};
use crate::maps::{
    Backend, Config, Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route, Service,
    ServiceKey, SlotKey, SockKey, SockVal,
};

/// Outcome of an insert that must not replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    Done,
    Exists,
    Full,
}

pub trait Tables {
    fn config(&self) -> Option<&Config>;
    fn endpoint(&self, ip: &Ip) -> Option<Endpoint>;
    fn endpoint_policy(&self, ip: &Ip) -> Option<EndpointPolicy>;
    /// PEERS.
    fn peer(&self, ip: &Ip) -> Option<Peer>;
    /// PEER_CIDRS, longest prefix.
    fn peer_cidr(&self, ip: &Ip) -> Option<Peer>;
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVal>;
    fn route(&self, ip: &Ip) -> Option<Route>;
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    fn slot(&self, key: &SlotKey) -> Option<u32>;
    fn backend(&self, id: u32) -> Option<Backend>;
    /// No reference to an entry outlives the closure.
    fn flow<R>(&mut self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R>;
    fn flow_insert(&mut self, key: &FlowKey, flow: &Flow) -> Insert;
    fn flow_replace(&mut self, key: &FlowKey, flow: &Flow) -> Insert;
    fn flow_remove(&mut self, key: &FlowKey);
    /// Ticks of the monotonic clock ([`crate::flow::TICK_SHIFT`]).
    fn now(&self) -> u32;
    fn random(&mut self) -> u32;

    // Stages. A kernel program makes each a function of its own, so that the verifier walks it
    // once and not again from every state that leads to it.

    /// Policy of a flow: [`policy::judge`].
    #[inline(always)]
    fn judge(&mut self, m: &mut Meta) -> Result<(), Reason>
    where
        Self: Sized,
    {
        policy::judge(self, m)
    }
    /// A new flow: [`flows::create`].
    #[inline(always)]
    fn create(&mut self, m: &mut Meta) -> Result<(), Reason>
    where
        Self: Sized,
    {
        flows::create(self, m)
    }
}

/// What socket hooks need besides.
pub trait SockTables: Tables {
    fn sock_peer(&self, key: &SockKey) -> Option<SockVal>;
    fn sock_peer_set(&mut self, key: &SockKey, val: &SockVal);
}
