//! What is configured, ready to be asked: made anew when the cache shows a change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_api::admission::dynamic::{Binding, GROUP, Policy, Webhook, webhooks};
use rhumb_api::registry;
use rhumb_store::Revision;

use crate::cache::{Cache, Collection};
use crate::object::Object;
use crate::webhook_client::WebhookClient;

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
const PLURALS: [&str; 4] = [MUTATING, VALIDATING, POLICIES, BINDINGS];

pub struct Hook {
    pub webhook: Webhook,
    /// Or why it can't be called.
    pub client: Result<WebhookClient, String>,
}

/// What is configured at one moment, in the order of names.
#[derive(Default)]
pub struct Hooks {
    pub mutating: Vec<Arc<Hook>>,
    pub validating: Vec<Arc<Hook>>,
    /// Policies with the bindings that put them in force.
    pub policies: Vec<(Arc<Policy>, Vec<Arc<Binding>>)>,
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty() && self.policies.is_empty()
    }
}

/// What was made of an object.
#[derive(Clone)]
enum Made {
    Hooks(Vec<Arc<Hook>>),
    Policy(Arc<Policy>),
    Binding(Arc<Binding>),
}

pub struct Configured {
    cache: Arc<Cache>,
    collections: Vec<(&'static str, Arc<Collection>)>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    hooks: Arc<Hooks>,
    /// By plural and name, with the revision of what it was made of.
    made: HashMap<(&'static str, String), (Revision, Made)>,
    /// Up to where each collection is in it; `None` before its first list.
    seen: [Option<Revision>; PLURALS.len()],
}

impl Configured {
    pub fn new(cache: Arc<Cache>) -> Configured {
        let collection = |plural| {
            let kind = registry::find(GROUP, "v1", plural)?;
            Some((plural, cache.collection(kind)?))
        };
        Configured {
            collections: PLURALS.into_iter().filter_map(collection).collect(),
            state: RwLock::default(),
            cache,
        }
    }

    fn is_behind(&self, state: &State) -> bool {
        let mut both = self.collections.iter().zip(&state.seen);
        both.any(|((_, collection), seen)| *seen != Some(collection.revision()))
    }

    /// What the cache shows now.
    pub fn now(&self) -> Arc<Hooks> {
        {
            let state = self.state.read();
            if !self.is_behind(&state) {
                return state.hooks.clone();
            }
        }
        let mut guard = self.state.write();
        let state = &mut *guard;
        if self.is_behind(state) {
            self.make(state);
        }
        state.hooks.clone()
    }

    fn make(&self, state: &mut State) {
        let mut made = HashMap::new();
        let mut hooks = Hooks::default();
        let mut bindings: BTreeMap<String, Vec<Arc<Binding>>> = BTreeMap::new();
        let mut policies = Vec::new();
        for ((plural, collection), seen) in self.collections.iter().zip(&mut state.seen) {
            // Read before the objects: what comes in between is made once more.
            *seen = Some(collection.revision());
            for object in collection.list("") {
                let key = (*plural, object.name().to_string());
                // Connections that are open go on being used.
                let now = match state.made.remove(&key) {
                    Some((revision, kept)) if revision == object.revision => kept,
                    _ => self.made_of(plural, &object),
                };
                match &now {
                    Made::Hooks(found) if *plural == MUTATING => {
                        hooks.mutating.extend(found.iter().cloned());
                    }
                    Made::Hooks(found) => hooks.validating.extend(found.iter().cloned()),
                    Made::Policy(policy) => policies.push(policy.clone()),
                    Made::Binding(binding) => {
                        let of_policy = bindings.entry(binding.policy.clone()).or_default();
                        of_policy.push(binding.clone());
                    }
                }
                made.insert(key, (object.revision, now));
            }
        }
        // Without a binding a policy is not in force.
        hooks.policies = policies
            .into_iter()
            .filter_map(|policy| {
                let bindings = bindings.remove(&policy.name)?;
                Some((policy, bindings))
            })
            .collect();
        state.made = made;
        state.hooks = Arc::new(hooks);
    }

    fn made_of(&self, plural: &str, object: &Object) -> Made {
        let value = object.value();
        match plural {
            POLICIES => Made::Policy(Arc::new(Policy::of(&value))),
            BINDINGS => Made::Binding(Arc::new(Binding::of(&value))),
            _ => Made::Hooks(webhooks(&value).into_iter().map(|w| self.hook(w)).collect()),
        }
    }

    fn hook(&self, webhook: Webhook) -> Arc<Hook> {
        let client = WebhookClient::new(
            &webhook.client,
            &webhook.ca_bundle,
            webhook.timeout_seconds,
            &self.cache,
        );
        Arc::new(Hook {
            client: client.map_err(|e| e.to_string()),
            webhook,
        })
    }
}
