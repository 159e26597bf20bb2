//! Maps, programs and links in the kernel, pinned under `<bpf dir>/{maps,progs,links}`.
//!
//! Opening is the same act at first start, restart and upgrade: maps that are there are kept,
//! programs are loaded anew over them and swapped in link by link; nothing is ever detached
//! on the way. Pods' programs are swapped by the plugin's library. Maps of another ABI are refused.

mod error;
mod events;
mod programs;
mod require;
mod steps;
mod sys;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, maps::lpm_trie::Key};
use rhumb_common::{
    ABI_VERSION,
    addr::Ip,
    flow::{Flow, FlowKey},
    maps::{
        Backend, Config, Counter, Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route,
        Service, ServiceKey, SlotKey, name,
    },
};

pub use self::{error::Error, events::Events, programs::Hang, table::Table};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rhumb.bpf.o"));

/// Every map that is pinned; others (scratch space) belong to one generation of the programs.
const PINNED: [&str; 15] = [
    name::CONFIG,
    name::ENDPOINTS,
    name::ENDPOINT_POLICY,
    name::PEERS,
    name::PEER_CIDRS,
    name::POLICY,
    name::ROUTES,
    name::SERVICES,
    name::SERVICE_SLOTS,
    name::BACKENDS,
    name::FLOWS,
    name::SOCK_PEERS,
    name::EVENTS,
    name::COUNTERS,
    name::ISOLATED_NAMESPACES,
];

#[derive(Clone, Debug)]
pub struct Options {
    /// On a bpf file system, e.g. `/sys/fs/bpf/rhumb`.
    pub bpf_dir: PathBuf,
}

/// The control maps, as user space reads and writes them. A second process (the plugin, a test)
/// may open them too: the pins are the truth.
pub struct Maps {
    pub config: Table<u32, Config>,
    /// The plugin's; read only here.
    pub endpoints: Table<Ip, Endpoint>,
    pub endpoint_policy: Table<Ip, EndpointPolicy>,
    pub peers: Table<Ip, Peer>,
    pub peer_cidrs: Table<Key<Ip>, Peer>,
    pub policy: Table<Key<PolicyKey>, PolicyVal>,
    pub routes: Table<Key<Ip>, Route>,
    pub services: Table<ServiceKey, Service>,
    pub slots: Table<SlotKey, u32>,
    pub backends: Table<u32, Backend>,
    pub isolated: Table<u64, u32>,
    pub counters: Table<u32, Counter>,
    /// The programs'; read only here.
    pub flows: Table<FlowKey, Flow>,
}

impl Maps {
    pub fn open(bpf_dir: &Path) -> Result<Maps, Error> {
        let maps = bpf_dir.join("maps");
        Ok(Maps {
            config: Table::open(&maps, name::CONFIG)?,
            endpoints: Table::open(&maps, name::ENDPOINTS)?,
            endpoint_policy: Table::open(&maps, name::ENDPOINT_POLICY)?,
            peers: Table::open(&maps, name::PEERS)?,
            peer_cidrs: Table::open(&maps, name::PEER_CIDRS)?,
            policy: Table::open(&maps, name::POLICY)?,
            routes: Table::open(&maps, name::ROUTES)?,
            services: Table::open(&maps, name::SERVICES)?,
            slots: Table::open(&maps, name::SERVICE_SLOTS)?,
            backends: Table::open(&maps, name::BACKENDS)?,
            isolated: Table::open(&maps, name::ISOLATED_NAMESPACES)?,
            counters: Table::open(&maps, name::COUNTERS)?,
            flows: Table::open(&maps, name::FLOWS)?,
        })
    }
}

/// Loaded programs over pinned maps. Dropping it leaves the datapath in place.
pub struct Dataplane {
    bpf_dir: PathBuf,
    ebpf: Ebpf,
    pub maps: Maps,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane")
            .field("bpf_dir", &self.bpf_dir)
            .finish_non_exhaustive()
    }
}

