//! CustomResourceDefinitions at work: their names and conditions, the kinds that are served because
//! of them, and the end of their objects when they are deleted.
//!
//! One task does it all, from the cache's collection of definitions. A kind is served before its
//! definition says that it is established, so that nobody who waits for that finds nothing there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rhumb_api::crd::{self, names};
use rhumb_api::json::{self, at, list, list_mut, text};
use rhumb_api::registry::{self, Kind, Registry};
use rhumb_api::strategy::{self, DeleteOptions, DeleteOutcome};
use rhumb_store::{Change, Condition, ListRequest, Revision, Store, StoreError, Write};
use serde_json::Value;
use tokio::sync::watch;

use crate::object;
use crate::server::Api;
use crate::verbs::store_key;
use crate::verbs::write::put;

/// How often the rest of a deleted definition's objects is looked at.
const REST: Duration = Duration::from_millis(300);
/// How long the writer of a definition waits for it to take effect.
const SETTLE: Duration = Duration::from_secs(3);
/// How long to wait after the store refused something.
const RETRY: Duration = Duration::from_secs(1);

/// Revision of the last change of a definition that has taken effect.
#[derive(Debug, Default)]
pub struct Settled(watch::Sender<Revision>);

/// Waits until the definitions of now have taken effect.
pub async fn settled(api: &Api) {
    let wait = async {
        let Some(collection) = kind().and_then(|kind| api.cache.collection(kind)) else {
            return;
        };
        let _ = api.cache.reach(api.store.revision(), SETTLE).await;
        let wanted = *collection.subscribe().borrow();
        let mut done = api.definitions.0.subscribe();
        let _ = done.wait_for(|done| *done >= wanted).await;
    };
    // What takes longer goes on behind the answer.
    let _ = tokio::time::timeout(SETTLE, wait).await;
}

fn kind() -> Option<&'static Arc<Kind>> {
    registry::find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

#[derive(Default)]
pub struct Definitions {
    /// By the definition's name.
    built: HashMap<String, Built>,
}

struct Built {
    /// What the kinds were made of.
    source: Value,
    kinds: Vec<Arc<Kind>>,
}

impl Definitions {
    /// What the store's definitions serve, at the start.
    pub async fn load(store: &dyn Store) -> Result<(Definitions, Registry), StoreError> {
        let mut definitions = Definitions::default();
        let mut crds = Vec::new();
        if let Some(kind) = kind() {
            let prefix = Bytes::from(format!("{}/", kind.storage_prefix()));
            let request = ListRequest {
                prefix,
                ..Default::default()
            };
            for kv in &store.list(request).await?.items {
                match object::value_of(kv) {
                    Ok(crd) => crds.push(crd),
                    Err(error) => tracing::error!(%error, "skipped"),
                }
            }
        }
        let registry = definitions.registry(&crds);
        Ok((definitions, registry))
    }

    /// The registry with the kinds of established definitions. Kinds stay the same, to the
    /// pointer, while their definition does.
    fn registry(&mut self, crds: &[Value]) -> Registry {
        self.built
            .retain(|name, _| crds.iter().any(|crd| text(crd, "metadata.name") == name));
        let mut kinds = Vec::new();
        for crd in crds.iter().filter(|crd| names::holds(crd, "Established")) {
            let name = text(crd, "metadata.name");
            let source = Value::from(vec![
                at(crd, "metadata.uid").cloned().unwrap_or_default(),
                at(crd, "spec").cloned().unwrap_or_default(),
                at(crd, "status.acceptedNames").cloned().unwrap_or_default(),
                names::holds(crd, "Terminating").into(),
            ]);
            if self.built.get(name).is_none_or(|b| b.source != source) {
                let made = crd::kinds(crd).into_iter().map(Arc::new).collect();
                let built = Built {
                    source,
                    kinds: made,
                };
                self.built.insert(name.to_string(), built);
            }
            kinds.extend(self.built[name].kinds.iter().cloned());
        }
        let order = |kind: &Arc<Kind>| {
            let version = std::cmp::Reverse(crd::custom::priority(&kind.version));
            (kind.group.clone(), version, kind.plural.clone())
        };
        kinds.sort_by_cached_key(order);
        Registry::with(kinds)
    }

