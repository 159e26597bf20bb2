//! From what is desired and what the kernel holds to ordered steps.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_common::maps::{EndpointPolicy, PolicyVal, ServiceKey};

use crate::{
    balancer::{Balancer, Changes},
    model::ObjectName,
    policy::{Ids, State, Touched},
    routes, services,
    snapshot::{Dirty, Snapshot},
    synced::Synced,
    tables::{Step, Tables},
};

/// Holds the ids and a mirror of what was written; feeds on snapshots.
#[derive(Clone, Debug)]
pub struct Planner {
    claims: services::Claims,
    /// Who claims ports of the node.
    host_ports: BTreeSet<ObjectName>,
    balancer: Balancer,
    ids: Ids,
    policy: State,
    /// Everything but Services, which the balancer holds.
    actual: Tables,
    /// Nothing planned yet: the kernel may hold frontends that no Service has any longer.
    fresh: bool,
}

impl Planner {
    /// From the kernel's maps and the contents that were kept of policy ids.
    pub fn restore(mut kernel: Tables, mut ids: Ids, generation: u32) -> Planner {
        let balancer = Balancer::restore(&kernel, generation);
        kernel.services.clear();
        kernel.slots.clear();
        kernel.backends.clear();
        let mut top = (0, 0, 0);
        for (key, value) in &kernel.rows {
            top.0 = top.0.max(u32::from_be(key.key.words[0]));
            top.1 = top.1.max(u32::from_be(key.key.words[1]));
            top.2 = top.2.max(value.rule);
        }
        for sets in kernel.endpoint_policy.values() {
            top.0 = top.0.max(sets.ingress_set).max(sets.egress_set);
        }
        for peer in kernel.peers.values().chain(kernel.peer_cidrs.values()) {
            top.1 = top.1.max(peer.identity);
        }
        ids.reserve(top.0, top.1, top.2);
        Planner {
            claims: services::Claims::default(),
            host_ports: BTreeSet::new(),
            balancer,
            ids,
            policy: State::default(),
            actual: kernel,
            fresh: true,
        }
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    pub fn ids_mut(&mut self) -> &mut Ids {
        &mut self.ids
    }

    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    pub fn claims(&self) -> &services::Claims {
        &self.claims
    }

    pub fn actual(&self) -> &Tables {
        &self.actual
    }

    /// The steps from what the kernel holds to what the snapshot asks for, as far as it is
    /// `dirty`; the mirror is moved along. The first call after [`Planner::restore`] must come
    /// with [`Dirty::all`].
    ///
    /// The witness is asked for the whole plan: a Service of which not all slices have been seen
    /// would lose backends by a mere write.
    pub fn plan(&mut self, snapshot: &Snapshot, dirty: &Dirty, _proof: &Synced) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut deletes = Vec::new();
        if dirty.routes {
            let desired = routes::desired(snapshot);
            diff(
                &mut self.actual.routes,
                desired,
                Step::PutRoute,
                Step::DeleteRoute,
                &mut steps,
                &mut deletes,
            );
        }
        self.plan_services(snapshot, dirty, &mut steps, &mut deletes);
        if dirty.policy {
            self.plan_policy(snapshot, dirty, &mut steps, &mut deletes);
        }
        steps.append(&mut deletes);
        steps
    }

    fn plan_services(
        &mut self,
        snapshot: &Snapshot,
        dirty: &Dirty,
        steps: &mut Vec<Step>,
        deletes: &mut Vec<Step>,
    ) {
        let mut keys: BTreeSet<ServiceKey> = BTreeSet::new();
        for name in &dirty.services {
            let frontends = snapshot
                .services
                .get(name)
                .map(|s| services::frontends(s, snapshot.slices_of(name)))
                .unwrap_or_default();
            keys.extend(self.claims.set(name, frontends));
        }
        if dirty.host_ports {
            let mut wanted = services::host_ports(snapshot);
            let mut names = std::mem::take(&mut self.host_ports);
            self.host_ports.extend(wanted.keys().cloned());
            names.extend(wanted.keys().cloned());
            for name in names {
                let frontends = wanted.remove(&name).unwrap_or_default();
                keys.extend(self.claims.set(&name, frontends));
            }
        }
        if std::mem::take(&mut self.fresh) {
            keys.extend(self.balancer.keys().copied());
        }
        let mut changes = Changes::default();
        for key in keys {
            let frontend = self.claims.get(&key).map(|(_, f)| f);
            self.balancer.set(key, frontend, &mut changes);
        }
        self.balancer.finish(&mut changes);
        steps.append(&mut changes.backends);
        steps.append(&mut changes.slots);
        steps.append(&mut changes.services);
        deletes.append(&mut changes.deletes);
    }

