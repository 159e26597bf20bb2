//! Constraints that look at many nodes at once: topology spread and affinity between pods. Counted once
//! for a pod that is being placed, then asked node by node.

use std::collections::{HashMap, HashSet};

use crate::{
    cache::Cache,
    filter::{Reason, matches_node_affinity},
    node::NodeInfo,
    pod::{AffinityTerm, PodInfo, SpreadConstraint},
};

/// A topology domain: label key and value.
type Domain = (String, String);

fn domain(node: &NodeInfo, key: &str) -> Option<Domain> {
    node.spec
        .labels
        .get(key)
        .map(|v| (key.to_string(), v.clone()))
}

/// Counts of matching pods by domain for one spread constraint.
#[derive(Debug)]
struct Spread<'a> {
    constraint: &'a SpreadConstraint,
    counts: HashMap<String, i64>,
    /// The constraint's selector means the pod itself.
    own: i64,
}

impl<'a> Spread<'a> {
    fn count(
        pod: &PodInfo,
        constraint: &'a SpreadConstraint,
        keys: &[&str],
        cache: &Cache,
    ) -> Self {
        let mut counts: HashMap<String, i64> = HashMap::new();
        for node in cache.nodes() {
            // A domain exists only where every constraint's label is there.
            if !keys.iter().all(|k| node.spec.labels.contains_key(*k)) {
                continue;
            }
            if constraint.honor_node_affinity && !matches_node_affinity(pod, node) {
                continue;
            }
            if constraint.honor_node_taints && node.spec.taints.iter().any(|t| !pod.tolerates(t)) {
                continue;
            }
            let Some(value) = node.spec.labels.get(&constraint.topology_key) else {
                continue;
            };
            let here = node
                .pods
                .values()
                .filter(|p| {
                    p.key.namespace == pod.key.namespace
                        && !p.terminating
                        && constraint.selector.matches(&p.labels)
                })
                .count() as i64;
            *counts.entry(value.clone()).or_insert(0) += here;
        }
        Self {
            constraint,
            counts,
            own: i64::from(constraint.selector.matches(&pod.labels)),
        }
    }

    fn fewest(&self) -> i64 {
        if self
            .constraint
            .min_domains
            .is_some_and(|min| (self.counts.len() as i64) < i64::from(min))
        {
            return 0;
        }
        self.counts.values().copied().min().unwrap_or(0)
    }

    fn admits(&self, node: &NodeInfo) -> Result<(), Reason> {
        let Some(value) = node.spec.labels.get(&self.constraint.topology_key) else {
            return Err(Reason::SpreadLabelMissing);
        };
        let here = self.counts.get(value).copied().unwrap_or(0);
        if here + self.own - self.fewest() > self.constraint.max_skew {
            return Err(Reason::SpreadConstraint);
        }
        Ok(())
    }
}

/// Everything counted for one pod.
#[derive(Debug)]
pub struct Topology<'a> {
    pod: &'a PodInfo,
    hard: Vec<Spread<'a>>,
    soft: Vec<Spread<'a>>,
    /// Domains in which a pod already there refuses this one.
    refused: HashSet<Domain>,
    /// For each required affinity term the domains that hold a pod it means.
    near: Vec<HashSet<String>>,
    /// No pod anywhere satisfies the required terms, but the pod would satisfy them itself: the first of
    /// a group may go anywhere.
    first_of_group: bool,
    /// For each required anti-affinity term the domains that hold a pod it means.
    far: Vec<HashSet<String>>,
    /// Preferred affinity, both ways: what a domain is worth.
    preference: HashMap<Domain, i64>,
}

