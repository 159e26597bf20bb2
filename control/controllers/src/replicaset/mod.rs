//! The ReplicaSet controller: as many pods as asked for.

pub mod plan;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Selector, SelectorExt},
};
use parking_lot::Mutex;
use rhumb_client::{
    Change, EventKind, ObjectKey, Recorder, WorkQueue, Written, informer::controller_of,
    is_not_found,
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, run_queue},
    owner, pod,
};

/// What this controller has done to the pods of a ReplicaSet and the cache may not show yet.
#[derive(Debug, Default)]
struct Outstanding {
    created: Option<Written>,
    /// Uids of pods that were deleted.
    deleted: HashSet<String>,
}

pub struct ReplicaSetController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    outstanding: Mutex<HashMap<ObjectKey, Outstanding>>,
}

impl ReplicaSetController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("replicaset-controller"),
            outstanding: Mutex::new(HashMap::new()),
        });
        let q = queue.clone();
        ctx.replica_sets
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let (q, sets) = (queue, ctx.replica_sets.clone());
        ctx.pods.on_change(move |change| {
            let mut seen: Vec<&Arc<Pod>> = vec![change.object()];
            if let Change::Updated { old, .. } = change {
                seen.push(old);
            }
            for pod in seen {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                match controller_of(pod.as_ref()) {
                    Some(owner) if owner.kind == "ReplicaSet" => {
                        q.add(ObjectKey::new(namespace, owner.name.clone()))
                    }
                    Some(_) => {}
                    // An orphan may be for a ReplicaSet to adopt.
                    None => {
                        for rs in sets.by_index("namespace", &namespace) {
                            let selects = selector(&rs).is_some_and(|s| {
                                s.matches(
                                    pod.metadata.labels.as_ref().unwrap_or(&Default::default()),
                                )
                            });
                            if selects {
                                q.add(ObjectKey::of(rs.as_ref()));
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
        tokio::join!(ctx.replica_sets.synced(), ctx.pods.synced());
        let queue = self.queue.clone();
        run_queue(queue, 4, "replicaset", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(rs) = self.ctx.replica_sets.get(key) else {
            self.outstanding.lock().remove(key);
            return Ok(None);
        };
        let uid = rs.metadata.uid.clone().unwrap_or_default();
        let selector = selector(&rs).context("its selector can't be read")?;
        let leaving = rs.metadata.deletion_timestamp.is_some();
        let (mut pods, orphans) = (
            self.ctx.pods.by_index("controller", &uid),
            self.ctx.pods.by_index("orphan", &key.namespace),
        );
        pods.extend(orphans);
        let claim = owner::claim(&uid, &selector, leaving, pods);
        let mut owned = claim.owned;
        owned.extend(
            self.settle_claims(&rs, key, &claim.adopt, &claim.release)
                .await?,
        );

        let now = Timestamp::now();
        let terminating = owned
            .iter()
            .filter(|p| pod::is_terminating(p) && !pod::is_finished(p))
            .count();
        let (mut active, mut deleted_unseen) = (Vec::new(), 0);
        let caught_up = {
            let mut outstanding = self.outstanding.lock();
            let ours = outstanding.entry(key.clone()).or_default();
            // Forget the deletions that the cache shows.
            ours.deleted.retain(|uid| {
                owned
                    .iter()
                    .any(|p| p.metadata.uid.as_ref() == Some(uid) && pod::is_active(p))
            });
            for p in owned.iter().filter(|p| pod::is_active(p)) {
                if p.metadata
                    .uid
                    .as_ref()
                    .is_some_and(|uid| ours.deleted.contains(uid))
                {
                    deleted_unseen += 1;
                } else {
                    active.push(p.clone());
                }
            }
            match ours.created {
                Some(written) if !self.ctx.pods.has_seen(&written) => false,
                _ => {
                    ours.created = None;
                    true
                }
            }
        };
        let terminating = terminating + deleted_unseen;
        let mut failure = None;
        if caught_up && !leaving {
            let wanted = rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let plan = plan::plan(wanted, &active, &self.related(&rs), now);
            if plan.create > 0 {
                failure = self
                    .create(&rs, key, plan.create)
                    .await
                    .map(|e| ("FailedCreate", e));
            } else if !plan.delete.is_empty() {
                failure = self
                    .delete(&rs, key, &plan.delete)
                    .await
                    .map(|e| ("FailedDelete", e));
            }
        }
        let status = plan::status(
            &rs,
            &active,
            terminating,
            failure
                .as_ref()
                .map(|(reason, error)| (*reason, rhumb_client::error::message(error))),
            now,
        );
        self.write_status(&rs, key, status).await?;
        if let Some((_, error)) = failure {
            return Err(error.into());
        }
        if !caught_up {
            return Ok(Some(Duration::from_millis(20)));
        }
        Ok(plan::next_available(&rs, &active, now).map(|s| Duration::from_secs(s.unsigned_abs())))
    }

    /// Adopts and releases; returns what was adopted.
    async fn settle_claims(
        &self,
        rs: &ReplicaSet,
        key: &ObjectKey,
        adopt: &[Arc<Pod>],
        release: &[Arc<Pod>],
    ) -> anyhow::Result<Vec<Arc<Pod>>> {
        let mut adopted = Vec::new();
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let adopt: Vec<_> = adopt.iter().filter(|p| pod::is_active(p)).collect();
        if !adopt.is_empty() {
            let live = Api::<ReplicaSet>::namespaced(self.ctx.client.clone(), &key.namespace)
                .get(&key.name)
                .await
                .context("reading it before adopting")?;
            anyhow::ensure!(
                live.metadata.uid == rs.metadata.uid && live.metadata.deletion_timestamp.is_none(),
                "it was deleted meanwhile, nothing is adopted"
            );
        }
        let reference = owner::controller_reference(rs);
        for p in adopt {
            let name = p.metadata.name.as_deref().unwrap_or_default();
            let patch =
                owner::adoption_patch(&reference, p.metadata.uid.as_deref().unwrap_or_default());
            match api
                .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(p) => adopted.push(Arc::new(p)),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("adopting pod {name}")),
            }
        }
        for p in release {
            let name = p.metadata.name.as_deref().unwrap_or_default();
            let patch = owner::release_patch(
                &reference.uid,
                p.metadata.uid.as_deref().unwrap_or_default(),
            );
            match api
                .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("releasing pod {name}")),
            }
        }
        Ok(adopted)
    }

    /// The pods of all ReplicaSets with the same owner.
    fn related(&self, rs: &ReplicaSet) -> Vec<Arc<Pod>> {
        let own = rs.metadata.uid.as_deref().unwrap_or_default();
        match controller_of(rs) {
            Some(owner) => self
                .ctx
                .replica_sets
                .by_index("controller", &owner.uid)
                .iter()
                .filter_map(|rs| rs.metadata.uid.as_deref())
                .flat_map(|uid| self.ctx.pods.by_index("controller", uid))
                .collect(),
            None => self.ctx.pods.by_index("controller", own),
        }
    }

    async fn create(&self, rs: &ReplicaSet, key: &ObjectKey, count: usize) -> Option<kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let (pod, params) = (new_pod(rs), PostParams::default());
        for batch in plan::slow_start(count) {
            let results = join_all((0..batch).map(|_| api.create(&params, &pod))).await;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(made) => {
                        let now = Written::of(&made);
                        let mut outstanding = self.outstanding.lock();
                        let ours = outstanding.entry(key.clone()).or_default();
                        ours.created = Some(ours.created.map_or(now, |w| w.max(now)));
                        drop(outstanding);
                        self.recorder.record(
                            rs,
                            EventKind::Normal,
                            "SuccessfulCreate",
                            format!(
                                "Created pod: {}",
                                made.metadata.name.as_deref().unwrap_or_default()
                            ),
                        );
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                if rhumb_client::error::is_namespace_terminating(&error) {
                    return None;
                }
                self.recorder.record(
                    rs,
                    EventKind::Warning,
                    "FailedCreate",
                    format!("Error creating: {}", rhumb_client::error::message(&error)),
                );
                return Some(error);
            }
        }
        None
    }

    async fn delete(
        &self,
        rs: &ReplicaSet,
        key: &ObjectKey,
        pods: &[Arc<Pod>],
    ) -> Option<kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let results = join_all(pods.iter().map(|p| {
            let api = api.clone();
            async move {
                let name = p.metadata.name.as_deref().unwrap_or_default();
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: p.metadata.uid.clone(),
                    resource_version: None,
                });
                (p, api.delete(name, &params).await)
            }
        }))
        .await;
        let mut failed = None;
        for (p, result) in results {
            let name = p.metadata.name.as_deref().unwrap_or_default();
            match result {
                Ok(_) => {
                    let mut outstanding = self.outstanding.lock();
                    let ours = outstanding.entry(key.clone()).or_default();
                    ours.deleted.extend(p.metadata.uid.clone());
                    drop(outstanding);
                    self.recorder.record(
                        rs,
                        EventKind::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {name}"),
                    );
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    self.recorder.record(
                        rs,
                        EventKind::Warning,
                        "FailedDelete",
                        format!("Error deleting: {}", rhumb_client::error::message(&error)),
                    );
                    failed = Some(error);
                }
            }
        }
        failed
    }

    async fn write_status(
        &self,
        rs: &ReplicaSet,
        key: &ObjectKey,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> anyhow::Result<()> {
        if rs.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut rs = rs.clone();
        rs.status = Some(status);
        match Api::<ReplicaSet>::namespaced(self.ctx.client.clone(), &key.namespace)
            .replace_status(&key.name, &PostParams::default(), &rs)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("writing its status"),
        }
    }
}

/// An empty selector would take every pod of the namespace: the server refuses it, and so does this.
fn selector(rs: &ReplicaSet) -> Option<Selector> {
    let selector = rs.spec.as_ref()?.selector.clone();
    let empty = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(|e| e.is_empty());
    if empty {
        return None;
    }
    Selector::try_from(selector).ok()
}

fn new_pod(rs: &ReplicaSet) -> Pod {
    let template = rs
        .spec
        .as_ref()
        .and_then(|s| s.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!(
                "{}-",
                rs.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: rs.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner::controller_reference(rs)]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}
