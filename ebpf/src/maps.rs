//! Every map of the programs. Names, types and owners: `rhumb_common::maps::name`.
//!
//! Control maps are allocated on demand, so that a generous ceiling costs nothing.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use rhumb_common::addr::Ip;
use rhumb_common::event::{COUNTER_SLOTS, Event};
use rhumb_common::flow::{Flow, FlowKey};
use rhumb_common::logic::Meta;
use rhumb_common::maps::{
    Backend, Config, Counter, Endpoint, EndpointPolicy, Peer, PolicyVal, Route, Service,
    ServiceKey, SlotKey, SockKey, SockVal,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub static ENDPOINTS: HashMap<Ip, Endpoint, 16384, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static ENDPOINT_POLICY: HashMap<Ip, EndpointPolicy, 16384, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static PEERS: HashMap<Ip, Peer, 262144, ON_DEMAND> = HashMap::new();
// Tries are keyed by words, not by `Ip`: a key of prefix length and address as one array has no
// padding and is copied word by word.
#[btf_map]
pub static PEER_CIDRS: LpmTrie<[u32; 4], Peer, 131072> = LpmTrie::new();
#[btf_map]
pub static POLICY: LpmTrie<[u32; 3], PolicyVal, 1048576> = LpmTrie::new();
#[btf_map]
pub static ROUTES: LpmTrie<[u32; 4], Route, 65536> = LpmTrie::new();
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, Service, 131072, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static SERVICE_SLOTS: HashMap<SlotKey, u32, 1048576, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static BACKENDS: HashMap<u32, Backend, 524288, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Flow, 262144> = LruHashMap::new();
#[btf_map]
pub static SOCK_PEERS: LruHashMap<SockKey, SockVal, 65536> = LruHashMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, 1048576> = RingBuf::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counter, { COUNTER_SLOTS as usize }> = PerCpuArray::new();
/// Read by the plugin only.
#[btf_map]
pub static ISOLATED_NAMESPACES: HashMap<u64, u32, 65536, ON_DEMAND> = HashMap::new();
/// Not pinned: belongs to one generation of the programs.
#[btf_map]
pub static SCRATCH: PerCpuArray<Meta, 1> = PerCpuArray::new();
