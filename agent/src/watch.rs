//! Watches of the Kubernetes API, one task a kind. An API server that is slow, gone, or forgets
//! the revision costs time, never state.

use std::{collections::BTreeSet, net::IpAddr, pin::pin, sync::Arc};

use futures::TryStreamExt;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use rhumb_core::{
    Source,
    model::ObjectName,
    object::{self, Converted},
    snapshot::Change,
};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::{
    engine::{Command, Handle},
    metrics::{Kind, Metrics},
};

const KINDS: [(Source, &str, &str, &str, &str); 6] = [
    (Source::Nodes, "", "v1", "Node", "nodes"),
    (Source::Namespaces, "", "v1", "Namespace", "namespaces"),
    (Source::Pods, "", "v1", "Pod", "pods"),
    (Source::Services, "", "v1", "Service", "services"),
    (
        Source::EndpointSlices,
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
    ),
    (
        Source::NetworkPolicies,
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
];

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

pub fn start(client: &Client, engine: &Handle, metrics: &Arc<Metrics>) {
    for (source, group, version, kind, plural) in KINDS {
        let api: Api<DynamicObject> =
            Api::all_with(client.clone(), &resource(group, version, kind, plural));
        let watch = Watch {
            source,
            kind,
            engine: engine.clone(),
            metrics: metrics.clone(),
            known: BTreeSet::new(),
            listed: BTreeSet::new(),
        };
        tokio::spawn(watch.run(api));
    }
}

struct Watch {
    source: Source,
    kind: &'static str,
    engine: Handle,
    metrics: Arc<Metrics>,
    /// What the engine holds of this kind.
    known: BTreeSet<ObjectName>,
    /// What a list under way has shown.
    listed: BTreeSet<ObjectName>,
}

impl Watch {
    async fn run(mut self, api: Api<DynamicObject>) {
        let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let mut stream = pin!(stream);
        loop {
            match stream.try_next().await {
                Ok(Some(event)) => self.event(event),
                // The stream of a watcher does not end.
                Ok(None) => return,
                Err(error) => {
                    self.metrics.watch_errors.get_or_create(&self.label()).inc();
                    // "desync" is how a compacted revision shows: the watcher lists again.
                    warn!(kind = self.kind, %error, "watch failed; trying again");
                }
            }
        }
    }

    fn label(&self) -> Kind {
        Kind {
            kind: self.kind.to_owned(),
        }
    }

    fn event(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(name(&object));
                self.put(object);
            }
            Event::InitDone => {
                let gone: Vec<ObjectName> = self.known.difference(&self.listed).cloned().collect();
                debug!(
                    kind = self.kind,
                    listed = self.listed.len(),
                    gone = gone.len(),
                    "listed"
                );
                self.listed.clear();
                for name in gone {
                    self.remove(name);
                }
                self.engine.send(Command::Synced(self.source));
            }
            Event::Apply(object) => self.put(object),
            Event::Delete(object) => self.remove(name(&object)),
        }
    }

    fn remove(&mut self, name: ObjectName) {
        self.metrics.objects.get_or_create(&self.label()).inc();
        self.known.remove(&name);
        if let Some(change) = object::removal(self.kind, name) {
            self.engine.send(Command::Changes(vec![change]));
        }
    }

    fn put(&mut self, object: DynamicObject) {
        self.metrics.objects.get_or_create(&self.label()).inc();
        let name = name(&object);
        let value = value(object);
        match object::change(self.kind, &value) {
            Some(Ok(Converted { object, warnings })) => {
                if !warnings.is_empty() {
                    self.metrics
                        .invalid_objects
                        .get_or_create(&self.label())
                        .inc();
                    warn!(kind = self.kind, object = %name, problems = ?warnings, "left out in part");
                }
                warn_unsupported(&name, &object);
                self.known.insert(name);
                self.engine.send(Command::Changes(vec![object]));
            }
            Some(Err(error)) => {
                // What was known of it stays: half a change is worse than an old state.
                self.metrics
                    .invalid_objects
                    .get_or_create(&self.label())
                    .inc();
                warn!(kind = self.kind, object = %name, %error, "skipped");
            }
            None => {}
        }
    }
}

fn warn_unsupported(name: &ObjectName, change: &Change) {
    if let Change::Service(_, Some(service)) = change
        && service.affinity.is_some()
        && !service.cluster_ips.is_empty()
    {
        warn!(service = %name, "sessionAffinity ClientIP is not in force yet: connections are spread");
    }
}

fn name(object: &DynamicObject) -> ObjectName {
    ObjectName::new(
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    )
}

/// The object as the core reads it, with the metadata that counts.
fn value(mut object: DynamicObject) -> Value {
    // Others may be long, and none is read.
    if let Some(annotations) = &mut object.metadata.annotations {
        let read = [object::MIRROR_ANNOTATION, object::ADDRESSES_ANNOTATION];
        annotations.retain(|name, _| read.contains(&name.as_str()));
    }
    let metadata = json!({
        "name": object.metadata.name,
        "namespace": object.metadata.namespace,
        "uid": object.metadata.uid,
        "labels": object.metadata.labels,
        "annotations": object.metadata.annotations,
    });
    match object.data {
        Value::Object(mut data) => {
            data.insert("metadata".to_owned(), metadata);
            Value::Object(data)
        }
        _ => json!({ "metadata": metadata }),
    }
}

/// Asks for single pods.
#[derive(Clone)]
pub struct PodApi(Client);

impl PodApi {
    pub fn new(client: Client) -> PodApi {
        PodApi(client)
    }

    /// Notes a pod's addresses on it, for other nodes' agents: they then know it before any status does. By the
    /// status, which is the least that a role can let an agent write.
    pub async fn announce(&self, pod: &ObjectName, ips: &[IpAddr]) -> Result<(), kube::Error> {
        let resource = resource("", "v1", "Pod", "pods");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.0.clone(), &pod.namespace, &resource);
        let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
        let patch =
            json!({"metadata": {"annotations": {object::ADDRESSES_ANNOTATION: ips.join(",")}}});
        let params = PatchParams::default();
        api.patch_status(&pod.name, &params, &Patch::Merge(patch))
            .await
            .map(drop)
    }

    /// `Ok(None)` if there is no such pod.
    pub async fn get(&self, pod: &ObjectName) -> Result<Option<Change>, kube::Error> {
        let resource = resource("", "v1", "Pod", "pods");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.0.clone(), &pod.namespace, &resource);
        let Some(object) = api.get_opt(&pod.name).await? else {
            return Ok(None);
        };
        Ok(object::pod(&value(object))
            .ok()
            .map(|c| Change::Adopt(c.object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the watch tells of a static pod has the uid that the plugin was told.
    #[test]
    fn a_static_pod_comes_with_its_kubelets_uid() -> anyhow::Result<()> {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "etcd-n1", "namespace": "kube-system", "uid": "of-the-image",
                "annotations": {"kubernetes.io/config.mirror": "of-the-pod", "other": "x"},
            },
            "spec": {"nodeName": "n1"},
        }))?;
        let value = value(object);
        assert_eq!(value["metadata"]["annotations"]["other"], Value::Null);
        let pod = object::pod(&value)?.object;
        assert_eq!(pod.uid, "of-the-pod");
        assert_eq!(pod.node, "n1");
        Ok(())
    }
}
