//! Ids of Services and backends, and the in-place changes of a Service's slots.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rhumb_common::maps::{Backend, Service, ServiceKey, SlotKey};

use crate::{
    model::BackendAddr,
    services::Frontend,
    tables::{Step, Tables},
};

#[derive(Clone, Debug)]
struct Entry {
    id: u32,
    affinity: u32,
    /// Backend ids; 0 for a slot found empty in the kernel.
    slots: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Held {
    addr: BackendAddr,
    users: u32,
}

/// What the kernel's Service maps hold, kept in step with what is written.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    services: HashMap<ServiceKey, Entry>,
    backends: HashMap<u32, Held>,
    by_addr: HashMap<BackendAddr, u32>,
    next_service: u32,
    next_backend: u32,
    generation: u32,
    /// Backends that lost their last user since the last [`Balancer::finish`].
    unused: BTreeSet<u32>,
    /// Left behind by a writer that was cut short.
    orphan_slots: Vec<SlotKey>,
}

/// Steps of a change, deletes apart: they come last, and need a witness.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub backends: Vec<Step>,
    pub slots: Vec<Step>,
    pub services: Vec<Step>,
    pub deletes: Vec<Step>,
}

fn backend_addr(b: &Backend) -> BackendAddr {
    BackendAddr {
        addr: b.addr.to_std(),
        port: u16::from_be(b.port_be),
        protocol: b.protocol,
    }
}

impl Balancer {
    /// From the kernel's maps. `generation` marks the backends that this process will make; it
    /// must differ from that of earlier processes, since ids of deleted backends are forgotten.
    pub fn restore(tables: &Tables, generation: u32) -> Balancer {
        let mut this = Balancer {
            next_service: 1,
            next_backend: 1,
            generation,
            ..Balancer::default()
        };
        for (id, backend) in &tables.backends {
            this.next_backend = this.next_backend.max(id.wrapping_add(1)).max(1);
            let addr = backend_addr(backend);
            this.backends.insert(*id, Held { addr, users: 0 });
            // The lower id stays the known one if a cut-short writer left two.
            this.by_addr.entry(addr).or_insert(*id);
        }
        let mut known = HashSet::new();
        for (key, service) in &tables.services {
            this.next_service = this.next_service.max(service.id.wrapping_add(1)).max(1);
            let slots: Vec<u32> = (0..service.count)
                .map(|slot| SlotKey {
                    service: service.id,
                    slot,
                })
                .map(|k| {
                    known.insert(k);
                    let id = tables.slots.get(&k).copied().unwrap_or(0);
                    if this.backends.contains_key(&id) {
                        id
                    } else {
                        0
                    }
                })
                .collect();
            for id in &slots {
                if let Some(held) = this.backends.get_mut(id) {
                    held.users += 1;
                }
            }
            this.services.insert(
                *key,
                Entry {
                    id: service.id,
                    affinity: service.affinity,
                    slots,
                },
            );
        }
        for key in tables.slots.keys().filter(|k| !known.contains(k)) {
            this.next_service = this.next_service.max(key.service.wrapping_add(1)).max(1);
            this.orphan_slots.push(*key);
        }
        this.unused = this
            .backends
            .iter()
            .filter(|(_, h)| h.users == 0)
            .map(|(id, _)| *id)
            .collect();
        this
    }

    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// Frontends; the rows of their addresses don't count.
    pub fn len(&self) -> usize {
        self.services.keys().filter(|k| !k.is_address()).count()
    }

    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub fn backend_count(&self) -> usize {
        self.backends.len()
    }

    fn backend_id(&mut self, addr: BackendAddr, changes: &mut Changes) -> u32 {
        if let Some(id) = self.by_addr.get(&addr) {
            return *id;
        }
        let id = self.next_backend;
        self.next_backend += 1;
        self.backends.insert(id, Held { addr, users: 0 });
        self.by_addr.insert(addr, id);
        changes.backends.push(Step::PutBackend(
            id,
            Backend {
                addr: addr.addr.into(),
                port_be: addr.port.to_be(),
                protocol: addr.protocol,
                flags: 0,
                generation: self.generation,
            },
        ));
        id
    }

    fn take(&mut self, id: u32) {
        if let Some(held) = self.backends.get_mut(&id) {
            held.users += 1;
            self.unused.remove(&id);
        }
    }

