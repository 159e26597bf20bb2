//! A Deployment's status and conditions, in Kubernetes' reasons and words.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
        ReplicaSetCondition, ReplicaSetStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::rolling;

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

pub const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
pub const FOUND_REPLICA_SET: &str = "FoundNewReplicaSet";
pub const UPDATED: &str = "ReplicaSetUpdated";
pub const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub const PAUSED: &str = "DeploymentPaused";
pub const RESUMED: &str = "DeploymentResumed";
pub const CREATE_ERROR: &str = "ReplicaSetCreateError";

pub fn get<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == type_)
}

pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; the same status for the same reason leaves it as it was.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = get(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    replace(status, new);
}

/// Sets a condition even if nothing but its times has changed.
pub fn replace(status: &mut DeploymentStatus, new: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
    }
}

/// As [`deadline`], from the spec alone.
pub fn deadline_in(spec: Option<&DeploymentSpec>) -> Option<i32> {
    spec?.progress_deadline_seconds.filter(|s| *s != i32::MAX)
}

/// The progress deadline, unless there is none.
pub fn deadline(d: &Deployment) -> Option<i32> {
    deadline_in(d.spec.as_ref())
}

/// Counts and the condition Available. `new` is the current ReplicaSet if there is one; `all` includes it.
pub fn counted(
    d: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let status = |rs: &ReplicaSet| rs.status.clone().unwrap_or_default();
    let sum = |f: fn(&ReplicaSetStatus) -> i32| all.iter().map(|rs| f(&status(rs))).sum::<i32>();
    let replicas = sum(|s| s.replicas);
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let asked: i32 = all.iter().map(|rs| rolling::replicas(rs)).sum();
    let old = d.status.clone().unwrap_or_default();
    // Absent where the ReplicaSets don't say.
    let terminating = all
        .iter()
        .map(|rs| status(rs).terminating_replicas)
        .sum::<Option<i32>>();
    let nonzero = |n: i32| (n != 0).then_some(n);
    let mut out = DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: nonzero(replicas),
        updated_replicas: nonzero(new.map_or(0, |rs| status(rs).replicas)),
        ready_replicas: nonzero(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((asked - available).max(0)),
        terminating_replicas: terminating,
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = available >= rolling::wanted(d) - rolling::max_unavailable(d);
    set(
        &mut out,
        if enough {
            condition(
                AVAILABLE,
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                now,
            )
        } else {
            condition(
                AVAILABLE,
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
                now,
            )
        },
    );
    out
}

pub fn is_complete(d: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = rolling::wanted(d);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= d.metadata.generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    n(new.updated_replicas) > n(old.updated_replicas)
        || n(new.replicas) - n(new.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn timed_out(d: &Deployment, old: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(condition)) = (deadline(d), get(old, PROGRESSING)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition
            .last_update_time
            .as_ref()
            .is_some_and(|t| now.as_second() - t.0.as_second() > i64::from(deadline)),
    }
}

/// Counts and conditions of a Deployment that is being rolled out.
pub fn of_rollout(
    d: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let mut out = counted(d, new, all, now);
    let old = d.status.clone().unwrap_or_default();
    let current = get(&old, PROGRESSING);
    if deadline(d).is_none() {
        remove(&mut out, PROGRESSING);
    } else {
        let settled = out.replicas == out.updated_replicas
            && current.is_some_and(|c| c.reason.as_deref() == Some(NEW_AVAILABLE));
        let subject = match new {
            Some(rs) => format!(
                "ReplicaSet {:?}",
                rs.metadata.name.as_deref().unwrap_or_default()
            ),
            None => format!(
                "Deployment {:?}",
                d.metadata.name.as_deref().unwrap_or_default()
            ),
        };
        if settled {
        } else if is_complete(d, &out) {
            let done = condition(
                PROGRESSING,
                "True",
                NEW_AVAILABLE,
                format!("{subject} has successfully progressed."),
                now,
            );
            set(&mut out, done);
        } else if has_progressed(&old, &out) {
            let mut going = condition(
                PROGRESSING,
                "True",
                UPDATED,
                format!("{subject} is progressing."),
                now,
            );
            // The time of the last progress counts, so it is noted even if the condition is the same.
            if let Some(current) = current.filter(|c| c.status == "True") {
                going.last_transition_time = current.last_transition_time.clone();
            }
            replace(&mut out, going);
        } else if timed_out(d, &old, now) {
            let late = condition(
                PROGRESSING,
                "False",
                TIMED_OUT,
                format!("{subject} has timed out progressing."),
                now,
            );
            set(&mut out, late);
        }
    }
    match failure(new, all) {
        Some(failure) => {
            let failure = DeploymentCondition {
                type_: REPLICA_FAILURE.into(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_transition_time: failure.last_transition_time.clone(),
                last_update_time: failure.last_transition_time.clone(),
            };
            set(&mut out, failure);
        }
        None => remove(&mut out, REPLICA_FAILURE),
    }
    out
}

fn failure<'a>(
    new: Option<&'a ReplicaSet>,
    all: &[&'a ReplicaSet],
) -> Option<&'a ReplicaSetCondition> {
    new.into_iter().chain(all.iter().copied()).find_map(|rs| {
        rs.status
            .as_ref()?
            .conditions
            .as_ref()?
            .iter()
            .find(|c| c.type_ == REPLICA_FAILURE)
    })
}

/// Notes that the Deployment was paused or resumed: a paused one has no deadline.
pub fn note_pause(d: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(d).is_none() {
        return;
    }
    let reason = get(status, PROGRESSING).and_then(|c| c.reason.clone());
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let noted = reason.as_deref() == Some(PAUSED);
    if paused && !noted {
        set(
            status,
            condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now),
        );
    } else if !paused && noted {
        set(
            status,
            condition(
                PROGRESSING,
                "Unknown",
                RESUMED,
                "Deployment is resumed",
                now,
            ),
        );
    }
}

/// In how many seconds the deadline may strike, if the Deployment is on its way.
pub fn deadline_due(d: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<i64> {
    let deadline = deadline(d)?;
    let condition = get(status, PROGRESSING)?;
    if matches!(
        condition.reason.as_deref(),
        Some(NEW_AVAILABLE | TIMED_OUT | PAUSED)
    ) || is_complete(d, status)
    {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0.as_second();
    Some((since + i64::from(deadline) - now.as_second()).max(0) + 1)
}
