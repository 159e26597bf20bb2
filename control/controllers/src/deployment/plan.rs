//! What a Deployment needs done now: pure, from the objects as they are to a list of changes and the
//! status to write. Each pass makes one step; the changes come back as events and cause the next.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{conditions, revision, rolling};

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Option<ReplicaSet>,
    /// ReplicaSets as they should be: replicas, minReadySeconds and annotations differ.
    pub update: Vec<ReplicaSet>,
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The revision to note on the Deployment.
    pub revision: Option<i64>,
    pub status: DeploymentStatus,
    /// Texts of ScalingReplicaSet Events.
    pub scaled: Vec<String>,
    /// When to look again by time alone, in seconds.
    pub due: Option<i64>,
}

/// ReplicaSets while a plan is made.
struct Sets {
    new: Option<ReplicaSet>,
    /// Oldest first.
    old: Vec<ReplicaSet>,
    scaled: Vec<String>,
}

fn name(rs: &ReplicaSet) -> &str {
    rs.metadata.name.as_deref().unwrap_or_default()
}

fn created(rs: &ReplicaSet) -> Option<&Time> {
    rs.metadata.creation_timestamp.as_ref()
}

impl Sets {
    fn all(&self) -> Vec<&ReplicaSet> {
        self.old.iter().chain(&self.new).collect()
    }

    fn total(&self) -> i32 {
        self.all().iter().map(|rs| rolling::replicas(rs)).sum()
    }

    /// Scales `rs`, notes the Deployment's numbers on it, and says whether its size changed.
    fn scale(d: &Deployment, rs: &mut ReplicaSet, to: i32, scaled: &mut Vec<String>) -> bool {
        let from = rolling::replicas(rs);
        revision::note_replicas(d, rs);
        if from == to {
            return false;
        }
        rs.spec.get_or_insert_default().replicas = Some(to);
        let direction = if to > from { "up" } else { "down" };
        scaled.push(format!(
            "Scaled {direction} replica set {} from {from} to {to}",
            name(rs)
        ));
        true
    }
}

/// The oldest ReplicaSet with the Deployment's template.
fn find_new(d: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = revision::template(d);
    sets.iter()
        .filter(|rs| {
            rs.spec
                .as_ref()
                .and_then(|s| s.template.as_ref())
                .is_some_and(|t| revision::same_template(t, &template))
        })
        .min_by_key(|rs| (created(rs).cloned(), name(rs).to_string()))
        .cloned()
}

/// Plans for a Deployment and the ReplicaSets it owns. `old_pods_run` says whether pods of other ReplicaSets
/// than the new one are still there (only asked for the strategy Recreate).
pub fn plan(
    d: &Deployment,
    owned: &[Arc<ReplicaSet>],
    old_pods_run: impl Fn(Option<&str>) -> bool,
    now: Timestamp,
) -> Plan {
    let new = find_new(d, owned);
    let new_uid = new.as_ref().and_then(|rs| rs.metadata.uid.clone());
    let mut old: Vec<ReplicaSet> = owned
        .iter()
        .filter(|rs| rs.metadata.uid != new_uid || new.is_none())
        .map(|rs| rs.as_ref().clone())
        .collect();
    old.sort_by(|a, b| (created(a), name(a)).cmp(&(created(b), name(b))));
    let mut sets = Sets {
        new: new.as_deref().cloned(),
        old,
        scaled: Vec::new(),
    };
    let mut plan = Plan::default();

    if d.metadata.deletion_timestamp.is_some() {
        plan.status = conditions::counted(d, sets.new.as_ref(), &sets.all(), now);
        return plan;
    }

    // What the status of this pass is compared with.
    let mut d = d.clone();
    let mut status = d.status.clone().unwrap_or_default();
    conditions::note_pause(&d, &mut status, now);
    let d = &mut d;
    d.status = Some(status);

    let next_revision = sets
        .old
        .iter()
        .map(|rs| revision::revision(&rs.metadata))
        .max()
        .unwrap_or(0)
        + 1;
    if let Some(new) = &mut sets.new {
        revision::note_revision(d, new, next_revision, true);
        new.spec.get_or_insert_default().min_ready_seconds =
            d.spec.as_ref().and_then(|s| s.min_ready_seconds);
        plan.revision = Some(revision::revision(&new.metadata));
        let status = d.status.get_or_insert_default();
        if conditions::deadline_in(d.spec.as_ref()).is_some()
            && conditions::get(status, conditions::PROGRESSING).is_none()
        {
            let found = format!("Found new replica set {:?}", name(new));
            conditions::set(
                status,
                conditions::condition(
                    conditions::PROGRESSING,
                    "True",
                    conditions::FOUND_REPLICA_SET,
                    found,
                    now,
                ),
            );
        }
    }

    let paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    if paused || is_scaling(d, &sets) {
        scale(d, &mut sets);
        if paused {
            plan.delete = surplus(d, owned, &sets);
        }
        plan.status = conditions::counted(d, sets.new.as_ref(), &sets.all(), now);
    } else {
        let stepped = if rolling::is_recreate(d) {
            recreate(d, &mut sets, &mut plan, next_revision, old_pods_run, now)
        } else {
            roll(d, &mut sets, &mut plan, next_revision, now)
        };
        plan.status = conditions::of_rollout(d, sets.new.as_ref(), &sets.all(), now);
        if !stepped && conditions::is_complete(d, &plan.status) {
            plan.delete = surplus(d, owned, &sets);
        }
    }
    plan.due = conditions::deadline_due(d, &plan.status, now);
    plan.scaled = sets.scaled.clone();
    plan.update = sets
        .old
        .into_iter()
        .chain(sets.new.filter(|_| plan.create.is_none()))
        .filter(|rs| {
            owned
                .iter()
                .find(|o| o.metadata.uid == rs.metadata.uid)
                .is_some_and(|o| {
                    o.spec != rs.spec || o.metadata.annotations != rs.metadata.annotations
                })
        })
        .collect();
    plan
}

