//! Which of the nodes that can take a pod is best: kube-scheduler's default scores and weights, each from
//! 0 to 100 before its weight.

use std::collections::HashMap;

use crate::{
    cache::Cache,
    node::{HOSTNAME, NodeInfo, ZONE},
    pod::PodInfo,
    topology::Topology,
};

const MAX: f64 = 100.0;

const WEIGHT_TAINTS: f64 = 3.0;
const WEIGHT_NODE_AFFINITY: f64 = 2.0;
const WEIGHT_POD_AFFINITY: f64 = 2.0;
const WEIGHT_SPREAD: f64 = 2.0;
const WEIGHT_LEAST_ALLOCATED: f64 = 1.0;
const WEIGHT_BALANCE: f64 = 1.0;
const WEIGHT_IMAGES: f64 = 1.0;

/// The score of each of `nodes` for `pod`.
pub fn scores(
    pod: &PodInfo,
    nodes: &[&NodeInfo],
    cache: &Cache,
    topology: Option<&Topology>,
) -> Vec<f64> {
    let mut total: Vec<f64> = nodes
        .iter()
        .map(|node| {
            WEIGHT_LEAST_ALLOCATED * least_allocated(pod, node)
                + WEIGHT_BALANCE * balance(pod, node)
                + WEIGHT_IMAGES * images(pod, node)
        })
        .collect();

    let soft: Vec<f64> = nodes
        .iter()
        .map(|n| {
            n.spec
                .soft_taints
                .iter()
                .filter(|t| !pod.tolerates(t))
                .count() as f64
        })
        .collect();
    add(&mut total, WEIGHT_TAINTS, &fewer_is_better(&soft));

    if !pod.node_preferred.is_empty() {
        let raw: Vec<f64> = nodes
            .iter()
            .map(|n| {
                pod.node_preferred
                    .iter()
                    .filter(|(_, term)| term.matches(&n.spec.name, &n.spec.labels))
                    .map(|(weight, _)| *weight as f64)
                    .sum()
            })
            .collect();
        let most = raw.iter().copied().fold(0.0, f64::max);
        if most > 0.0 {
            let part: Vec<f64> = raw.iter().map(|r| MAX * r / most).collect();
            add(&mut total, WEIGHT_NODE_AFFINITY, &part);
        }
    }

    if let Some(topology) = topology {
        let raw: Option<Vec<f64>> = nodes
            .iter()
            .map(|n| topology.preference(n).map(|p| p as f64))
            .collect();
        if let Some(raw) = raw {
            let (least, most) = bounds(&raw);
            if most > least {
                let part: Vec<f64> = raw
                    .iter()
                    .map(|r| MAX * (r - least) / (most - least))
                    .collect();
                add(&mut total, WEIGHT_POD_AFFINITY, &part);
            }
        }
    }

    let soft_spread: Vec<Option<f64>> = nodes
        .iter()
        .map(|n| topology.and_then(|t| t.crowding(n)))
        .collect();
    let spread = if soft_spread.iter().any(Option::is_some) {
        let known: Vec<f64> = soft_spread.iter().flatten().copied().collect();
        let (least, most) = bounds(&known);
        soft_spread
            .iter()
            .map(|c| match c {
                Some(_) if most == 0.0 => MAX,
                Some(c) => MAX * (most + least - c) / most,
                None => 0.0,
            })
            .collect()
    } else if pod.spread.is_empty() {
        default_spread(pod, nodes, cache)
    } else {
        vec![0.0; nodes.len()]
    };
    add(&mut total, WEIGHT_SPREAD, &spread);
    total
}

fn add(total: &mut [f64], weight: f64, part: &[f64]) {
    for (t, p) in total.iter_mut().zip(part) {
        *t += weight * p;
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

fn fewer_is_better(counts: &[f64]) -> Vec<f64> {
    let most = counts.iter().copied().fold(0.0, f64::max);
    counts
        .iter()
        .map(|c| {
            if most == 0.0 {
                MAX
            } else {
                MAX * (most - c) / most
            }
        })
        .collect()
}

/// The share of CPU and memory that would be left.
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let left = |wanted: i64, used: i64, whole: i64| {
        if whole <= 0 {
            return 0.0;
        }
        (MAX * (whole - used - wanted) as f64 / whole as f64).max(0.0)
    };
    let (cpu, memory) = pod.requests.nonzero;
    let whole = &node.spec.allocatable;
    (left(cpu, node.nonzero.0, whole.milli_cpu) + left(memory, node.nonzero.1, whole.memory)) / 2.0
}

/// How evenly CPU and memory would be used.
fn balance(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let share = |wanted: i64, used: i64, whole: i64| {
        if whole <= 0 {
            return 1.0;
        }
        ((used + wanted) as f64 / whole as f64).min(1.0)
    };
    let (wanted, used, whole) = (
        &pod.requests.resources,
        &node.requested,
        &node.spec.allocatable,
    );
    let cpu = share(wanted.milli_cpu, used.milli_cpu, whole.milli_cpu);
    let memory = share(wanted.memory, used.memory, whole.memory);
    MAX * (1.0 - (cpu - memory).abs() / 2.0)
}

/// Images that are there already, by size: from 23 MB on they count, from 1000 MB a container they are worth all.
fn images(pod: &PodInfo, node: &NodeInfo) -> f64 {
    const MB: f64 = 1024.0 * 1024.0;
    if pod.images.is_empty() || node.spec.images.is_empty() {
        return 0.0;
    }
    let there: i64 = pod
        .images
        .iter()
        .filter_map(|i| node.spec.images.get(i))
        .sum();
    let (low, high) = (23.0 * MB, 1000.0 * MB * pod.images.len() as f64);
    MAX * ((there as f64).clamp(low, high) - low) / (high - low)
}

/// Pods of one controller, and bare pods behind one Service, go to different nodes and zones unless
/// they say otherwise.
fn default_spread(pod: &PodInfo, nodes: &[&NodeInfo], cache: &Cache) -> Vec<f64> {
    let counts: Vec<f64> = if let Some(owner) = &pod.owner {
        nodes
            .iter()
            .map(|n| f64::from(n.owners.get(owner).copied().unwrap_or(0)))
            .collect()
    } else {
        let services = cache.services_of(pod);
        if services.is_empty() {
            return vec![0.0; nodes.len()];
        }
        nodes
            .iter()
            .map(|n| {
                n.pods
                    .values()
                    .filter(|p| p.key.namespace == pod.key.namespace && !p.terminating)
                    .filter(|p| services.iter().all(|s| s.matches(&p.labels)))
                    .count() as f64
            })
            .collect()
    };
    let by_node = fewer_is_better(&counts);
    let mut zones: HashMap<&str, f64> = HashMap::new();
    for (node, count) in nodes.iter().zip(&counts) {
        if let Some(zone) = node.spec.labels.get(ZONE) {
            *zones.entry(zone).or_insert(0.0) += count;
        }
    }
    if zones.len() < 2 || !nodes.iter().all(|n| n.spec.labels.contains_key(HOSTNAME)) {
        return by_node;
    }
    let most = zones.values().copied().fold(0.0, f64::max);
    nodes
        .iter()
        .zip(by_node)
        .map(|(node, by_node)| {
            match node
                .spec
                .labels
                .get(ZONE)
                .and_then(|z| zones.get(z.as_str()))
            {
                // Two thirds for the zone: kube-scheduler's weighting in SelectorSpread.
                Some(count) if most > 0.0 => {
                    by_node / 3.0 + 2.0 / 3.0 * MAX * (most - count) / most
                }
                _ => by_node,
            }
        })
        .collect()
}
