//! Writes one pod's status to the API in the background, always the newest.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::kubelet::Kubelet;
use crate::pods::OWN_CONDITIONS;
use crate::sandbox::meta;

/// Fields of a status that are taken away by writing null.
const OPTIONAL: &[&str] = &[
    "reason",
    "message",
    "podIP",
    "podIPs",
    "initContainerStatuses",
];

/// The writer of one pod.
pub struct StatusWriter {
    tx: watch::Sender<(u64, Option<PodStatus>)>,
    done: watch::Receiver<u64>,
    sent: Option<PodStatus>,
}

impl StatusWriter {
    /// `known` is what the API has.
    pub fn start(k: Arc<Kubelet>, pod: &Pod) -> Self {
        let (tx, rx) = watch::channel((0, None));
        let (done_tx, done) = watch::channel(0);
        let (namespace, name, uid) = meta(pod);
        tokio::spawn(run(
            k,
            namespace.to_string(),
            name.to_string(),
            uid.to_string(),
            rx,
            done_tx,
        ));
        StatusWriter {
            tx,
            done,
            sent: None,
        }
    }

    /// Hands over a status if it differs from the last one, or at first from what the API has.
    pub fn send(&mut self, pod: &Pod, status: PodStatus) {
        let before = self.sent.as_ref().or(pod.status.as_ref());
        if before.is_some_and(|b| same(b, &status)) {
            return;
        }
        self.sent = Some(status.clone());
        self.tx.send_modify(|(version, slot)| {
            *version += 1;
            *slot = Some(status);
        });
    }

    /// Waits until what was handed over is written.
    pub async fn flush(&mut self) {
        let version = self.tx.borrow().0;
        // The task ends only after the sender, so an error can't happen while we are here.
        let _ = self.done.wait_for(|v| *v >= version).await;
    }
}

/// Whether writing one or the other is the same.
fn same(a: &PodStatus, b: &PodStatus) -> bool {
    patch("", a) == patch("", b)
}

async fn run(
    k: Arc<Kubelet>,
    namespace: String,
    name: String,
    uid: String,
    mut rx: watch::Receiver<(u64, Option<PodStatus>)>,
    done: watch::Sender<u64>,
) {
    let api: Api<Pod> = Api::namespaced(k.client.clone(), &namespace);
    let mut failures = 0u32;
    loop {
        let (version, status) = rx.borrow_and_update().clone();
        if let Some(status) = status {
            match api
                .patch_status(
                    &name,
                    &PatchParams::default(),
                    &Patch::Strategic(patch(&uid, &status)),
                )
                .await
            {
                Ok(_) => {
                    debug!(
                        pod = name,
                        namespace,
                        phase = status.phase,
                        "wrote the status"
                    );
                    failures = 0;
                    done.send_replace(version);
                }
                // Gone, replaced by a pod of the same name, or refused: nothing that a retry helps.
                Err(kube::Error::Api(e))
                    if matches!(e.code, 400 | 403 | 404 | 422)
                        || (e.code == 409 && !same_pod(&api, &name, &uid).await) =>
                {
                    if !matches!(e.code, 404 | 409) {
                        warn!(
                            pod = name,
                            namespace,
                            error = e.message,
                            "the API refuses the pod's status"
                        );
                    }
                    failures = 0;
                    done.send_replace(version);
                }
                Err(error) => {
                    failures += 1;
                    warn!(pod = name, namespace, %error, "cannot write the pod's status, trying again");
                    tokio::time::sleep(Duration::from_millis(100 << failures.min(6))).await;
                    if rx.has_changed().is_err() {
                        return;
                    }
                    continue;
                }
            }
        }
        if rx.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the API still has this very pod; without an answer it is assumed.
async fn same_pod(api: &Api<Pod>, name: &str, uid: &str) -> bool {
    match api.get_opt(name).await {
        Ok(pod) => pod.is_some_and(|p| p.metadata.uid.as_deref() == Some(uid)),
        Err(_) => true,
    }
}

/// The strategic merge patch that writes the kubelet's part of a status. Conditions merge by type: those
/// of others stay as they are in the API.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut map = match serde_json::to_value(status) {
        Ok(Value::Object(m)) => m,
        _ => Map::new(),
    };
    for field in OPTIONAL {
        map.entry(field.to_string()).or_insert(Value::Null);
    }
    if let Some(Value::Array(conditions)) = map.get_mut("conditions") {
        conditions.retain(|c| OWN_CONDITIONS.iter().any(|own| c["type"] == *own));
        for c in conditions.iter_mut().filter_map(Value::as_object_mut) {
            for field in ["reason", "message"] {
                c.entry(field).or_insert(Value::Null);
            }
        }
    }
    // These merge by address, and old addresses are not to stay.
    for field in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(list)) = map.get_mut(field) {
            list.push(json!({"$patch": "replace"}));
        }
    }
    json!({"metadata": {"uid": uid}, "status": map})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    fn condition(kind: &str, status: &str) -> PodCondition {
        PodCondition {
            type_: kind.into(),
            status: status.into(),
            ..Default::default()
        }
    }

    #[test]
    fn conditions_of_others_are_left_alone() {
        let status = PodStatus {
            conditions: Some(vec![
                condition("PodScheduled", "True"),
                condition("Ready", "True"),
                condition("example.com/gate", "False"),
            ]),
            ..Default::default()
        };
        let p = patch("u", &status);
        assert_eq!(
            p["status"]["conditions"],
            json!([{"type": "Ready", "status": "True", "reason": null, "message": null}])
        );
        let mut other = status.clone();
        other.conditions = Some(vec![condition("Ready", "True")]);
        assert!(same(&status, &other));
        other.conditions = Some(vec![condition("Ready", "False")]);
        assert!(!same(&status, &other));
    }

    #[test]
    fn addresses_are_replaced() {
        let p = patch(
            "u",
            &PodStatus {
                pod_ips: Some(vec![PodIP {
                    ip: "10.0.0.1".into(),
                }]),
                ..Default::default()
            },
        );
        assert_eq!(
            p["status"]["podIPs"],
            json!([{"ip": "10.0.0.1"}, {"$patch": "replace"}])
        );
    }

    #[test]
    fn absent_fields_are_taken_away() {
        let p = patch(
            "u",
            &PodStatus {
                phase: Some("Running".into()),
                ..Default::default()
            },
        );
        assert_eq!(p["metadata"]["uid"], "u");
        assert_eq!(p["status"]["phase"], "Running");
        assert!(p["status"].as_object().unwrap().contains_key("reason"));
        assert_eq!(p["status"]["podIP"], Value::Null);
    }
}
