//! The DaemonSet controller: one pod a node that the template fits, replaced as the update strategy
//! says, and a ControllerRevision a template for `kubectl rollout`.

pub mod history;
pub mod node;
pub mod plan;
#[cfg(test)]
mod plan_tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::Pod,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Selector, SelectorExt},
};
use parking_lot::Mutex;
use rhumb_client::{
    Change, EventKind, ObjectKey, Recorder, WorkQueue, Written, informer::controller_of,
    is_already_exists, is_not_found,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::plan::{Ended, Plan};
use crate::{
    context::{Context, run_queue},
    owner, pod,
    replicaset::plan::slow_start,
};

/// How many pods one reconcile makes or deletes at most.
const BURST: usize = 250;
/// A pod that ends on a node again and again is replaced ever more slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// What this controller has written for a set and the caches may not show yet.
#[derive(Debug, Default)]
struct Outstanding {
    pods: Option<Written>,
    revisions: Option<Written>,
    /// Pods that ended: when the last one of a node was removed, and how long the next one waits.
    ended: HashMap<String, (Instant, Duration)>,
}

pub struct DaemonSetController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    outstanding: Mutex<HashMap<ObjectKey, Outstanding>>,
}

fn owner_key<K: Resource>(object: &K) -> Option<ObjectKey> {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let owner = controller_of(object).filter(|o| o.kind == "DaemonSet")?;
    Some(ObjectKey::new(namespace, owner.name.clone()))
}

