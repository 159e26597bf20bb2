//! The tables as collections and the packet as bytes: the logic outside the kernel.

use std::collections::HashMap;
use std::vec::Vec;

use super::csum;
use super::packet::{L4Csum, Packet, Wire};
use super::tables::{Insert, SockTables, Tables};
use crate::addr::Ip;
use crate::flow::{Flow, FlowKey};
use crate::maps::{
    Backend, Config, Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route, Service,
    ServiceKey, SlotKey, SockKey, SockVal,
};

/// A longest-prefix table over the bytes of its keys.
#[derive(Clone, Debug, Default)]
pub struct Lpm<V> {
    rows: HashMap<(u32, Vec<u8>), V>,
    lengths: Vec<u32>,
}

impl<V> Lpm<V> {
    pub fn insert(&mut self, length: u32, bytes: &[u8], value: V) {
        self.rows.insert((length, masked(bytes, length)), value);
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    pub fn get(&self, bytes: &[u8]) -> Option<&V> {
        self.lengths
            .iter()
            .find_map(|&n| self.rows.get(&(n, masked(bytes, n))))
    }

    pub fn rows(&self) -> impl Iterator<Item = (u32, &[u8], &V)> {
        self.rows.iter().map(|((n, b), v)| (*n, b.as_slice(), v))
    }
}

fn masked(bytes: &[u8], length: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (i, b) in out.iter_mut().enumerate() {
        let kept = length.saturating_sub(8 * i as u32).min(8);
        *b &= (0xff00u32 >> kept) as u8;
    }
    out
}

fn policy_bytes(key: &PolicyKey) -> Vec<u8> {
    key.words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

#[derive(Clone, Debug, Default)]
pub struct HostTables {
    pub config: Config,
    pub endpoints: HashMap<Ip, Endpoint>,
    pub endpoint_policy: HashMap<Ip, EndpointPolicy>,
    pub peers: HashMap<Ip, Peer>,
    pub peer_cidrs: Lpm<Peer>,
    pub policy: Lpm<PolicyVal>,
    pub routes: Lpm<Route>,
    pub services: HashMap<ServiceKey, Service>,
    pub slots: HashMap<SlotKey, u32>,
    pub backends: HashMap<u32, Backend>,
    pub flows: HashMap<FlowKey, Flow>,
    pub sock_peers: HashMap<SockKey, SockVal>,
    /// Ticks.
    pub now: u32,
    /// Answers to [`Tables::random`], oldest first; then a generator goes on.
    pub random: Vec<u32>,
    pub seed: u32,
}

impl HostTables {
    pub fn policy_insert(&mut self, length: u32, key: &PolicyKey, value: PolicyVal) {
        self.policy.insert(length, &policy_bytes(key), value);
    }
}

impl Tables for HostTables {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn endpoint(&self, ip: &Ip) -> Option<Endpoint> {
        self.endpoints.get(ip).copied()
    }
    fn endpoint_policy(&self, ip: &Ip) -> Option<EndpointPolicy> {
        self.endpoint_policy.get(ip).copied()
    }
    fn peer(&self, ip: &Ip) -> Option<Peer> {
        self.peers.get(ip).copied()
    }
    fn peer_cidr(&self, ip: &Ip) -> Option<Peer> {
        self.peer_cidrs.get(&ip.octets()).copied()
    }
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVal> {
        self.policy.get(&policy_bytes(key)).copied()
    }
    fn route(&self, ip: &Ip) -> Option<Route> {
        self.routes.get(&ip.octets()).copied()
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }
    fn slot(&self, key: &SlotKey) -> Option<u32> {
        self.slots.get(key).copied()
    }
    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }
    fn flow<R>(&mut self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        self.flows.get_mut(key).map(f)
    }
    fn flow_insert(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        if self.flows.contains_key(key) {
            return Insert::Exists;
        }
        self.flows.insert(*key, *flow);
        Insert::Done
    }
    fn flow_replace(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        self.flows.insert(*key, *flow);
        Insert::Done
    }
    fn flow_remove(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }
    fn now(&self) -> u32 {
        self.now
    }
    fn random(&mut self) -> u32 {
        if !self.random.is_empty() {
            return self.random.remove(0);
        }
        // Numerical Recipes' generator: any will do.
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.seed >> 8
    }
}

impl SockTables for HostTables {
    fn sock_peer(&self, key: &SockKey) -> Option<SockVal> {
        self.sock_peers.get(key).copied()
    }
    fn sock_peer_set(&mut self, key: &SockKey, val: &SockVal) {
        self.sock_peers.insert(*key, *val);
    }
}

/// A frame in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Packet for Frame {
    fn len(&self) -> u32 {
        self.0.len() as u32
    }
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(size_of::<T>())?)?;
        // SAFETY: the slice has the size of T, and any bits are a valid T.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        let bytes = self
            .0
            .get_mut(offset..offset.checked_add(size_of::<T>())?)?;
        // SAFETY: the slice has the size of T.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Some(())
    }
    fn update_l4(&mut self, at: L4Csum, diff: u32) -> Option<()> {
        let field: u16 = self.read(at.offset)?;
        if at.udp && field == 0 {
            return Some(());
        }
        let mut now = csum::apply(field, diff as u64);
        if at.udp && now == 0 {
            now = 0xffff;
        }
        self.write(at.offset, now)
    }
    fn uncompensated(&mut self, _diff: u32) {}
    fn resize(&mut self, len: u32) -> Option<()> {
        self.0.resize(len as usize, 0);
        Some(())
    }
}