    fn plan_policy(
        &mut self,
        snapshot: &Snapshot,
        dirty: &Dirty,
        steps: &mut Vec<Step>,
        deletes: &mut Vec<Step>,
    ) {
        let in_use = sets_of(&self.actual.endpoint_policy);
        self.policy.resolve(snapshot, dirty, &mut self.ids);
        let wanted = self.policy.wanted();
        let retained: BTreeSet<u32> = in_use.difference(&wanted).copied().collect();
        let mut touched = Touched::default();
        if dirty.everything {
            touched.peers.extend(self.actual.peers.keys());
            touched.rows.extend(self.actual.rows.keys());
        }
        let before = (steps.len(), deletes.len());
        let ids = &mut self.ids;
        // Two passes: what the first one would delete, the second decides on.
        self.policy
            .update(snapshot, dirty, &retained, ids, &mut touched);
        if !retained.is_empty() {
            self.put_policy(&touched, steps);
            // Flows judged by the old sets are judged by the new ones before those go.
            steps.push(Step::BumpEpoch);
            let (seen, none) = (Dirty::default(), BTreeSet::new());
            self.policy
                .update(snapshot, &seen, &none, &mut self.ids, &mut touched);
        }
        self.put_policy(&touched, steps);
        if steps.len() > before.0 {
            steps.push(Step::BumpEpoch);
        }
        self.delete_policy(&touched, deletes);
        if deletes.len() > before.1 {
            deletes.push(Step::BumpEpoch);
        }
        self.ids.forget(&wanted, self.policy.live());
    }

    /// Rows before what refers to them; long CIDRs before short ones, so that an exception is
    /// there before its block.
    fn put_policy(&mut self, touched: &Touched, steps: &mut Vec<Step>) {
        let (policy, actual) = (&self.policy, &mut self.actual);
        for key in &touched.rows {
            if let Some(row) = policy.row(key) {
                put_one(&mut actual.rows, *key, row, Step::PutRow, steps);
            }
        }
        put(
            &mut actual.peer_cidrs,
            policy.peer_cidrs.iter().rev(),
            Step::PutPeerCidr,
            steps,
        );
        for ip in &touched.peers {
            if let Some(peer) = policy.peer(ip) {
                put_one(&mut actual.peers, *ip, peer, Step::PutPeer, steps);
            }
        }
        put(
            &mut actual.endpoint_policy,
            policy.endpoints.iter(),
            Step::PutEndpointPolicy,
            steps,
        );
        put(
            &mut actual.isolated,
            policy.isolated.iter(),
            Step::PutIsolated,
            steps,
        );
    }

    /// Short prefixes first: the order of the keys.
    fn delete_policy(&mut self, touched: &Touched, deletes: &mut Vec<Step>) {
        let (policy, actual) = (&self.policy, &mut self.actual);
        delete(
            &mut actual.endpoint_policy,
            &policy.endpoints,
            Step::DeleteEndpointPolicy,
            deletes,
        );
        for ip in &touched.peers {
            if policy.peer(ip).is_none() && actual.peers.remove(ip).is_some() {
                deletes.push(Step::DeletePeer(*ip));
            }
        }
        delete(
            &mut actual.peer_cidrs,
            &policy.peer_cidrs,
            Step::DeletePeerCidr,
            deletes,
        );
        for key in &touched.rows {
            if policy.row(key).is_none() && actual.rows.remove(key).is_some() {
                deletes.push(Step::DeleteRow(*key));
            }
        }
        delete(
            &mut actual.isolated,
            &policy.isolated,
            Step::DeleteIsolated,
            deletes,
        );
    }

    /// Rows of the mirror, by (set, identity).
    pub fn rows(&self) -> &BTreeMap<crate::tables::RowKey, PolicyVal> {
        &self.actual.rows
    }
}

fn sets_of<K>(policies: &BTreeMap<K, EndpointPolicy>) -> BTreeSet<u32> {
    policies
        .values()
        .flat_map(|p| [p.ingress_set, p.egress_set])
        .filter(|id| *id != 0)
        .collect()
}

fn put<'a, K: Ord + Copy + 'a, V: PartialEq + Copy + 'a>(
    actual: &mut BTreeMap<K, V>,
    desired: impl Iterator<Item = (&'a K, &'a V)>,
    step: fn(K, V) -> Step,
    steps: &mut Vec<Step>,
) {
    for (key, value) in desired {
        put_one(actual, *key, *value, step, steps);
    }
}

fn put_one<K: Ord + Copy, V: PartialEq + Copy>(
    actual: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    step: fn(K, V) -> Step,
    steps: &mut Vec<Step>,
) {
    if actual.get(&key) != Some(&value) {
        actual.insert(key, value);
        steps.push(step(key, value));
    }
}

/// Short prefixes go first: the order of the keys.
fn delete<K: Ord + Copy, V>(
    actual: &mut BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    step: fn(K) -> Step,
    deletes: &mut Vec<Step>,
) {
    actual.retain(|key, _| {
        let keep = desired.contains_key(key);
        if !keep {
            deletes.push(step(*key));
        }
        keep
    });
}

fn diff<K: Ord + Copy, V: PartialEq + Copy>(
    actual: &mut BTreeMap<K, V>,
    desired: BTreeMap<K, V>,
    put_step: fn(K, V) -> Step,
    delete_step: fn(K) -> Step,
    steps: &mut Vec<Step>,
    deletes: &mut Vec<Step>,
) {
    put(actual, desired.iter(), put_step, steps);
    delete(actual, &desired, delete_step, deletes);
}
