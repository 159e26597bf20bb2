//! The arithmetic of a rolling update.

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Replicas asked for; the server defaults an absent number to 1.
pub fn wanted(d: &Deployment) -> i32 {
    d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn is_recreate(d: &Deployment) -> bool {
    d.spec
        .as_ref()
        .and_then(|s| s.strategy.as_ref())
        .and_then(|s| s.type_.as_deref())
        == Some("Recreate")
}

fn scaled(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    match value {
        // The server defaults both to 25 %.
        None => percent(25, of, round_up),
        Some(value) => amount(value, of, round_up),
    }
}

/// A number, or a percentage of `of`. What can't be read is 0: the server refuses it.
pub fn amount(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => text
            .strip_suffix('%')
            .and_then(|n| n.parse::<i64>().ok())
            .map_or(0, |n| percent(n.max(0), of, round_up)),
    }
}

fn percent(percent: i64, of: i32, round_up: bool) -> i32 {
    let product = percent.saturating_mul(i64::from(of));
    let n = if round_up {
        product.saturating_add(99) / 100
    } else {
        product / 100
    };
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Pods above and below the wanted number that the strategy allows. Both zero would never move: then
/// one may be unavailable.
pub fn surge_and_unavailable(d: &Deployment) -> (i32, i32) {
    if is_recreate(d) {
        return (0, 0);
    }
    let rolling = d
        .spec
        .as_ref()
        .and_then(|s| s.strategy.as_ref())
        .and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), wanted(d), true);
    let unavailable = scaled(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        wanted(d),
        false,
    );
    if surge == 0 && unavailable == 0 {
        return (0, 1);
    }
    (surge, unavailable)
}

pub fn max_surge(d: &Deployment) -> i32 {
    surge_and_unavailable(d).0
}

pub fn max_unavailable(d: &Deployment) -> i32 {
    surge_and_unavailable(d).1.min(wanted(d))
}

pub fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn available(rs: &ReplicaSet) -> i32 {
    rs.status
        .as_ref()
        .and_then(|s| s.available_replicas)
        .unwrap_or(0)
}

/// How large the new ReplicaSet may be now; `total` counts all ReplicaSets, `new` the new one.
pub fn new_size(d: &Deployment, total: i32, new: i32) -> i32 {
    if is_recreate(d) {
        return wanted(d);
    }
    let most = wanted(d).saturating_add(max_surge(d));
    if total >= most {
        return new;
    }
    new + (most - total).min(wanted(d) - new)
}

/// New sizes of the old ReplicaSets (oldest first): first what isn't available anyway, then what the
/// strategy lets go.
pub fn old_sizes(d: &Deployment, old: &[(i32, i32)], new: Option<(i32, i32)>) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|(size, _)| *size).collect();
    let old_total: i32 = sizes.iter().sum();
    let (new_size, new_available) = new.unwrap_or((0, 0));
    let floor = wanted(d) - max_unavailable(d);
    let mut may_go = old_total + new_size - floor - (new_size - new_available);
    if old_total == 0 || may_go <= 0 {
        return sizes;
    }
    for (size, (_, available)) in sizes.iter_mut().zip(old) {
        let unhealthy = (*size - available).clamp(0, may_go.max(0));
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    let mut may_go =
        old.iter().map(|(_, available)| available).sum::<i32>() + new_available - floor;
    for size in &mut sizes {
        if may_go <= 0 {
            break;
        }
        let down = (*size).min(may_go);
        *size -= down;
        may_go -= down;
    }
    sizes
}

/// Divides a change of scale over ReplicaSets in the middle of a rollout by their shares. `sets` are
/// sizes and the maximum noted on each when it was last scaled; the order is that in which they are
/// served, and the first takes what rounding leaves.
pub fn proportional(d: &Deployment, sets: &[(i32, Option<i32>)]) -> Vec<i32> {
    let total: i32 = sets.iter().map(|(size, _)| size).sum();
    let allowed = if wanted(d) > 0 {
        wanted(d) + max_surge(d)
    } else {
        0
    };
    let to_add = allowed - total;
    let mut added = 0;
    let mut out: Vec<i32> = Vec::with_capacity(sets.len());
    for (size, noted_max) in sets {
        let mut share = 0;
        if *size != 0 && to_add != 0 && to_add != added {
            let fraction = fraction(d, *size, *noted_max, allowed);
            let left = to_add - added;
            share = if to_add > 0 {
                fraction.min(left)
            } else {
                fraction.max(left)
            };
        }
        added += share;
        out.push(size + share);
    }
    if to_add != 0
        && let Some(first) = out.first_mut()
    {
        *first = (*first + to_add - added).max(0);
    }
    out
}

fn fraction(d: &Deployment, size: i32, noted_max: Option<i32>, allowed: i32) -> i32 {
    if wanted(d) == 0 {
        return -size;
    }
    let before = noted_max
        .filter(|m| *m > 0)
        .or_else(|| d.status.as_ref().and_then(|s| s.replicas))
        .unwrap_or(0);
    if before == 0 {
        return 0;
    }
    (f64::from(size) * f64::from(allowed) / f64::from(before)).round() as i32 - size
}

#[cfg(test)]
#[path = "rolling_tests.rs"]
mod tests;
