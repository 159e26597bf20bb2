//! Pods that wait for a node: ready ones by priority and age, failed ones in back-off or set aside until
//! something in the cluster changes. Time is handed in.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rhumb_client::ObjectKey;

use crate::pod::PodInfo;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that was set aside is tried again after this long even if nothing seemed to change.
const LONGEST_ASIDE: Duration = Duration::from_secs(300);

/// Order of scheduling: higher priority, then older, then by name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rank {
    priority: i32,
    created: i64,
    key: ObjectKey,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (Reverse(self.priority), self.created, &self.key).cmp(&(
            Reverse(other.priority),
            other.created,
            &other.key,
        ))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    /// Out for a decision or for binding.
    Out,
    Backoff {
        until: Instant,
    },
    /// Nothing to try until the cluster changes; `until` ends its back-off.
    Aside {
        until: Instant,
        since: Instant,
    },
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    place: Place,
    /// The count of cluster changes when the pod was last taken out.
    taken_at: u64,
}

#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    ready: BTreeSet<Rank>,
    timed: BTreeSet<(Instant, ObjectKey)>,
    /// Those that are set aside, so that a change of the cluster needn't look at all that wait.
    aside: HashSet<ObjectKey>,
    changes: u64,
}

fn rank(pod: &PodInfo) -> Rank {
    Rank {
        priority: pod.priority,
        created: pod.created,
        key: pod.key.clone(),
    }
}

impl Queue {
    /// Takes in a pending pod, or news of one.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        match self.entries.get_mut(&pod.key) {
            Some(entry) if entry.pod.uid == pod.uid => {
                // Only its status may have changed, by our own hand: that is no reason to try again.
                let spec_changed = !same_demand(&entry.pod, &pod);
                let was = rank(&entry.pod);
                entry.pod = pod.clone();
                if entry.place == Place::Ready {
                    self.ready.remove(&was);
                    self.ready.insert(rank(&pod));
                } else if spec_changed && entry.place != Place::Out {
                    self.make_ready(&pod.key);
                }
            }
            _ => {
                self.remove(&pod.key);
                self.ready.insert(rank(&pod));
                self.entries.insert(
                    pod.key.clone(),
                    Entry {
                        pod,
                        attempts: 0,
                        place: Place::Ready,
                        taken_at: 0,
                    },
                );
            }
        }
    }

    /// The pod is bound, finished or gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.ready.remove(&rank(&entry.pod));
            self.untime(key, entry.place);
        }
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.entries.keys().cloned().collect()
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|e| &e.pod)
    }

    fn untime(&mut self, key: &ObjectKey, place: Place) {
        match place {
            Place::Backoff { until } => {
                self.timed.remove(&(until, key.clone()));
            }
            Place::Aside { since, .. } => {
                self.aside.remove(key);
                self.timed.remove(&(since + LONGEST_ASIDE, key.clone()));
            }
            Place::Ready | Place::Out => {}
        }
    }

    fn make_ready(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let place = std::mem::replace(&mut entry.place, Place::Ready);
        self.ready.insert(rank(&entry.pod));
        self.untime(key, place);
    }

    /// The next pod to decide on.
    pub fn take(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some((at, key)) = self.timed.first().cloned() {
            if at > now {
                break;
            }
            self.timed.pop_first();
            self.make_ready(&key);
        }
        let first = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&first.key)?;
        entry.place = Place::Out;
        entry.attempts += 1;
        entry.taken_at = self.changes;
        Some(entry.pod.clone())
    }

    /// When the next pod is due by time alone.
    pub fn next_due(&self) -> Option<Instant> {
        self.timed.first().map(|(at, _)| *at)
    }

    /// No node could take the pod.
    pub fn unschedulable(&mut self, key: &ObjectKey, now: Instant) {
        let changes = self.changes;
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let until = now + backoff(entry.attempts);
        if entry.taken_at == changes {
            entry.place = Place::Aside { until, since: now };
            self.timed.insert((now + LONGEST_ASIDE, key.clone()));
            self.aside.insert(key.clone());
        } else {
            // Something changed since the decision was begun.
            entry.place = Place::Backoff { until };
            self.timed.insert((until, key.clone()));
        }
    }

    /// A node was found and the binding failed: try again after a while.
    pub fn retry(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let until = now + backoff(entry.attempts);
        entry.place = Place::Backoff { until };
        self.timed.insert((until, key.clone()));
    }

    /// Something changed that may let a pod fit that didn't.
    pub fn cluster_changed(&mut self, now: Instant) {
        self.changes += 1;
        let aside: Vec<(ObjectKey, Instant)> = self
            .aside
            .iter()
            .filter_map(|key| match self.entries.get(key)?.place {
                Place::Aside { until, .. } => Some((key.clone(), until)),
                _ => None,
            })
            .collect();
        for (key, until) in aside {
            if until <= now {
                self.make_ready(&key);
            } else if let Some(entry) = self.entries.get_mut(&key) {
                let place = std::mem::replace(&mut entry.place, Place::Backoff { until });
                self.untime(&key, place);
                self.timed.insert((until, key));
            }
        }
    }
}

/// Whether nothing that decides on placing has changed.
fn same_demand(a: &PodInfo, b: &PodInfo) -> bool {
    a.labels == b.labels
        && a.requests.resources == b.requests.resources
        && a.tolerations == b.tolerations
        && a.node_selector == b.node_selector
        && a.priority == b.priority
        && a.ours == b.ours
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_FIRST
        .checked_mul(
            1u32.checked_shl(attempts.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .map_or(BACKOFF_MAX, |b| b.min(BACKOFF_MAX))
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
