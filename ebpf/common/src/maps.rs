//! Keys and values of the pinned maps. Each map has one owner, named beside it.
//!
//! Conventions: ports are `u16` in network order as they stand in a packet ("be"); protocols are
//! IANA numbers; ids start at 1, so that 0 can mean "none".

use crate::addr::Ip;

/// Names of the pinned maps, programs and links: `<bpf dir>/{maps,progs,links}/<name>`.
pub mod name {
    /// `Array<Config>` of one. Owner: agent.
    pub const CONFIG: &str = "CONFIG";
    /// `Hash<Ip, Endpoint>`: pods of this node. Owner: the plugin's library, under the journal lock.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// `Hash<Ip, EndpointPolicy>`: policy sets of this node's pods. Owner: agent.
    pub const ENDPOINT_POLICY: &str = "ENDPOINT_POLICY";
    /// `Hash<Ip, Peer>`: identity of every pod address of the cluster that a selector matches.
    /// Owner: agent.
    pub const PEERS: &str = "PEERS";
    /// `LpmTrie<Ip, Peer>`: identity by CIDR, asked on a miss in PEERS. Owner: agent.
    pub const PEER_CIDRS: &str = "PEER_CIDRS";
    /// `LpmTrie<PolicyKey, PolicyVal>`: the rows of the policy sets. Owner: agent.
    pub const POLICY: &str = "POLICY";
    /// `LpmTrie<Ip, Route>`: what kind of place a destination is. Owner: agent.
    pub const ROUTES: &str = "ROUTES";
    /// `Hash<ServiceKey, Service>`: frontends, and a row for each of their addresses
    /// ([`super::ServiceKey::address`]). Owner: agent.
    pub const SERVICES: &str = "SERVICES";
    /// `Hash<SlotKey, u32>`: backend id of a Service's slot. Owner: agent.
    pub const SERVICE_SLOTS: &str = "SERVICE_SLOTS";
    /// `Hash<u32, Backend>`. Owner: agent.
    pub const BACKENDS: &str = "BACKENDS";
    /// `LruHash<FlowKey, Flow>`. Owner: the programs.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHash<SockKey, SockVal>`: translated peers of sockets. Owner: the programs.
    pub const SOCK_PEERS: &str = "SOCK_PEERS";
    /// Ring buffer of [`crate::event::Event`]. Owner: the programs.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<Counter>` indexed by [`crate::event::Reason`]. Owner: the programs.
    pub const COUNTERS: &str = "COUNTERS";
    /// `Hash<u64, u32>`: hash of the name of each namespace in which some policy selects pods
    /// ([`super::namespace_hash`]). Read by the plugin when the agent is down. Owner: agent.
    pub const ISOLATED_NAMESPACES: &str = "ISOLATED_NAMESPACES";

    /// tc, ingress of a pod's host-side veth: what the pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// tc, egress of a pod's host-side veth: what the host's stack sends to the pod.
    pub const TO_POD: &str = "to_pod";
    /// tc, ingress of the uplink.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// cgroup sock_addr programs.
    pub const SOCK_ADDR: [&str; 8] = [
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "recvmsg4",
        "recvmsg6",
        "getpeername4",
        "getpeername6",
    ];
}

/// Node-wide settings, the only entry of CONFIG.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of the agent that wrote it.
    pub abi: u32,
    /// `config_flag`.
    pub flags: u32,
    pub uplink_ifindex: u32,
    /// MTU of the uplink, bytes.
    pub mtu: u32,
    /// Source of masqueraded packets; zero where the node has none of that family.
    pub node_ip4: Ip,
    pub node_ip6: Ip,
    /// Source ports for masquerade, host order, inclusive; reserved by
    /// `net.ipv4.ip_local_reserved_ports`.
    pub nat_port_min: u32,
    pub nat_port_max: u32,
    /// Grows with every change of policy or identity: a flow judged under another epoch is
    /// judged again.
    pub policy_epoch: u32,
    /// Lower half of the cookie of the host's network namespace; 0 if it is not known.
    pub host_netns: u32,
}

pub mod config_flag {
    /// Masquerade what leaves the cluster.
    pub const MASQUERADE_V4: u32 = 1;
    pub const MASQUERADE_V6: u32 = 2;
    /// Every source has synced at least once since the maps were made: the plugin may trust
    /// ISOLATED_NAMESPACES.
    pub const POLICY_SYNCED: u32 = 4;
    /// Some port of the node leads to a pod: SERVICES holds addresses of the node.
    pub const HOST_PORTS: u32 = 8;
}

/// A pod of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Host-side veth.
    pub ifindex: u32,
    /// `endpoint_flag`.
    pub flags: u32,
    /// MAC of the pod's side: the first six bytes in memory.
    pub pod_mac: u64,
    /// MAC of the host's side.
    pub host_mac: u64,
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// Journal revision that wrote the entry.
    pub revision: u64,
}

pub mod endpoint_flag {
    /// Without an ENDPOINT_POLICY entry of its own the pod is open; without this flag it then is
    /// closed except to its own node.
    pub const OPEN: u32 = 1;
}

/// Policy sets of a local pod; 0 means not isolated in that direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    pub ingress_set: u32,
    pub egress_set: u32,
    /// [`Endpoint::netns_cookie`] of the pod that this is about, which the kernel gives to no
    /// namespace twice: under another one the address has passed on, and the row counts as absent.
    pub netns_cookie: u64,
}

