use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not root: the agent loads eBPF programs and changes the network; start it as root")]
    NotRoot,
    #[error("kernel {release} is too old: the programs need Linux 6.1 or newer")]
    Kernel { release: String },
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux): use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    #[error(
        "{} is not on a bpf file system: mount one (mount -t bpf bpf {}), or name another with --bpf-dir",
        dir.display(), mount.display()
    )]
    NoBpffs { dir: PathBuf, mount: PathBuf },
    #[error(
        "no cgroup2 file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), or name its directory with --cgroup-root"
    )]
    NoCgroup2,
    #[error("{} is not in a cgroup2 file system: name a directory of one with --cgroup-root", dir.display())]
    NotCgroup2 { dir: PathBuf },
    #[error("built without eBPF programs: run cargo xtask build-ebpf first, then build again")]
    NoPrograms,
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot make the directory {}", path.display())]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("cannot load the eBPF object")]
    Object(#[source] Box<aya::EbpfError>),
    #[error("the eBPF object has no program {name}")]
    MissingProgram { name: &'static str },
    #[error("the kernel refused the program {name}")]
    Load {
        name: &'static str,
        source: Box<aya::programs::ProgramError>,
    },
    #[error("cannot open the pin {}", path.display())]
    OpenPin { path: PathBuf, source: io::Error },
    #[error("cannot pin to {}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("cannot remove the pin {}", path.display())]
    Unpin { path: PathBuf, source: io::Error },
    #[error(
        "the pinned maps are of ABI {found}, this agent's is {expected}: run the agent that made them, or remove them (rhumb-agent uninstall) and accept the loss of flows"
    )]
    Abi { found: u32, expected: u32 },
    #[error(
        "the map {} has keys and values of {found:?} bytes, this agent's have {expected:?}: run the agent that made it, or remove it (rhumb-agent uninstall)",
        path.display()
    )]
    Layout {
        path: PathBuf,
        found: (u32, u32),
        expected: (u32, u32),
    },
    #[error("cannot attach {program} to {target}")]
    Attach {
        program: &'static str,
        target: String,
        source: Box<aya::programs::ProgramError>,
    },
    #[error("cannot change the filter of from_uplink on {target}")]
    Filter { target: String, source: io::Error },
    #[error("cannot replace the program of the link {}", path.display())]
    Replace { path: PathBuf, source: io::Error },
    #[error("no network interface {name}: name the node's uplink with --uplink")]
    NoInterface { name: String, source: io::Error },
    #[error("cannot {op} the map {map} (it holds up to {max_entries} entries)")]
    Map {
        op: &'static str,
        map: &'static str,
        max_entries: u32,
        source: io::Error,
    },
}