/// Makes the new ReplicaSet part of the plan.
fn create_new(
    d: &mut Deployment,
    sets: &mut Sets,
    plan: &mut Plan,
    next_revision: i64,
    now: Timestamp,
) {
    let collisions = d
        .status
        .as_ref()
        .and_then(|s| s.collision_count)
        .unwrap_or(0);
    let mut rs = revision::new_replica_set(d, collisions);
    let size = rolling::new_size(d, sets.total(), 0);
    rs.spec.get_or_insert_default().replicas = Some(size);
    revision::note_revision(d, &mut rs, next_revision, false);
    if size > 0 {
        sets.scaled.push(format!(
            "Scaled up replica set {} from 0 to {size}",
            name(&rs)
        ));
    }
    if conditions::deadline(d).is_some() {
        let made = format!("Created new replica set {:?}", name(&rs));
        let condition = conditions::condition(
            conditions::PROGRESSING,
            "True",
            conditions::NEW_REPLICA_SET,
            made,
            now,
        );
        conditions::set(d.status.get_or_insert_default(), condition);
    }
    plan.revision = Some(next_revision);
    plan.create = Some(rs.clone());
    sets.new = Some(rs);
}

/// One step of a rolling update; says whether there was one to make.
fn roll(
    d: &mut Deployment,
    sets: &mut Sets,
    plan: &mut Plan,
    next_revision: i64,
    now: Timestamp,
) -> bool {
    if sets.new.is_none() {
        create_new(d, sets, plan, next_revision, now);
        return true;
    }
    let total = sets.total();
    if let Some(new) = &mut sets.new {
        let size = rolling::replicas(new);
        let to = match size.cmp(&rolling::wanted(d)) {
            std::cmp::Ordering::Equal => size,
            std::cmp::Ordering::Greater => rolling::wanted(d),
            std::cmp::Ordering::Less => rolling::new_size(d, total, size),
        };
        if Sets::scale(d, new, to, &mut sets.scaled) {
            return true;
        }
    }
    let of = |rs: &ReplicaSet| (rolling::replicas(rs), rolling::available(rs));
    let active: Vec<(i32, i32)> = sets.old.iter().map(of).collect();
    let sizes = rolling::old_sizes(d, &active, sets.new.as_ref().map(of));
    let mut stepped = false;
    for (rs, to) in sets.old.iter_mut().zip(sizes) {
        if rolling::replicas(rs) != to {
            stepped |= Sets::scale(d, rs, to, &mut sets.scaled);
        }
    }
    stepped
}

