//! Garbage collection: objects go when all their owners have, and owners that are deleted in the
//! foreground wait for their dependents.
//!
//! It watches the metadata of every kind, of those that come later too. Nothing is done before every kind has been listed completely, and
//! nothing is deleted unless the server itself says that the owner (by uid) is gone.

pub mod graph;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::{Mutex, RwLock};
use rhumb_client::{WorkQueue, is_conflict, is_not_found};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::graph::{FOREGROUND, Graph, Item, ORPHAN, Owner, Policy, Uid, Verdict, Work};
use crate::{
    context::run_queue,
    discovery::{self, Kind},
};

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Examine(uid) => write!(f, "examine {uid}"),
            Work::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

type Meta = PartialObjectMeta<DynamicObject>;

/// How often the server is asked for its kinds; a change of a definition asks at once.
const REDISCOVER: Duration = Duration::from_secs(30);

const SETTLE: Duration = Duration::from_millis(500);

pub struct GarbageCollector {
    client: Client,
    /// Only ever gets longer: objects in the graph name their kind by its index.
    kinds: RwLock<Vec<Watched>>,
    graph: Mutex<Graph>,
    queue: WorkQueue<Work>,
    /// How many kinds have not been listed yet.
    unlisted: watch::Sender<usize>,
    rediscover: Notify,
}

struct Watched {
    kind: Arc<Kind>,
    /// Cancelled when the kind is no longer served.
    stop: CancellationToken,
    listed: bool,
}

/// Runs until `shutdown`; waits for the server's discovery first.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let collector = Arc::new(GarbageCollector {
        client,
        kinds: RwLock::new(Vec::new()),
        graph: Mutex::new(Graph::default()),
        queue: WorkQueue::new(),
        unlisted: watch::Sender::new(0),
        rediscover: Notify::new(),
    });
    let mut tasks = JoinSet::new();
    while let Err(error) = collector.discover(&mut tasks, &shutdown).await {
        warn!(%error, "can't discover kinds yet, trying again");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = collector.all_listed() => {}
    }
    info!(
        kinds = collector.kinds.read().len(),
        objects = collector.graph.lock().len(),
        "garbage collector has seen all kinds"
    );
    let follow = collector.clone().follow_kinds(tasks, shutdown.clone());
    let queue = collector.queue.clone();
    let work = run_queue(queue, 8, "garbage collector", shutdown, move |work| {
        let this = collector.clone();
        async move {
            // A kind that has come may have the dependents that decide.
            this.all_listed().await;
            match &work {
                Work::Examine(uid) => this.examine(uid).await?,
                Work::Orphan(uid) => this.orphan(uid).await?,
            }
            Ok(None)
        }
    });
    tokio::join!(follow, work);
}

impl GarbageCollector {
    async fn all_listed(&self) {
        let mut unlisted = self.unlisted.subscribe();
        // The sender lives as long as `self`.
        let _ = unlisted.wait_for(|n| *n == 0).await;
    }

    fn kind(&self, index: usize) -> Arc<Kind> {
        self.kinds.read()[index].kind.clone()
    }

