//! What to make and what to delete, and the status: pure.
//! Source: Kubernetes `pkg/controller/daemon/{daemon_controller,update}.go`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};

use super::node::{Placement, placement};
use crate::{deployment::rolling::amount, pod};

/// The label that names the revision of the template that a pod was made from.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// The label that counts them.
pub const GENERATION_LABEL: &str = "pod-template-generation";

/// A pod that has to go because it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub pod: String,
    pub node: String,
    pub failed: bool,
}

/// What a reconcile has to do.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods that ended, which go too, unless their node has seen too many of them lately.
    pub ended: Vec<(Arc<Pod>, Ended)>,
}

/// The node that a pod is on, or is meant for: its affinity names it before it is scheduled.
pub fn target(p: &Pod) -> Option<String> {
    if let Some(node) = pod::node_name(p) {
        return Some(node.to_string());
    }
    let terms = p
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    terms.node_selector_terms.iter().find_map(|term| {
        let by_name = term.match_fields.iter().flatten();
        let mut by_name = by_name.filter(|f| f.key == "metadata.name" && f.operator == "In");
        match by_name.next()?.values.as_deref()? {
            [one] => Some(one.clone()),
            _ => None,
        }
    })
}

/// The set's pods by node, each node's oldest first. What has no node is left aside.
pub fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut nodes: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for p in pods {
        if let Some(node) = target(p) {
            nodes.entry(node).or_default().push(p.clone());
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|p| oldest_first(p));
    }
    nodes
}

/// Bound pods, then running ones, then older ones come first.
fn oldest_first(p: &Pod) -> (bool, Reverse<u8>, i64, String) {
    let phase = match pod::phase(p) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let created = p
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(i64::MAX, |t| t.0.as_second());
    (
        pod::node_name(p).is_none(),
        Reverse(phase),
        created,
        p.metadata.name.clone().unwrap_or_default(),
    )
}

fn label<'a>(p: &'a Pod, label: &str) -> Option<&'a str> {
    p.metadata.labels.as_ref()?.get(label).map(String::as_str)
}

/// Whether the pod was made from the template as it is now.
pub fn is_updated(p: &Pod, hash: &str) -> bool {
    label(p, HASH_LABEL) == Some(hash)
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0)
}

/// How far a rolling update may go: pods above one a node, and nodes without an available pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub surge: usize,
    pub unavailable: usize,
}

/// `None` if pods are replaced when somebody deletes them.
pub fn bounds(set: &DaemonSet, desired: usize) -> Option<Bounds> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let of = i32::try_from(desired).unwrap_or(i32::MAX);
    let count = |n: i32| usize::try_from(n).unwrap_or(0);
    let surge = rolling
        .and_then(|r| r.max_surge.as_ref())
        .map_or(0, |v| count(amount(v, of, true)));
    let unavailable = rolling
        .and_then(|r| r.max_unavailable.as_ref())
        .map_or(1, |v| count(amount(v, of, true)));
    Some(match (surge, unavailable) {
        // Nothing would ever move.
        (0, 0) => Bounds {
            surge: 0,
            unavailable: 1,
        },
        (surge, unavailable) => Bounds { surge, unavailable },
    })
}

fn surges(set: &DaemonSet) -> bool {
    bounds(set, 1).is_some_and(|b| b.surge > 0)
}

/// What the set's spec asks for of each node, the update aside.
pub fn manage(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    hash: &str,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let there = pods.get(&name);
        match (placement(set, node), there) {
            (Placement::Run, None) => plan.create.push(name),
            (Placement::Run | Placement::Stay, Some(there)) => {
                keep_one(set, &name, there, hash, now, &mut plan);
            }
            (Placement::Stay, None) => {}
            (Placement::Leave, there) => {
                let live = there
                    .into_iter()
                    .flatten()
                    .filter(|p| !pod::is_terminating(p));
                plan.delete.extend(live.cloned());
            }
        }
    }
    // Meant for nodes that are gone, and never scheduled.
    for (node, there) in pods {
        if !nodes.iter().any(|n| n.metadata.name.as_ref() == Some(node)) {
            let lost = there
                .iter()
                .filter(|p| pod::node_name(p).is_none() && !pod::is_terminating(p));
            plan.delete.extend(lost.cloned());
        }
    }
    plan
}

