//! A cache of one kind, kept by list and watch, that calls handlers with each change.
//!
//! The cache lags the server. A controller that decides on the cache after a write of its own must
//! first know that the cache has seen that write: [`Written`] and [`Informer::has_seen`] say so. They
//! compare resource versions as integers, which the API allows within a kind since v1.35.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::ObjectKey;

/// What a handler is told.
#[derive(Debug)]
pub enum Change<'a, K> {
    Added(&'a Arc<K>),
    Updated { old: &'a Arc<K>, new: &'a Arc<K> },
    Deleted(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The newest state known of the object: what it is now, or what it last was.
    pub fn object(&self) -> &'a Arc<K> {
        match self {
            Change::Added(o) | Change::Deleted(o) => o,
            Change::Updated { new, .. } => new,
        }
    }
}

type Handler<K> = Arc<dyn Fn(&Change<'_, K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<String>;

struct Index<K> {
    of: IndexFn<K>,
    /// In one set, since most values have one object, and a set of one takes half a kilobyte.
    entries: BTreeSet<(String, ObjectKey)>,
}

struct Cache<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
    /// The highest resource version that any event carried.
    seen: u64,
    /// When the list that the cache was last rebuilt from was asked for.
    listed: Option<Instant>,
}

impl<K> Cache<K> {
    fn put(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indexes.values_mut() {
            let now = (index.of)(&object);
            if let Some(old) = &old {
                for value in (index.of)(old) {
                    if !now.contains(&value) {
                        index.entries.remove(&(value, key.clone()));
                    }
                }
            }
            for value in now {
                index.entries.insert((value, key.clone()));
            }
        }
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            for value in (index.of)(&old) {
                index.entries.remove(&(value, key.clone()));
            }
        }
        Some(old)
    }
}

/// A write that was answered, to be recognised in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    version: u64,
    at: Instant,
}

impl Written {
    /// Waiting for a write ends after this long, whatever the watch has shown: the object may have
    /// been written and deleted while the watch was being restarted.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// The write that was answered with `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            version: version_of(object),
            at: Instant::now(),
        }
    }

    /// The later of two writes.
    pub fn max(self, other: Self) -> Self {
        if self.version >= other.version {
            self
        } else {
            other
        }
    }
}

fn version_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

