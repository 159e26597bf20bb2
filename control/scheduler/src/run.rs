//! The shell around the decision: watches in, bindings, conditions and Events out.

use std::{collections::HashSet, fmt::Debug, pin::Pin, sync::Arc, time::Instant};

use anyhow::Context;
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use k8s_openapi::{
    api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod, Service},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    core::Status,
    runtime::{WatchStreamExt, watcher},
};
use rhumb_client::{EventKind, EventSource, ObjectKey, Recorder, is_conflict, is_not_found};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    cache::Cache,
    node::NodeSpec,
    pod::{DEFAULT_SCHEDULER, PodInfo},
    queue::Queue,
    schedule::{Scheduler, Unplaced},
    selectors::{Labels, PodSelector},
};

/// Options of the scheduler.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bindings and conditions that may be on their way to the server at once.
    pub writes_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            writes_in_flight: 128,
        }
    }
}

type Watch<K> = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>>;

fn watch<K>(client: &Client) -> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .boxed()
}

/// What an asynchronous write came to.
#[derive(Debug)]
enum Written {
    Bound {
        pod: Arc<PodInfo>,
        node: String,
        result: Result<(), kube::Error>,
    },
    Noted,
}

type Write = Pin<Box<dyn Future<Output = Written> + Send>>;

/// Schedules until `shutdown`.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let recorder = Recorder::start(
        client.clone(),
        EventSource {
            component: DEFAULT_SCHEDULER,
            host: None,
        },
        shutdown.clone(),
    );
    let mut nodes = watch::<Node>(&client);
    let mut pods = watch::<Pod>(&client);
    let mut services = watch::<Service>(&client);
    let mut namespaces = watch::<Namespace>(&client);
    let mut shell = Shell {
        client,
        recorder,
        cache: Cache::default(),
        queue: Queue::default(),
        scheduler: Scheduler::default(),
        listed_nodes: Relist::default(),
        listed_pods: Relist::default(),
        writes: FuturesUnordered::new(),
        limit: config.writes_in_flight.max(1),
    };
    info!("scheduler started");
    loop {
        // Decide on all that is ready before looking at the watches again only as far as writes allow:
        // each decision counts in the cache at once, so nothing waits for the server but the limit.
        let more = shell.decide_some();
        let due = shell.queue.next_due();
        let sleep = async {
            match due {
                _ if more => tokio::task::yield_now().await,
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = nodes.next() => shell.on_node(ended(event, "nodes")?),
            event = pods.next() => shell.on_pod(ended(event, "pods")?),
            event = services.next() => shell.on_service(ended(event, "services")?),
            event = namespaces.next() => shell.on_namespace(ended(event, "namespaces")?),
            Some(written) = shell.writes.next(), if !shell.writes.is_empty() => shell.on_written(written),
            () = sleep => {}
        }
    }
}

/// The watcher restarts itself for ever; it ends only if its implementation is broken.
fn ended<T>(event: Option<T>, what: &str) -> anyhow::Result<T> {
    event.with_context(|| format!("the watch of {what} ended for good"))
}

/// Tells which objects a list left out.
#[derive(Debug)]
struct Relist<T> {
    names: Option<HashSet<T>>,
    complete: bool,
}

impl<T> Default for Relist<T> {
    fn default() -> Self {
        Self {
            names: None,
            complete: false,
        }
    }
}

struct Shell {
    client: Client,
    recorder: Recorder,
    cache: Cache,
    queue: Queue,
    scheduler: Scheduler,
    listed_nodes: Relist<String>,
    listed_pods: Relist<ObjectKey>,
    writes: FuturesUnordered<Write>,
    limit: usize,
}

fn report<K>(
    event: watcher::Result<watcher::Event<K>>,
    what: &str,
    synced: bool,
) -> Option<watcher::Event<K>> {
    match event {
        Ok(event) => Some(event),
        Err(error) if synced => {
            debug!(what, %error, "watch interrupted, going on");
            None
        }
        Err(error) => {
            warn!(what, %error, "can't list or watch yet, trying again");
            None
        }
    }
}

