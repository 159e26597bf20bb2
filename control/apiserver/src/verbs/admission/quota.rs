//! The plugin ResourceQuota. Those who write in a namespace that has quotas take turns: each looks
//! at what is used, writes its object, and then its charge, so that together they never use more
//! than there is. The charge comes after the object: whoever counts the objects in between, and
//! writes the count, makes it too high for a moment, never too low.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use rhumb_api::admission::quota::{self, Counted};
use rhumb_api::admission::resources::Amounts;
use rhumb_api::json::text;
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use rhumb_store::{Condition, Outcome, Store, StoreError, Write};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::stored_list;
use crate::object;
use crate::verbs::write::put;
use crate::verbs::{ATTEMPTS, Request, store_error, store_key};

const PLURAL: &str = "resourcequotas";

/// Whose turn it is; namespaces that fall together wait for each other, which is harmless.
pub struct Turns([Arc<Mutex<()>>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Turns(std::array::from_fn(|_| Arc::default()))
    }
}

impl Turns {
    async fn of(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let at = hasher.finish() as usize % self.0.len();
        self.0[at].clone().lock_owned().await
    }
}

/// What a write is to be charged with; nothing for most.
pub struct Charge(Option<Due>);

struct Due {
    /// Held until the charge is written.
    _turn: OwnedMutexGuard<()>,
    /// Keys of quotas, and what to add to them.
    quotas: Vec<(Bytes, Amounts)>,
}

/// Checks a write against the quotas of its namespace. `old` is what it replaces.
pub async fn begin(request: &Request, new: &Value, old: Option<&Value>) -> Result<Charge> {
    let stored_kind = request.kind.storage();
    let kind = Counted {
        group: &stored_kind.group,
        plural: &stored_kind.plural,
    };
    let namespace = request.resource.namespace.as_str();
    let counts = stored_kind.namespaced
        && request.resource.subresource.is_empty()
        && !stored_kind.is("", "Event")
        && (old.is_none() || kind.grows());
    let quotas = registry::find("", "v1", PLURAL).ok_or_else(ApiError::no_such_path)?;
    // A quota holds from when its status has been counted, so the cache is early enough here.
    let some = || {
        let known = request.api.cache.collection(quotas);
        known.is_some_and(|q| !q.list(namespace).is_empty())
    };
    if !counts || !some() {
        return Ok(Charge(None));
    }
    let turn = request.api.quota_turns.of(namespace).await;
    let mut due = Vec::new();
    for quota in stored_list(request, PLURAL).await? {
        let delta = quota::charge(&quota, kind, new, old, jiff::Timestamp::now());
        let name = text(new, "metadata.name");
        let delta = delta.map_err(|why| ApiError::forbidden(&request.kind, name, &why))?;
        if !delta.is_empty() {
            let key = store_key(quotas, namespace, text(&quota, "metadata.name"));
            due.push((key, delta));
        }
    }
    Ok(Charge((!due.is_empty()).then_some(Due {
        _turn: turn,
        quotas: due,
    })))
}

impl Charge {
    /// Writes the object, and then the charge.
    pub async fn write(self, request: &Request, write: Write) -> Result<Outcome> {
        let store = request.api.store.clone();
        let Some(due) = self.0 else {
            return store.write(write).await.map_err(store_error);
        };
        // On its own, since the request is dropped when its client goes.
        let task = request.api.tasks.spawn(async move {
            let outcome = store.write(write).await?;
            if matches!(outcome, Outcome::Committed(_)) {
                due.settle(&*store).await;
            }
            Ok::<_, StoreError>(outcome)
        });
        let written = task.await.unwrap_or(Err(StoreError::Closed));
        written.map_err(store_error)
    }
}

impl Due {
    async fn settle(self, store: &dyn Store) {
        for (key, delta) in &self.quotas {
            if let Err(error) = add(store, key, delta).await {
                // The controller counts the objects themselves.
                tracing::warn!(
                    quota = %String::from_utf8_lossy(key), %error,
                    "a quota could not be charged"
                );
            }
        }
    }
}

async fn add(store: &dyn Store, key: &Bytes, delta: &Amounts) -> Result<()> {
    let kind = registry::find("", "v1", PLURAL).ok_or_else(ApiError::no_such_path)?;
    for _ in 0..ATTEMPTS {
        let Some(kv) = store.get(key).await.map_err(store_error)? else {
            return Ok(());
        };
        let mut quota = object::value_of(&kv).map_err(ApiError::internal)?;
        quota::add_used(&mut quota, delta);
        let write = Write {
            key: key.clone(),
            condition: Condition::ModRevision(kv.mod_revision),
            change: put(kind, &quota),
        };
        match store.write(write).await.map_err(store_error)? {
            Outcome::Committed(_) => return Ok(()),
            Outcome::Conflict(_) => {}
        }
    }
    Err(ApiError::internal("others are always faster"))
}