/// One step of a recreation: down with the old, wait until their pods are gone, up with the new.
fn recreate(
    d: &mut Deployment,
    sets: &mut Sets,
    plan: &mut Plan,
    next_revision: i64,
    old_pods_run: impl Fn(Option<&str>) -> bool,
    now: Timestamp,
) -> bool {
    let mut stepped = false;
    for rs in sets.old.iter_mut().filter(|rs| rolling::replicas(rs) > 0) {
        stepped |= Sets::scale(d, rs, 0, &mut sets.scaled);
    }
    let new_uid = sets.new.as_ref().and_then(|rs| rs.metadata.uid.clone());
    if stepped || old_pods_run(new_uid.as_deref()) {
        return true;
    }
    match &mut sets.new {
        None => {
            create_new(d, sets, plan, next_revision, now);
            true
        }
        Some(new) => {
            let to = rolling::wanted(d);
            Sets::scale(d, new, to, &mut sets.scaled)
        }
    }
}

/// The Deployment was scaled since its active ReplicaSets were.
fn is_scaling(d: &Deployment, sets: &Sets) -> bool {
    sets.all()
        .iter()
        .filter(|rs| rolling::replicas(rs) > 0)
        .any(|rs| revision::noted_desired(rs).is_some_and(|noted| noted != rolling::wanted(d)))
}

/// Brings the ReplicaSets to the Deployment's scale without rolling on.
fn scale(d: &Deployment, sets: &mut Sets) {
    let wanted = rolling::wanted(d);
    let active = sets
        .all()
        .iter()
        .filter(|rs| rolling::replicas(rs) > 0)
        .count();
    if active <= 1 {
        let only_old = sets.old.iter_mut().find(|rs| rolling::replicas(rs) > 0);
        let target = match (only_old, &mut sets.new) {
            (Some(old), _) => Some(old),
            (None, Some(new)) => Some(new),
            (None, None) => sets.old.last_mut(),
        };
        if let Some(target) = target {
            Sets::scale(d, target, wanted, &mut sets.scaled);
        }
        return;
    }
    let saturated = sets.new.as_ref().is_some_and(|new| {
        rolling::replicas(new) == wanted
            && revision::noted_desired(new) == Some(wanted)
            && rolling::available(new) == wanted
    });
    if saturated {
        for rs in sets.old.iter_mut().filter(|rs| rolling::replicas(rs) > 0) {
            Sets::scale(d, rs, 0, &mut sets.scaled);
        }
        return;
    }
    if rolling::is_recreate(d) {
        return;
    }
    let growing = wanted + rolling::max_surge(d) > sets.total();
    let Sets { new, old, scaled } = sets;
    let mut active: Vec<&mut ReplicaSet> = old
        .iter_mut()
        .chain(new)
        .filter(|rs| rolling::replicas(rs) > 0)
        .collect();
    // The largest first; among equals the newer when growing, the older when shrinking.
    active.sort_by(|a, b| {
        let by_age = created(a).cmp(&created(b));
        Reverse(rolling::replicas(a))
            .cmp(&Reverse(rolling::replicas(b)))
            .then(if growing { by_age.reverse() } else { by_age })
    });
    let sizes: Vec<_> = active
        .iter()
        .map(|rs| (rolling::replicas(rs), revision::noted_max(rs)))
        .collect();
    for (rs, to) in active.into_iter().zip(rolling::proportional(d, &sizes)) {
        Sets::scale(d, rs, to, scaled);
    }
}

/// Old ReplicaSets beyond the history limit, lowest revisions first. One that still has pods, or whose
/// controller hasn't caught up with it, is kept.
fn surplus(d: &Deployment, owned: &[Arc<ReplicaSet>], sets: &Sets) -> Vec<Arc<ReplicaSet>> {
    let Some(limit) = d
        .spec
        .as_ref()
        .and_then(|s| s.revision_history_limit)
        .filter(|l| *l != i32::MAX)
    else {
        return Vec::new();
    };
    let mut old: Vec<&Arc<ReplicaSet>> = owned
        .iter()
        .filter(|o| {
            o.metadata.deletion_timestamp.is_none()
                && sets.old.iter().any(|rs| rs.metadata.uid == o.metadata.uid)
        })
        .collect();
    old.sort_by_key(|rs| (revision::revision(&rs.metadata), created(rs).cloned()));
    let excess = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.into_iter()
        .take(excess)
        .filter(|rs| {
            let status = rs.status.clone().unwrap_or_default();
            status.replicas == 0
                && rolling::replicas(rs) == 0
                && status.observed_generation >= rs.metadata.generation
        })
        .cloned()
        .collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