impl Dataplane {
    /// Checks the machine, opens or makes the maps, loads the programs over them and swaps them
    /// into every pinned link. Pods keep theirs until `Attachments::repair`, which is to follow.
    pub fn open(options: &Options) -> Result<Dataplane, Error> {
        preflight_bpf(&options.bpf_dir)?;
        let dir = &options.bpf_dir;
        for sub in ["maps", "progs", "links"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(|source| Error::MakeDir { path, source })?;
        }
        let maps_dir = dir.join("maps");
        check_abi(&maps_dir)?;

        let mut ebpf = load_object(&maps_dir)?;
        let maps = Maps::open(dir)?;
        if maps.config.get(&0)?.unwrap_or_default().abi == 0 {
            maps.config.put(
                &0,
                &Config {
                    abi: ABI_VERSION,
                    ..Config::default()
                },
            )?;
        }
        programs::load(&mut ebpf)?;
        programs::pin_all(&ebpf, &dir.join("progs"))?;
        programs::replace_all(&ebpf, &dir.join("links"))?;
        Ok(Dataplane {
            bpf_dir: dir.clone(),
            ebpf,
            maps,
        })
    }

    /// Attaches `from_uplink`; returns the interface's index.
    pub fn attach_uplink(&mut self, uplink: &str, hang: Hang) -> Result<u32, Error> {
        programs::attach_uplink(&mut self.ebpf, &self.bpf_dir.join("links"), uplink, hang)
    }

    /// Attaches the socket hooks to a cgroup2 directory (default: the mount's root); returns it.
    pub fn attach_cgroup(&mut self, root: Option<&Path>) -> Result<PathBuf, Error> {
        let root = require::cgroup2(root)?;
        programs::attach_cgroup(&mut self.ebpf, &self.bpf_dir.join("links"), &root)?;
        Ok(root)
    }

    /// Reads, changes and writes the only entry of CONFIG.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) -> Result<Config, Error> {
        self.maps.change_config(|c| {
            change(c);
            c.abi = ABI_VERSION;
        })
    }

    /// Names of the programs with the number of instructions that the verifier walked.
    pub fn verified(&self) -> Vec<(String, Option<u32>)> {
        self.ebpf
            .programs()
            .map(|(name, p)| {
                let n = p.info().ok().and_then(|i| i.verified_instruction_count());
                (name.to_owned(), n)
            })
            .collect()
    }

    /// The ring buffer of drops; one reader.
    pub fn events(&self) -> Result<Events, Error> {
        Events::open(&self.bpf_dir.join("maps").join(name::EVENTS))
    }
}

/// Everything that [`Dataplane`] needs of the machine, before anything is touched.
pub fn preflight(bpf_dir: &Path, cgroup_root: Option<&Path>) -> Result<(), Error> {
    preflight_bpf(bpf_dir)?;
    require::cgroup2(cgroup_root).map(drop)
}

fn preflight_bpf(bpf_dir: &Path) -> Result<(), Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoPrograms);
    }
    require::root()?;
    require::kernel()?;
    require::btf()?;
    require::bpffs(bpf_dir)
}

/// Detaches and removes everything under `bpf_dir`, and the uplink's filter. Pods' filters go with
/// their veths.
pub fn remove(bpf_dir: &Path) -> Result<(), Error> {
    programs::remove_all(bpf_dir)
}

/// Refuses maps that another ABI has made, before any of them is touched.
fn check_abi(maps: &Path) -> Result<(), Error> {
    let path = maps.join(name::CONFIG);
    if !path.exists() {
        return Ok(());
    }
    let config: Table<u32, Config> = Table::open(maps, name::CONFIG)?;
    match config.get(&0)?.unwrap_or_default().abi {
        // Made, but never written: a start that was cut short.
        0 | ABI_VERSION => Ok(()),
        found => Err(Error::Abi {
            found,
            expected: ABI_VERSION,
        }),
    }
}

fn load_object(maps: &Path) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // Verifier logs cost time and memory at every load; a refusal repeats the load with the log.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in PINNED {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(OBJECT).map_err(|e| Error::Object(Box::new(e)))
}
