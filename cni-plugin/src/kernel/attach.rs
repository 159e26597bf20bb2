//! The pinned programs on a pod's host-side veth, and the ENDPOINTS map.
//!
//! What changes either takes a [`Locked`] journal: the agent swaps the programs of all links, and
//! repairs ENDPOINTS, under the same lock.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        links::{LinkError, PinnedLink},
        tc::TcError,
    },
    util::KernelVersion,
};
use rhumb_common::{
    addr::Ip,
    maps::{Config, Endpoint, config_flag, endpoint_flag, name, namespace_hash},
};

use super::bpf;
use crate::{attachment::Attachment, ipam::store::Locked, node::Paths};

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{} is not there: rhumb-agent has not made its maps and programs on this node yet; start it once, then the plugin works without it too", .0.display())]
    NotLoaded(PathBuf),
    #[error(
        "this kernel is older than Linux 6.6 and has no tcx links, which the plugin attaches programs by"
    )]
    KernelTooOld,
    #[error("the maps in {} are of layout {found}, this plugin's is {}: let the agent of the same version install its plugin, or upgrade the agent", path.display(), rhumb_common::ABI_VERSION)]
    Abi { path: PathBuf, found: u32 },
    #[error("{what} {}: {source}", path.display())]
    Pin {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("attaching {program} to {ifname}: {source}")]
    Attach {
        program: &'static str,
        ifname: String,
        source: io::Error,
    },
    #[error("{what} in the map {map}: {source}")]
    Map {
        what: &'static str,
        map: &'static str,
        source: io::Error,
    },
}

/// Program, its direction as the pin's name has it, and where it hangs.
const HOOKS: [(&str, &str, TcAttachType); 2] = [
    (name::FROM_POD, "ingress", TcAttachType::Ingress),
    (name::TO_POD, "egress", TcAttachType::Egress),
];

fn link_path(paths: &Paths, host_ifname: &str, direction: &str) -> PathBuf {
    paths.links_dir().join(format!("{host_ifname}-{direction}"))
}

fn is_absent(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

fn open_map<T, E: std::error::Error + Send + Sync + 'static>(
    paths: &Paths,
    map: &'static str,
    typed: impl FnOnce(MapData) -> Result<T, E>,
) -> Result<T, AttachError> {
    let path = paths.map(map);
    if is_absent(&path) {
        return Err(AttachError::NotLoaded(path));
    }
    let error = |source| AttachError::Pin {
        what: "opening",
        path: path.clone(),
        source,
    };
    let data = MapData::from_pin(&path).map_err(|e| error(io::Error::other(e)))?;
    typed(data).map_err(|e| error(io::Error::other(e)))
}

/// The ENDPOINTS map.
#[derive(Debug)]
pub struct Endpoints {
    map: HashMap<MapData, Ip, Endpoint>,
}

impl Endpoints {
    pub fn open(paths: &Paths) -> Result<Endpoints, AttachError> {
        let map = open_map(paths, name::ENDPOINTS, |d| {
            HashMap::try_from(Map::HashMap(d))
        })?;
        Ok(Endpoints { map })
    }

    fn error(what: &'static str) -> impl FnOnce(MapError) -> AttachError {
        move |e| AttachError::Map {
            what,
            map: name::ENDPOINTS,
            source: match e {
                MapError::SyscallError(s) => s.io_error,
                other => io::Error::other(other),
            },
        }
    }

    pub fn get(&self, ip: IpAddr) -> Result<Option<Endpoint>, AttachError> {
        match self.map.get(&ip.into(), 0) {
            Ok(e) => Ok(Some(e)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(Self::error("looking an address up")(e)),
        }
    }

    pub fn put(&mut self, _lock: &Locked, ip: IpAddr, e: Endpoint) -> Result<(), AttachError> {
        self.map
            .insert(Ip::from(ip), e, 0)
            .map_err(Self::error("writing an address"))
    }

    /// Deletes an address; absent is fine.
    pub fn remove(&mut self, _lock: &Locked, ip: IpAddr) -> Result<(), AttachError> {
        match self.map.remove(&ip.into()) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(s)) if s.io_error.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            r => r.map_err(Self::error("deleting an address")),
        }
    }

    pub fn all(&self) -> Result<Vec<(IpAddr, Endpoint)>, AttachError> {
        self.map
            .iter()
            .map(|r| r.map(|(ip, e)| (ip.to_std(), e)))
            .collect::<Result<_, _>>()
            .map_err(Self::error("listing addresses"))
    }

    /// Writes the entries of an attachment.
    pub fn put_all(&mut self, lock: &Locked, a: &Attachment) -> Result<(), AttachError> {
        let entry = endpoint(a);
        a.ips.iter().try_for_each(|ip| self.put(lock, *ip, entry))
    }
}

/// The entry that an attachment has in ENDPOINTS.
pub fn endpoint(a: &Attachment) -> Endpoint {
    Endpoint {
        ifindex: a.ifindex,
        flags: if a.open { endpoint_flag::OPEN } else { 0 },
        pod_mac: a.pod_mac.to_u64(),
        host_mac: a.host_mac.to_u64(),
        netns_cookie: a.netns_cookie,
        revision: a.revision,
    }
}

