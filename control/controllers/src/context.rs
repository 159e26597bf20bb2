//! What all controllers share: the client, one informer a kind, and the way a queue is worked off.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Client, Resource, runtime::watcher};
use rhumb_client::{
    EventSource, Informer, ObjectKey, Recorder, WorkQueue,
    informer::{by_controller, by_namespace, controller_of},
    is_conflict, is_not_found,
    workqueue::Outcome,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::endpointslice::{KeptService, KeptSlice, MANAGED_BY, MANAGER};

pub struct Context {
    pub client: Client,
    pub shutdown: CancellationToken,
    pub pods: Informer<Pod>,
    pub nodes: Informer<Node>,
    pub deployments: Informer<Deployment>,
    pub replica_sets: Informer<ReplicaSet>,
    pub daemon_sets: Informer<DaemonSet>,
    pub controller_revisions: Informer<ControllerRevision>,
    pub disruption_budgets: Informer<PodDisruptionBudget>,
    pub services: Informer<KeptService>,
    pub endpoint_slices: Informer<KeptSlice>,
    pub namespaces: Informer<Namespace>,
    /// Leases of nodes only.
    pub node_leases: Informer<Lease>,
    pub service_accounts: Informer<ServiceAccount>,
    /// The ConfigMaps `kube-root-ca.crt` only.
    pub root_cas: Informer<ConfigMap>,
}

pub const NODE_LEASES: &str = "kube-node-lease";
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// Index by namespace of what has no controller: what may be adopted.
fn by_namespace_if_orphan<K: Resource>(object: &K) -> Vec<String> {
    match controller_of(object) {
        Some(_) => Vec::new(),
        None => by_namespace(object),
    }
}

fn trim<K: Resource>(object: &mut K) {
    // The largest part of an object, and no controller reads it.
    object.meta_mut().managed_fields = None;
}

impl Context {
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self {
            client,
            shutdown,
            pods: Informer::new()
                .with_index("namespace", by_namespace)
                .with_index("controller", by_controller)
                .with_index("orphan", by_namespace_if_orphan)
                .with_index("node", |pod: &Pod| {
                    crate::pod::node_name(pod)
                        .map(String::from)
                        .into_iter()
                        .collect()
                }),
            nodes: Informer::new(),
            deployments: Informer::new().with_index("namespace", by_namespace),
            replica_sets: Informer::new()
                .with_index("namespace", by_namespace)
                .with_index("controller", by_controller)
                .with_index("orphan", by_namespace_if_orphan),
            daemon_sets: Informer::new().with_index("namespace", by_namespace),
            controller_revisions: Informer::new()
                .with_index("controller", by_controller)
                .with_index("orphan", by_namespace_if_orphan),
            disruption_budgets: Informer::new().with_index("namespace", by_namespace),
            services: Informer::new().with_index("namespace", by_namespace),
            endpoint_slices: Informer::new().with_index("service", |slice: &KeptSlice| {
                slice
                    .facts()
                    .service
                    .iter()
                    .map(ObjectKey::to_string)
                    .collect()
            }),
            namespaces: Informer::new(),
            node_leases: Informer::new(),
            service_accounts: Informer::new(),
            root_cas: Informer::new(),
        }
    }

    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::start(
            self.client.clone(),
            EventSource {
                component,
                host: None,
            },
            self.shutdown.clone(),
        )
    }

    /// Starts all watches. Handlers have to be there by then, or they miss what is listed first.
    pub fn start_informers(&self, tasks: &mut JoinSet<()>) {
        macro_rules! start {
            ($field:ident, $api:expr, $config:expr) => {{
                let (informer, api, shutdown) = (self.$field.clone(), $api, self.shutdown.clone());
                tasks.spawn(async move { informer.run(api, $config, trim, shutdown).await });
            }};
            ($field:ident) => {
                start!(
                    $field,
                    Api::all(self.client.clone()),
                    watcher::Config::default()
                )
            };
        }
        start!(pods);
        start!(nodes);
        start!(deployments);
        start!(replica_sets);
        start!(daemon_sets);
        start!(controller_revisions);
        start!(disruption_budgets);
        start!(services);
        // Those of others are none of our business.
        let own = format!("{MANAGED_BY}={MANAGER}");
        start!(
            endpoint_slices,
            Api::all(self.client.clone()),
            watcher::Config::default().labels(&own)
        );
        start!(namespaces);
        start!(service_accounts);
        start!(
            node_leases,
            Api::namespaced(self.client.clone(), NODE_LEASES),
            watcher::Config::default()
        );
        start!(
            root_cas,
            Api::all(self.client.clone()),
            watcher::Config::default().fields(&format!("metadata.name={ROOT_CA}"))
        );
    }
}

/// Works off `queue`: `Ok(Some(wait))` looks again after `wait`, an error with back-off.
pub async fn run_queue<T, F, Fut>(
    queue: WorkQueue<T>,
    workers: usize,
    what: &'static str,
    shutdown: CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + std::hash::Hash + Debug + std::fmt::Display + Send + Sync + 'static,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Option<Duration>>> + Send,
{
    queue
        .run(workers, shutdown, move |key: T| {
            let reconcile = reconcile.clone();
            async move {
                let name = key.to_string();
                match reconcile(key).await {
                    Ok(None) => Outcome::Done,
                    Ok(Some(wait)) => Outcome::After(wait),
                    Err(error) => {
                        let transient = error
                            .chain()
                            .filter_map(|e| e.downcast_ref::<kube::Error>())
                            .any(|e| is_conflict(e) || is_not_found(e));
                        if transient {
                            debug!(what, key = %name, error = rhumb_client::error::chain(&error), "changed meanwhile, trying again");
                        } else {
                            warn!(what, key = %name, error = rhumb_client::error::chain(&error), "reconcile failed, trying again");
                        }
                        Outcome::Retry
                    }
                }
            }
        })
        .await;
}