    /// Runs until the server stops.
    pub async fn run(mut self, api: Arc<Api>) {
        let Some(collection) = kind().and_then(|kind| api.cache.collection(kind)) else {
            return;
        };
        // The cache begins in the past: a definition that it doesn't show yet is not gone, and its kinds'
        // history is there for watches.
        let start = api.store.revision();
        while api.cache.reach(start, RETRY).await.is_err() {
            if api.stop.is_cancelled() {
                return;
            }
        }
        let mut changed = collection.subscribe();
        loop {
            let seen = *changed.borrow_and_update();
            let crds: Vec<Value> = collection.list("").iter().map(|o| o.value()).collect();
            let again = match self.pass(&api, crds).await {
                Ok(true) => Some(REST),
                Ok(false) => None,
                Err(error) => {
                    tracing::warn!(%error, "definitions can't be worked on, trying again");
                    Some(RETRY)
                }
            };
            api.definitions.0.send_replace(seen);
            tokio::select! {
                () = api.stop.cancelled() => return,
                result = changed.changed() => {
                    if result.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Brings everything in line with the definitions. Says whether a deleted one has objects left.
    async fn pass(&mut self, api: &Api, crds: Vec<Value>) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let mut decided = crds.clone();
        for i in 0..decided.len() {
            decided[i] = names::decide(&crds[i], &decided, now);
        }
        let registry = self.registry(&decided);
        if !same(registry.kinds(), api.registry().kinds()) {
            api.cache.install(&registry).await?;
            api.serve(registry);
        }
        for (old, new) in crds.iter().zip(&decided) {
            if old != new {
                write(api, old, Some(new)).await?;
            }
        }
        let mut left = false;
        for crd in &decided {
            let held = list(crd, "metadata.finalizers")
                .iter()
                .any(|f| f == names::FINALIZER);
            if held && at(crd, "metadata.deletionTimestamp").is_some() {
                left |= !self.empty(api, crd).await?;
            }
        }
        Ok(left)
    }

    /// Deletes the objects of a definition, and lets go of it when there are none. Says whether
    /// it did.
    async fn empty(&self, api: &Api, crd: &Value) -> Result<bool, StoreError> {
        let prefix = format!(
            "{}/{}/",
            text(crd, "spec.group"),
            text(crd, "spec.names.plural")
        );
        let built = self.built.get(text(crd, "metadata.name"));
        let kind = built.and_then(|b| b.kinds.first());
        let items = api
            .store
            .list(ListRequest {
                prefix: prefix.into(),
                ..Default::default()
            })
            .await?
            .items;
        for kv in &items {
            let Ok(object) = object::value_of(kv) else {
                continue;
            };
            let change = match kind {
                // No version is served: nobody is left to take finalizers off.
                None => Change::Delete,
                Some(kind) => {
                    let object = kind.from_store(object);
                    let options = DeleteOptions::default();
                    match strategy::prepare_delete(kind, &object, &options, Timestamp::now()) {
                        Ok(DeleteOutcome::Remove) => Change::Delete,
                        Ok(DeleteOutcome::Mark(marked)) => put(kind, &marked),
                        Ok(DeleteOutcome::Unchanged) | Err(_) => continue,
                    }
                }
            };
            let write = Write {
                key: kv.key.clone(),
                condition: Condition::ModRevision(kv.mod_revision),
                change,
            };
            api.store.write(write).await?;
        }
        if !items.is_empty() {
            return Ok(false);
        }
        let mut freed = crd.clone();
        if let Some(finalizers) = list_mut(&mut freed, "metadata.finalizers") {
            finalizers.retain(|f| f != names::FINALIZER);
        }
        if list(&freed, "metadata.finalizers").is_empty() {
            if let Some(metadata) = json::child(&mut freed, "metadata") {
                json::remove(metadata, "finalizers");
            }
            write(api, crd, None).await?;
        } else {
            write(api, crd, Some(&freed)).await?;
        }
        Ok(true)
    }
}

fn same(a: &[Arc<Kind>], b: &[Arc<Kind>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Replaces or removes a definition. If somebody else was faster, the next pass does it.
async fn write(api: &Api, old: &Value, new: Option<&Value>) -> Result<(), StoreError> {
    let Some(kind) = kind() else {
        return Ok(());
    };
    let name = text(old, "metadata.name");
    let Ok(revision) = text(old, "metadata.resourceVersion").parse() else {
        return Ok(());
    };
    api.store
        .write(Write {
            key: store_key(kind, "", name),
            condition: Condition::ModRevision(revision),
            change: new.map_or(Change::Delete, |new| put(kind, new)),
        })
        .await?;
    Ok(())
}
