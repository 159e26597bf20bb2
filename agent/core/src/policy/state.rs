//! The policy that the snapshot asks for, kept and changed by what has changed: a pod costs what
//! its addresses cost, a policy what it newly asks of the pods there are.
//!
//! ```text
//! sets (what isolates the node's pods) -> asked (atoms)
//! pods -> groups (namespace, labels, ports) -> atoms of the group   \
//! addresses -> group, blocks that contain the address -> identity    > rows: set × identity
//! ```
//! What is kept follows from the snapshot alone: started from nothing it comes out the same, which
//! the property tests check after every change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use rhumb_common::{
    addr::Ip,
    maps::{EndpointPolicy, Peer, PolicyVal},
};

use super::{
    Atom, Ids,
    asked::Asked,
    rows,
    sets::{self, Sets, named},
};
use crate::{
    dump::row_parts,
    model::{Labels, Pod},
    snapshot::{Dirty, Snapshot},
    tables::{Prefix, RowKey},
};

/// Keys whose value may have changed.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub peers: BTreeSet<Ip>,
    pub rows: BTreeSet<RowKey>,
}

/// What of a pod selectors and port names can tell apart.
#[derive(Clone, Debug)]
struct Shape(Arc<Pod>);

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.name.namespace == other.0.name.namespace
                && self.0.labels == other.0.labels
                && self.0.ports == other.0.ports
    }
}

impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.name.namespace, &self.0.labels, &self.0.ports).hash(state);
    }
}

/// Pods of one shape.
#[derive(Clone, Debug)]
struct Group {
    shape: Shape,
    addresses: u32,
    /// Numbers of its atoms, sorted; blocks are its addresses' own.
    atoms: Vec<u32>,
}

/// Groups, by number: asked for every address that there is.
struct Marks {
    any: bool,
    marked: Vec<bool>,
}

impl Marks {
    fn up_to(last: u32) -> Marks {
        Marks {
            any: false,
            marked: vec![false; last as usize + 1],
        }
    }

    fn add(&mut self, group: u32) {
        if let Some(mark) = self.marked.get_mut(group as usize) {
            *mark = true;
            self.any = true;
        }
    }

    fn has(&self, group: u32) -> bool {
        self.marked.get(group as usize) == Some(&true)
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    group: u32,
    identity: u32,
}

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Of the node's pods, as they are wanted.
    pub endpoints: BTreeMap<Ip, EndpointPolicy>,
    pub isolated: BTreeMap<u64, u32>,
    wanted: Sets,

    /// With those that are retained.
    sets: Sets,
    asked: Asked,
    /// Numbers of the asked atoms; one that is asked again gets another.
    numbers: HashMap<Atom, u32>,
    next_number: u32,
    groups: HashMap<u32, Group>,
    by_shape: HashMap<Shape, u32>,
    next_group: u32,
    /// Empty as long as nothing is asked.
    addresses: HashMap<IpAddr, Known>,
    /// By the numbers of the atoms.
    identities: HashMap<Vec<u32>, u32>,
    /// Addresses and prefixes of an identity.
    users: HashMap<u32, u32>,
    pub peer_cidrs: BTreeMap<Prefix, Peer>,
    /// Identities that `rows` has.
    live: BTreeSet<u32>,
    rows: BTreeMap<(u32, u32), Vec<(RowKey, PolicyVal)>>,
}

impl State {
    pub fn wanted(&self) -> BTreeSet<u32> {
        self.wanted.keys().copied().collect()
    }

    pub fn live(&self) -> &BTreeSet<u32> {
        &self.live
    }

    pub fn peer(&self, ip: &Ip) -> Option<Peer> {
        match self.addresses.get(&ip.to_std())?.identity {
            0 => None,
            identity => Some(Peer { identity, _pad: 0 }),
        }
    }

