//! The pinned programs on a pod's host-side veth, and the ENDPOINTS map.
//!
//! What changes either takes a [`Locked`] journal: the agent swaps the programs of all pods, and
//! repairs ENDPOINTS, under the same lock.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapError},
    util::KernelVersion,
};
use rhumb_common::{
    addr::Ip,
    maps::{Config, Endpoint, config_flag, endpoint_flag, name, namespace_hash},
};

use super::{
    bpf,
    filter::{self, Direction},
    netlink::Netlink,
};
use crate::{attachment::Attachment, ipam::store::Locked, node::Paths};

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{} is not there: rhumb-agent has not made its maps and programs on this node yet; start it once, then the plugin works without it too", .0.display())]
    NotLoaded(PathBuf),
    #[error("this kernel is older than Linux 6.1, which the programs need")]
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

/// Program, and where it hangs on the host side of a pod's veth.
const HOOKS: [(&str, Direction); 2] = [
    (name::FROM_POD, Direction::Ingress),
    (name::TO_POD, Direction::Egress),
];

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
    if KernelVersion::current().is_ok_and(|v| v < KernelVersion::new(6, 1, 0)) {
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

/// The pinned programs of pods, opened.
#[derive(Debug)]
pub struct Programs {
    hooks: Vec<Hook>,
}

#[derive(Debug)]
struct Hook {
    program: &'static str,
    direction: Direction,
    fd: OwnedFd,
    id: u32,
}

/// What [`Programs::renew`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The pod has the pinned programs.
    Current,
    /// It had programs of another load.
    Replaced,
    /// It lacked one.
    Attached,
}

impl Programs {
    pub fn open(paths: &Paths) -> Result<Programs, AttachError> {
        let hook = |(program, direction)| {
            let path = paths.program(program);
            let opened =
                bpf::obj_get(&path).and_then(|fd| bpf::program_id(fd.as_fd()).map(|id| (fd, id)));
            let (fd, id) = opened.map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => AttachError::NotLoaded(path),
                _ => AttachError::Pin {
                    what: "opening the program",
                    path,
                    source,
                },
            })?;
            Ok(Hook {
                program,
                direction,
                fd,
                id,
            })
        };
        let hooks = HOOKS.into_iter().map(hook).collect::<Result<_, _>>()?;
        Ok(Programs { hooks })
    }

    /// Hangs the programs onto a host-side veth of the namespace that the socket is of.
    pub fn attach(
        &self,
        lock: &Locked,
        netlink: &mut Netlink,
        a: &Attachment,
    ) -> Result<(), AttachError> {
        filter::make_hooks(netlink, a.ifindex).map_err(|source| AttachError::Attach {
            program: "a clsact qdisc",
            ifname: a.host_ifname.clone(),
            source,
        })?;
        self.hooks
            .iter()
            .try_for_each(|hook| hook.put(lock, netlink, a))
    }

    /// Gives a pod the pinned programs where it has others or none. Each is replaced atomically:
    /// there is no moment without a program.
    pub fn renew(
        &self,
        lock: &Locked,
        netlink: &mut Netlink,
        a: &Attachment,
    ) -> Result<Renewal, AttachError> {
        let mut did = Renewal::Current;
        for hook in &self.hooks {
            match hook.attached(netlink, a)? {
                Some(id) if id == hook.id => {}
                Some(_) => {
                    hook.put(lock, netlink, a)?;
                    did = Renewal::Replaced;
                }
                None => {
                    self.attach(lock, netlink, a)?;
                    return Ok(Renewal::Attached);
                }
            }
        }
        Ok(did)
    }

    /// What is wrong with the programs on a host-side veth; nothing, if all is well.
    pub fn differences(
        &self,
        netlink: &mut Netlink,
        a: &Attachment,
    ) -> Result<Vec<String>, AttachError> {
        let mut found = Vec::new();
        for hook in &self.hooks {
            let (program, name) = (hook.program, &a.host_ifname);
            let side = hook.direction.text();
            match hook.attached(netlink, a)? {
                Some(id) if id == hook.id => {}
                Some(_) => found.push(format!(
                    "the program {program} on {name} ({side}) is not the pinned one"
                )),
                None => found.push(format!(
                    "the program {program} is not attached to {name} ({side})"
                )),
            }
        }
        Ok(found)
    }
}

impl Hook {
    fn error(&self, a: &Attachment) -> impl FnOnce(io::Error) -> AttachError {
        let (program, ifname) = (self.program, a.host_ifname.clone());
        move |source| AttachError::Attach {
            program,
            ifname,
            source,
        }
    }

    fn put(
        &self,
        _lock: &Locked,
        netlink: &mut Netlink,
        a: &Attachment,
    ) -> Result<(), AttachError> {
        let fd = self.fd.as_fd();
        filter::put(netlink, a.ifindex, self.direction, fd, self.program).map_err(self.error(a))
    }

    fn attached(&self, netlink: &mut Netlink, a: &Attachment) -> Result<Option<u32>, AttachError> {
        filter::attached(netlink, a.ifindex, self.direction).map_err(self.error(a))
    }
}

/// Removes the pins of pods' tcx links, which earlier builds attached by; their programs ran
/// before the filters, so filters have to stand already.
pub fn remove_old_links(_lock: &Locked, paths: &Paths) -> Result<usize, AttachError> {
    let dir = paths.links_dir();
    let Ok(entries) = fs::read_dir(&dir) else {
        return Ok(0);
    };
    let mut removed = 0;
    for path in entries.flatten().map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("rh") && (name.ends_with("-ingress") || name.ends_with("-egress")) {
            fs::remove_file(&path).map_err(|source| AttachError::Pin {
                what: "removing",
                path: path.clone(),
                source,
            })?;
            removed += 1;
        }
    }
    Ok(removed)
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
