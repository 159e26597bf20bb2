//! What every part of the kubelet shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::runtime::reflector::Store;
use tokio::sync::Notify;

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::cri::Cri;
use crate::events::Recorder;
use crate::node::facts::NodeFacts;
use crate::pure::service_env;

/// Locks without caring for a panic elsewhere: the data are plain values, whole at every step.
pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pod that has a worker.
#[derive(Debug, Clone)]
pub struct Entry {
    pub pod: Arc<Pod>,
    /// Makes the worker look again.
    pub wake: Arc<Notify>,
}

/// The shared parts.
pub struct Kubelet {
    pub config: Config,
    pub client: Client,
    pub cri: Cri,
    pub events: Recorder,
    pub node: NodeFacts,
    pub cgroups: Cgroups,
    pub services: Store<Service>,
    /// Pods with workers, by uid.
    pub pods: Mutex<HashMap<String, Entry>>,
    /// Asks for a look at the runtime now.
    pub relist: Notify,
}

impl Kubelet {
    /// Service variables for a pod; `Err` while the Services have not been read yet.
    pub async fn service_env(
        &self,
        namespace: &str,
        links: bool,
    ) -> Result<Vec<(String, String)>, String> {
        let ready =
            tokio::time::timeout(Duration::from_secs(5), self.services.wait_until_ready()).await;
        if !matches!(ready, Ok(Ok(()))) {
            return Err(
                "services have not yet been read at least once, cannot construct envvars".into(),
            );
        }
        let state = self.services.state();
        Ok(service_env::variables(
            state.iter().map(AsRef::as_ref),
            namespace,
            links,
        ))
    }

    /// The pod of that name that has a worker.
    pub fn find_pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = lock(&self.pods);
        let mut found: Vec<&Entry> = pods
            .values()
            .filter(|e| {
                e.pod.metadata.namespace.as_deref() == Some(namespace)
                    && e.pod.metadata.name.as_deref() == Some(name)
            })
            .collect();
        // Of an old one that is going and a new one of the same name, the new one.
        found.sort_by_key(|e| e.pod.metadata.deletion_timestamp.is_some());
        found.first().map(|e| e.pod.clone())
    }
}
