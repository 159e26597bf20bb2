//! Each namespace has a ServiceAccount `default` and the cluster's CA in the ConfigMap `kube-root-ca.crt`.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rhumb_client::{
    ObjectKey, WorkQueue, error::is_namespace_terminating, is_already_exists, is_not_found,
};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, ROOT_CA, run_queue};

const DEFAULT: &str = "default";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct NamespaceDefaults {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    root_ca: String,
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating")
}

impl NamespaceDefaults {
    pub fn new(ctx: &Arc<Context>, root_ca: &str) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            root_ca: root_ca.to_string(),
        });
        let q = queue.clone();
        ctx.namespaces
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let q = queue.clone();
        ctx.service_accounts.on_change(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            if key.name == DEFAULT {
                q.add(ObjectKey::new("", key.namespace));
            }
        });
        ctx.root_cas.on_change(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            queue.add(ObjectKey::new("", key.namespace));
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.namespaces.synced(),
            ctx.service_accounts.synced(),
            ctx.root_cas.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 2, "namespace-defaults", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key.name).await }
        })
        .await;
    }

    async fn reconcile(&self, namespace: &str) -> anyhow::Result<Option<Duration>> {
        let known = self.ctx.namespaces.get(&ObjectKey::new("", namespace));
        if known.is_none_or(|n| is_terminating(&n)) {
            return Ok(None);
        }
        if self
            .ctx
            .service_accounts
            .get(&ObjectKey::new(namespace, DEFAULT))
            .is_none()
        {
            let account = ServiceAccount {
                metadata: ObjectMeta {
                    name: Some(DEFAULT.into()),
                    namespace: Some(namespace.into()),
                    ..Default::default()
                },
                ..Default::default()
            };
            let api: Api<ServiceAccount> = Api::namespaced(self.ctx.client.clone(), namespace);
            accept(api.create(&PostParams::default(), &account).await)
                .context("creating the ServiceAccount default")?;
        }
        if !self.root_ca.is_empty() {
            self.publish_ca(namespace).await?;
        }
        Ok(None)
    }

    async fn publish_ca(&self, namespace: &str) -> anyhow::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.ctx.client.clone(), namespace);
        let data = std::collections::BTreeMap::from([("ca.crt".to_string(), self.root_ca.clone())]);
        match self.ctx.root_cas.get(&ObjectKey::new(namespace, ROOT_CA)) {
            Some(there) if there.data.as_ref() == Some(&data) => Ok(()),
            Some(there) => {
                // Someone changed it, or the CA is a new one. Other keys go: pods trust the whole file.
                let mut fresh = there.as_ref().clone();
                fresh.data = Some(data);
                fresh.binary_data = None;
                accept(api.replace(ROOT_CA, &PostParams::default(), &fresh).await)
                    .context("correcting the CA")
            }
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(ROOT_CA.into()),
                        namespace: Some(namespace.into()),
                        annotations: Some(
                            [(DESCRIPTION.to_string(), DESCRIPTION_TEXT.to_string())].into(),
                        ),
                        ..Default::default()
                    },
                    data: Some(data.clone()),
                    ..Default::default()
                };
                match api.create(&PostParams::default(), &map).await {
                    // Not in our cache yet, or not ours: make sure of its contents.
                    Err(error) if is_already_exists(&error) => {
                        let patch = serde_json::json!({ "data": data });
                        accept(
                            api.patch(ROOT_CA, &PatchParams::default(), &Patch::Merge(patch))
                                .await,
                        )
                        .context("correcting the CA")
                    }
                    result => accept(result).context("publishing the CA"),
                }
            }
        }
    }
}

/// What is there already, or in a namespace that is going, is as good as done.
fn accept<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error)
            if is_already_exists(&error)
                || is_namespace_terminating(&error)
                || is_not_found(&error) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