    fn release(&mut self, id: u32) {
        if let Some(held) = self.backends.get_mut(&id) {
            held.users = held.users.saturating_sub(1);
            if held.users == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// Makes `key` what `frontend` says, or takes it away. Every step leaves a valid table: freed
    /// slots are overwritten in place, new ones filled before the count is raised, and the last
    /// ones cleared after it was lowered.
    pub fn set(&mut self, key: ServiceKey, frontend: Option<&Frontend>, changes: &mut Changes) {
        let Some(frontend) = frontend else {
            if let Some(entry) = self.services.remove(&key) {
                changes.deletes.push(Step::DeleteService(key));
                for (slot, backend) in entry.slots.iter().enumerate() {
                    changes.deletes.push(Step::DeleteSlot(SlotKey {
                        service: entry.id,
                        slot: slot as u32,
                    }));
                    self.release(*backend);
                }
            }
            return;
        };
        let mut wanted: Vec<u32> = Vec::with_capacity(frontend.backends.len());
        for addr in &frontend.backends {
            wanted.push(self.backend_id(*addr, changes));
        }
        let (mut entry, is_new) = match self.services.remove(&key) {
            Some(entry) => (entry, false),
            None => {
                let id = self.next_service;
                self.next_service += 1;
                let entry = Entry {
                    id,
                    affinity: frontend.affinity,
                    slots: Vec::new(),
                };
                (entry, true)
            }
        };
        let before = (entry.slots.len(), entry.affinity);
        let mut missing: HashSet<u32> = wanted.iter().copied().collect();
        // A backend that stands in two slots (a cut-short writer) keeps the first.
        let mut free: Vec<usize> = Vec::new();
        for (slot, id) in entry.slots.iter().enumerate() {
            if !missing.remove(id) {
                free.push(slot);
            }
        }
        free.reverse(); // Lowest first from the end.
        let slot_key = |slot: usize| SlotKey {
            service: entry.id,
            slot: slot as u32,
        };
        for id in wanted.iter().copied().filter(|id| missing.contains(id)) {
            let slot = match free.pop() {
                Some(slot) => {
                    let old = std::mem::replace(&mut entry.slots[slot], id);
                    self.release(old);
                    slot
                }
                None => {
                    entry.slots.push(id);
                    entry.slots.len() - 1
                }
            };
            self.take(id);
            changes.slots.push(Step::PutSlot(slot_key(slot), id));
        }
        // `free` is in descending order: the highest comes first, so that the last slot is never
        // one that is free itself and still to be treated.
        for slot in free {
            let last = entry.slots.len() - 1;
            let old = entry.slots.swap_remove(slot);
            self.release(old);
            if slot != last {
                changes
                    .slots
                    .push(Step::PutSlot(slot_key(slot), entry.slots[slot]));
            }
            changes.deletes.push(Step::DeleteSlot(slot_key(last)));
        }
        entry.affinity = frontend.affinity;
        if is_new || before != (entry.slots.len(), entry.affinity) {
            changes.services.push(Step::PutService(
                key,
                Service {
                    id: entry.id,
                    count: entry.slots.len() as u32,
                    flags: 0,
                    affinity: entry.affinity,
                },
            ));
        }
        self.services.insert(key, entry);
    }

    /// After the last [`Balancer::set`] of a change: what is left without a user goes.
    pub fn finish(&mut self, changes: &mut Changes) {
        // A predecessor that was killed between a slot and its count left the slot; this plan may
        // have grown the Service into it meanwhile.
        let counts: HashMap<u32, usize> = self
            .services
            .values()
            .map(|e| (e.id, e.slots.len()))
            .collect();
        for key in std::mem::take(&mut self.orphan_slots) {
            if counts
                .get(&key.service)
                .is_none_or(|count| key.slot as usize >= *count)
            {
                changes.deletes.push(Step::DeleteSlot(key));
            }
        }
        for id in std::mem::take(&mut self.unused) {
            if let Some(held) = self.backends.remove(&id) {
                if self.by_addr.get(&held.addr) == Some(&id) {
                    self.by_addr.remove(&held.addr);
                }
                changes.deletes.push(Step::DeleteBackend(id));
            }
        }
    }

    /// Frontends with their backends, for dumps and tests.
    pub fn frontends(&self) -> BTreeMap<ServiceKey, Vec<BackendAddr>> {
        self.services
            .iter()
            .map(|(k, e)| {
                let mut b: Vec<BackendAddr> = e
                    .slots
                    .iter()
                    .filter_map(|id| self.backends.get(id).map(|h| h.addr))
                    .collect();
                b.sort_unstable();
                (*k, b)
            })
            .collect()
    }
}
