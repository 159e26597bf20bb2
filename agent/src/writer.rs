//! What the engine writes: steps, the contents of ids, the node's settings.

use std::{fs, io, net::IpAddr, path::PathBuf, time::SystemTime};

use rhumb_cni::kernel::netns;
use rhumb_common::{addr::Ip, maps::config_flag};
use rhumb_core::{
    Synced,
    policy::Ids,
    snapshot::Snapshot,
    tables::{Step, Tables},
};
use tracing::warn;

use crate::dataplane::{
    bpf::{self, Maps},
    sysctl,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    #[error("cannot keep the contents of policy ids in {}", path.display())]
    Ids { path: PathBuf, source: io::Error },
}

/// What the node's interfaces and flags say for CONFIG.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    pub masquerade: bool,
    pub uplink_ifindex: u32,
    pub mtu: u32,
    /// Of the uplink; used in a family for which the Node object names no address.
    pub addresses: Vec<IpAddr>,
}

pub struct Writer {
    maps: Maps,
    ids_file: PathBuf,
    generation: u32,
    /// For CONFIG.
    host_netns: u32,
    settings: tokio::sync::watch::Receiver<NodeSettings>,
}

impl Writer {
    pub fn new(
        maps: Maps,
        ids_file: PathBuf,
        settings: tokio::sync::watch::Receiver<NodeSettings>,
    ) -> Writer {
        // Differs from that of every earlier process: units of 64 ms, which wrap after 8 years.
        let generation = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |d| (d.as_millis() >> 6) as u32)
            .max(1);
        Writer {
            maps,
            ids_file,
            generation,
            // Without it the host's loopback leads to no pod; nothing else rests on it.
            host_netns: netns::cookie().map_or(0, |cookie| cookie as u32),
            settings,
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// For ids that are given out after a failed write.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// Has every established flow judged once more.
    pub fn bump_epoch(&self) -> Result<(), Error> {
        self.maps
            .change_config(|c| c.policy_epoch = c.policy_epoch.wrapping_add(1))?;
        Ok(())
    }

    pub fn read(&self) -> Result<Tables, bpf::Error> {
        self.maps.read()
    }

    /// Writes the steps in order. The proof is for the deletes among them.
    pub fn write(&self, ids: &mut Ids, steps: &[Step], _proof: &Synced) -> Result<(), Error> {
        // Before the numbers reach the maps: after a crash the maps must not hold one whose
        // meaning is lost.
        if ids.take_changed()
            && let Err(source) = store_ids(&self.ids_file, ids)
        {
            ids.mark_changed();
            return Err(Error::Ids {
                path: self.ids_file.clone(),
                source,
            });
        }
        Ok(self.maps.write(steps)?)
    }

    /// CONFIG, from the node's interfaces and the Node object. Everything has synced.
    pub fn configure(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let settings = self.settings.borrow().clone();
        let named = snapshot.this_node().map_or(&[][..], |n| &n.internal);
        let source = |v4: bool| -> Ip {
            named
                .iter()
                .chain(&settings.addresses)
                .find(|a| a.is_ipv4() == v4)
                .map_or(Ip::UNSPECIFIED, |a| (*a).into())
        };
        let (ip4, ip6) = (source(true), source(false));
        self.maps.change_config(|c| {
            c.flags = config_flag::POLICY_SYNCED;
            if settings.masquerade && ip4 != Ip::UNSPECIFIED {
                c.flags |= config_flag::MASQUERADE_V4;
            }
            if settings.masquerade && ip6 != Ip::UNSPECIFIED {
                c.flags |= config_flag::MASQUERADE_V6;
            }
            if snapshot.has_host_ports() {
                c.flags |= config_flag::HOST_PORTS;
            }
            c.host_netns = self.host_netns;
            c.uplink_ifindex = settings.uplink_ifindex;
            c.mtu = settings.mtu;
            c.node_ip4 = ip4;
            c.node_ip6 = ip6;
            c.nat_port_min = u32::from(*sysctl::NAT_PORTS.start());
            c.nat_port_max = u32::from(*sysctl::NAT_PORTS.end());
        })?;
        Ok(())
    }
}

/// Atomic against a killed agent. Not synced to disk: after a crash of the machine the maps are
/// gone too.
fn store_ids(path: &PathBuf, ids: &Ids) -> io::Result<()> {
    let text = serde_json::to_vec(ids).map_err(io::Error::other)?;
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Contents of the ids; none if there is no file, or not one of ours (then the maps' numbers are
/// not reused, and rewritten).
pub fn load_ids(path: &PathBuf) -> Ids {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "contents of policy ids can't be read; numbering anew");
            Ids::default()
        }),
        Err(_) => Ids::default(),
    }
}