/// What selectors match an address; 0 (no entry) means none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub identity: u32,
    pub _pad: u32,
}

/// Data of the POLICY trie: bytes in memory are set (be), identity (be), protocol, port (be),
/// zero. Prefix lengths: [`policy_prefix`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    pub words: [u32; 3],
}

impl PolicyKey {
    /// `port` is as in the packet (be).
    #[inline(always)]
    pub const fn new(set: u32, identity: u32, protocol: u8, port_be: u16) -> PolicyKey {
        let p = port_be.to_ne_bytes();
        PolicyKey {
            words: [
                set.to_be(),
                identity.to_be(),
                u32::from_ne_bytes([protocol, p[0], p[1], 0]),
            ],
        }
    }
}

/// Prefix lengths of POLICY rows. The most specific row wins; the agent flattens rules so that it
/// is also the right one, and gives every set a row for identity 0 where a rule admits anyone.
/// The identity is part of every prefix: a rule that admits anyone is written for each identity.
pub mod policy_prefix {
    pub const ANY_PROTOCOL: u32 = 64;
    pub const PROTOCOL: u32 = 72;
    /// Plus the port's prefix bits, so that an aligned port range is one row.
    pub const PORT: u32 = 88;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyVal {
    /// Rule id, which the agent resolves to policy, direction and index.
    pub rule: u32,
    /// `verdict`.
    pub verdict: u32,
}

pub mod verdict {
    pub const ALLOW: u32 = 1;
    pub const DENY: u32 = 2;
}

/// What kind of place a destination is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// `route_class`.
    pub class: u32,
    pub _pad: u32,
}

pub mod route_class {
    /// Pods and nodes of the cluster, and configured non-masquerade CIDRs: never masqueraded.
    pub const CLUSTER: u32 = 1;
    /// An address of this node: goes to the host's stack.
    pub const THIS_NODE: u32 = 2;
    /// This node's pod CIDR: an address in it without an endpoint is unreachable.
    pub const LOCAL_PODS: u32 = 3;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub vip: Ip,
    pub port_be: u16,
    pub protocol: u8,
    /// `service_scope`.
    pub scope: u8,
    pub _pad: u32,
}

pub mod service_scope {
    pub const CLUSTER: u8 = 0;
    /// The host's loopback addresses, asked by the host's own processes only: a pod's loopback is
    /// its own.
    pub const LOOPBACK: u8 = 1;
}

impl ServiceKey {
    /// The row that says that `vip` is a Service's address, whatever its ports: what asks it for
    /// another port or protocol is refused.
    #[inline(always)]
    pub const fn address(vip: Ip) -> ServiceKey {
        ServiceKey {
            vip,
            port_be: 0,
            protocol: 0,
            scope: 0,
            _pad: 0,
        }
    }

    #[inline(always)]
    pub const fn is_address(&self) -> bool {
        self.port_be == 0 && self.protocol == 0
    }
}

/// A frontend. A frontend with `count` 0 refuses at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub id: u32,
    /// Slots 0..count are filled. A reader that misses a slot reads the Service once more.
    pub count: u32,
    pub flags: u32,
    /// Seconds of ClientIP affinity, 0 for none.
    pub affinity: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    pub service: u32,
    pub slot: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    pub addr: Ip,
    pub port_be: u16,
    pub protocol: u8,
    pub flags: u8,
    /// Grows each time the id is given to another backend.
    pub generation: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SockKey {
    pub cookie: u64,
    pub addr: Ip,
    pub port_be: u16,
    /// `sock_key`.
    pub kind: u16,
    pub _pad: [u16; 2],
}

pub mod sock_key {
    /// By backend: the value is the frontend that the socket's owner asked for.
    pub const BACKEND: u16 = 0;
    /// By frontend: the value is the backend that datagrams of the socket go to.
    pub const FRONTEND: u16 = 1;
}

/// The other address of a translated peer: see [`sock_key`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockVal {
    pub addr: Ip,
    pub port_be: u16,
    pub _pad: u16,
    pub backend: u32,
    pub generation: u32,
    pub _pad2: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

/// FNV-1a of a namespace's name, the key of ISOLATED_NAMESPACES.
pub const fn namespace_hash(name: &str) -> u64 {
    let b = name.as_bytes();
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < b.len() {
        h = (h ^ b[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    h
}

const _: () = {
    assert!(size_of::<Config>() == 64);
    assert!(size_of::<Endpoint>() == 40);
    assert!(size_of::<EndpointPolicy>() == 16);
    assert!(size_of::<Peer>() == 8);
    assert!(size_of::<PolicyKey>() == 12);
    assert!(size_of::<PolicyVal>() == 8);
    assert!(size_of::<Route>() == 8);
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<SlotKey>() == 8);
    assert!(size_of::<Backend>() == 24);
    assert!(size_of::<SockKey>() == 32);
    assert!(size_of::<SockVal>() == 32);
    assert!(size_of::<Counter>() == 16);
};

#[cfg(feature = "aya")]
mod pod {
    use super::*;
    // SAFETY: repr(C), no implicit padding (asserted by the sizes above), every bit pattern valid.
    macro_rules! pod { ($($t:ty),*) => { $( unsafe impl aya::Pod for $t {} )* } }
    pod!(
        Ip,
        Config,
        Endpoint,
        EndpointPolicy,
        Peer,
        PolicyKey,
        PolicyVal,
        Route,
        ServiceKey,
        Service,
        SlotKey,
        Backend,
        SockKey,
        SockVal,
        Counter
    );
}
