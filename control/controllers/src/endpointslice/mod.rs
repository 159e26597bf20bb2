//! The EndpointSlice controller: for each Service with a selector, the pods behind it.

pub mod desired;
pub mod slices;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams, Preconditions},
};
use parking_lot::Mutex;
use rhumb_client::{
    Change, EventKind, ObjectKey, Packed, Recorder, WorkQueue, Written, is_not_found,
};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, run_queue};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] on our slices: what Kubernetes' controller uses, so that either takes over
/// from the other.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// A Service as the cache keeps it.
pub type KeptService = Packed<Service, Selector>;

/// Which pods a Service is for.
#[derive(Clone)]
pub struct Selector(Box<[(Box<str>, Box<str>)]>);

impl From<&Service> for Selector {
    fn from(service: &Service) -> Self {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
        let pairs = selector.into_iter().flatten();
        Self(
            pairs
                .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
                .collect(),
        )
    }
}

impl Selector {
    fn selects(&self, pod: &Pod) -> bool {
        let value = |key: &str| pod.metadata.labels.as_ref()?.get(key);
        let has = |k: &str, v: &str| value(k).is_some_and(|x| x == v);
        !self.0.is_empty() && self.0.iter().all(|(k, v)| has(k, v))
    }
}

/// A slice as the cache keeps it.
pub type KeptSlice = Packed<EndpointSlice, SliceFacts>;

#[derive(Clone)]
pub struct SliceFacts {
    /// The Service that a slice of this controller belongs to.
    pub service: Option<ObjectKey>,
}

impl From<&EndpointSlice> for SliceFacts {
    fn from(slice: &EndpointSlice) -> Self {
        let label = |key| slice.metadata.labels.as_ref()?.get(key);
        let ours = label(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
        let service = label(SERVICE_NAME).filter(|_| ours).map(|name| {
            let namespace = slice.metadata.namespace.clone();
            ObjectKey::new(namespace.unwrap_or_default(), name.clone())
        });
        Self { service }
    }
}

pub struct EndpointSliceController {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    written: Mutex<HashMap<ObjectKey, Written>>,
}

/// Whether a change of a pod can show in a slice.
fn pod_changed(old: &Pod, new: &Pod) -> bool {
    let ips = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ips.clone());
    let ip = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ip.clone());
    let phase = |p: &Pod| crate::pod::is_finished(p);
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || crate::pod::is_ready(old) != crate::pod::is_ready(new)
        || phase(old) != phase(new)
        || ips(old) != ips(new)
        || ip(old) != ip(new)
        || crate::pod::node_name(old) != crate::pod::node_name(new)
}