    /// Watches the kinds that the server has now, and forgets those that it has no longer.
    async fn discover(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Result<(), kube::Error> {
        // Events are many, own nothing and are owned by nothing.
        let mut now = discovery::kinds(&self.client).await?;
        now.retain(|k| !k.is_event());
        let mut gone = Vec::new();
        let mut kinds = self.kinds.write();
        for (index, watched) in kinds.iter_mut().enumerate() {
            if watched.stop.is_cancelled() {
                continue;
            }
            match now.iter().position(|k| k.resource == watched.kind.resource) {
                Some(at) => drop(now.swap_remove(at)),
                None => {
                    watched.stop.cancel();
                    if !watched.listed {
                        self.unlisted.send_modify(|n| *n = n.saturating_sub(1));
                    }
                    gone.push(index);
                }
            }
        }
        for kind in now {
            let stop = shutdown.child_token();
            kinds.push(Watched {
                kind: Arc::new(kind),
                stop: stop.clone(),
                listed: false,
            });
            self.unlisted.send_modify(|n| *n += 1);
            tasks.spawn(self.clone().observe(kinds.len() - 1, stop));
        }
        drop(kinds);
        for index in gone {
            let work = self.graph.lock().replace(index, Vec::new());
            self.add(work);
        }
        Ok(())
    }

    async fn follow_kinds(self: Arc<Self>, mut tasks: JoinSet<()>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Definitions come in flocks, and what one serves ends a moment after it.
                () = self.rediscover.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(REDISCOVER) => {}
            }
            if let Err(error) = self.discover(&mut tasks, &shutdown).await {
                warn!(%error, "can't discover kinds, going on with those known");
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Marks a kind as listed, unless it has gone meanwhile.
    fn listed(&self, index: usize) {
        let watched = &mut self.kinds.write()[index];
        if !watched.listed && !watched.stop.is_cancelled() {
            watched.listed = true;
            self.unlisted.send_modify(|n| *n = n.saturating_sub(1));
        }
    }

    fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| kind.namespaced) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            None => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    fn add(&self, work: BTreeSet<Work>) {
        for work in work {
            self.queue.add(work);
        }
    }

    /// Keeps the graph up to date with one kind.
    async fn observe(self: Arc<Self>, index: usize, shutdown: CancellationToken) {
        let kind = self.kind(index);
        let defines_kinds = kind.resource.kind == "CustomResourceDefinition";
        let api: Api<Meta> = Api::all_with(self.client.clone(), &kind.resource);
        let mut stream = watcher(api, watcher::Config::default())
            .default_backoff()
            .boxed();
        let mut listing: Option<Vec<Item>> = None;
        let mut listed = false;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            let work = match event {
                Some(Ok(watcher::Event::Init)) => {
                    listing = Some(Vec::new());
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(object))) => {
                    if let Some(listing) = &mut listing {
                        listing.push(Item::of(index, &object.metadata));
                    }
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let work = self
                        .graph
                        .lock()
                        .replace(index, listing.take().unwrap_or_default());
                    listed = true;
                    self.listed(index);
                    work
                }
                Some(Ok(watcher::Event::Apply(object))) => {
                    self.graph.lock().put(Item::of(index, &object.metadata))
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    let uid = object.metadata.uid.unwrap_or_default();
                    self.graph.lock().remove(&uid)
                }
                Some(Err(error)) => {
                    if listed {
                        debug!(kind = %kind.name(), %error, "watch interrupted, going on");
                    } else {
                        warn!(kind = %kind.name(), %error, "can't list or watch yet, nothing is collected until then");
                    }
                    continue;
                }
                None => return,
            };
            self.add(work);
            if defines_kinds {
                self.rediscover.notify_one();
            }
        }
    }

    /// The object as the server has it now, if it is still the same one.
    async fn live(&self, item: &Item) -> anyhow::Result<Option<Meta>> {
        let kind = self.kind(item.kind);
        let live = self
            .api(&kind, item.namespace.as_deref())
            .get_metadata_opt(&item.name)
            .await
            .with_context(|| format!("reading {} {}", kind.name(), item.name))?;
        Ok(live.filter(|o| o.metadata.uid.as_deref() == Some(&*item.uid)))
    }

    async fn owner(&self, item: &Item, reference: &OwnerReference) -> anyhow::Result<Owner> {
        let (group, _) = reference
            .api_version
            .split_once('/')
            .unwrap_or(("", &reference.api_version));
        // Another version of the kind serves as well: the uid decides.
        let kind = self
            .kinds
            .read()
            .iter()
            .filter(|watched| !watched.stop.is_cancelled())
            .map(|watched| &watched.kind)
            .find(|k| k.resource.group == group && k.resource.kind == reference.kind)
            .cloned()
            .with_context(|| {
                format!(
                    "its owner {} {} is of a kind that isn't served, so nobody can say whether it is gone",
                    reference.kind, reference.name
                )
            })?;
        anyhow::ensure!(
            !kind.namespaced || item.namespace.is_some(),
            "it has no namespace and its owner {} {} would have one: such a reference means nothing",
            reference.kind,
            reference.name
        );
        let live = self
            .api(&kind, item.namespace.as_deref())
            .get_metadata_opt(&reference.name)
            .await
            .with_context(|| format!("reading its owner {} {}", reference.kind, reference.name))?;
        Ok(
            match live.filter(|o| o.metadata.uid.as_ref() == Some(&reference.uid)) {
                None => Owner::Gone,
                Some(owner) if Item::of(0, &owner.metadata).foreground => Owner::Foreground,
                Some(_) => Owner::Solid,
            },
        )
    }

    async fn examine(&self, uid: &str) -> anyhow::Result<()> {
        let Some(item) = self.graph.lock().get(uid).cloned() else {
            return Ok(());
        };
        if item.deleting && !item.foreground {
            return Ok(());
        }
        let Some(live) = self.live(&item).await? else {
            // Gone already; the watch will tell.
            return Ok(());
        };
        let current = Item::of(item.kind, &live.metadata);
        if current.foreground {
            return self.finish_foreground(&current, &live).await;
        }
        let mut owners = Vec::new();
        for reference in live.metadata.owner_references.iter().flatten() {
            owners.push((reference.clone(), self.owner(&current, reference).await?));
        }
        let finalizers = live.metadata.finalizers.clone().unwrap_or_default();
        let verdict = {
            let graph = self.graph.lock();
            graph::judge(
                current.deleting,
                &finalizers,
                &owners,
                &graph.dependents(uid),
            )
        };
        match verdict {
            Verdict::Keep => Ok(()),
            Verdict::DropReferences(gone) => self.drop_references(&current, &gone).await,
            Verdict::Delete(policy) => self.delete(&current, policy).await,
            Verdict::UnblockAndDelete => {
                self.unblock_owners(&current).await?;
                self.delete(&current, Policy::Foreground).await
            }
        }
    }

    /// An object that waits for its dependents: lets it go if none of them blocks it any more.
    async fn finish_foreground(&self, item: &Item, live: &Meta) -> anyhow::Result<()> {
        let blocking: Vec<Uid> = {
            let graph = self.graph.lock();
            graph
                .dependents(&item.uid)
                .into_iter()
                .filter(|d| d.owners.iter().any(|o| o.uid == item.uid && o.blocks))
                .map(|d| d.uid.clone())
                .collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(item, live, FOREGROUND).await;
        }
        self.add(blocking.into_iter().map(Work::Examine).collect());
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> anyhow::Result<()> {
        let (item, dependents) = {
            let graph = self.graph.lock();
            let Some(item) = graph.get(uid).cloned() else {
                return Ok(());
            };
            let dependents: Vec<Item> = graph.dependents(uid).into_iter().cloned().collect();
            (item, dependents)
        };
        let Some(live) = self.live(&item).await? else {
            return Ok(());
        };
        if !Item::of(item.kind, &live.metadata).orphaning {
            return Ok(());
        }
        for dependent in &dependents {
            self.drop_references(dependent, &[item.uid.to_string()])
                .await?;
        }
        self.remove_finalizer(&item, &live, ORPHAN).await
    }

    async fn remove_finalizer(
        &self,
        item: &Item,
        live: &Meta,
        finalizer: &str,
    ) -> anyhow::Result<()> {
        let left: Vec<&String> = live
            .metadata
            .finalizers
            .iter()
            .flatten()
            .filter(|f| *f != finalizer)
            .collect();
        let patch = serde_json::json!({ "metadata": {
            "uid": item.uid,
            "resourceVersion": live.metadata.resource_version,
            "finalizers": left,
        } });
        self.patch(item, Patch::Merge(patch))
            .await
            .with_context(|| format!("taking the finalizer {finalizer} off"))
    }

    async fn drop_references(&self, item: &Item, owners: &[String]) -> anyhow::Result<()> {
        let Some(live) = self.live(item).await? else {
            return Ok(());
        };
        let left: Vec<&OwnerReference> = live
            .metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|o| !owners.contains(&o.uid))
            .collect();
        let patch = serde_json::json!({ "metadata": {
            "uid": item.uid,
            "resourceVersion": live.metadata.resource_version,
            "ownerReferences": left,
        } });
        self.patch(item, Patch::Merge(patch))
            .await
            .context("dropping owner references")
    }

    async fn unblock_owners(&self, item: &Item) -> anyhow::Result<()> {
        let Some(live) = self.live(item).await? else {
            return Ok(());
        };
        let mut references = live.metadata.owner_references.clone().unwrap_or_default();
        for reference in &mut references {
            reference.block_owner_deletion = Some(false);
        }
        let patch = serde_json::json!({ "metadata": {
            "uid": item.uid,
            "resourceVersion": live.metadata.resource_version,
            "ownerReferences": references,
        } });
        self.patch(item, Patch::Merge(patch))
            .await
            .context("unblocking its owners")
    }

    async fn patch(&self, item: &Item, patch: Patch<serde_json::Value>) -> anyhow::Result<()> {
        let kind = self.kind(item.kind);
        match self
            .api(&kind, item.namespace.as_deref())
            .patch_metadata(&item.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("patching {} {}", kind.name(), item.name))
            }
        }
    }

    async fn delete(&self, item: &Item, policy: Policy) -> anyhow::Result<()> {
        let kind = self.kind(item.kind);
        let params = DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            ..DeleteParams::default()
        }
        .preconditions(Preconditions {
            uid: Some(item.uid.to_string()),
            resource_version: None,
        });
        debug!(kind = %kind.name(), namespace = item.namespace, name = item.name, ?policy, "deleting: its owners are gone");
        match self
            .api(&kind, item.namespace.as_deref())
            .delete(&item.name, &params)
            .await
        {
            Ok(_) => Ok(()),
            // Another object of that name by now.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("deleting {} {}", kind.name(), item.name))
            }
        }
    }
}
