//! Steps to system calls, and the maps back to tables.

use std::{fs, io, net::IpAddr, path::PathBuf, time::SystemTime};

use aya::maps::lpm_trie::Key;
use rhumb_common::{
    addr::Ip,
    maps::{Config, config_flag},
};
use rhumb_core::{
    Synced,
    policy::Ids,
    snapshot::Snapshot,
    tables::{Prefix, RowKey, Step, Tables},
};
use tracing::warn;

use crate::dataplane::{
    bpf::{self, Maps, Table},
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
            settings,
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn read(&self) -> Result<Tables, bpf::Error> {
        read_tables(&self.maps)
    }

    /// Writes the steps in order; neighbours of a kind in batches. The proof is for the deletes
    /// among them.
    pub fn write(&self, ids: &mut Ids, steps: &[Step], _proof: &Synced) -> Result<(), Error> {
        // Before the numbers reach the maps: after a crash the maps must not hold one whose
        // meaning is lost.
        if ids.take_changed() {
            store_ids(&self.ids_file, ids).map_err(|source| Error::Ids {
                path: self.ids_file.clone(),
                source,
            })?;
        }
        for chunk in steps.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            self.write_chunk(chunk)?;
        }
        Ok(())
    }

    fn write_chunk(&self, chunk: &[Step]) -> Result<(), bpf::Error> {
        let m = &self.maps;
        match chunk {
            [Step::PutRoute(..), ..] => put(&m.routes, chunk, |s| match s {
                Step::PutRoute(k, v) => Some((prefix_key(*k), *v)),
                _ => None,
            }),
            [Step::PutBackend(..), ..] => put(&m.backends, chunk, |s| match s {
                Step::PutBackend(k, v) => Some((*k, *v)),
                _ => None,
            }),
            [Step::PutSlot(..), ..] => put(&m.slots, chunk, |s| match s {
                Step::PutSlot(k, v) => Some((*k, *v)),
                _ => None,
            }),
            [Step::PutService(..), ..] => put(&m.services, chunk, |s| match s {
                Step::PutService(k, v) => Some((*k, *v)),
                _ => None,
            }),
            [Step::PutRow(..), ..] => put(&m.policy, chunk, |s| match s {
                Step::PutRow(k, v) => Some((row_key(*k), *v)),
                _ => None,
            }),
            [Step::PutPeerCidr(..), ..] => put(&m.peer_cidrs, chunk, |s| match s {
                Step::PutPeerCidr(k, v) => Some((prefix_key(*k), *v)),
                _ => None,
            }),
            [Step::PutPeer(..), ..] => put(&m.peers, chunk, |s| match s {
                Step::PutPeer(k, v) => Some((*k, *v)),
                _ => None,
            }),
            [Step::PutEndpointPolicy(..), ..] => put(&m.endpoint_policy, chunk, |s| match s {
                Step::PutEndpointPolicy(k, v) => Some((*k, *v)),
                _ => None,
            }),
            [Step::PutIsolated(..), ..] => put(&m.isolated, chunk, |s| match s {
                Step::PutIsolated(k, v) => Some((*k, *v)),
                _ => None,
            }),
            others => others.iter().try_for_each(|s| self.write_one(s)),
        }
    }

    /// The kinds that don't batch.
    fn write_one(&self, step: &Step) -> Result<(), bpf::Error> {
        let m = &self.maps;
        match step {
            Step::BumpEpoch => {
                self.change_config(|c| c.policy_epoch = c.policy_epoch.wrapping_add(1))?;
            }
            Step::DeleteService(k) => drop(m.services.delete(k)?),
            Step::DeleteSlot(k) => drop(m.slots.delete(k)?),
            Step::DeleteBackend(k) => drop(m.backends.delete(k)?),
            Step::DeleteEndpointPolicy(k) => drop(m.endpoint_policy.delete(k)?),
            Step::DeletePeer(k) => drop(m.peers.delete(k)?),
            Step::DeletePeerCidr(k) => drop(m.peer_cidrs.delete(&prefix_key(*k))?),
            Step::DeleteRow(k) => drop(m.policy.delete(&row_key(*k))?),
            Step::DeleteIsolated(k) => drop(m.isolated.delete(k)?),
            Step::DeleteRoute(k) => drop(m.routes.delete(&prefix_key(*k))?),
            // `write_chunk` has taken the puts.
            _ => {}
        }
        Ok(())
    }

    fn change_config(&self, change: impl FnOnce(&mut Config)) -> Result<(), bpf::Error> {
        let mut config = self.maps.config.get(&0)?.unwrap_or_default();
        let before = config;
        change(&mut config);
        if config != before {
            self.maps.config.put(&0, &config)?;
        }
        Ok(())
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
        self.change_config(|c| {
            c.flags = config_flag::POLICY_SYNCED;
            if settings.masquerade && ip4 != Ip::UNSPECIFIED {
                c.flags |= config_flag::MASQUERADE_V4;
            }
            if settings.masquerade && ip6 != Ip::UNSPECIFIED {
                c.flags |= config_flag::MASQUERADE_V6;
            }
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

fn prefix_key(p: Prefix) -> Key<Ip> {
    Key::new(p.len, p.addr)
}

fn row_key(r: RowKey) -> Key<rhumb_common::maps::PolicyKey> {
    Key::new(r.len, r.key)
}

fn put<K: aya::Pod, V: aya::Pod>(
    table: &Table<K, V>,
    steps: &[Step],
    entry: impl Fn(&Step) -> Option<(K, V)>,
) -> Result<(), bpf::Error> {
    let entries: Vec<(K, V)> = steps.iter().filter_map(entry).collect();
    table.put_all(&entries)
}

pub fn read_tables(m: &Maps) -> Result<Tables, bpf::Error> {
    let prefix = |k: Key<Ip>| Prefix {
        len: k.prefix_len(),
        addr: k.data(),
    };
    Ok(Tables {
        routes: m
            .routes
            .entries()?
            .into_iter()
            .map(|(k, v)| (prefix(k), v))
            .collect(),
        services: m.services.entries()?.into_iter().collect(),
        slots: m.slots.entries()?.into_iter().collect(),
        backends: m.backends.entries()?.into_iter().collect(),
        rows: m
            .policy
            .entries()?
            .into_iter()
            .map(|(k, v)| {
                let row = RowKey {
                    len: k.prefix_len(),
                    key: k.data(),
                };
                (row, v)
            })
            .collect(),
        peers: m.peers.entries()?.into_iter().collect(),
        peer_cidrs: m
            .peer_cidrs
            .entries()?
            .into_iter()
            .map(|(k, v)| (prefix(k), v))
            .collect(),
        endpoint_policy: m.endpoint_policy.entries()?.into_iter().collect(),
        isolated: m.isolated.entries()?.into_iter().collect(),
    })
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
