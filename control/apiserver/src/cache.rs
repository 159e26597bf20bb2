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
use parking_lot::RwLock;
use rhumb_api::registry::{KINDS, Kind};
use rhumb_store::{Event, KeyValue, ListRequest, Revision, Store, StoreError};
use tokio::sync::watch;

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
}

struct State {
    objects: BTreeMap<String, Arc<Object>>,
    ring: VecDeque<Change>,
    ring_bytes: usize,
    /// The ring holds every change of a revision greater than this.
    ring_after: Revision,
}

pub struct Cache {
    collections: HashMap<String, Arc<Collection>>,
    /// Everything up to this revision has been applied to all collections.
    applied: watch::Sender<Revision>,
    /// Held for writing while changes are applied, so that `snapshot` sees whole batches.
    batch: RwLock<()>,
}

/// The cache was asked for a revision that it has not reached in time.
#[derive(Debug)]
pub struct TooLarge {
    pub current: Revision,
}

impl Cache {
    /// Loads the cache. It begins at the oldest revision that the store keeps and replays from
    /// there, so that clients of before a restart can go on with their watches.
    pub async fn load(store: &dyn Store) -> Result<Cache, StoreError> {
        let start = store.oldest();
        let list = store
            .list(ListRequest {
                at: Some(start),
                ..Default::default()
            })
            .await?;
        let mut collections = HashMap::new();
        for kind in KINDS.iter().filter(|k| !k.is_view()) {
            let collection = Collection {
                kind: kind.clone(),
                state: RwLock::new(State {
                    objects: BTreeMap::new(),
                    ring: VecDeque::new(),
                    ring_bytes: 0,
                    ring_after: start,
                }),
                changed: watch::Sender::new(start),
            };
            collections.insert(kind.storage_prefix(), Arc::new(collection));
        }
        let cache = Cache {
            collections,
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
        loop {
            let (events, reached) = watch.next().await?;
            let whole = self.batch.write();
            for event in events {
                self.apply(event);
            }
            self.applied.send_replace(reached);
            drop(whole);
        }
    }

    fn of_key(&self, key: &[u8]) -> Option<&Arc<Collection>> {
        let key = std::str::from_utf8(key).ok()?;
        let end = key.match_indices('/').nth(1)?.0;
        self.collections.get(&key[..end])
    }

    fn load_one(&self, kv: &KeyValue) {
        let Some(collection) = self.of_key(&kv.key) else {
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), "an object of an unknown kind is in the store");
            return;
        };
        match Object::from_stored(&collection.kind, kv) {
            Ok(object) => {
                let mut state = collection.state.write();
                state.objects.insert(object.key(), Arc::new(object));
            }
            Err(error) => tracing::error!(%error, "skipped"),
        }
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
        self.collections.get(&kind.storage_prefix()).cloned()
    }

    pub fn collections(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.collections.values()
    }
}

impl Collection {
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