impl DaemonSetController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("daemonset-controller"),
            outstanding: Mutex::new(HashMap::new()),
        });
        let q = queue.clone();
        ctx.daemon_sets
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let q = queue.clone();
        ctx.controller_revisions.on_change(move |change| {
            if let Some(key) = owner_key(change.object().as_ref()) {
                q.add(key);
            }
        });
        let (q, sets) = (queue.clone(), ctx.daemon_sets.clone());
        ctx.nodes.on_change(move |change| {
            let all = match change {
                Change::Updated { old, new } => node::matters(old, new),
                _ => true,
            };
            if all {
                for set in sets.all() {
                    q.add(ObjectKey::of(set.as_ref()));
                }
            }
        });
        let (q, sets) = (queue, ctx.daemon_sets.clone());
        ctx.pods.on_change(move |change| {
            let mut seen: Vec<&Arc<Pod>> = vec![change.object()];
            if let Change::Updated { old, .. } = change {
                seen.push(old);
            }
            for p in seen {
                match controller_of(p.as_ref()) {
                    Some(_) => {
                        if let Some(key) = owner_key(p.as_ref()) {
                            q.add(key);
                        }
                    }
                    // An orphan may be for a set to adopt.
                    None => {
                        let namespace = p.metadata.namespace.as_deref().unwrap_or_default();
                        for set in sets.by_index("namespace", namespace) {
                            if selector(&set).is_some_and(|s| s.matches(p.labels())) {
                                q.add(ObjectKey::of(set.as_ref()));
                            }
                        }
                    }
                }
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.daemon_sets.synced(),
            ctx.controller_revisions.synced(),
            ctx.nodes.synced(),
            ctx.pods.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 2, "daemonset", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(set) = self.ctx.daemon_sets.get(key) else {
            self.outstanding.lock().remove(key);
            return Ok(None);
        };
        let selector = selector(&set).context("its selector can't be read or selects all")?;
        if !self.caught_up(key) {
            return Ok(Some(Duration::from_millis(20)));
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let revisions = self.claim_revisions(&set, key, &selector).await?;
        let history = self.keep_history(&set, key, &revisions).await?;
        let hash = history.hash;
        let pods = self.claim_pods(&set, key, &selector).await?;
        let nodes = self.ctx.nodes.all();
        let now = Timestamp::now();
        let by_node = plan::by_node(&pods);

        let mut failure = None;
        let managed = plan::manage(&set, &nodes, &by_node, &hash, now);
        let wait = self.act(&set, key, &hash, managed, &mut failure).await;
        if failure.is_none() && self.caught_up(key) {
            // Finished pods that are going already are no part of an update.
            let going = |p: &Arc<Pod>| pod::is_terminating(p) && pod::is_finished(p);
            let left: Vec<Arc<Pod>> = pods.iter().filter(|p| !going(p)).cloned().collect();
            let step = plan::update(&set, &nodes, &plan::by_node(&left), &hash, now);
            self.act(&set, key, &hash, step, &mut failure).await;
        }
        self.clean_up(&set, key, &history.old, &pods).await?;
        let status = plan::status(&set, &nodes, &by_node, &hash, now);
        self.write_status(&set, key, status).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let available = plan::next_available(&set, &pods, now);
        let available = available.map(|s| Duration::from_secs(s.unsigned_abs()));
        Ok([wait, available].into_iter().flatten().min())
    }

    /// Whether the caches show what was written for the set last.
    fn caught_up(&self, key: &ObjectKey) -> bool {
        let outstanding = self.outstanding.lock();
        let Some(ours) = outstanding.get(key) else {
            return true;
        };
        ours.pods.is_none_or(|w| self.ctx.pods.has_seen(&w))
            && ours
                .revisions
                .is_none_or(|w| self.ctx.controller_revisions.has_seen(&w))
    }

    fn note_pod(&self, key: &ObjectKey, p: &Pod) {
        let now = Written::of(p);
        let mut outstanding = self.outstanding.lock();
        let ours = outstanding.entry(key.clone()).or_default();
        ours.pods = Some(ours.pods.map_or(now, |w| w.max(now)));
    }

    fn note_revision(&self, key: &ObjectKey, revision: &ControllerRevision) {
        let now = Written::of(revision);
        let mut outstanding = self.outstanding.lock();
        let ours = outstanding.entry(key.clone()).or_default();
        ours.revisions = Some(ours.revisions.map_or(now, |w| w.max(now)));
    }

    /// Adoption needs the set as the server has it now.
    async fn still_there(&self, set: &DaemonSet, key: &ObjectKey) -> anyhow::Result<()> {
        let live = Api::<DaemonSet>::namespaced(self.ctx.client.clone(), &key.namespace)
            .get(&key.name)
            .await
            .context("reading it before adopting")?;
        anyhow::ensure!(
            live.metadata.uid == set.metadata.uid && live.metadata.deletion_timestamp.is_none(),
            "it was deleted meanwhile, nothing is adopted"
        );
        Ok(())
    }

    async fn claim_pods(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        selector: &Selector,
    ) -> anyhow::Result<Vec<Arc<Pod>>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut all = self.ctx.pods.by_index("controller", uid);
        all.extend(self.ctx.pods.by_index("orphan", &key.namespace));
        let claim = owner::claim(uid, selector, false, all);
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let mut owned = claim.owned;
        for p in self
            .settle(set, key, &api, claim.adopt, claim.release)
            .await?
        {
            self.note_pod(key, &p);
            owned.push(Arc::new(p));
        }
        Ok(owned)
    }

    async fn claim_revisions(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        selector: &Selector,
    ) -> anyhow::Result<Vec<Arc<ControllerRevision>>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let revisions = &self.ctx.controller_revisions;
        let mut all = revisions.by_index("controller", uid);
        all.extend(revisions.by_index("orphan", &key.namespace));
        let claim = owner::claim(uid, selector, false, all);
        let api: Api<ControllerRevision> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let mut owned = claim.owned;
        for r in self
            .settle(set, key, &api, claim.adopt, claim.release)
            .await?
        {
            self.note_revision(key, &r);
            owned.push(Arc::new(r));
        }
        Ok(owned)
    }

    /// Adopts and releases; returns what was adopted.
    async fn settle<K>(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        api: &Api<K>,
        adopt: Vec<Arc<K>>,
        release: Vec<Arc<K>>,
    ) -> anyhow::Result<Vec<K>>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        if !adopt.is_empty() {
            self.still_there(set, key).await?;
        }
        let reference = owner::controller_reference(set);
        let uid_of = |o: &K| o.meta().uid.clone().unwrap_or_default();
        let mut adopted = Vec::new();
        for object in &adopt {
            let patch = owner::adoption_patch(&reference, &uid_of(object));
            let name = object.meta().name.as_deref().unwrap_or_default();
            match api
                .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(object) => adopted.push(object),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("adopting {name}")),
            }
        }
        for object in &release {
            let patch = owner::release_patch(&reference.uid, &uid_of(object));
            let name = object.meta().name.as_deref().unwrap_or_default();
            match api
                .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("releasing {name}")),
            }
        }
        Ok(adopted)
    }

    /// Makes sure that the template has a revision, with the highest number of all.
    async fn keep_history(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        revisions: &[Arc<ControllerRevision>],
    ) -> anyhow::Result<Kept> {
        let api: Api<ControllerRevision> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let history = history::history(set, revisions);
        let hash = match history.current {
            None => {
                let made = self.make_revision(set, key, &api, history.number).await?;
                history::hash_of(&made)
            }
            Some(current) => {
                if current.revision < history.number {
                    let patch = serde_json::json!({
                        "metadata": {"uid": current.metadata.uid}, "revision": history.number,
                    });
                    let patched = api
                        .patch(
                            &current.name_any(),
                            &PatchParams::default(),
                            &Patch::Merge(patch),
                        )
                        .await
                        .context("numbering its revision")?;
                    self.note_revision(key, &patched);
                }
                history::hash_of(&current)
            }
        };
        for twin in &history.twins {
            self.relabel(key, set, &history::hash_of(twin), &hash)
                .await?;
            self.delete_revision(&api, twin).await?;
        }
        Ok(Kept {
            hash,
            old: history.old,
        })
    }

    async fn make_revision(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        api: &Api<ControllerRevision>,
        number: i64,
    ) -> anyhow::Result<ControllerRevision> {
        let revision = history::new_revision(set, number);
        let name = revision.name_any();
        match api.create(&PostParams::default(), &revision).await {
            Ok(made) => {
                self.note_revision(key, &made);
                return Ok(made);
            }
            Err(error) if is_already_exists(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("creating revision {name}")),
        }
        let there = api
            .get(&name)
            .await
            .with_context(|| format!("reading revision {name}"))?;
        if history::is_ours(set, &there) {
            self.note_revision(key, &there);
            return Ok(there);
        }
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(set, key, status).await?;
        anyhow::bail!("the name {name} is taken by another revision, trying another hash")
    }

    /// Pods of a revision that goes belong to its twin.
    async fn relabel(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        from: &str,
        to: &str,
    ) -> anyhow::Result<()> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        for p in self.ctx.pods.by_index("controller", uid) {
            if from == to || !plan::is_updated(&p, from) {
                continue;
            }
            let patch = serde_json::json!({
                "metadata": {"uid": p.metadata.uid, "labels": {(plan::HASH_LABEL): to}},
            });
            match api
                .patch(&p.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(p) => self.note_pod(key, &p),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error).context("relabelling a pod"),
            }
        }
        Ok(())
    }

    async fn delete_revision(
        &self,
        api: &Api<ControllerRevision>,
        revision: &ControllerRevision,
    ) -> anyhow::Result<()> {
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: revision.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(&revision.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("deleting an old revision"),
        }
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        old: &[Arc<ControllerRevision>],
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<()> {
        let live = |hash: &str| pods.iter().any(|p| plan::is_updated(p, hash));
        let api: Api<ControllerRevision> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        for revision in history::surplus(set, old, &live) {
            self.delete_revision(&api, &revision).await?;
        }
        Ok(())
    }

    /// Carries out a plan; returns how long pods that ended wait for their replacement.
    async fn act(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        hash: &str,
        plan: Plan,
        failure: &mut Option<anyhow::Error>,
    ) -> Option<Duration> {
        let Plan {
            mut create,
            mut delete,
            ended,
        } = plan;
        let mut wait = None;
        for (p, what) in ended {
            match self.may_replace(key, &what.node) {
                None => {
                    self.tell_ended(set, key, &what);
                    delete.push(p);
                }
                Some(left) => wait = Some(wait.map_or(left, |w: Duration| w.min(left))),
            }
        }
        create.truncate(BURST);
        delete.truncate(BURST);
        if let Err(error) = self.create(set, key, hash, &create).await {
            *failure = Some(error);
        }
        if let Err(error) = self.delete(set, key, &delete).await {
            *failure = Some(error);
        }
        wait
    }

    fn may_replace(&self, key: &ObjectKey, node: &str) -> Option<Duration> {
        let mut outstanding = self.outstanding.lock();
        let ours = outstanding.entry(key.clone()).or_default();
        let now = Instant::now();
        let wait = match ours.ended.get(node) {
            None => FIRST_WAIT,
            Some((last, wait)) => {
                let passed = now.duration_since(*last);
                if passed < *wait {
                    return Some(*wait - passed);
                }
                // Long peace is forgiven.
                match passed > LONGEST_WAIT * 2 {
                    true => FIRST_WAIT,
                    false => (*wait * 2).min(LONGEST_WAIT),
                }
            }
        };
        ours.ended.insert(node.to_string(), (now, wait));
        None
    }

    fn tell_ended(&self, set: &DaemonSet, key: &ObjectKey, ended: &Ended) {
        let place = format!("{}/{} on node {}", key.namespace, ended.pod, ended.node);
        let (kind, reason, message) = match ended.failed {
            true => (
                EventKind::Warning,
                "FailedDaemonPod",
                format!("Found failed daemon pod {place}, will try to kill it"),
            ),
            false => (
                EventKind::Normal,
                "SucceededDaemonPod",
                format!("Found succeeded daemon pod {place}, will try to delete it"),
            ),
        };
        self.recorder.record(set, kind, reason, message);
    }

    async fn create(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        hash: &str,
        nodes: &[String],
    ) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let params = PostParams::default();
        let generation = template_generation(set);
        let mut left = nodes;
        for batch in slow_start(nodes.len()) {
            let (now, later) = left.split_at(batch);
            left = later;
            let pods: Vec<Pod> = now
                .iter()
                .map(|node| node::pod_for(set, node, hash, generation))
                .collect();
            let mut failed = None;
            for result in join_all(pods.iter().map(|p| api.create(&params, p))).await {
                match result {
                    Ok(made) => {
                        self.note_pod(key, &made);
                        let message = format!("Created pod: {}", made.name_any());
                        self.recorder
                            .record(set, EventKind::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                if rhumb_client::error::is_namespace_terminating(&error) {
                    return Ok(());
                }
                let message = format!("Error creating: {}", rhumb_client::error::message(&error));
                self.recorder
                    .record(set, EventKind::Warning, "FailedCreate", message);
                return Err(error).context("creating a pod");
            }
        }
        Ok(())
    }

    async fn delete(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let results = join_all(pods.iter().map(|p| {
            let api = api.clone();
            async move {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: p.metadata.uid.clone(),
                    resource_version: None,
                });
                (p, api.delete(&p.name_any(), &params).await)
            }
        }))
        .await;
        let mut failed = None;
        for (p, result) in results {
            match result {
                Ok(left) => {
                    if let Some(p) = left.left() {
                        self.note_pod(key, &p);
                    }
                    let message = format!("Deleted pod: {}", p.name_any());
                    self.recorder
                        .record(set, EventKind::Normal, "SuccessfulDelete", message);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    let message =
                        format!("Error deleting: {}", rhumb_client::error::message(&error));
                    self.recorder
                        .record(set, EventKind::Warning, "FailedDelete", message);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error).context("deleting a pod"),
            None => Ok(()),
        }
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        key: &ObjectKey,
        status: DaemonSetStatus,
    ) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        debug!(set = %key, ?status, "status");
        let mut set = set.clone();
        set.status = Some(status);
        match Api::<DaemonSet>::namespaced(self.ctx.client.clone(), &key.namespace)
            .replace_status(&key.name, &PostParams::default(), &set)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("writing its status"),
        }
    }
}

/// What is kept of a set's history.
struct Kept {
    /// Of the template as it is now.
    hash: String,
    old: Vec<Arc<ControllerRevision>>,
}

/// An empty selector would take every pod of the namespace: the server refuses it, and so does this.
fn selector(set: &DaemonSet) -> Option<Selector> {
    let selector = set.spec.as_ref()?.selector.clone();
    let empty = selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(|e| e.is_empty());
    if empty {
        return None;
    }
    Selector::try_from(selector).ok()
}

/// How many templates the set has had; the server counts them.
fn template_generation(set: &DaemonSet) -> i64 {
    set.metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(rhumb_api::per_kind::TEMPLATE_GENERATION))
        .and_then(|g| g.parse().ok())
        .unwrap_or(1)
}
