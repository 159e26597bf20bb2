//! RBAC as the cache shows it: the policy follows the four kinds' changes.

use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_api::rbac::{Action, Decision, GROUP, Policy, Rule, Subject};
use rhumb_api::registry;
use rhumb_store::Revision;

use super::User;
use crate::cache::{Cache, Collection};

const PLURALS: [&str; 4] = [
    "clusterroles",
    "clusterrolebindings",
    "roles",
    "rolebindings",
];

pub struct Rbac {
    collections: Vec<(&'static str, Arc<Collection>)>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    policy: Policy,
    /// Up to where each collection is in the policy; `None` before its first list.
    seen: [Option<Revision>; PLURALS.len()],
}

impl Rbac {
    pub fn new(cache: &Cache) -> Rbac {
        let collection = |plural: &'static str| {
            let kind = registry::find(GROUP, "v1", plural)?;
            Some((plural, cache.collection(kind)?))
        };
        Rbac {
            collections: PLURALS.into_iter().filter_map(collection).collect(),
            state: RwLock::default(),
        }
    }

    /// A policy that stays as it is.
    #[cfg(test)]
    pub fn of(policy: Policy) -> Rbac {
        Rbac {
            collections: Vec::new(),
            state: RwLock::new(State {
                policy,
                ..Default::default()
            }),
        }
    }

    /// Brings the policy up to what the cache shows, and asks it.
    fn ask<T>(&self, question: impl FnOnce(&Policy) -> T) -> T {
        let behind = |state: &State| {
            self.collections
                .iter()
                .zip(&state.seen)
                .any(|((_, collection), seen)| *seen != Some(collection.revision()))
        };
        {
            let state = self.state.read();
            if !behind(&state) {
                return question(&state.policy);
            }
        }
        let mut guard = self.state.write();
        let state = &mut *guard;
        for ((plural, collection), seen) in self.collections.iter().zip(&mut state.seen) {
            update(&mut state.policy, plural, collection, seen);
        }
        question(&guard.policy)
    }

    pub fn decide(&self, user: &User, action: &Action<'_>) -> Decision {
        self.ask(|policy| policy.decide(&subject(user), action))
    }

    /// All rules of the user in a namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        self.ask(|policy| policy.rules_for(&subject(user), namespace))
    }

    /// The rules of a role; `None` if it isn't there.
    pub fn rules_of(&self, kind: &str, name: &str, namespace: &str) -> Option<Vec<Rule>> {
        self.ask(|policy| policy.rules_of(kind, name, namespace).ok())
            .map(|rules| rules.to_vec())
    }
}

pub fn subject(user: &User) -> Subject<'_> {
    Subject {
        name: &user.name,
        groups: &user.groups,
    }
}

fn update(policy: &mut Policy, plural: &str, collection: &Collection, seen: &mut Option<Revision>) {
    // Read before the objects: what comes in between is applied once more, which changes nothing.
    let revision = collection.revision();
    if *seen == Some(revision) {
        return;
    }
    match seen.and_then(|after| collection.changes(after, usize::MAX)) {
        Some(changes) => {
            for change in changes {
                let Some(about) = change.object.as_ref().or(change.previous.as_ref()) else {
                    continue;
                };
                let value = change.object.as_ref().map(|o| o.value());
                policy.put(plural, about.namespace(), about.name(), value.as_ref());
            }
        }
        None => {
            policy.clear(plural);
            for object in collection.list("") {
                let value = object.value();
                policy.put(plural, object.namespace(), object.name(), Some(&value));
            }
        }
    }
    *seen = Some(revision);
}
