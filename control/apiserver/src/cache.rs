//! The watch cache: every kind's objects and recent changes in memory, fed by one watch of the
//! store. Lists of now, selectors and all client watches are served from here.
//!
//! A client's watch is a cursor into its kind's ring of changes. A slow client costs nothing
//! while it sleeps; when the ring has moved past it, its watch ends with 410 and it lists again.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use rhumb_api::registry::{Kind, Registry};
use rhumb_store::{Event, KeyValue, ListRequest, Revision, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::object::{self, Object};

/// Changes a kind keeps for watches, and how much memory they may hold.
const RING_CHANGES: usize = 10_000;
const RING_BYTES: usize = 2 << 20;

#[derive(Debug, Clone)]
pub struct Change {
    pub revision: Revision,
    pub previous: Option<Arc<Object>>,
    /// `None`: deleted.
    pub object: Option<Arc<Object>>,
}

impl Change {
    fn weight(&self) -> usize {
        let of = |o: &Option<Arc<Object>>| o.as_ref().map_or(0, |o| o.weight());
        // The current state is in the map anyway; what only the ring keeps is the previous one.
        of(&self.previous) + 64
    }
}

pub struct Collection {
    pub kind: Arc<Kind>,
    state: RwLock<State>,
    /// Revision of the last change.
    changed: watch::Sender<Revision>,
    closed: CancellationToken,
}

struct State {
    objects: BTreeSet<Entry>,
    ring: VecDeque<Change>,
    ring_bytes: usize,
    /// The ring holds every change of a revision greater than this.
    ring_after: Revision,
}

/// An object of a collection, in the order of its key.
struct Entry(Arc<Object>);

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

pub struct Cache {
    collections: RwLock<HashMap<String, Arc<Collection>>>,
    installs: mpsc::UnboundedSender<Install>,
    pending: Mutex<Option<mpsc::UnboundedReceiver<Install>>>,
    /// Everything up to this revision has been applied to all collections.
    applied: watch::Sender<Revision>,
    /// Held for writing while changes are applied, so that `snapshot` sees whole batches.
    batch: RwLock<()>,
}

/// The custom kinds that are to have a collection from now on.
struct Install {
    kinds: Vec<Arc<Kind>>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// The cache was asked for a revision that it has not reached in time.
#[derive(Debug)]
pub struct TooLarge {
    pub current: Revision,
}

impl Cache {
    /// Loads the cache. It begins at the oldest revision that the store keeps and replays from
    /// there, so that clients of before a restart can go on with their watches.
    pub async fn load(store: &dyn Store, registry: &Registry) -> Result<Cache, StoreError> {
        let start = store.oldest();
        let list = store
            .list(ListRequest {
                at: Some(start),
                ..Default::default()
            })
            .await?;
        let mut collections = HashMap::new();
        let built_in = registry.kinds().iter();
        let built_in = built_in.filter(|k| k.as_custom().is_none() && !k.is_view());
        let custom = custom_kinds(registry).into_values();
        for kind in built_in.cloned().chain(custom) {
            let prefix = kind.storage_prefix();
            collections.insert(prefix, Arc::new(Collection::empty(kind, start)));
        }
        let (installs, pending) = mpsc::unbounded_channel();
        let cache = Cache {
            collections: RwLock::new(collections),
            installs,
            pending: Mutex::new(Some(pending)),
            applied: watch::Sender::new(start),
            batch: RwLock::new(()),
        };
        for kv in &list.items {
            cache.load_one(kv);
        }
        Ok(cache)
    }

    /// Follows the store for good. Returns when the store fails.
    pub async fn follow(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut watch = store.watch(Bytes::new(), self.applied()).await?;
        let Some(mut installs) = self.pending.lock().take() else {
            return Err(StoreError::Closed);
        };
        loop {
            // Both can be dropped while they wait.
            let (events, reached) = tokio::select! {
                next = watch.next() => next?,
                Some(install) = installs.recv() => {
                    let result = self.install_now(store, &install.kinds).await;
                    // Nobody waits for it any more when the server stops.
                    let _ = install.done.send(result);
                    continue;
                }
            };
            let whole = self.batch.write();
            for event in events {
                self.apply(event);
            }
            self.applied.send_replace(reached);
            drop(whole);
        }
    }

    /// Gives each custom kind of the registry a collection, with what the store has of it, and takes
    /// those of other custom kinds away. Watches of a kind that changed end, as in Kubernetes.
    pub async fn install(&self, registry: &Registry) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let kinds = custom_kinds(registry).into_values().collect();
        let sent = self.installs.send(Install { kinds, done });
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Called between two batches of changes, so that what is listed is what has been applied.
    async fn install_now(&self, store: &dyn Store, kinds: &[Arc<Kind>]) -> Result<(), StoreError> {
        let applied = self.applied();
        let mut keep = Vec::new();
        for kind in kinds {
            let prefix = kind.storage_prefix();
            let there = self.collections.read().get(&prefix).cloned();
            keep.push(prefix.clone());
            if there
                .as_ref()
                .is_some_and(|there| Arc::ptr_eq(&there.kind, kind))
            {
                continue;
            }
            let collection = Collection::empty(kind.clone(), applied);
            let list = store
                .list(ListRequest {
                    prefix: format!("{prefix}/").into(),
                    at: Some(applied),
                    ..Default::default()
                })
                .await?;
            list.items.iter().for_each(|kv| collection.load(kv));
            if let Some(there) = &there {
                collection.go_on_from(there);
            }
            self.collections
                .write()
                .insert(prefix, Arc::new(collection));
            there.inspect(|there| there.closed.cancel());
        }
        self.collections.write().retain(|prefix, collection| {
            let stays = collection.kind.as_custom().is_none() || keep.contains(prefix);
            if !stays {
                collection.closed.cancel();
            }
            stays
        });
        Ok(())
    }

    fn of_key(&self, key: &[u8]) -> Option<Arc<Collection>> {
        let key = std::str::from_utf8(key).ok()?;
        let end = key.match_indices('/').nth(1)?.0;
        self.collections.read().get(&key[..end]).cloned()
    }

    fn load_one(&self, kv: &KeyValue) {
        let Some(collection) = self.of_key(&kv.key) else {
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), "an object of an unknown kind is in the store");
            return;
        };
        collection.load(kv);
    }

    fn apply(&self, event: Event) {
        let Some(collection) = self.of_key(&event.key) else {
            return;
        };
        let object = match event.value {
            Some(value) => {
                let kv = KeyValue {
                    key: event.key.clone(),
                    value,
                    create_revision: event.create_revision,
                    mod_revision: event.revision,
                };
                match Object::from_stored(&collection.kind, &kv) {
                    Ok(object) => Some(Arc::new(object)),
                    Err(error) => {
                        tracing::error!(%error, "skipped");
                        return;
                    }
                }
            }
            None => None,
        };
        match object {
            Some(object) => collection.put(object, event.revision),
            None => collection.remove(&collection.key_of(&event.key), event.revision),
        }
    }

    pub fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Waits until everything up to `revision` is here.
    pub async fn reach(&self, revision: Revision, within: Duration) -> Result<(), TooLarge> {
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(within, applied.wait_for(|now| *now >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TooLarge {
                current: self.applied(),
            }),
        }
    }

    /// The objects of a namespace ("" for all), and the revision that they show.
    pub fn snapshot(
        &self,
        collection: &Collection,
        namespace: &str,
    ) -> (Vec<Arc<Object>>, Revision) {
        let _whole = self.batch.read();
        (collection.list(namespace), self.applied())
    }

    pub fn collection(&self, kind: &Kind) -> Option<Arc<Collection>> {
        self.collections.read().get(&kind.storage_prefix()).cloned()
    }

    pub fn collections(&self) -> Vec<Arc<Collection>> {
        self.collections.read().values().cloned().collect()
    }
}