    pub fn row(&self, key: &RowKey) -> Option<PolicyVal> {
        let (set, identity, _, _) = row_parts(&key.key);
        let rows = self.rows.get(&(set, identity))?;
        rows.iter().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// What isolates the node's pods now.
    pub fn resolve(&mut self, snapshot: &Snapshot, dirty: &Dirty, ids: &mut Ids) {
        if dirty.sets || dirty.everything {
            (self.endpoints, self.wanted) = sets::desired(snapshot, ids);
            self.isolated = sets::isolated_namespaces(snapshot);
        }
    }

    /// Identities and rows for the wanted sets, and for `retained` ones that the kernel still uses
    /// and nothing wants any longer: as long as they are given, the identities keep the atoms that
    /// these ask for, and the rows cover them too. So a change of policies goes in two passes, and
    /// no address is without a row it had before and has after: first with the old sets retained,
    /// then, once every endpoint has its new set, without.
    pub fn update(
        &mut self,
        snapshot: &Snapshot,
        dirty: &Dirty,
        retained: &BTreeSet<u32>,
        ids: &mut Ids,
        touched: &mut Touched,
    ) {
        let mut sets = self.wanted.clone();
        for id in retained {
            if let Some(content) = ids.set(*id) {
                sets.entry(*id).or_insert_with(|| Arc::new(content.clone()));
            }
        }
        let mut learned = false;
        // A number's content never changes.
        if !sets.keys().eq(self.sets.keys()) {
            let asked = Asked::of(&sets);
            learned = self.ask(snapshot, asked, ids, touched);
        }
        if !learned && !self.asked.is_empty() {
            for name in &dirty.namespaces {
                self.relabel(snapshot, name, ids, touched);
            }
            for ip in &dirty.addresses {
                self.learn(snapshot, *ip, ids, touched);
            }
        }
        self.update_rows(sets, ids, touched);
    }

    /// Moves on to what is asked now. `true` if every address was looked at.
    fn ask(
        &mut self,
        snapshot: &Snapshot,
        asked: Asked,
        ids: &mut Ids,
        touched: &mut Touched,
    ) -> bool {
        if asked == self.asked {
            return false;
        }
        let before = std::mem::replace(&mut self.asked, asked);
        let asked = &self.asked;
        let gone: Vec<Atom> = (before.pods.difference(&asked.pods))
            .chain(before.blocks.difference(&asked.blocks))
            .cloned()
            .collect();
        for atom in &gone {
            self.numbers.remove(atom);
        }
        self.numbers.retain(|atom, _| match atom {
            Atom::Port { name, protocol, .. } => asked.ports.contains(&(name.clone(), *protocol)),
            _ => true,
        });
        let new: Vec<Atom> = asked.pods.difference(&before.pods).cloned().collect();
        let blocks: Vec<Atom> = before
            .blocks
            .symmetric_difference(&asked.blocks)
            .cloned()
            .collect();
        let ports = before.ports != asked.ports;
        for atom in asked.pods.iter().chain(&asked.blocks) {
            if !self.numbers.contains_key(atom) {
                self.next_number += 1;
                self.numbers.insert(atom.clone(), self.next_number);
            }
        }
        let first = before.is_empty();
        if first {
            self.learn_all(snapshot, ids, touched);
        } else if self.asked.is_empty() {
            self.forget_addresses(touched);
        } else {
            let changed = self.regroup(snapshot, &new, !gone.is_empty(), ports);
            if changed.any || !blocks.is_empty() {
                self.identify_where(ids, touched, |ip, known| {
                    changed.has(known.group) || blocks.iter().any(|b| within(b, ip))
                });
            }
        }
        if !blocks.is_empty() {
            self.set_prefixes(ids);
        }
        first
    }

    /// Brings the groups' atoms up to date, and tells whose have changed.
    fn regroup(&mut self, snapshot: &Snapshot, new: &[Atom], gone: bool, ports: bool) -> Marks {
        let mut changed = Marks::up_to(self.next_group);
        let live: HashSet<u32> = match gone {
            true => self.numbers.values().copied().collect(),
            false => HashSet::new(),
        };
        for (id, group) in &mut self.groups {
            let pod = &group.shape.0;
            let atoms = if ports {
                atoms_of(
                    snapshot,
                    pod,
                    &self.asked,
                    &mut self.numbers,
                    &mut self.next_number,
                )
            } else {
                let labels = namespace_labels(snapshot, &pod.name.namespace);
                let mut atoms = group.atoms.clone();
                if gone {
                    atoms.retain(|a| live.contains(a));
                }
                let matching = new
                    .iter()
                    .filter(|a| a.matches_pod(&pod.name.namespace, labels, &pod.labels));
                atoms.extend(matching.filter_map(|a| self.numbers.get(a)));
                atoms.sort_unstable();
                atoms
            };
            if atoms != group.atoms {
                group.atoms = atoms;
                changed.add(*id);
            }
        }
        changed
    }

    /// A namespace's labels have changed.
    fn relabel(&mut self, snapshot: &Snapshot, name: &str, ids: &mut Ids, touched: &mut Touched) {
        let mut changed = Marks::up_to(self.next_group);
        for (id, group) in &mut self.groups {
            let pod = &group.shape.0;
            if pod.name.namespace != name {
                continue;
            }
            let atoms = atoms_of(
                snapshot,
                pod,
                &self.asked,
                &mut self.numbers,
                &mut self.next_number,
            );
            if atoms != group.atoms {
                group.atoms = atoms;
                changed.add(*id);
            }
        }
        if changed.any {
            self.identify_where(ids, touched, |_, known| changed.has(known.group));
        }
    }

    fn learn_all(&mut self, snapshot: &Snapshot, ids: &mut Ids, touched: &mut Touched) {
        for ip in snapshot.addresses() {
            self.learn(snapshot, ip, ids, touched);
        }
    }

    /// Whose the address is now, and what that makes of it.
    fn learn(&mut self, snapshot: &Snapshot, ip: IpAddr, ids: &mut Ids, touched: &mut Touched) {
        touched.peers.insert(ip.into());
        let before = self.addresses.remove(&ip);
        if let Some(pod) = snapshot.holder(ip) {
            let group = self.group(snapshot, pod);
            let identity = self.identity(group, ip, ids);
            self.addresses.insert(ip, Known { group, identity });
        }
        if let Some(known) = before {
            self.release_group(known.group);
            release(&mut self.users, known.identity);
        }
    }

    fn forget_addresses(&mut self, touched: &mut Touched) {
        for (ip, known) in std::mem::take(&mut self.addresses) {
            touched.peers.insert(ip.into());
            release(&mut self.users, known.identity);
        }
        self.groups.clear();
        self.by_shape.clear();
    }

    fn group(&mut self, snapshot: &Snapshot, pod: &Arc<Pod>) -> u32 {
        let shape = Shape(pod.clone());
        let id = match self.by_shape.get(&shape) {
            Some(id) => *id,
            None => {
                self.next_group += 1;
                let atoms = atoms_of(
                    snapshot,
                    pod,
                    &self.asked,
                    &mut self.numbers,
                    &mut self.next_number,
                );
                let group = Group {
                    shape: shape.clone(),
                    addresses: 0,
                    atoms,
                };
                self.groups.insert(self.next_group, group);
                self.by_shape.insert(shape, self.next_group);
                self.next_group
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.addresses += 1;
        }
        id
    }

    fn release_group(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.addresses -= 1;
            if group.addresses == 0
                && let Some(group) = self.groups.remove(&id)
            {
                self.by_shape.remove(&group.shape);
            }
        }
    }

    /// The identity of an address of a group, with one user more.
    fn identity(&mut self, group: u32, ip: IpAddr, ids: &mut Ids) -> u32 {
        let mut key = self
            .groups
            .get(&group)
            .map_or_else(Vec::new, |g| g.atoms.clone());
        let blocks = self.asked.blocks.iter().filter(|b| b.matches_address(ip));
        key.extend(blocks.filter_map(|b| self.numbers.get(b)));
        if key.is_empty() {
            return 0;
        }
        key.sort_unstable();
        let id = match self.identities.get(&key) {
            // What nothing used may have been forgotten meanwhile.
            Some(id) if ids.identity(*id).is_some() => *id,
            _ => {
                let atoms = self.atoms(&key);
                let id = ids.identity_id(&atoms);
                self.identities.insert(key, id);
                id
            }
        };
        *self.users.entry(id).or_default() += 1;
        id
    }

    /// The atoms behind numbers, in order. Rarely asked: for each identity once.
    fn atoms(&self, key: &[u32]) -> Vec<Atom> {
        let mut atoms: Vec<Atom> = (self.numbers.iter())
            .filter(|(_, number)| key.binary_search(number).is_ok())
            .map(|(atom, _)| atom.clone())
            .collect();
        atoms.sort_unstable();
        atoms
    }

    fn identify_where(
        &mut self,
        ids: &mut Ids,
        touched: &mut Touched,
        changed: impl Fn(IpAddr, &Known) -> bool,
    ) {
        let found: Vec<(IpAddr, Known)> = self
            .addresses
            .iter()
            .filter(|(ip, known)| changed(**ip, known))
            .map(|(ip, known)| (*ip, *known))
            .collect();
        for (ip, before) in found {
            let identity = self.identity(before.group, ip, ids);
            release(&mut self.users, before.identity);
            if identity != before.identity {
                touched.peers.insert(ip.into());
                let known = Known { identity, ..before };
                self.addresses.insert(ip, known);
            }
        }
    }

    fn set_prefixes(&mut self, ids: &mut Ids) {
        let mut now = BTreeMap::new();
        for (prefix, atoms) in self.asked.prefixes() {
            let identity = ids.identity_id(&atoms);
            if identity != 0 {
                *self.users.entry(identity).or_default() += 1;
            }
            now.insert(prefix.into(), Peer { identity, _pad: 0 });
        }
        for peer in std::mem::replace(&mut self.peer_cidrs, now).values() {
            release(&mut self.users, peer.identity);
        }
    }

    /// Rows come and go with their set and their identity.
    fn update_rows(&mut self, sets: Sets, ids: &mut Ids, touched: &mut Touched) {
        let live: BTreeSet<u32> = self.users.keys().copied().chain([0]).collect();
        if live == self.live && sets.keys().eq(self.sets.keys()) {
            return;
        }
        let rows = &mut self.rows;
        rows.retain(|(set, identity), rows| {
            let keep = sets.contains_key(set) && live.contains(identity);
            if !keep {
                touched.rows.extend(rows.iter().map(|(key, _)| *key));
            }
            keep
        });
        for (set, content) in &sets {
            let new_set = !self.sets.contains_key(set);
            for identity in &live {
                if !new_set && self.live.contains(identity) {
                    continue;
                }
                let atoms = ids.identity(*identity).unwrap_or_default().to_vec();
                let mut made = BTreeMap::new();
                rows::add(&mut made, ids, (*set, content), (*identity, &atoms));
                if !made.is_empty() {
                    touched.rows.extend(made.keys());
                    rows.insert((*set, *identity), made.into_iter().collect());
                }
            }
        }
        self.identities.retain(|_, id| live.contains(id));
        self.live = live;
        self.sets = sets;
    }
}

fn release(users: &mut HashMap<u32, u32>, identity: u32) {
    if let Some(n) = users.get_mut(&identity) {
        *n -= 1;
        if *n == 0 {
            users.remove(&identity);
        }
    }
}

/// Whether the block, or an exception of it, has anything to say of the address.
fn within(block: &Atom, ip: IpAddr) -> bool {
    matches!(block, Atom::Block { cidr, .. } if cidr.contains(ip))
}

fn namespace_labels<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Labels {
    static NONE: Labels = Labels::new();
    snapshot.namespaces.get(name).map_or(&NONE, |n| &n.labels)
}

/// Numbers of the atoms that hold for every address of the pod, sorted.
fn atoms_of(
    snapshot: &Snapshot,
    pod: &Pod,
    asked: &Asked,
    numbers: &mut HashMap<Atom, u32>,
    next_number: &mut u32,
) -> Vec<u32> {
    let namespace = &pod.name.namespace;
    let labels = namespace_labels(snapshot, namespace);
    let matching = asked
        .pods
        .iter()
        .filter(|a| a.matches_pod(namespace, labels, &pod.labels));
    let mut atoms: Vec<u32> = matching.filter_map(|a| numbers.get(a).copied()).collect();
    for (name, protocol) in &asked.ports {
        let Some(port) = named(&pod.ports, name, *protocol) else {
            continue;
        };
        let atom = Atom::Port {
            name: name.clone(),
            protocol: *protocol,
            port,
        };
        atoms.push(*numbers.entry(atom).or_insert_with(|| {
            *next_number += 1;
            *next_number
        }));
    }
    atoms.sort_unstable();
    atoms
}