struct Inner<K> {
    cache: RwLock<Cache<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// A handle to the cache; clones share it.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<K> Default for Informer<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// An empty cache. Add indexes and handlers, then [`run`](Self::run) it.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                cache: RwLock::new(Cache {
                    objects: HashMap::new(),
                    indexes: HashMap::new(),
                    seen: 0,
                    listed: None,
                }),
                handlers: RwLock::new(Vec::new()),
                synced: watch::Sender::new(false),
            }),
        }
    }

    /// Adds an index: `of` names the values under which an object is found by [`by_index`](Self::by_index).
    pub fn with_index(self, name: &'static str, of: IndexFn<K>) -> Self {
        let index = Index {
            of,
            entries: BTreeSet::new(),
        };
        self.inner.cache.write().indexes.insert(name, index);
        self
    }

    /// Calls `handler` with each change from now on. Handlers run on the watching task, after the cache
    /// has the change, and must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.inner.handlers.write().push(Arc::new(handler));
    }

    /// Lists and watches until `shutdown`. `trim` may drop what no reader of this cache needs.
    pub async fn run(
        &self,
        api: Api<K>,
        config: watcher::Config,
        trim: fn(&mut K),
        shutdown: CancellationToken,
    ) {
        let mut stream = watcher(api, config).default_backoff().boxed();
        let mut listing: Option<(Instant, Vec<K>)> = None;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => listing = Some((Instant::now(), Vec::new())),
                Some(Ok(watcher::Event::InitApply(mut object))) => {
                    trim(&mut object);
                    if let Some((_, objects)) = &mut listing {
                        objects.push(object);
                    }
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    if let Some((since, objects)) = listing.take() {
                        self.replace(objects, since);
                    }
                }
                Some(Ok(watcher::Event::Apply(mut object))) => {
                    trim(&mut object);
                    self.apply(object);
                }
                Some(Ok(watcher::Event::Delete(mut object))) => {
                    trim(&mut object);
                    self.delete(object);
                }
                Some(Err(error)) => {
                    // A watch ends every few minutes and is compacted away now and then: the watcher
                    // goes on by itself.
                    if shutdown.is_cancelled() {
                        return;
                    }
                    let kind = std::any::type_name::<K>()
                        .rsplit("::")
                        .next()
                        .unwrap_or_default();
                    if *self.inner.synced.borrow() {
                        debug!(kind, %error, "watch interrupted, going on");
                    } else {
                        warn!(kind, %error, "can't list or watch yet, trying again");
                    }
                }
                None => return,
            }
        }
    }

    fn dispatch(&self, change: &Change<'_, K>) {
        for handler in self.inner.handlers.read().iter() {
            handler(change);
        }
    }

    fn apply(&self, object: K) {
        let key = ObjectKey::of(&object);
        let version = version_of(&object);
        let new = Arc::new(object);
        let old = {
            let mut cache = self.inner.cache.write();
            cache.seen = cache.seen.max(version);
            cache.put(key, new.clone())
        };
        self.tell(old.as_ref(), &new);
    }

    fn tell(&self, old: Option<&Arc<K>>, new: &Arc<K>) {
        match old {
            None => self.dispatch(&Change::Added(new)),
            Some(old) if old.meta().uid != new.meta().uid => {
                // Deleted and made again between two looks.
                self.dispatch(&Change::Deleted(old));
                self.dispatch(&Change::Added(new));
            }
            Some(old) => self.dispatch(&Change::Updated { old, new }),
        }
    }

    fn delete(&self, object: K) {
        let key = ObjectKey::of(&object);
        let version = version_of(&object);
        {
            let mut cache = self.inner.cache.write();
            cache.seen = cache.seen.max(version);
            cache.take(&key);
        }
        self.dispatch(&Change::Deleted(&Arc::new(object)));
    }

    fn replace(&self, objects: Vec<K>, since: Instant) {
        let mut fresh: HashMap<ObjectKey, Arc<K>> = objects
            .into_iter()
            .map(|o| (ObjectKey::of(&o), Arc::new(o)))
            .collect();
        let gone: Vec<Arc<K>>;
        let mut told: Vec<(Option<Arc<K>>, Arc<K>)> = Vec::new();
        {
            let mut cache = self.inner.cache.write();
            let absent: Vec<ObjectKey> = cache
                .objects
                .keys()
                .filter(|k| !fresh.contains_key(k))
                .cloned()
                .collect();
            gone = absent.iter().filter_map(|k| cache.take(k)).collect();
            for (key, new) in fresh.drain() {
                cache.seen = cache.seen.max(version_of(new.as_ref()));
                let old = cache.put(key, new.clone());
                let same = old.as_ref().is_some_and(|o| {
                    o.meta().resource_version == new.meta().resource_version
                        && o.meta().uid == new.meta().uid
                });
                if !same {
                    told.push((old, new));
                }
            }
            cache.listed = Some(since);
        }
        for old in &gone {
            self.dispatch(&Change::Deleted(old));
        }
        for (old, new) in &told {
            self.tell(old.as_ref(), new);
        }
        self.inner.synced.send_replace(true);
    }

    /// Whether a complete list has been read: before that, absence from the cache means nothing.
    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives in `self`, so the wait can't fail.
        let _ = self.inner.synced.subscribe().wait_for(|s| *s).await;
    }

    /// Whether the cache holds what `written` wrote, or something newer (or the wait has been too long
    /// to still be explained by a lagging watch).
    pub fn has_seen(&self, written: &Written) -> bool {
        let cache = self.inner.cache.read();
        cache.seen >= written.version
            || cache.listed.is_some_and(|at| at > written.at)
            || written.at.elapsed() > Written::PATIENCE
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.cache.read().objects.get(key).cloned()
    }

    /// Every object, in no particular order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.cache.read().objects.values().cloned().collect()
    }

    /// The objects that index `name` files under `value`, ordered by key.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let cache = self.inner.cache.read();
        let Some(index) = cache.indexes.get(name) else {
            return Vec::new();
        };
        let first = (value.to_string(), ObjectKey::default());
        index
            .entries
            .range(first..)
            .take_while(|(of, _)| of == value)
            .filter_map(|(_, key)| cache.objects.get(key).cloned())
            .collect()
    }

    pub fn len(&self) -> usize {
        self.inner.cache.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Index by namespace.
pub fn by_namespace<K: Resource>(object: &K) -> Vec<String> {
    object.meta().namespace.iter().cloned().collect()
}

/// Index by the uid of the controlling owner.
pub fn by_controller<K: Resource>(object: &K) -> Vec<String> {
    controller_of(object)
        .map(|r| r.uid.clone())
        .into_iter()
        .collect()
}

/// The owner reference marked as controller.
pub fn controller_of<K: Resource>(
    object: &K,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    object
        .meta()
        .owner_references
        .as_ref()?
        .iter()
        .find(|r| r.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use parking_lot::Mutex;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let mut cm = ConfigMap::default();
        cm.metadata.namespace = Some("ns".into());
        cm.metadata.name = Some(name.into());
        cm.metadata.uid = Some(uid.into());
        cm.metadata.resource_version = Some(version.to_string());
        cm
    }

    fn watched() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let informer = Informer::<ConfigMap>::new().with_index("namespace", by_namespace);
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        informer.on_change(move |change| {
            let text = match change {
                Change::Added(o) => format!("+{}", o.metadata.uid.as_deref().unwrap()),
                Change::Updated { new, .. } => format!("~{}", new.metadata.uid.as_deref().unwrap()),
                Change::Deleted(o) => format!("-{}", o.metadata.uid.as_deref().unwrap()),
            };
            sink.lock().push(text);
        });
        (informer, log)
    }

    #[test]
    fn a_relist_tells_only_what_changed() {
        let (informer, log) = watched();
        informer.replace(
            vec![object("a", "1", 5), object("b", "2", 6)],
            Instant::now(),
        );
        log.lock().clear();
        // a is untouched, b was deleted and made again, c is new.
        informer.replace(
            vec![
                object("a", "1", 5),
                object("b", "3", 9),
                object("c", "4", 8),
            ],
            Instant::now(),
        );
        let mut told = log.lock().clone();
        told.sort();
        assert_eq!(told, ["+3", "+4", "-2"]);
        log.lock().clear();
        informer.replace(vec![object("c", "4", 10)], Instant::now());
        let mut told = log.lock().clone();
        told.sort();
        assert_eq!(told, ["-1", "-3", "~4"]);
        assert_eq!(informer.by_index("namespace", "ns").len(), 1);
    }

    #[test]
    fn indexes_follow_changes() {
        let informer = Informer::<ConfigMap>::new().with_index("label", |o: &ConfigMap| {
            o.metadata
                .labels
                .iter()
                .flatten()
                .map(|(k, v)| format!("{k}={v}"))
                .collect()
        });
        let mut cm = object("a", "1", 1);
        cm.metadata.labels = Some([("app".to_string(), "x".to_string())].into());
        informer.apply(cm.clone());
        assert_eq!(informer.by_index("label", "app=x").len(), 1);
        cm.metadata.labels = Some([("app".to_string(), "y".to_string())].into());
        informer.apply(cm.clone());
        assert!(informer.by_index("label", "app=x").is_empty());
        assert_eq!(informer.by_index("label", "app=y").len(), 1);
        informer.delete(cm);
        assert!(informer.by_index("label", "app=y").is_empty());
    }

    #[test]
    fn a_write_is_seen_through_events_or_a_later_list() {
        let (informer, _) = watched();
        informer.replace(vec![object("a", "1", 5)], Instant::now());
        let written = Written::of(&object("b", "2", 7));
        assert!(!informer.has_seen(&written));
        informer.apply(object("x", "9", 7));
        assert!(informer.has_seen(&written));

        let written = Written::of(&object("b", "2", 50));
        assert!(!informer.has_seen(&written));
        informer.replace(vec![object("a", "1", 5)], Instant::now());
        assert!(
            informer.has_seen(&written),
            "a list asked for after the write holds its outcome"
        );
    }
}
