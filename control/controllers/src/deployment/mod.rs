//! The Deployment controller: one ReplicaSet a template, scaled against each other as the strategy says.

pub mod conditions;
pub mod plan;
pub mod revision;
pub mod rolling;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Selector,
};
use parking_lot::Mutex;
use rhumb_client::{
    Change, EventKind, ObjectKey, Recorder, WorkQueue, Written, informer::controller_of,
    is_already_exists, is_not_found,
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, run_queue},
    owner,
};

pub struct DeploymentController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    /// ReplicaSet writes that the cache may not show yet.
    written: Mutex<HashMap<ObjectKey, Written>>,
}

impl DeploymentController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("deployment-controller"),
            written: Mutex::new(HashMap::new()),
        });
        let q = queue.clone();
        ctx.deployments
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let (q, deployments) = (queue.clone(), ctx.deployments.clone());
        ctx.replica_sets.on_change(move |change| {
            let mut seen: Vec<&Arc<ReplicaSet>> = vec![change.object()];
            if let Change::Updated { old, .. } = change {
                seen.push(old);
            }
            for rs in seen {
                let namespace = rs.metadata.namespace.clone().unwrap_or_default();
                match controller_of(rs.as_ref()) {
                    Some(owner) if owner.kind == "Deployment" => {
                        q.add(ObjectKey::new(namespace, owner.name.clone()))
                    }
                    Some(_) => {}
                    // An orphan may be for any Deployment of its namespace to adopt.
                    None => {
                        for d in deployments.by_index("namespace", &namespace) {
                            q.add(ObjectKey::of(d.as_ref()));
                        }
                    }
                }
            }
        });
        // Recreate waits until the last old pod is gone.
        let (q, replica_sets, deployments) =
            (queue, ctx.replica_sets.clone(), ctx.deployments.clone());
        ctx.pods.on_change(move |change| {
            if let Change::Deleted(pod) = change
                && let Some(owner) = controller_of(pod.as_ref()).filter(|o| o.kind == "ReplicaSet")
            {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                let Some(rs) =
                    replica_sets.get(&ObjectKey::new(namespace.clone(), owner.name.clone()))
                else {
                    return;
                };
                if let Some(d) = controller_of(rs.as_ref()) {
                    let key = ObjectKey::new(namespace, d.name.clone());
                    if deployments
                        .get(&key)
                        .is_some_and(|d| rolling::is_recreate(&d))
                    {
                        q.add(key);
                    }
                }
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.deployments.synced(),
            ctx.replica_sets.synced(),
            ctx.pods.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 4, "deployment", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    fn note(&self, key: &ObjectKey, rs: &ReplicaSet) {
        let now = Written::of(rs);
        let mut written = self.written.lock();
        let latest = written.get(key).map_or(now, |w| w.max(now));
        written.insert(key.clone(), latest);
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(d) = self.ctx.deployments.get(key) else {
            self.written.lock().remove(key);
            return Ok(None);
        };
        let written = self.written.lock().get(key).copied();
        if let Some(written) = written {
            if !self.ctx.replica_sets.has_seen(&written) {
                return Ok(Some(Duration::from_millis(20)));
            }
            self.written.lock().remove(key);
        }
        let Some(spec) = &d.spec else {
            return Ok(None);
        };
        let selector = Selector::try_from(spec.selector.clone()).context("reading the selector")?;
        let owned = self.claim(&d, key, &selector).await?;

        let old_pods_run = |new: Option<&str>| {
            owned
                .iter()
                .filter_map(|rs| rs.metadata.uid.as_deref())
                .filter(|uid| Some(*uid) != new)
                .flat_map(|uid| self.ctx.pods.by_index("controller", uid))
                .any(|pod| !crate::pod::is_finished(&pod))
        };
        let plan = plan::plan(&d, &owned, old_pods_run, Timestamp::now());
        self.act(&d, key, plan).await
    }

    /// The ReplicaSets of `d`, after adopting and releasing. What was adopted comes back as an event.
    async fn claim(
        &self,
        d: &Deployment,
        key: &ObjectKey,
        selector: &Selector,
    ) -> anyhow::Result<Vec<Arc<ReplicaSet>>> {
        let uid = d.metadata.uid.as_deref().unwrap_or_default();
        let (mut sets, orphans) = (
            self.ctx.replica_sets.by_index("controller", uid),
            self.ctx.replica_sets.by_index("orphan", &key.namespace),
        );
        sets.extend(orphans);
        let claim = owner::claim(uid, selector, d.metadata.deletion_timestamp.is_some(), sets);
        let api: Api<ReplicaSet> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        if !claim.adopt.is_empty() {
            let live = Api::<Deployment>::namespaced(self.ctx.client.clone(), &key.namespace)
                .get(&key.name)
                .await
                .context("reading it before adopting")?;
            anyhow::ensure!(
                live.metadata.uid == d.metadata.uid && live.metadata.deletion_timestamp.is_none(),
                "it was deleted meanwhile, nothing is adopted"
            );
        }
        let reference = owner::controller_reference(d);
        let patches = claim
            .adopt
            .iter()
            .map(|rs| {
                (
                    rs,
                    owner::adoption_patch(
                        &reference,
                        rs.metadata.uid.as_deref().unwrap_or_default(),
                    ),
                )
            })
            .chain(claim.release.iter().map(|rs| {
                (
                    rs,
                    owner::release_patch(uid, rs.metadata.uid.as_deref().unwrap_or_default()),
                )
            }));
        for (rs, patch) in patches {
            let name = rs.metadata.name.as_deref().unwrap_or_default();
            match api
                .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(rs) => self.note(key, &rs),
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("adopting or releasing ReplicaSet {name}"));
                }
            }
        }
        Ok(claim.owned)
    }

    async fn act(
        &self,
        d: &Deployment,
        key: &ObjectKey,
        mut plan: plan::Plan,
    ) -> anyhow::Result<Option<Duration>> {
        let api: Api<ReplicaSet> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        if let Some(rs) = &plan.create {
            let name = rs.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), rs).await {
                Ok(made) => self.note(key, &made),
                Err(error) if is_already_exists(&error) => {
                    return self.settle_collision(d, key, rs, &api).await;
                }
                Err(error) if rhumb_client::error::is_namespace_terminating(&error) => {
                    return Ok(None);
                }
                Err(error) => {
                    let message = format!(
                        "Failed to create new replica set {name:?}: {}",
                        rhumb_client::error::message(&error)
                    );
                    if conditions::deadline(d).is_some() {
                        let mut status = d.status.clone().unwrap_or_default();
                        let condition = conditions::condition(
                            conditions::PROGRESSING,
                            "False",
                            conditions::CREATE_ERROR,
                            message.clone(),
                            Timestamp::now(),
                        );
                        conditions::set(&mut status, condition);
                        self.write_status(d.clone(), key, status).await?;
                    }
                    self.recorder
                        .record(d, EventKind::Warning, conditions::CREATE_ERROR, message);
                    return Err(error).with_context(|| format!("creating ReplicaSet {name}"));
                }
            }
        }
        for rs in &plan.update {
            let name = rs.metadata.name.as_deref().unwrap_or_default();
            let spec = rs.spec.clone().unwrap_or_default();
            let patch = serde_json::json!({
                "metadata": {
                    "uid": rs.metadata.uid,
                    // Refused if it has changed since: then the plan is out of date.
                    "resourceVersion": rs.metadata.resource_version,
                    "annotations": rs.metadata.annotations,
                },
                "spec": { "replicas": spec.replicas, "minReadySeconds": spec.min_ready_seconds },
            });
            let patched = api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .with_context(|| format!("scaling ReplicaSet {name}"))?;
            self.note(key, &patched);
        }
        for message in plan.scaled.drain(..) {
            self.recorder
                .record(d, EventKind::Normal, "ScalingReplicaSet", message);
        }
        for rs in &plan.delete {
            let name = rs.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams::background().preconditions(Preconditions {
                uid: rs.metadata.uid.clone(),
                resource_version: rs.metadata.resource_version.clone(),
            });
            match api.delete(name, &params).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("deleting old ReplicaSet {name}"));
                }
            }
        }
        let mut current = d.clone();
        if let Some(revision) = plan.revision
            && revision::revision(&d.metadata) != revision
        {
            let patch = serde_json::json!({
                "metadata": { "uid": d.metadata.uid, "annotations": { (revision::REVISION): revision.to_string() } }
            });
            current = Api::<Deployment>::namespaced(self.ctx.client.clone(), &key.namespace)
                .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .context("noting its revision")?;
        }
        let due = plan.due.map(|s| Duration::from_secs(s.unsigned_abs()));
        self.write_status(current, key, plan.status).await?;
        Ok(due)
    }

    /// There is a ReplicaSet of the name that the template's hash gives: ours, not yet in the cache, or a
    /// stranger, which the next hash must avoid.
    async fn settle_collision(
        &self,
        d: &Deployment,
        key: &ObjectKey,
        rs: &ReplicaSet,
        api: &Api<ReplicaSet>,
    ) -> anyhow::Result<Option<Duration>> {
        let name = rs.metadata.name.as_deref().unwrap_or_default();
        let there = api
            .get(name)
            .await
            .with_context(|| format!("reading ReplicaSet {name}"))?;
        let ours = controller_of(&there).is_some_and(|o| Some(&o.uid) == d.metadata.uid.as_ref());
        let template = there.spec.as_ref().and_then(|s| s.template.as_ref());
        if ours && template.is_some_and(|t| revision::same_template(t, &revision::template(d))) {
            self.note(key, &there);
            return Ok(Some(Duration::from_millis(20)));
        }
        let mut status = d.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(d.clone(), key, status).await?;
        anyhow::bail!("the name {name} is taken by another ReplicaSet, trying another hash")
    }

    async fn write_status(
        &self,
        mut d: Deployment,
        key: &ObjectKey,
        status: k8s_openapi::api::apps::v1::DeploymentStatus,
    ) -> anyhow::Result<()> {
        if d.status.as_ref() == Some(&status) {
            return Ok(());
        }
        d.status = Some(status);
        Api::<Deployment>::namespaced(self.ctx.client.clone(), &key.namespace)
            .replace_status(&key.name, &PostParams::default(), &d)
            .await
            .context("writing its status")?;
        Ok(())
    }
}