/// Whether the agent has made what the plugin attaches to, and the kernel can.
pub fn ready(paths: &Paths) -> Result<(), AttachError> {
    // A kernel whose version can't be read will say itself what it can't do.
    if KernelVersion::current().is_ok_and(|v| v < KernelVersion::new(6, 6, 0)) {
        return Err(AttachError::KernelTooOld);
    }
    let programs = HOOKS.iter().map(|(p, ..)| paths.program(p));
    let maps = [name::ENDPOINTS, name::CONFIG, name::ISOLATED_NAMESPACES].map(|m| paths.map(m));
    if let Some(absent) = programs.chain(maps).find(|p| is_absent(p)) {
        return Err(AttachError::NotLoaded(absent));
    }
    match config(paths)?.abi {
        rhumb_common::ABI_VERSION => Ok(()),
        // Made, but not written yet.
        0 => Err(AttachError::NotLoaded(paths.map(name::CONFIG))),
        found => Err(AttachError::Abi {
            path: paths.map(""),
            found,
        }),
    }
}

fn map_error(map: &'static str, e: MapError) -> AttachError {
    AttachError::Map {
        what: "looking up",
        map,
        source: match e {
            MapError::SyscallError(s) => s.io_error,
            other => io::Error::other(other),
        },
    }
}

fn config(paths: &Paths) -> Result<Config, AttachError> {
    let map: Array<MapData, Config> =
        open_map(paths, name::CONFIG, |d| Array::try_from(Map::Array(d)))?;
    map.get(&0, 0).map_err(|e| map_error(name::CONFIG, e))
}

/// Hangs the pinned programs onto a host-side veth of the calling thread's namespace, and pins
/// the links. A pin that is there is replaced.
pub fn attach(_lock: &Locked, paths: &Paths, a: &Attachment) -> Result<(), AttachError> {
    let links = paths.links_dir();
    fs::create_dir_all(&links).map_err(|source| AttachError::Pin {
        what: "making",
        path: links,
        source,
    })?;
    for (program, direction, hook) in HOOKS {
        let path = paths.program(program);
        let program_fd = bpf::obj_get(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => AttachError::NotLoaded(path),
            _ => AttachError::Pin {
                what: "opening the program",
                path,
                source,
            },
        })?;
        let link = bpf::tcx_attach(program_fd.as_fd(), a.ifindex, hook == TcAttachType::Ingress);
        let link = link.map_err(|source| AttachError::Attach {
            program,
            ifname: a.host_ifname.clone(),
            source,
        })?;
        let path = link_path(paths, &a.host_ifname, direction);
        unpin(&path)?;
        // Killed before the pin, the link goes with our descriptor.
        bpf::obj_pin(link.as_fd(), &path).map_err(|source| AttachError::Pin {
            what: "pinning the program link",
            path,
            source,
        })?;
    }
    Ok(())
}

fn open_program(paths: &Paths, program: &'static str) -> Result<SchedClassifier, AttachError> {
    let path = paths.program(program);
    if is_absent(&path) {
        return Err(AttachError::NotLoaded(path));
    }
    SchedClassifier::from_pin(&path).map_err(|e| AttachError::Pin {
        what: "opening the program",
        path,
        source: program_error(e),
    })
}

fn program_error(e: ProgramError) -> io::Error {
    match e {
        ProgramError::SyscallError(s) => s.io_error,
        ProgramError::TcError(TcError::IoError(e)) => e,
        other => io::Error::other(other),
    }
}

fn unpin(path: &Path) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AttachError::Pin {
            what: "removing",
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes the pins of a host-side veth's program links; absent is fine.
pub fn detach(_lock: &Locked, paths: &Paths, host_ifname: &str) -> Result<(), AttachError> {
    HOOKS
        .iter()
        .try_for_each(|(_, direction, _)| unpin(&link_path(paths, host_ifname, direction)))
}

/// What is wrong with the programs on a host-side veth; nothing, if all is well.
pub fn differences(paths: &Paths, host_ifname: &str) -> Result<Vec<String>, AttachError> {
    let mut found = Vec::new();
    for (program, direction, hook) in HOOKS {
        let path = link_path(paths, host_ifname, direction);
        match PinnedLink::from_pin(&path) {
            Ok(_) => {}
            Err(LinkError::SyscallError(s)) if s.io_error.kind() == io::ErrorKind::NotFound => {
                found.push(format!("the program link {} is gone", path.display()));
                continue;
            }
            Err(e) => {
                return Err(AttachError::Pin {
                    what: "opening the program link",
                    path,
                    source: io::Error::other(e),
                });
            }
        }
        let error = |source| AttachError::Attach {
            program,
            ifname: host_ifname.to_owned(),
            source,
        };
        let info = open_program(paths, program)?.info();
        let pinned = info.map_err(|e| error(program_error(e)))?.id();
        let attached = SchedClassifier::query_tcx(host_ifname, hook).map_err(program_error);
        let attached = match attached {
            Ok((_, attached)) => attached,
            // The interface is gone, which is told elsewhere.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(found),
            Err(e) => return Err(error(e)),
        };
        if !attached.iter().any(|p| p.id() == pinned) {
            found.push(format!(
                "{program} is not attached to {host_ifname} ({direction})"
            ));
        }
    }
    Ok(found)
}

/// Whether a pod may start open without the agent: every source had synced once, and no policy
/// selects pods in its namespace.
pub fn may_open(paths: &Paths, namespace: &str) -> Result<bool, AttachError> {
    if config(paths)?.flags & config_flag::POLICY_SYNCED == 0 {
        return Ok(false);
    }
    let isolated: HashMap<MapData, u64, u32> = open_map(paths, name::ISOLATED_NAMESPACES, |d| {
        HashMap::try_from(Map::HashMap(d))
    })?;
    match isolated.get(&namespace_hash(namespace), 0) {
        Ok(_) => Ok(false),
        Err(MapError::KeyNotFound) => Ok(true),
        Err(e) => Err(map_error(name::ISOLATED_NAMESPACES, e)),
    }
}
