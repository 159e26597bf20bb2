//! The configured webhooks, ready to be called: made anew when the cache shows a change.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_api::admission::dynamic::{GROUP, Webhook, webhooks};
use rhumb_api::registry;
use rhumb_store::Revision;

use crate::cache::{Cache, Collection};
use crate::object::Object;
use crate::webhook_client::WebhookClient;

const PLURALS: [&str; 2] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
];

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
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }
}

/// The webhooks of a configuration.
struct Made {
    of: Revision,
    hooks: Vec<Arc<Hook>>,
}

pub struct Configured {
    cache: Arc<Cache>,
    collections: Vec<Arc<Collection>>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    hooks: Arc<Hooks>,
    /// By plural and name.
    made: HashMap<(usize, String), Made>,
    /// Up to where each collection is in it; `None` before its first list.
    seen: [Option<Revision>; PLURALS.len()],
}

impl Configured {
    pub fn new(cache: Arc<Cache>) -> Configured {
        let collection = |plural| cache.collection(registry::find(GROUP, "v1", plural)?);
        Configured {
            collections: PLURALS.into_iter().filter_map(collection).collect(),
            state: RwLock::default(),
            cache,
        }
    }

    fn is_behind(&self, state: &State) -> bool {
        let both = self.collections.iter().zip(&state.seen);
        both.into_iter()
            .any(|(collection, seen)| *seen != Some(collection.revision()))
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
        let mut all: [Vec<Arc<Hook>>; PLURALS.len()] = Default::default();
        for (i, collection) in self.collections.iter().enumerate() {
            // Read before the objects: what comes in between is made once more.
            state.seen[i] = Some(collection.revision());
            for object in collection.list("") {
                let key = (i, object.name.to_string());
                // Connections that are open go on being used.
                let kept = state.made.remove(&key);
                let hooks = match kept {
                    Some(kept) if kept.of == object.revision => kept,
                    _ => Made {
                        of: object.revision,
                        hooks: self.hooks_of(&object),
                    },
                };
                all[i].extend(hooks.hooks.iter().cloned());
                made.insert(key, hooks);
            }
        }
        let [mutating, validating] = all;
        state.made = made;
        state.hooks = Arc::new(Hooks {
            mutating,
            validating,
        });
    }

    fn hooks_of(&self, configuration: &Object) -> Vec<Arc<Hook>> {
        let found = webhooks(&configuration.value()).into_iter();
        let hook = |webhook: Webhook| {
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
        };
        found.map(hook).collect()
    }
}