impl EndpointSliceController {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("endpoint-slice-controller"),
            written: Mutex::new(HashMap::new()),
        });
        let q = queue.clone();
        ctx.services
            .on_change(move |change| q.add(ObjectKey::of(change.object().as_ref())));
        let (q, services) = (queue.clone(), ctx.services.clone());
        ctx.pods.on_change(move |change| {
            let pods: &[&Arc<Pod>] = match change {
                Change::Updated { old, new } if !pod_changed(old, new) => return,
                Change::Updated { old, new } => &[old, new],
                Change::Added(pod) | Change::Deleted(pod) => &[pod],
            };
            let Some(namespace) = pods[0].metadata.namespace.as_deref() else {
                return;
            };
            for service in services.by_index("namespace", namespace) {
                if pods.iter().any(|pod| service.facts().selects(pod)) {
                    q.add(ObjectKey::of(service.as_ref()));
                }
            }
        });
        // Someone else's hand on our slices, and slices that are deleted.
        let q = queue.clone();
        ctx.endpoint_slices.on_change(move |change| {
            let service = |slice: &KeptSlice| slice.facts().service.clone();
            service(change.object()).into_iter().for_each(|s| q.add(s));
            if let Change::Updated { old, .. } = change {
                service(old).into_iter().for_each(|s| q.add(s));
            }
        });
        // A node's zone is part of its pods' endpoints.
        let (q, services, pods) = (queue, ctx.services.clone(), ctx.pods.clone());
        ctx.nodes.on_change(move |change| {
            if let Change::Updated { old, new } = change
                && zone(old) == zone(new)
            {
                return;
            }
            let node = change.object().metadata.name.as_deref().unwrap_or_default();
            for pod in pods.by_index("node", node) {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                for service in services.by_index("namespace", namespace) {
                    if service.facts().selects(&pod) {
                        q.add(ObjectKey::of(service.as_ref()));
                    }
                }
            }
        });
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let ctx = self.ctx.clone();
        tokio::join!(
            ctx.services.synced(),
            ctx.pods.synced(),
            ctx.nodes.synced(),
            ctx.endpoint_slices.synced()
        );
        let queue = self.queue.clone();
        run_queue(queue, 4, "endpointslice", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(kept) = self.ctx.services.get(key) else {
            // Its slices go with it, by their owner references.
            self.written.lock().remove(key);
            return Ok(None);
        };
        let written = self.written.lock().get(key).copied();
        if let Some(written) = written {
            if !self.ctx.endpoint_slices.has_seen(&written) {
                return Ok(Some(Duration::from_millis(5)));
            }
            self.written.lock().remove(key);
        }
        let service = kept.unpack().context("reading a Service of the cache")?;
        if !desired::is_ours(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods: Vec<Arc<Pod>> = self
            .ctx
            .pods
            .by_index("namespace", &key.namespace)
            .into_iter()
            .filter(|pod| kept.facts().selects(pod))
            .collect();
        let zone_of = |name: &str| {
            self.ctx
                .nodes
                .get(&ObjectKey::new("", name))
                .and_then(|n| zone(&n))
        };
        let wanted = desired::desired(&service, &pods, &zone_of);
        let existing = self
            .ctx
            .endpoint_slices
            .by_index("service", &key.to_string())
            .iter()
            .map(|slice| slice.unpack())
            .collect::<Result<Vec<_>, _>>()
            .context("reading a slice of the cache")?;
        let plan = slices::plan(&service, &wanted, existing);
        let result = self.write(key, plan).await;
        if let Err(error) = &result
            && !error
                .chain()
                .filter_map(|e| e.downcast_ref::<kube::Error>())
                .any(rhumb_client::is_conflict)
        {
            self.recorder.record(
                &service,
                EventKind::Warning,
                "FailedToUpdateEndpointSlices",
                format!(
                    "Error updating Endpoint Slices for Service {key}: {}",
                    rhumb_client::error::chain(error)
                ),
            );
        }
        result.map(|()| None)
    }

    fn note(&self, key: &ObjectKey, slice: &EndpointSlice) {
        let now = Written::of(slice);
        let mut written = self.written.lock();
        let latest = written.get(key).map_or(now, |w| w.max(now));
        written.insert(key.clone(), latest);
    }

    /// Creates, updates, deletes, in this order: an endpoint that moves from one slice to another is in
    /// both for a moment rather than in none.
    async fn write(&self, key: &ObjectKey, plan: slices::Plan) -> anyhow::Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        for slice in &plan.create {
            match api.create(&PostParams::default(), slice).await {
                Ok(made) => self.note(key, &made),
                Err(error) if rhumb_client::error::is_namespace_terminating(&error) => {
                    return Ok(());
                }
                Err(error) => return Err(error).context("creating an EndpointSlice"),
            }
        }
        for slice in &plan.update {
            let name = slice.meta().name.as_deref().unwrap_or_default();
            let updated = api
                .replace(name, &PostParams::default(), slice)
                .await
                .with_context(|| format!("updating EndpointSlice {name}"))?;
            self.note(key, &updated);
        }
        for slice in &plan.delete {
            let name = slice.meta().name.as_deref().unwrap_or_default();
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: slice.metadata.uid.clone(),
                resource_version: None,
            });
            match api.delete(name, &params).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("deleting EndpointSlice {name}"));
                }
            }
        }
        Ok(())
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata
        .labels
        .as_ref()?
        .get("topology.kubernetes.io/zone")
        .cloned()
}
