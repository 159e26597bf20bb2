//! Disruption budgets: how many of the pods that each selects may be evicted now. Evictions take
//! them off the status (`pods/eviction` of the API server); this brings it back up to date.
//! Source: Kubernetes `pkg/controller/disruption`.

pub mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, GroupVersionKind, PostParams},
    core::{Selector, SelectorExt},
};
use rhumb_client::{
    Change, EventKind, ObjectKey, Recorder, WorkQueue, informer::controller_of, is_not_found,
};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, run_queue};

pub struct DisruptionController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
}

/// A budget without a selector selects nothing, one with an empty selector all pods.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    let selector = budget.spec.as_ref()?.selector.clone()?;
    Selector::try_from(selector).ok()
}

impl DisruptionController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("controllermanager"),
        });
        let q = queue.clone();
        ctx.disruption_budgets
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let (q, budgets) = (queue.clone(), ctx.disruption_budgets.clone());
        ctx.pods.on_change(move |change| {
            let mut seen: Vec<&Arc<Pod>> = vec![change.object()];
            if let Change::Updated { old, .. } = change {
                seen.push(old);
            }
            let namespace = change.object().namespace().unwrap_or_default();
            for budget in budgets.by_index("namespace", &namespace) {
                let selector = selector(&budget);
                let selects =
                    |p: &Arc<Pod>| selector.as_ref().is_some_and(|s| s.matches(p.labels()));
                if seen.iter().any(|p| selects(p)) {
                    q.add(ObjectKey::of(budget.as_ref()));
                }
            }
        });
        // How many there should be counts too.
        let (q, budgets) = (queue.clone(), ctx.disruption_budgets.clone());
        ctx.deployments.on_change(move |change| {
            let scaled = match change {
                Change::Updated { old, new } => {
                    old.spec.as_ref().and_then(|s| s.replicas)
                        != new.spec.as_ref().and_then(|s| s.replicas)
                }
                _ => false,
            };
            let namespace = change.object().namespace().unwrap_or_default();
            for budget in budgets
                .by_index("namespace", &namespace)
                .iter()
                .filter(|_| scaled)
            {
                q.add(ObjectKey::of(budget.as_ref()));
            }
        });
        let (q, budgets) = (queue, ctx.disruption_budgets.clone());
        ctx.replica_sets.on_change(move |change| {
            let replicas = |rs: &ReplicaSet| rs.spec.as_ref().and_then(|s| s.replicas);
            let scaled = match change {
                Change::Updated { old, new } => replicas(old) != replicas(new),
                _ => false,
            };
            let namespace = change.object().namespace().unwrap_or_default();
            for budget in budgets
                .by_index("namespace", &namespace)
                .iter()
                .filter(|_| scaled)
            {
                q.add(ObjectKey::of(budget.as_ref()));
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.disruption_budgets.synced(),
            ctx.pods.synced(),
            ctx.replica_sets.synced(),
            ctx.deployments.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 2, "disruption", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        // From the server: evictions write to the same status, and the cache may be behind them.
        let api: Api<PodDisruptionBudget> =
            Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let Some(budget) = api.get_opt(&key.name).await.context("reading it")? else {
            return Ok(None);
        };
        let pods = self.pods(&budget, &key.namespace);
        if pods.is_empty() {
            self.recorder.record(
                &budget,
                EventKind::Normal,
                "NoPods",
                "No matching pods found",
            );
        }
        let now = Timestamp::now();
        let expected = self.expected(&budget, &pods).await;
        let (status, wait, failure) = match expected {
            Ok(expected) => {
                let found = plan::status(&budget, &pods, expected, now);
                for pod in &found.overdue {
                    let message = format!(
                        "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                        key.namespace, key.name
                    );
                    self.recorder
                        .record(pod.as_ref(), EventKind::Warning, "NotDeleted", message);
                }
                (found.status, found.wait, None)
            }
            Err(error) => {
                let why = rhumb_client::error::chain(&error);
                self.recorder.record(
                    &budget,
                    EventKind::Warning,
                    "CalculateExpectedPodCountFailed",
                    format!("Failed to calculate the number of expected pods: {why}"),
                );
                (plan::closed(&budget, &why, now), None, Some(error))
            }
        };
        self.write(&api, budget, status).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(wait),
        }
    }

    fn pods(&self, budget: &PodDisruptionBudget, namespace: &str) -> Vec<Arc<Pod>> {
        let Some(selector) = selector(budget) else {
            return Vec::new();
        };
        let mut pods = self.ctx.pods.by_index("namespace", namespace);
        pods.retain(|p| selector.matches(p.labels()));
        pods
    }

    /// How many pods there should be, and how many of them must stay.
    async fn expected(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<plan::Expected> {
        let spec = budget.spec.clone().unwrap_or_default();
        let known = match plan::needs_scales(&spec) {
            true => self.scales(pods).await?,
            false => 0,
        };
        Ok(plan::expected(&spec, pods.len(), known))
    }

    /// The sum of what the pods' controllers are scaled to.
    async fn scales(&self, pods: &[Arc<Pod>]) -> anyhow::Result<i32> {
        let mut owners: HashMap<String, i32> = HashMap::new();
        let mut seen: HashMap<String, ()> = HashMap::new();
        for p in pods {
            // A pod of nobody's is not made again: it doesn't count.
            let Some(owner) = controller_of(p.as_ref()) else {
                continue;
            };
            if seen.insert(owner.uid.clone(), ()).is_some() {
                continue;
            }
            let namespace = p.namespace().unwrap_or_default();
            let (uid, replicas) = self
                .scale(&namespace, owner)
                .await
                .with_context(|| format!("found no controllers for pod {:?}", p.name_any()))?;
            owners.insert(uid, replicas);
        }
        Ok(owners.values().fold(0, |sum, n| sum.saturating_add(*n)))
    }

    /// What a controller is scaled to: a ReplicaSet of a Deployment by the Deployment.
    async fn scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> anyhow::Result<(String, i32)> {
        if owner.api_version == "apps/v1" && owner.kind == "ReplicaSet" {
            let key = ObjectKey::new(namespace.to_string(), owner.name.clone());
            if let Some(rs) = self
                .ctx
                .replica_sets
                .get(&key)
                .filter(|rs| rs.metadata.uid.as_deref() == Some(owner.uid.as_str()))
            {
                if let Some(d) = controller_of(rs.as_ref()).filter(|o| o.kind == "Deployment") {
                    let key = ObjectKey::new(namespace.to_string(), d.name.clone());
                    if let Some(found) = self
                        .ctx
                        .deployments
                        .get(&key)
                        .filter(|found| found.metadata.uid.as_deref() == Some(d.uid.as_str()))
                    {
                        let replicas = found.spec.as_ref().and_then(|s| s.replicas);
                        return Ok((d.uid.clone(), replicas.unwrap_or(1)));
                    }
                }
                let replicas = rs.spec.as_ref().and_then(|s| s.replicas);
                return Ok((owner.uid.clone(), replicas.unwrap_or(1)));
            }
        }
        let (group, version) = owner
            .api_version
            .split_once('/')
            .unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let (resource, _) = kube::discovery::pinned_kind(&self.ctx.client, &kind)
            .await
            .with_context(|| format!("discovering {}", owner.kind))?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.ctx.client.clone(), namespace, &resource);
        let scale = api.get_scale(&owner.name).await.with_context(|| {
            let group = if group.is_empty() {
                resource.plural.clone()
            } else {
                format!("{}.{group}", resource.plural)
            };
            format!("{group} does not implement the scale subresource")
        })?;
        let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or(0);
        Ok((owner.uid.clone(), replicas))
    }

    async fn write(
        &self,
        api: &Api<PodDisruptionBudget>,
        mut budget: PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> anyhow::Result<()> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let name = budget.name_any();
        budget.status = Some(status);
        // With the version that was read: an eviction meanwhile makes it a conflict, and another round.
        match api
            .replace_status(&name, &PostParams::default(), &budget)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("writing its status"),
        }
    }
}