impl<'a> Topology<'a> {
    /// Counts what `pod` needs, or nothing when neither it nor a pod in the cluster asks for any of this.
    pub fn count(pod: &'a PodInfo, cache: &Cache) -> Option<Self> {
        let foreign = cache.affinity_pods() > 0;
        if pod.spread.is_empty() && pod.affinity.is_empty() && !foreign {
            return None;
        }
        let namespace = |p: &PodInfo| cache.namespaces.get(&p.key.namespace);
        let keys = |hard: bool| -> Vec<&str> {
            pod.spread
                .iter()
                .filter(|c| c.hard == hard)
                .map(|c| c.topology_key.as_str())
                .collect()
        };
        let spread = |hard: bool| -> Vec<Spread<'a>> {
            let keys = keys(hard);
            pod.spread
                .iter()
                .filter(|c| c.hard == hard)
                .map(|c| Spread::count(pod, c, &keys, cache))
                .collect()
        };
        let mut out = Self {
            pod,
            hard: spread(true),
            soft: spread(false),
            refused: HashSet::new(),
            near: vec![HashSet::new(); pod.affinity.required.len()],
            first_of_group: false,
            far: vec![HashSet::new(); pod.affinity.anti_required.len()],
            preference: HashMap::new(),
        };
        for node in cache.nodes() {
            if pod.affinity.is_empty() && node.with_affinity == 0 {
                continue;
            }
            for there in node.pods.values() {
                if pod.affinity.is_empty() && there.affinity.is_empty() {
                    continue;
                }
                out.meet(node, there, namespace(there), namespace(pod));
            }
        }
        out.first_of_group = !pod.affinity.required.is_empty()
            && out.near.iter().all(HashSet::is_empty)
            && pod
                .affinity
                .required
                .iter()
                .all(|t| t.matches(pod, namespace(pod)));
        Some(out)
    }

    fn meet(
        &mut self,
        node: &NodeInfo,
        there: &PodInfo,
        its_namespace: Option<&crate::selectors::Labels>,
        our_namespace: Option<&crate::selectors::Labels>,
    ) {
        let pod = self.pod;
        for term in &there.affinity.anti_required {
            if term.matches(pod, our_namespace) {
                self.refused.extend(domain(node, &term.topology_key));
            }
        }
        let note = |terms: &[AffinityTerm], into: &mut Vec<HashSet<String>>| {
            for (term, domains) in terms.iter().zip(into.iter_mut()) {
                if term.matches(there, its_namespace) {
                    domains.extend(node.spec.labels.get(&term.topology_key).cloned());
                }
            }
        };
        // A pod counts towards required affinity only if every term means it, as in kube-scheduler.
        if pod
            .affinity
            .required
            .iter()
            .all(|t| t.matches(there, its_namespace))
        {
            note(&pod.affinity.required, &mut self.near);
        }
        note(&pod.affinity.anti_required, &mut self.far);
        let mut prefer = |term: &AffinityTerm, weight: i64| {
            if let Some(domain) = domain(node, &term.topology_key) {
                *self.preference.entry(domain).or_insert(0) += weight;
            }
        };
        for (weight, term) in &pod.affinity.preferred {
            if term.matches(there, its_namespace) {
                prefer(term, *weight);
            }
        }
        for (weight, term) in &pod.affinity.anti_preferred {
            if term.matches(there, its_namespace) {
                prefer(term, -*weight);
            }
        }
        // The other way round: what the pods there would like. A required term weighs 1 (kube-scheduler's
        // hardPodAffinityWeight).
        for term in &there.affinity.required {
            if term.matches(pod, our_namespace) {
                prefer(term, 1);
            }
        }
        for (weight, term) in &there.affinity.preferred {
            if term.matches(pod, our_namespace) {
                prefer(term, *weight);
            }
        }
        for (weight, term) in &there.affinity.anti_preferred {
            if term.matches(pod, our_namespace) {
                prefer(term, -*weight);
            }
        }
    }

    /// The hard constraints.
    pub fn admits(&self, node: &NodeInfo) -> Result<(), Reason> {
        for spread in &self.hard {
            spread.admits(node)?;
        }
        for (term, domains) in self.pod.affinity.required.iter().zip(&self.near) {
            let Some(value) = node.spec.labels.get(&term.topology_key) else {
                return Err(Reason::PodAffinity);
            };
            if !domains.contains(value) && !self.first_of_group {
                return Err(Reason::PodAffinity);
            }
        }
        for (term, domains) in self.pod.affinity.anti_required.iter().zip(&self.far) {
            if node
                .spec
                .labels
                .get(&term.topology_key)
                .is_some_and(|v| domains.contains(v))
            {
                return Err(Reason::PodAntiAffinity);
            }
        }
        if self
            .refused
            .iter()
            .any(|(k, v)| node.spec.labels.get(k) == Some(v))
        {
            return Err(Reason::ExistingAntiAffinity);
        }
        Ok(())
    }

    /// What preferred affinity makes of `node`: higher is better, not normalised. `None` without any.
    pub fn preference(&self, node: &NodeInfo) -> Option<i64> {
        if self.preference.is_empty() {
            return None;
        }
        Some(
            self.preference
                .iter()
                .filter(|((k, v), _)| node.spec.labels.get(k) == Some(v))
                .map(|(_, weight)| weight)
                .sum(),
        )
    }

    /// What the soft spread constraints make of `node`: lower is better, not normalised. `None` without any,
    /// or where a label is missing.
    pub fn crowding(&self, node: &NodeInfo) -> Option<f64> {
        if self.soft.is_empty() {
            return None;
        }
        let mut sum = 0.0;
        for spread in &self.soft {
            let value = node.spec.labels.get(&spread.constraint.topology_key)?;
            let here = spread.counts.get(value).copied().unwrap_or(0) as f64;
            // kube-scheduler's weight: constraints over many domains count for more.
            let weight = ((spread.counts.len() + 2) as f64).ln();
            sum += here * weight + (spread.constraint.max_skew - 1) as f64;
        }
        Some(sum)
    }
}