/// One pod a node; two while a surge is under way.
fn keep_one(
    set: &DaemonSet,
    node: &str,
    there: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for p in there.iter().filter(|p| !pod::is_terminating(p)) {
        match pod::phase(p) {
            phase @ ("Failed" | "Succeeded") => {
                let ended = Ended {
                    pod: p.metadata.name.clone().unwrap_or_default(),
                    node: node.to_string(),
                    failed: phase == "Failed",
                };
                plan.ended.push((p.clone(), ended));
            }
            _ => running.push(p),
        }
    }
    if running.len() <= 1 {
        return;
    }
    if !surges(set) {
        plan.delete.extend(running.drain(1..).cloned());
        return;
    }
    let (mut new, mut old): (Option<&Arc<Pod>>, Option<&Arc<Pod>>) = (None, None);
    for p in running {
        let slot = if is_updated(p, hash) {
            &mut new
        } else {
            &mut old
        };
        if slot.is_none() {
            *slot = Some(p);
        } else {
            plan.delete.push(p.clone());
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!pod::is_ready(old) || pod::is_available(new, min_ready(set), now))
    {
        plan.delete.push(old.clone());
    }
}

/// A pod that may be there.
type Slot<'a> = Option<&'a Arc<Pod>>;

/// What a node has of the new and the old template; `None` if it has several of one, which
/// `manage` has to clean up first.
fn on_node<'a>(there: &'a [Arc<Pod>], hash: &str) -> Option<(Slot<'a>, Slot<'a>)> {
    let (mut new, mut old) = (None, None);
    for p in there.iter().filter(|p| !pod::is_terminating(p)) {
        let slot = if is_updated(p, hash) {
            &mut new
        } else {
            &mut old
        };
        if slot.replace(p).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// The next step of a rolling update.
pub fn update(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    hash: &str,
    now: Timestamp,
) -> Plan {
    let mut placements = HashMap::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        placements.insert(name, placement(set, node));
    }
    let wanted = |node: &str| placements.get(node) == Some(&Placement::Run);
    let desired = placements
        .values()
        .filter(|p| **p == Placement::Run)
        .count();
    let Some(bounds) = bounds(set, desired) else {
        return Plan::default();
    };
    let none = Vec::new();
    // Nodes that want a pod and have none count too.
    let mut all: BTreeMap<&str, &Vec<Arc<Pod>>> =
        pods.iter().map(|(n, p)| (n.as_str(), p)).collect();
    for node in placements.keys().filter(|n| wanted(n)) {
        all.entry(node).or_insert(&none);
    }
    let available = |p: &Pod| pod::is_available(p, min_ready(set), now);
    if bounds.surge == 0 {
        replace_in_place(&all, bounds, hash, available)
    } else {
        surge(&all, bounds, desired, hash, &wanted, available)
    }
}

fn replace_in_place(
    all: &BTreeMap<&str, &Vec<Arc<Pod>>>,
    bounds: Bounds,
    hash: &str,
    available: impl Fn(&Pod) -> bool,
) -> Plan {
    let mut unavailable = 0;
    let (mut broken, mut candidates) = (Vec::new(), Vec::new());
    for there in all.values() {
        match on_node(there, hash) {
            // Something is under way there.
            None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
            Some((Some(new), None)) => unavailable += usize::from(!available(new)),
            // It serves nobody: its replacement costs nothing.
            Some((None, Some(old))) if !available(old) => broken.push(old.clone()),
            Some((None, Some(old))) => candidates.push(old.clone()),
        }
    }
    let room = bounds.unavailable.saturating_sub(unavailable);
    candidates.truncate(room);
    broken.extend(candidates);
    Plan {
        delete: broken,
        ..Plan::default()
    }
}

fn surge(
    all: &BTreeMap<&str, &Vec<Arc<Pod>>>,
    bounds: Bounds,
    desired: usize,
    hash: &str,
    wanted: &dyn Fn(&str) -> bool,
    available: impl Fn(&Pod) -> bool,
) -> Plan {
    let (mut surging, mut serving) = (0, 0);
    let (mut create, mut candidates) = (Vec::new(), Vec::new());
    let (mut delete, mut obsolete) = (Vec::new(), Vec::new());
    for (node, there) in all {
        let Some((new, old)) = on_node(there, hash) else {
            surging += 1;
            continue;
        };
        serving += usize::from(old.or(new).is_some_and(|p| available(p)));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) if !available(old) => {
                if wanted(node) {
                    create.push(node.to_string());
                } else {
                    obsolete.push(old.clone());
                }
            }
            (None, Some(_)) => candidates.push(node.to_string()),
            (Some(new), Some(old)) if !available(old) || available(new) => {
                delete.push(old.clone());
            }
            (Some(_), Some(_)) => surging += 1,
        }
    }
    // A node that should have no pod any more gives it up only when another serves instead.
    obsolete.truncate(serving.saturating_sub(desired));
    delete.extend(obsolete);
    candidates.truncate(bounds.surge.saturating_sub(surging));
    create.extend(candidates);
    Plan {
        create,
        delete,
        ..Plan::default()
    }
}

/// The set's status.
pub fn status(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: old.collision_count,
        conditions: old.conditions,
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let there = pods.get(name).filter(|p| !p.is_empty());
        if placement(set, node) != Placement::Run {
            status.number_misscheduled += i32::from(there.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(first) = there.and_then(|p| p.first()) else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod::is_ready(first));
        available += i32::from(pod::is_available(first, min_ready(set), now));
        updated += i32::from(is_updated(first, hash));
    }
    let some = |n: i32| (n != 0).then_some(n);
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}

/// Seconds until the next pod that is ready becomes available.
pub fn next_available(set: &DaemonSet, pods: &[Arc<Pod>], now: Timestamp) -> Option<i64> {
    let min_ready = min_ready(set);
    pods.iter()
        .filter(|p| pod::is_ready(p) && !pod::is_available(p, min_ready, now))
        .filter_map(|p| pod::ready_since(p))
        .map(|since| (since + i64::from(min_ready) - now.as_second()).max(1))
        .min()
}
