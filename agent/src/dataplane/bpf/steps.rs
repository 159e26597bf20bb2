//! Steps to map writes, and the maps back to tables.

use aya::maps::lpm_trie::Key;
use rhumb_common::{
    addr::Ip,
    event::Reason,
    maps::{Config, PolicyKey},
};
use rhumb_core::tables::{Prefix, RowKey, Step, Tables};

use super::{Error, Maps, Table};

impl Maps {
    /// Writes the steps in order; neighbours of a kind in batches.
    pub fn write(&self, steps: &[Step]) -> Result<(), Error> {
        for chunk in steps.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            self.write_chunk(chunk)?;
        }
        Ok(())
    }

    fn write_chunk(&self, chunk: &[Step]) -> Result<(), Error> {
        let m = self;
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
    fn write_one(&self, step: &Step) -> Result<(), Error> {
        let m = self;
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

    /// Reads, changes and writes the only entry of CONFIG.
    pub fn change_config(&self, change: impl FnOnce(&mut Config)) -> Result<Config, Error> {
        let mut config = self.config.get(&0)?.unwrap_or_default();
        let before = config;
        change(&mut config);
        if config != before {
            self.config.put(&0, &config)?;
        }
        Ok(config)
    }

    pub fn read(&self) -> Result<Tables, Error> {
        let prefix = |k: Key<Ip>| Prefix {
            len: k.prefix_len(),
            addr: k.data(),
        };
        Ok(Tables {
            routes: self
                .routes
                .entries()?
                .into_iter()
                .map(|(k, v)| (prefix(k), v))
                .collect(),
            services: self.services.entries()?.into_iter().collect(),
            slots: self.slots.entries()?.into_iter().collect(),
            backends: self.backends.entries()?.into_iter().collect(),
            rows: self
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
            peers: self.peers.entries()?.into_iter().collect(),
            peer_cidrs: self
                .peer_cidrs
                .entries()?
                .into_iter()
                .map(|(k, v)| (prefix(k), v))
                .collect(),
            endpoint_policy: self.endpoint_policy.entries()?.into_iter().collect(),
            isolated: self.isolated.entries()?.into_iter().collect(),
        })
    }

    /// Packets and bytes by reason, summed over the CPUs.
    pub fn read_counters(&self) -> Result<Vec<(Reason, u64, u64)>, Error> {
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        Reason::ALL
            .iter()
            .map(|reason| {
                let values = self.counters.get_percpu(*reason as u32, cpus)?;
                Ok((
                    *reason,
                    values.iter().map(|c| c.packets).sum(),
                    values.iter().map(|c| c.bytes).sum(),
                ))
            })
            .collect()
    }
}

fn prefix_key(p: Prefix) -> Key<Ip> {
    Key::new(p.len, p.addr)
}

fn row_key(r: RowKey) -> Key<PolicyKey> {
    Key::new(r.len, r.key)
}

fn put<K: aya::Pod, V: aya::Pod>(
    table: &Table<K, V>,
    steps: &[Step],
    entry: impl Fn(&Step) -> Option<(K, V)>,
) -> Result<(), Error> {
    let entries: Vec<(K, V)> = steps.iter().filter_map(entry).collect();
    table.put_all(&entries)
}
