//! The watch cache: every kind's objects and recent changes in memory, fed by one watch of the
//! store. Lists of now, selectors and all client watches are served from here.
//!
//! A client's watch is a cursor into its kind's ring of changes. A slow client costs nothing
//! while it sleeps; when the ring has moved past it, its watch ends with 410 and it lists again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rhumb_api::registry::{Kind, Registry};
use rhumb_store::{Event, KeyValue, ListRequest, Revision, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::object::Object;

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
    objects: BTreeMap<String, Arc<Object>>,
    ring: VecDeque<Change>,
    ring_bytes: usize,
    /// The ring holds every change of a revision greater than this.
    ring_after: Revision,
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
        let key = match &object {
            Some(object) => object.key(),
            None => collection.key_of(&event.key),
        };
        collection.apply(key, object, event.revision);
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
                objects: BTreeMap::new(),
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
                state.objects.insert(object.key(), Arc::new(object));
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

    fn apply(&self, key: String, object: Option<Arc<Object>>, revision: Revision) {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let previous = match &object {
            Some(object) => state.objects.insert(key, object.clone()),
            None => state.objects.remove(&key),
        };
        if previous.is_none() && object.is_none() {
            return;
        }
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
        drop(guard);
        self.changed.send_replace(revision);
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let state = self.state.read();
        state.objects.get(&format!("{namespace}/{name}")).cloned()
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
            return state.objects.values().cloned().collect();
        }
        let prefix = format!("{namespace}/");
        state
            .objects
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Of the last change, or where the cache began.
    pub fn revision(&self) -> Revision {
        *self.changed.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
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