/// One kind for each custom collection: that of the storage version, if it is served.
fn custom_kinds(registry: &Registry) -> BTreeMap<String, Arc<Kind>> {
    let mut found: BTreeMap<String, Arc<Kind>> = BTreeMap::new();
    for kind in registry.kinds().iter().filter(|k| k.as_custom().is_some()) {
        let prefix = kind.storage_prefix();
        if !kind.is_view() || !found.contains_key(&prefix) {
            found.insert(prefix, kind.clone());
        }
    }
    found
}

impl Collection {
    fn empty(kind: Arc<Kind>, start: Revision) -> Collection {
        Collection {
            kind,
            state: RwLock::new(State {
                objects: BTreeSet::new(),
                ring: VecDeque::new(),
                ring_bytes: 0,
                ring_after: start,
            }),
            changed: watch::Sender::new(start),
            closed: CancellationToken::new(),
        }
    }

    fn load(&self, kv: &KeyValue) {
        match Object::from_stored(&self.kind, kv) {
            Ok(object) => {
                let mut state = self.state.write();
                state.objects.replace(Entry(Arc::new(object)));
            }
            Err(error) => tracing::error!(%error, "skipped"),
        }
    }

    /// Takes the recent changes of the collection that this one replaces: clients of watches that
    /// end go on from there.
    fn go_on_from(&self, other: &Collection) {
        let other = other.state.read();
        let mut state = self.state.write();
        state.ring = other.ring.clone();
        state.ring_bytes = other.ring_bytes;
        state.ring_after = other.ring_after;
    }

