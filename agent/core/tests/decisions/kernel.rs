//! A stand-in for the kernel: tables that take steps, and say after each whether they are whole.

use std::net::IpAddr;

use rhumb_common::{
    addr::Ip,
    maps::{PolicyKey, SlotKey, policy_prefix, verdict},
};
use rhumb_core::{
    Gate, Source, Synced,
    planner::Planner,
    policy::{Direction, Ids},
    snapshot::{Change, Dirty, Snapshot},
    tables::{RowKey, Step, Tables},
};

pub fn proof() -> Synced {
    let mut gate = Gate::default();
    Source::ALL.into_iter().for_each(|s| gate.mark(s));
    gate.proof().expect("every source is marked")
}

/// Snapshot, planner and kernel, moving together.
pub struct World {
    pub snapshot: Snapshot,
    pub planner: Planner,
    pub kernel: Tables,
    dirty: Dirty,
    fresh: bool,
}

impl World {
    pub fn new(node: &str) -> World {
        World {
            snapshot: Snapshot::new(node),
            planner: Planner::restore(Tables::default(), Ids::default(), 1),
            kernel: Tables::default(),
            dirty: Dirty::default(),
            fresh: true,
        }
    }

    pub fn take(&mut self, change: Change) {
        self.dirty.merge(self.snapshot.apply(change));
    }

    /// Plans and applies; `each` sees the kernel after every step.
    pub fn apply_watched(&mut self, mut each: impl FnMut(&Tables, &Step)) -> usize {
        let dirty = if std::mem::take(&mut self.fresh) {
            self.dirty = Dirty::default();
            Dirty::all(&self.snapshot)
        } else {
            std::mem::take(&mut self.dirty)
        };
        let steps = self.planner.plan(&self.snapshot, &dirty, &proof());
        for step in &steps {
            self.kernel.apply(step);
            check(&self.kernel, step);
            each(&self.kernel, step);
        }
        steps.len()
    }

    /// An agent that is killed after the first `steps` writes of its plan, and its successor.
    pub fn apply_cut(&mut self, steps: usize) {
        let dirty = if std::mem::take(&mut self.fresh) {
            self.dirty = Dirty::default();
            Dirty::all(&self.snapshot)
        } else {
            std::mem::take(&mut self.dirty)
        };
        for step in self
            .planner
            .plan(&self.snapshot, &dirty, &proof())
            .iter()
            .take(steps)
        {
            self.kernel.apply(step);
        }
        self.restart();
    }

    pub fn apply(&mut self) -> usize {
        self.apply_watched(|_, _| {})
    }

    /// A killed agent and its successor: the maps and the kept ids are all that is left.
    pub fn restart(&mut self) {
        let text = serde_json::to_string(self.planner.ids()).expect("ids have a text");
        let ids = serde_json::from_str(&text).expect("and can be read back");
        self.planner = Planner::restore(self.kernel.clone(), ids, 2);
        self.fresh = true;
    }

    pub fn dump(&self) -> String {
        rhumb_core::dump::everything(&self.kernel, self.planner.ids())
    }
}

/// What must hold after every single write: a packet may come now.
fn check(t: &Tables, step: &Step) {
    for (key, service) in &t.services {
        for slot in 0..service.count {
            let slot = SlotKey {
                service: service.id,
                slot,
            };
            let backend = t.slots.get(&slot);
            assert!(
                backend.is_some_and(|b| t.backends.contains_key(b)),
                "after {step:?}: {key:?} has an empty slot {slot:?} -> {backend:?}"
            );
        }
    }
}

/// Identity as the programs find it: exactly, then by the longest prefix.
fn identity(t: &Tables, addr: IpAddr) -> u32 {
    let ip: Ip = addr.into();
    if let Some(peer) = t.peers.get(&ip) {
        return peer.identity;
    }
    t.peer_cidrs
        .iter()
        .filter(|(p, _)| bits_equal(&p.addr.octets(), &ip.octets(), p.len))
        .max_by_key(|(p, _)| p.len)
        .map_or(0, |(_, peer)| peer.identity)
}

fn bits_equal(a: &[u8], b: &[u8], bits: u32) -> bool {
    (0..bits as usize).all(|i| (a[i / 8] ^ b[i / 8]) & (0x80 >> (i % 8)) == 0)
}

fn row_bytes(key: &PolicyKey) -> [u8; 12] {
    let mut out = [0; 12];
    for (i, w) in key.words.iter().enumerate() {
        out[4 * i..4 * i + 4].copy_from_slice(&w.to_ne_bytes());
    }
    out
}

/// The verdict of the tables on a packet of a local pod, as the programs reach it. `None`: the
/// address is no local pod.
pub fn admits(
    t: &Tables,
    local: IpAddr,
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    port: u16,
) -> Option<bool> {
    let sets = t.endpoint_policy.get(&local.into())?;
    let set = match direction {
        Direction::Ingress => sets.ingress_set,
        Direction::Egress => sets.egress_set,
    };
    if set == 0 {
        return Some(true);
    }
    let full = RowKey {
        len: policy_prefix::PORT,
        key: PolicyKey::new(set, identity(t, peer), protocol, port.to_be()),
    };
    let wanted = row_bytes(&full.key);
    let best = t
        .rows
        .iter()
        .filter(|(r, _)| bits_equal(&row_bytes(&r.key), &wanted, r.len))
        .max_by_key(|(r, _)| r.len);
    Some(best.is_some_and(|(_, v)| v.verdict == verdict::ALLOW))
}
