//! `status.used` of each ResourceQuota, by what is there. Admission only adds to it.
//!
//! The quota is read before the objects are counted, and written only if nobody has charged it in
//! the meantime, so a count is never older than a charge.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api, Resource,
    api::{DynamicObject, ListParams, PostParams},
    runtime::watcher,
};
use rhumb_api::admission::quota::{self, Counted};
use rhumb_client::{
    Informer, ObjectKey, WorkQueue,
    informer::{Change, by_namespace},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, run_queue};
use crate::discovery;

/// Kinds that have no watch here are counted again after this.
const RESYNC: Duration = Duration::from_secs(30);
/// Many objects that go at once are one count.
const GATHER: Duration = Duration::from_millis(200);
const PAGE: u32 = 500;

pub struct QuotaController {
    ctx: Arc<Context>,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

impl QuotaController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            quotas: Informer::new().with_index("namespace", by_namespace),
            queue: WorkQueue::new(),
        });
        let own = this.clone();
        ctx.pods.on_change(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) || has_ended(pod) {
                own.look_at(pod.as_ref());
            }
        });
        let own = this.clone();
        ctx.services.on_change(move |change| {
            own.look_at(change.object().as_ref());
        });
        let queue = this.queue.clone();
        this.quotas
            .on_change(move |change| queue.add(ObjectKey::of(change.object().as_ref())));
        this
    }

    /// Counts again for the quotas of the object's namespace.
    fn look_at<K: Resource>(&self, object: &K) {
        let namespace = object.meta().namespace.as_deref().unwrap_or("");
        for quota in self.quotas.by_index("namespace", namespace) {
            self.queue.add_after(ObjectKey::of(quota.as_ref()), GATHER);
        }
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let api = Api::all(self.ctx.client.clone());
        let config = watcher::Config::default();
        let watch = self.quotas.run(api, config, |_| {}, shutdown.clone());
        let (this, queue) = (self.clone(), self.queue.clone());
        let work = run_queue(queue, 2, "resourcequota", shutdown.clone(), move |key| {
            let this = this.clone();
            async move { this.reconcile(&key).await }
        });
        tokio::join!(watch, work);
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        if self.quotas.get(key).is_none() {
            return Ok(None);
        }
        let client = &self.ctx.client;
        let api: Api<ResourceQuota> = Api::namespaced(client.clone(), &key.namespace);
        let Some(mut quota) = api.get_opt(&key.name).await.context("reading a quota")? else {
            return Ok(None);
        };
        let value = serde_json::to_value(&quota)?;
        let kinds = quota::measured(&value);
        let served = discovery::kinds(client).await.context("discovery")?;
        let mut counted = Vec::new();
        for (group, plural) in &kinds {
            let kind = Counted { group, plural };
            let found = served.iter().find(|k| {
                k.namespaced && k.resource.group == *group && k.resource.plural == *plural
            });
            // Of a kind that isn't served there are no objects.
            if let Some(found) = found {
                let api = Api::namespaced_with(client.clone(), &key.namespace, &found.resource);
                counted.push((kind, objects(&api).await?));
            }
        }
        let status = quota::status(&value, &counted, Timestamp::now());
        if value.get("status") != Some(&status) {
            quota.status = Some(serde_json::from_value(status)?);
            api.replace_status(&key.name, &PostParams::default(), &quota)
                .await
                .context("writing a quota's status")?;
        }
        Ok(Some(RESYNC))
    }
}

/// All objects as they are now.
async fn objects(api: &Api<DynamicObject>) -> anyhow::Result<Vec<Value>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut out = Vec::new();
    loop {
        let page = api.list(&params).await.context("counting objects")?;
        for object in page.items {
            let mut value = object.data;
            value["metadata"] = json!(object.metadata);
            out.push(value);
        }
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(out),
        }
    }
}