    /// Cancelled when the kind is gone, or has changed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// `core/pods/ns/name` → `ns/name`; `core/nodes/name` → `/name`.
    fn key_of(&self, store_key: &[u8]) -> String {
        let text = String::from_utf8_lossy(store_key);
        let rest = text.splitn(3, '/').nth(2).unwrap_or_default();
        if self.kind.namespaced {
            rest.to_string()
        } else {
            format!("/{rest}")
        }
    }

    fn put(&self, object: Arc<Object>, revision: Revision) {
        let mut state = self.state.write();
        let previous = state.objects.replace(Entry(object.clone()));
        self.note(state, previous, Some(object), revision);
    }

    fn remove(&self, key: &str, revision: Revision) {
        let mut state = self.state.write();
        if let Some(previous) = state.objects.take(key) {
            self.note(state, Some(previous), None, revision);
        }
    }

    /// Puts a change into the ring.
    fn note(
        &self,
        mut state: RwLockWriteGuard<'_, State>,
        previous: Option<Entry>,
        object: Option<Arc<Object>>,
        revision: Revision,
    ) {
        let previous = previous.map(|entry| entry.0);
        let change = Change {
            revision,
            previous,
            object,
        };
        state.ring_bytes += change.weight();
        state.ring.push_back(change);
        while (state.ring.len() > RING_CHANGES || state.ring_bytes > RING_BYTES)
            && state.ring.len() > 1
            && let Some(old) = state.ring.pop_front()
        {
            state.ring_bytes -= old.weight();
            state.ring_after = old.revision;
        }
        drop(state);
        self.changed.send_replace(revision);
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let state = self.state.read();
        let key = object::key(namespace, name);
        state.objects.get(key.as_str()).map(|entry| entry.0.clone())
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of a namespace ("" for all) in the order of their keys.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        let state = self.state.read();
        if namespace.is_empty() || !self.kind.namespaced {
            return state.objects.iter().map(|e| e.0.clone()).collect();
        }
        let prefix = format!("{namespace}/");
        state
            .objects
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .map(|entry| &entry.0)
            .take_while(|object| object.key().starts_with(&prefix))
            .cloned()
            .collect()
    }

