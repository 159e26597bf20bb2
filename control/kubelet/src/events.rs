//! Events about pods and the node. Equal ones are counted up rather than repeated.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

/// Names of the two kinds of Events.
pub const NORMAL: &str = "Normal";
pub const WARNING: &str = "Warning";

/// Remembered Events; beyond it the memory starts afresh.
const REMEMBERED: usize = 4096;
/// An Event that comes again after this is a new one.
const FORGET: i64 = 600;

#[derive(Debug)]
struct Note {
    object: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes Events and writes them in the background.
#[derive(Clone, Debug)]
pub struct Recorder {
    tx: mpsc::Sender<Note>,
}

impl Recorder {
    /// Starts the writer.
    pub fn start(client: Client, node_name: &str) -> Self {
        let (tx, rx) = mpsc::channel(1024);
        tokio::spawn(write(client, node_name.to_string(), rx));
        Recorder { tx }
    }

    /// About a pod, or one of its containers (`spec.containers{name}`).
    pub fn pod(
        &self,
        pod: &Pod,
        field: Option<String>,
        kind: &'static str,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut object = pod.object_ref(&());
        object.field_path = field;
        self.send(object, kind, reason, message.into());
    }

    /// About the node. Kubernetes names the node as its own uid here.
    pub fn node(&self, name: &str, kind: &'static str, reason: &str, message: impl Into<String>) {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        let mut object = node.object_ref(&());
        object.uid = Some(name.into());
        self.send(object, kind, reason, message.into());
    }

    fn send(&self, object: ObjectReference, kind: &'static str, reason: &str, message: String) {
        debug!(name = object.name, reason, message, "event");
        // When the API is away for long, Events are the first thing to give up.
        let _ = self.tx.try_send(Note {
            object,
            kind,
            reason: reason.into(),
            message,
            at: Timestamp::now(),
        });
    }
}

type Key = (String, String, &'static str, String, String);

async fn write(client: Client, node_name: String, mut rx: mpsc::Receiver<Note>) {
    let mut seen: HashMap<Key, (String, i32, Timestamp)> = HashMap::new();
    while let Some(n) = rx.recv().await {
        let namespace = n
            .object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = (
            n.object.uid.clone().unwrap_or_default(),
            n.object.field_path.clone().unwrap_or_default(),
            n.kind,
            n.reason.clone(),
            n.message.clone(),
        );
        if seen.len() > REMEMBERED {
            seen.clear();
        }
        if let Some((name, count, last)) = seen.get_mut(&key)
            && n.at.as_second() - last.as_second() < FORGET
        {
            *count += 1;
            *last = n.at;
            let patch = json!({"count": *count, "lastTimestamp": Time(n.at)});
            if api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .is_ok()
            {
                continue;
            }
        }
        let name = format!(
            "{}.{:x}",
            n.object.name.as_deref().unwrap_or("unknown"),
            n.at.as_nanosecond()
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..Default::default()
            },
            involved_object: n.object,
            reason: Some(n.reason),
            message: Some(truncated(n.message)),
            type_: Some(n.kind.into()),
            first_timestamp: Some(Time(n.at)),
            last_timestamp: Some(Time(n.at)),
            count: Some(1),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(node_name.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(node_name.clone()),
            ..Default::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                seen.insert(key, (name, 1, n.at));
            }
            Err(error) => debug!(%error, "cannot write an Event"),
        }
    }
}

/// The API takes at most 1024 bytes.
fn truncated(mut message: String) -> String {
    if message.len() > 1024 {
        let mut end = 1021;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}
