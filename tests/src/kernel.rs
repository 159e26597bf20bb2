//! The programs, loaded with maps of their own (nothing pinned, nothing attached).

use std::path::PathBuf;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupSockAddr, ProgramError, ProgramInfo, SchedClassifier, TestRun, TestRunOptions,
};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use rhumb_common::addr::Ip;
use rhumb_common::event::{Event, Reason};
use rhumb_common::flow::{Flow, FlowKey};
use rhumb_common::logic::host::{HostTables, Lpm};
use rhumb_common::maps::{Config, Counter, PolicyKey, name};

/// Every program of the object.
pub const PROGRAMS: [&str; 11] = [
    name::FROM_POD,
    name::TO_POD,
    name::FROM_UPLINK,
    name::SOCK_ADDR[0],
    name::SOCK_ADDR[1],
    name::SOCK_ADDR[2],
    name::SOCK_ADDR[3],
    name::SOCK_ADDR[4],
    name::SOCK_ADDR[5],
    name::SOCK_ADDR[6],
    name::SOCK_ADDR[7],
];

pub struct Programs {
    pub ebpf: Ebpf,
}

impl Programs {
    pub fn load() -> Programs {
        let path = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/bpf/rhumb.bpf.o"
        ));
        let object = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("read {}: {e}: run cargo xtask build-ebpf", path.display()));
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&object)
            .unwrap_or_else(|e| panic!("load {}: {e}", path.display()));
        for name in PROGRAMS {
            let program = ebpf
                .program_mut(name)
                .unwrap_or_else(|| panic!("the object has no program {name}"));
            let loaded = if name::SOCK_ADDR.contains(&name) {
                let program: &mut CgroupSockAddr = program.try_into().expect("a sock_addr program");
                program.load()
            } else {
                let program: &mut SchedClassifier = program.try_into().expect("a classifier");
                program.load()
            };
            loaded.unwrap_or_else(|e| panic!("load {name}: {e:#?}"));
        }
        Programs { ebpf }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ebpf.programs().map(|(name, _)| name)
    }

    pub fn info(&self, name: &str) -> Result<ProgramInfo, ProgramError> {
        self.ebpf
            .program(name)
            .unwrap_or_else(|| panic!("the object has no program {name}"))
            .info()
    }

    pub fn classifier(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf
            .program_mut(name)
            .unwrap_or_else(|| panic!("the object has no program {name}"))
            .try_into()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn sock_addr(&mut self, name: &str) -> &mut CgroupSockAddr {
        self.ebpf
            .program_mut(name)
            .unwrap_or_else(|| panic!("the object has no program {name}"))
            .try_into()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self
            .ebpf
            .map_mut(name)
            .unwrap_or_else(|| panic!("the object has no map {name}"));
        HashMap::try_from(map).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn put_all<'a, K: Pod + 'a, V: Pod + 'a>(
        &mut self,
        name: &str,
        rows: impl IntoIterator<Item = (&'a K, &'a V)>,
    ) {
        let mut map = self.hash::<K, V>(name);
        for (k, v) in rows {
            map.insert(k, v, 0)
                .unwrap_or_else(|e| panic!("write {name}: {e}"));
        }
    }

    fn put_lpm<K: Pod, V: Pod>(&mut self, name: &str, rows: &Lpm<V>, key: impl Fn(&[u8]) -> K) {
        let map = self
            .ebpf
            .map_mut(name)
            .unwrap_or_else(|| panic!("the object has no map {name}"));
        let mut map: LpmTrie<_, K, V> =
            LpmTrie::try_from(map).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (length, bytes, v) in rows.rows() {
            map.insert(&Key::new(length, key(bytes)), v, 0)
                .unwrap_or_else(|e| panic!("write {name}: {e}"));
        }
    }

    pub fn set_config(&mut self, config: &Config) {
        let map = self.ebpf.map_mut(name::CONFIG).expect("CONFIG");
        let mut map: Array<_, Config> = Array::try_from(map).expect("CONFIG is an array");
        map.set(0, config, 0).expect("write CONFIG");
    }

    /// Writes the control tables; rows that they don't have stay.
    pub fn write(&mut self, t: &HostTables) {
        let ip = |b: &[u8]| Ip::from_octets(b.try_into().expect("16 bytes"));
        self.set_config(&t.config);
        self.put_all(name::BACKENDS, &t.backends);
        self.put_all(name::SERVICE_SLOTS, &t.slots);
        self.put_all(name::SERVICES, &t.services);
        self.put_lpm(name::ROUTES, &t.routes, ip);
        self.put_all(name::PEERS, &t.peers);
        self.put_lpm(name::PEER_CIDRS, &t.peer_cidrs, ip);
        self.put_lpm(name::POLICY, &t.policy, |b| {
            let word = |i: usize| u32::from_ne_bytes(b[i..i + 4].try_into().expect("4 bytes"));
            PolicyKey {
                words: [word(0), word(4), word(8)],
            }
        });
        self.put_all(name::ENDPOINT_POLICY, &t.endpoint_policy);
        self.put_all(name::ENDPOINTS, &t.endpoints);
    }

    pub fn flows(&mut self) -> std::collections::HashMap<FlowKey, Flow> {
        self.hash::<FlowKey, Flow>(name::FLOWS)
            .iter()
            .map(|row| row.expect("read FLOWS"))
            .collect()
    }

    /// Packets counted under a reason, over all CPUs.
    pub fn counted(&mut self, reason: Reason) -> u64 {
        let map = self.ebpf.map_mut(name::COUNTERS).expect("COUNTERS");
        let map: PerCpuArray<_, Counter> = PerCpuArray::try_from(map).expect("COUNTERS per CPU");
        let values = map.get(&(reason as u32), 0).expect("read COUNTERS");
        values.iter().map(|c| c.packets).sum()
    }

    /// The events since the last time.
    pub fn events(&mut self) -> Vec<Event> {
        let map = self.ebpf.map_mut(name::EVENTS).expect("EVENTS");
        let mut ring = RingBuf::try_from(map).expect("EVENTS is a ring buffer");
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            assert_eq!(item.len(), size_of::<Event>());
            // SAFETY: the size is right, and any bits are a valid Event.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// BPF_PROG_TEST_RUN; the frame comes back as the program left it.
    pub fn run(&mut self, program: &str, frame: &[u8], at: At) -> Result<Ran, ProgramError> {
        self.run_many(program, frame, at, 1)
    }

    pub fn run_many(
        &mut self,
        program: &str,
        frame: &[u8],
        at: At,
        repeat: u32,
    ) -> Result<Ran, ProgramError> {
        let mut out = vec![0; frame.len() + 256];
        let mut context = [0u8; 192];
        context[INGRESS_IFINDEX..][..4].copy_from_slice(&at.ingress_ifindex.to_ne_bytes());
        context[IFINDEX..][..4].copy_from_slice(&at.ifindex.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let result = self.classifier(program).test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok(Ran {
            code: result.return_value,
            frame: out,
            duration: result.duration,
        })
    }
}

/// Offsets in `struct __sk_buff`.
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// Where a frame is seen.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub ifindex: u32,
    pub ingress_ifindex: u32,
}

#[derive(Debug)]
pub struct Ran {
    pub code: u32,
    pub frame: Vec<u8>,
    pub duration: std::time::Duration,
}