    /// The objects of a namespace ("" for all) behind the key `after`, as they were at `revision`, which the
    /// cache has reached; `None` if changes since then are no longer held.
    pub fn list_at(
        &self,
        namespace: &str,
        after: &str,
        revision: Revision,
    ) -> Option<Vec<Arc<Object>>> {
        let state = self.state.read();
        if revision < state.ring_after {
            return None;
        }
        let prefix = match self.kind.namespaced && !namespace.is_empty() {
            true => format!("{namespace}/"),
            false => String::new(),
        };
        let wanted = |key: &str| key > after && key.starts_with(&prefix);
        let start = if after >= prefix.as_str() {
            Bound::Excluded(after)
        } else {
            Bound::Included(prefix.as_str())
        };
        let mut objects: BTreeMap<&str, &Arc<Object>> = state
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .map(|entry| (entry.0.key(), &entry.0))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .collect();
        // Backwards, so that what was before the first change counts.
        let later = state.ring.partition_point(|c| c.revision <= revision);
        for change in state.ring.range(later..).rev() {
            match (&change.previous, &change.object) {
                (Some(previous), _) if wanted(previous.key()) => {
                    objects.insert(previous.key(), previous);
                }
                (None, Some(made)) => {
                    objects.remove(made.key());
                }
                _ => {}
            }
        }
        Some(objects.into_values().cloned().collect())
    }

    /// Of the last change, or where the cache began.
    pub fn revision(&self) -> Revision {
        *self.changed.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// The oldest revision from which a watch can go on.
    pub fn oldest(&self) -> Revision {
        self.state.read().ring_after
    }

    /// Whether every change after `revision` is still held.
    pub fn holds(&self, revision: Revision) -> bool {
        revision >= self.state.read().ring_after
    }

    /// Up to `max` changes after `revision`; `None` if some of them are no longer held.
    pub fn changes(&self, revision: Revision, max: usize) -> Option<Vec<Change>> {
        let state = self.state.read();
        if revision < state.ring_after {
            return None;
        }
        let start = state.ring.partition_point(|c| c.revision <= revision);
        Some(state.ring.iter().skip(start).take(max).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::to_stored;
    use serde_json::json;

    fn object(kind: &Kind, namespace: &str, name: &str, revision: Revision) -> Arc<Object> {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace}});
        let kv = KeyValue {
            key: format!("core/configmaps/{namespace}/{name}").into(),
            value: to_stored(&value),
            create_revision: 1,
            mod_revision: revision,
        };
        Arc::new(Object::from_stored(kind, &kv).unwrap())
    }

    #[test]
    fn the_past_is_as_it_was() {
        let kind = rhumb_api::registry::find("", "v1", "configmaps").unwrap();
        rhumb_fuzz::run("list_at", 60, |dice| {
            let collection = Collection::empty(kind.clone(), 10);
            let mut now: BTreeMap<String, Revision> = BTreeMap::new();
            let mut past = vec![(10, now.clone())];
            for revision in 11..40 {
                let namespace = dice.pick(&["a", "a-b", "b"]);
                let name = dice.pick(&["x", "y", "z"]);
                let key = object::key(namespace, name);
                if dice.one_in(3) {
                    collection.remove(&key, revision);
                    now.remove(&key);
                } else {
                    collection.put(object(kind, namespace, name, revision), revision);
                    now.insert(key, revision);
                }
                past.push((revision, now.clone()));
            }
            for (revision, then) in past {
                for namespace in ["", "a", "b", "c"] {
                    for after in ["", "a-b/y", "a/", "a/x", "b/z"] {
                        let found = collection.list_at(namespace, after, revision).unwrap();
                        let found: Vec<_> = found.iter().map(|o| (o.key(), o.revision)).collect();
                        let expected: Vec<_> = then
                            .iter()
                            .map(|(key, at)| (key.as_str(), *at))
                            .filter(|(key, _)| {
                                *key > after
                                    && (namespace.is_empty()
                                        || key.starts_with(&format!("{namespace}/")))
                            })
                            .collect();
                        assert_eq!(found, expected, "{namespace} after {after} at {revision}");
                    }
                }
            }
            assert!(collection.list_at("", "", 9).is_none());
        });
    }
}
