//! The programs, loaded with maps of their own (nothing pinned, nothing attached).

use std::path::PathBuf;

use aya::programs::{CgroupSockAddr, ProgramError, ProgramInfo, SchedClassifier};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use rhumb_common::maps::name;

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
}
