//! Empties a namespace that is being deleted, pods first (what protects them, such as NetworkPolicies, must
//! outlive them), then lets it go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use rhumb_client::{ObjectKey, WorkQueue, is_conflict, is_not_found};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    context::{Context, run_queue},
    discovery::{self, Kind},
};

/// The finalizer in `spec.finalizers` that stands for this work.
const FINALIZER: &str = "kubernetes";
/// How often a namespace is looked at while its contents are going.
const PERIOD: Duration = Duration::from_millis(500);

pub struct NamespaceController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
}

/// What is still in a namespace.
#[derive(Debug, Default, PartialEq)]
struct Remaining {
    /// Kind to number of objects.
    kinds: BTreeMap<String, usize>,
    /// Finalizer to number of objects that wait for it.
    finalizers: BTreeMap<String, usize>,
    /// What couldn't be listed or deleted.
    failures: Vec<String>,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.failures.is_empty()
    }

    fn add(&mut self, kind: &Kind, objects: &[impl ResourceExt]) {
        if objects.is_empty() {
            return;
        }
        *self.kinds.entry(kind.name()).or_insert(0) += objects.len();
        for finalizer in objects.iter().flat_map(|o| o.finalizers()) {
            *self.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
    }

    /// The conditions that say so, in Kubernetes' words.
    fn conditions(&self, now: Timestamp) -> Vec<NamespaceCondition> {
        let condition =
            |type_: &str, holds: bool, reason: &str, message: String| NamespaceCondition {
                type_: type_.into(),
                status: if holds { "True" } else { "False" }.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            };
        let listed = |map: &BTreeMap<String, usize>, of: &str| {
            map.iter()
                .map(|(name, n)| format!("{name}{of} {n} resource instances"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let failed = !self.failures.is_empty();
        vec![
            condition(
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".into(),
            ),
            if failed {
                condition(
                    "NamespaceDeletionContentFailure",
                    true,
                    "ContentDeletionFailed",
                    format!(
                        "Failed to delete all resource types, {} remaining: {}",
                        self.failures.len(),
                        self.failures.join(", ")
                    ),
                )
            } else {
                condition(
                    "NamespaceDeletionContentFailure",
                    false,
                    "ContentDeleted",
                    "All content successfully deleted, may be waiting on finalization".into(),
                )
            },
            if self.kinds.is_empty() {
                condition(
                    "NamespaceContentRemaining",
                    false,
                    "ContentRemoved",
                    "All content successfully removed".into(),
                )
            } else {
                condition(
                    "NamespaceContentRemaining",
                    true,
                    "SomeResourcesRemain",
                    format!(
                        "Some resources are remaining: {}",
                        listed(&self.kinds, " has")
                    ),
                )
            },
            if self.finalizers.is_empty() {
                condition(
                    "NamespaceFinalizersRemaining",
                    false,
                    "ContentHasNoFinalizers",
                    "All content-preserving finalizers finished".into(),
                )
            } else {
                condition(
                    "NamespaceFinalizersRemaining",
                    true,
                    "SomeFinalizersRemain",
                    format!(
                        "Some content in the namespace has finalizers remaining: {}",
                        listed(&self.finalizers, " in")
                    ),
                )
            },
        ]
    }
}

impl NamespaceController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
        });
        ctx.namespaces.on_change(move |change| {
            if change.object().metadata.deletion_timestamp.is_some() {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        self.ctx.namespaces.synced().await;
        let queue = self.queue.clone();
        run_queue(queue, 4, "namespace", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key.name).await }
        })
        .await;
    }

    async fn reconcile(&self, name: &str) -> anyhow::Result<Option<Duration>> {
        let api: Api<Namespace> = Api::all(self.ctx.client.clone());
        // From the server, not the cache: everything in it is about to be deleted.
        let Some(namespace) = api.get_opt(name).await.context("reading it")? else {
            return Ok(None);
        };
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|s| s.finalizers.clone())
            .unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none()
            || !finalizers.iter().any(|f| f == FINALIZER)
        {
            return Ok(None);
        }
        // Kinds that can't be discovered may have objects here: then it isn't empty.
        let kinds = discovery::kinds(&self.ctx.client)
            .await
            .context("discovering kinds")?;
        let kinds: Vec<Kind> = kinds.into_iter().filter(|k| k.namespaced).collect();
        let (pods, rest): (Vec<_>, Vec<_>) = kinds.iter().partition(|k| k.name() == "pods");
        let mut remaining = self.empty(name, &pods).await;
        if remaining.is_empty() {
            // Events tell what happened here until the end.
            let (events, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|k| k.is_event());
            remaining = self.empty(name, &rest).await;
            if remaining.is_empty() {
                remaining = self.empty(name, &events).await;
            }
        }
        if remaining.is_empty() {
            self.finalize(&api, namespace).await?;
            info!(namespace = name, "namespace emptied");
            return Ok(None);
        }
        debug!(namespace = name, ?remaining, "namespace is not empty yet");
        self.write_conditions(&api, &namespace, &remaining).await?;
        anyhow::ensure!(
            remaining.failures.is_empty(),
            "emptying it: {}",
            remaining.failures.join("; ")
        );
        Ok(Some(PERIOD))
    }

    /// Deletes all objects of these kinds; says what is still there.
    async fn empty(&self, namespace: &str, kinds: &[&Kind]) -> Remaining {
        let mut remaining = Remaining::default();
        for kind in kinds {
            match self.empty_of(namespace, kind).await {
                Ok(left) => remaining.add(kind, &left),
                Err(error) => remaining.failures.push(format!(
                    "{}: {}",
                    kind.name(),
                    rhumb_client::error::message(&error)
                )),
            }
        }
        remaining
    }

    async fn empty_of(
        &self,
        namespace: &str,
        kind: &Kind,
    ) -> Result<Vec<kube::core::PartialObjectMeta<DynamicObject>>, kube::Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.ctx.client.clone(), namespace, &kind.resource);
        let there = api.list_metadata(&ListParams::default()).await?.items;
        let live: Vec<_> = there
            .iter()
            .filter(|o| o.metadata.deletion_timestamp.is_none())
            .collect();
        if live.is_empty() {
            return Ok(there);
        }
        if kind.deletes_collections {
            api.delete_collection(&DeleteParams::background(), &ListParams::default())
                .await?;
        } else {
            for object in live {
                match api
                    .delete(&object.name_any(), &DeleteParams::background())
                    .await
                {
                    Ok(_) => {}
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(api.list_metadata(&ListParams::default()).await?.items)
    }

    async fn finalize(&self, api: &Api<Namespace>, mut namespace: Namespace) -> anyhow::Result<()> {
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let name = namespace.name_any();
        match api
            .replace_subresource("finalize", &name, &PostParams::default(), &namespace)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("taking its finalizer off"),
        }
    }

    async fn write_conditions(
        &self,
        api: &Api<Namespace>,
        namespace: &Namespace,
        remaining: &Remaining,
    ) -> anyhow::Result<()> {
        let there = namespace
            .status
            .as_ref()
            .and_then(|s| s.conditions.clone())
            .unwrap_or_default();
        let mut changed = false;
        let wanted: Vec<NamespaceCondition> = remaining
            .conditions(Timestamp::now())
            .into_iter()
            .map(|mut new| {
                let old = there.iter().find(|c| c.type_ == new.type_);
                if let Some(old) = old.filter(|o| o.status == new.status) {
                    new.last_transition_time = old.last_transition_time.clone();
                }
                changed |= old != Some(&new);
                new
            })
            .collect();
        if !changed {
            return Ok(());
        }
        let patch = serde_json::json!({ "metadata": { "uid": namespace.metadata.uid }, "status": { "conditions": wanted } });
        match api
            .patch_status(
                &namespace.name_any(),
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error).context("writing its conditions"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_remains() {
        let mut remaining = Remaining::default();
        assert!(
            remaining
                .conditions(Timestamp::now())
                .iter()
                .all(|c| c.status == "False")
        );
        remaining.kinds.insert("pods".into(), 2);
        remaining.kinds.insert("deployments.apps".into(), 1);
        remaining.finalizers.insert("example.com/hold".into(), 1);
        let conditions = remaining.conditions(Timestamp::now());
        let message = |t: &str| {
            conditions
                .iter()
                .find(|c| c.type_ == t)
                .unwrap()
                .message
                .clone()
                .unwrap()
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: deployments.apps has 1 resource instances, pods has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
    }
}
