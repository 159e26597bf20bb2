//! The maps as the logic's tables.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns};
use rhumb_common::addr::Ip;
use rhumb_common::event::Reason;
use rhumb_common::flow::{Flow, FlowKey, TICK_SHIFT};
use rhumb_common::logic::{Insert, Meta, SockTables, Tables};
use rhumb_common::maps::{
    Backend, Config, Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route, Service,
    ServiceKey, SlotKey, SockKey, SockVal,
};

use crate::maps::{
    BACKENDS, CONFIG, ENDPOINT_POLICY, ENDPOINTS, FLOWS, PEER_CIDRS, PEERS, POLICY, ROUTES,
    SERVICE_SLOTS, SERVICES, SOCK_PEERS,
};
use crate::stages;

const EEXIST: i32 = -17;

pub struct Maps;

#[inline(always)]
fn trie_key(ip: &Ip) -> Key<[u32; 4]> {
    Key::new(
        128,
        [
            ip.hi as u32,
            (ip.hi >> 32) as u32,
            ip.lo as u32,
            (ip.lo >> 32) as u32,
        ],
    )
}

// SAFETY of the look-ups: entries of hashes may be reused while we read them; the kernel keeps
// their memory, and what is read is copied at once.
impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }
    #[inline(always)]
    fn endpoint(&self, ip: &Ip) -> Option<Endpoint> {
        unsafe { ENDPOINTS.get(ip) }.copied()
    }
    #[inline(always)]
    fn endpoint_policy(&self, ip: &Ip) -> Option<EndpointPolicy> {
        unsafe { ENDPOINT_POLICY.get(ip) }.copied()
    }
    #[inline(always)]
    fn peer(&self, ip: &Ip) -> Option<Peer> {
        unsafe { PEERS.get(ip) }.copied()
    }
    #[inline(always)]
    fn peer_cidr(&self, ip: &Ip) -> Option<Peer> {
        PEER_CIDRS.get(&trie_key(ip)).copied()
    }
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVal> {
        POLICY.get(&Key::new(96, key.words)).copied()
    }
    #[inline(always)]
    fn route(&self, ip: &Ip) -> Option<Route> {
        ROUTES.get(&trie_key(ip)).copied()
    }
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        unsafe { SERVICES.get(key) }.copied()
    }
    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<u32> {
        unsafe { SERVICE_SLOTS.get(key) }.copied()
    }
    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        unsafe { BACKENDS.get(id) }.copied()
    }
    #[inline(always)]
    fn flow<R>(&mut self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let flow = FLOWS.get_ptr_mut(key)?;
        Some(f(unsafe { &mut *flow }))
    }
    #[inline(always)]
    fn flow_insert(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        outcome(FLOWS.insert(key, flow, BPF_NOEXIST as u64))
    }
    #[inline(always)]
    fn flow_replace(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        outcome(FLOWS.insert(key, flow, BPF_ANY as u64))
    }
    #[inline(always)]
    fn flow_remove(&mut self, key: &FlowKey) {
        let _ = FLOWS.remove(key);
    }
    #[inline(always)]
    fn now(&self) -> u32 {
        (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
    }
    #[inline(always)]
    fn random(&mut self) -> u32 {
        unsafe { bpf_get_prandom_u32() }
    }
    #[inline(always)]
    fn judge(&mut self, m: &mut Meta) -> Result<(), Reason> {
        stages::judge(m)
    }
    #[inline(always)]
    fn create(&mut self, m: &mut Meta) -> Result<(), Reason> {
        stages::create(m)
    }
}

#[inline(always)]
fn outcome(result: Result<(), i32>) -> Insert {
    match result {
        Ok(()) => Insert::Done,
        Err(EEXIST) => Insert::Exists,
        Err(_) => Insert::Full,
    }
}

impl SockTables for Maps {
    #[inline(always)]
    fn sock_peer(&self, key: &SockKey) -> Option<SockVal> {
        unsafe { SOCK_PEERS.get(key) }.copied()
    }
    #[inline(always)]
    fn sock_peer_set(&mut self, key: &SockKey, val: &SockVal) {
        // A full table only costs the translation of the peer's address.
        let _ = SOCK_PEERS.insert(key, val, BPF_ANY as u64);
    }
}