impl Shell {
    fn on_node(&mut self, event: watcher::Result<watcher::Event<Node>>) {
        let Some(event) = report(event, "nodes", self.listed_nodes.complete) else {
            return;
        };
        let now = Instant::now();
        match event {
            watcher::Event::Init => self.listed_nodes.names = Some(HashSet::new()),
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                let spec = NodeSpec::of(&node);
                if let Some(names) = &mut self.listed_nodes.names {
                    names.insert(spec.name.clone());
                }
                if self.cache.put_node(spec) {
                    self.queue.cluster_changed(now);
                }
            }
            watcher::Event::InitDone => {
                if let Some(names) = self.listed_nodes.names.take() {
                    for gone in self
                        .cache
                        .node_names()
                        .into_iter()
                        .filter(|n| !names.contains(n))
                    {
                        self.cache.remove_node(&gone);
                    }
                }
                self.listed_nodes.complete = true;
                self.queue.cluster_changed(now);
            }
            watcher::Event::Delete(node) => {
                self.cache
                    .remove_node(node.metadata.name.as_deref().unwrap_or_default());
                // Spread and affinity may look different without it.
                self.queue.cluster_changed(now);
            }
        }
    }

    fn on_pod(&mut self, event: watcher::Result<watcher::Event<Pod>>) {
        let Some(event) = report(event, "pods", self.listed_pods.complete) else {
            return;
        };
        let now = Instant::now();
        match event {
            watcher::Event::Init => self.listed_pods.names = Some(HashSet::new()),
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let pod = PodInfo::of(&pod);
                if let Some(names) = &mut self.listed_pods.names {
                    names.insert(pod.key.clone());
                }
                self.put_pod(pod, now);
            }
            watcher::Event::InitDone => {
                if let Some(names) = self.listed_pods.names.take() {
                    let gone: Vec<_> = self
                        .cache
                        .pod_keys()
                        .into_iter()
                        .chain(self.queue.keys())
                        .filter(|k| !names.contains(k))
                        .collect();
                    for key in gone {
                        self.remove_pod(&key, now);
                    }
                }
                self.listed_pods.complete = true;
            }
            watcher::Event::Delete(pod) => self.remove_pod(&ObjectKey::of(&pod), now),
        }
    }

    fn put_pod(&mut self, pod: PodInfo, now: Instant) {
        if pod.finished {
            return self.remove_pod(&pod.key, now);
        }
        if pod.is_pending() {
            // The update may be older than our binding.
            if !self.cache.is_assumed(&pod.key, &pod.uid) {
                self.queue.put(Arc::new(pod));
            }
            return;
        }
        self.queue.remove(&pod.key);
        if pod.node.is_some() {
            let matters = self.cache.affinity_pods() > 0 || !pod.spread.is_empty();
            self.cache.put_pod(Arc::new(pod));
            if matters {
                self.queue.cluster_changed(now);
            }
        } else {
            self.cache.remove_pod(&pod.key);
        }
    }

    fn remove_pod(&mut self, key: &ObjectKey, now: Instant) {
        self.queue.remove(key);
        if self.cache.remove_pod(key) {
            self.queue.cluster_changed(now);
        }
    }

    fn on_service(&mut self, event: watcher::Result<watcher::Event<Service>>) {
        let Some(event) = report(event, "services", self.listed_pods.complete) else {
            return;
        };
        match event {
            // Only a preference hangs on Services: a moment without them does no harm.
            watcher::Event::Init => self.cache.services.clear(),
            watcher::Event::InitDone => {}
            watcher::Event::InitApply(service) | watcher::Event::Apply(service) => {
                let key = ObjectKey::of(&service);
                let selector = service
                    .spec
                    .and_then(|s| s.selector)
                    .filter(|s| !s.is_empty());
                let in_namespace = self.cache.services.entry(key.namespace).or_default();
                match selector {
                    Some(labels) => {
                        let selector = LabelSelector {
                            match_labels: Some(labels),
                            match_expressions: None,
                        };
                        in_namespace.insert(
                            key.name,
                            PodSelector::compile(Some(&selector), &Labels::new(), &[], &[]),
                        );
                    }
                    None => {
                        in_namespace.remove(&key.name);
                    }
                }
            }
            watcher::Event::Delete(service) => {
                let key = ObjectKey::of(&service);
                if let Some(in_namespace) = self.cache.services.get_mut(&key.namespace) {
                    in_namespace.remove(&key.name);
                    if in_namespace.is_empty() {
                        self.cache.services.remove(&key.namespace);
                    }
                }
            }
        }
    }

    fn on_namespace(&mut self, event: watcher::Result<watcher::Event<Namespace>>) {
        let Some(event) = report(event, "namespaces", self.listed_pods.complete) else {
            return;
        };
        match event {
            watcher::Event::Init | watcher::Event::InitDone => {}
            watcher::Event::InitApply(namespace) | watcher::Event::Apply(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                let labels = namespace.metadata.labels.unwrap_or_default();
                if self.cache.namespaces.get(&name) != Some(&labels) {
                    self.cache.namespaces.insert(name, labels);
                    self.queue.cluster_changed(Instant::now());
                }
            }
            watcher::Event::Delete(namespace) => {
                self.cache
                    .namespaces
                    .remove(namespace.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    /// Decides on pods that are ready; says whether there are more. Nothing is decided before nodes and
    /// pods are known completely: a missing pod would make its node look empty.
    fn decide_some(&mut self) -> bool {
        /// Decisions between two looks at the watches.
        const BATCH: usize = 64;
        if !(self.listed_nodes.complete && self.listed_pods.complete) {
            return false;
        }
        for _ in 0..BATCH {
            if self.writes.len() >= self.limit {
                // on_written wakes us.
                return false;
            }
            let now = Instant::now();
            let Some(pod) = self.queue.take(now) else {
                return false;
            };
            match self.scheduler.place(&pod, &self.cache, &mut rand::rng()) {
                Ok(node) => {
                    self.cache.assume(pod.clone(), &node);
                    self.writes
                        .push(Box::pin(bind(self.client.clone(), pod, node)));
                }
                Err(why) => {
                    self.queue.unschedulable(&pod.key, now);
                    self.say_unschedulable(pod, &why);
                }
            }
        }
        true
    }

    fn say_unschedulable(&mut self, pod: Arc<PodInfo>, why: &Unplaced) {
        let message = why.to_string();
        debug!(pod = %pod.key, %message, "no node for the pod");
        self.recorder.record_ref(
            reference(&pod),
            EventKind::Warning,
            "FailedScheduling",
            message.clone(),
        );
        if pod.unschedulable_message.as_deref() != Some(message.as_str()) {
            self.writes.push(Box::pin(note_unschedulable(
                self.client.clone(),
                pod,
                message,
            )));
        }
    }

    fn on_written(&mut self, written: Written) {
        let Written::Bound { pod, node, result } = written else {
            return;
        };
        match result {
            Ok(()) => {
                debug!(pod = %pod.key, node, "bound");
                self.queue.remove(&pod.key);
                self.recorder.record_ref(
                    reference(&pod),
                    EventKind::Normal,
                    "Scheduled",
                    format!("Successfully assigned {} to {node}", pod.key),
                );
            }
            Err(error) => {
                self.cache.forget(&pod.key, &pod.uid);
                if is_not_found(&error) || is_conflict(&error) {
                    // Deleted, replaced or bound by someone else meanwhile: the watch tells, and if it
                    // doesn't, the pod is tried again.
                    debug!(pod = %pod.key, error = rhumb_client::error::message(&error), "binding refused");
                } else {
                    warn!(pod = %pod.key, node, error = rhumb_client::error::message(&error), "binding failed, trying again");
                    self.recorder.record_ref(
                        reference(&pod),
                        EventKind::Warning,
                        "FailedScheduling",
                        format!(
                            "binding to {node} failed: {}",
                            rhumb_client::error::message(&error)
                        ),
                    );
                }
                let now = Instant::now();
                self.queue.retry(&pod.key, now);
                self.queue.cluster_changed(now);
            }
        }
    }
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}

async fn bind(client: Client, pod: Arc<PodInfo>, node: String) -> Written {
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let binding = Binding {
        metadata: ObjectMeta {
            namespace: Some(pod.key.namespace.clone()),
            name: Some(pod.key.name.clone()),
            // The server refuses the binding if the name means another pod by now.
            uid: Some(pod.uid.clone()),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.clone()),
            ..Default::default()
        },
    };
    let result = api
        .create_subresource::<_, Status>("binding", &pod.key.name, &PostParams::default(), &binding)
        .await
        .map(|_| ());
    Written::Bound { pod, node, result }
}

/// Sets the condition that `kubectl describe` and autoscalers look at.
async fn note_unschedulable(client: Client, pod: Arc<PodInfo>, message: String) -> Written {
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let mut condition = serde_json::json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    });
    if pod.unschedulable_message.is_none() {
        condition["lastTransitionTime"] = serde_json::json!(Time(jiff::Timestamp::now()));
    }
    let patch = serde_json::json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [condition] } });
    if let Err(error) = api
        .patch_status(
            &pod.key.name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        )
        .await
        && !is_not_found(&error)
        && !is_conflict(&error)
    {
        debug!(pod = %pod.key, error = rhumb_client::error::message(&error), "condition PodScheduled not written");
    }
    Written::Noted
}
