//! Images for containers: presence, pulling, credentials.

use std::time::Instant;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::Api;

use crate::container::field_path;
use crate::events::{NORMAL, WARNING};
use crate::kubelet::Kubelet;
use crate::pure::backoff::Backoff;
use crate::pure::image_ref;
use crate::pure::plan::Role;
use crate::pure::pull_auth::{self, Credentials};

/// An image that is there.
#[derive(Debug, Clone)]
pub struct Ready {
    /// What the container is made from.
    pub reference: String,
    pub uid: Option<i64>,
    pub user: String,
}

/// Why there is no image: the container's waiting reason and message.
#[derive(Debug, Clone)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

/// Pull history of one image of one pod.
#[derive(Debug, Default)]
pub struct PullState {
    backoff: Backoff,
    failed_ms: Option<i64>,
    error: String,
}

impl PullState {
    /// Milliseconds until the next try.
    pub fn remaining(&self, now_ms: i64) -> i64 {
        self.failed_ms
            .map_or(0, |f| self.backoff.remaining(f, now_ms))
    }
}

/// Makes sure that the container's image is there.
pub async fn ensure(
    k: &Kubelet,
    pod: &Pod,
    c: &Container,
    role: Role,
    sandbox: &cri::PodSandboxConfig,
    state: &mut PullState,
) -> Result<Ready, Failure> {
    let event = |kind, reason: &str, message: String| {
        k.events
            .pod(pod, field_path(role, &c.name), kind, reason, message)
    };
    let image = c.image.as_deref().unwrap_or("");
    let name = match image_ref::normalized(image) {
        Ok(n) => n,
        Err(why) => {
            let message = format!("Failed to apply default image tag {image:?}: {why}");
            event(WARNING, "InspectFailed", message.clone());
            event(WARNING, "Failed", "Error: InvalidImageName".into());
            return Err(Failure {
                reason: "InvalidImageName",
                message,
            });
        }
    };
    let present = match k.cri.image_status(&name).await {
        Ok(p) => p,
        Err(e) => {
            let message = format!("Failed to inspect image {image:?}: {}", e.message());
            event(WARNING, "InspectFailed", message.clone());
            return Err(Failure {
                reason: "ImageInspectError",
                message,
            });
        }
    };
    let policy = c
        .image_pull_policy
        .as_deref()
        .unwrap_or_else(|| image_ref::default_pull_policy(image));
    match (present, policy) {
        (Some(p), "IfNotPresent" | "Never") => {
            event(
                NORMAL,
                "Pulled",
                format!("Container image {image:?} already present on machine"),
            );
            return Ok(ready(p));
        }
        (None, "Never") => {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            event(WARNING, "ErrImageNeverPull", message.clone());
            event(WARNING, "Failed", "Error: ErrImageNeverPull".into());
            return Err(Failure {
                reason: "ErrImageNeverPull",
                message,
            });
        }
        _ => {}
    }
    let now = jiff::Timestamp::now().as_millisecond();
    if state.remaining(now) > 0 {
        event(
            NORMAL,
            "BackOff",
            format!("Back-off pulling image {image:?}"),
        );
        event(WARNING, "Failed", "Error: ImagePullBackOff".into());
        let message = format!(
            "Back-off pulling image {image:?}: ErrImagePull: {}",
            state.error
        );
        return Err(Failure {
            reason: "ImagePullBackOff",
            message,
        });
    }
    event(NORMAL, "Pulling", format!("Pulling image {image:?}"));
    let began = Instant::now();
    match pull(k, pod, &name, sandbox).await {
        Ok(pulled) => {
            *state = PullState::default();
            let took = humantime(began.elapsed());
            event(
                NORMAL,
                "Pulled",
                format!(
                    "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {} bytes.",
                    pulled.size
                ),
            );
            Ok(ready(pulled))
        }
        Err(error) => {
            let now = jiff::Timestamp::now().as_millisecond();
            state.backoff.advance(state.failed_ms.unwrap_or(now), now);
            state.failed_ms = Some(now);
            state.error = error.clone();
            event(
                WARNING,
                "Failed",
                format!("Failed to pull image {image:?}: {error}"),
            );
            event(WARNING, "Failed", "Error: ErrImagePull".into());
            Err(Failure {
                reason: "ErrImagePull",
                message: error,
            })
        }
    }
}

fn humantime(d: std::time::Duration) -> String {
    if d.as_secs() >= 1 {
        format!("{:.3}s", d.as_secs_f64())
    } else {
        format!("{}ms", d.as_millis())
    }
}

fn ready(image: cri::Image) -> Ready {
    Ready {
        reference: image.id,
        uid: image.uid.map(|v| v.value),
        user: image.username,
    }
}

async fn pull(
    k: &Kubelet,
    pod: &Pod,
    name: &str,
    sandbox: &cri::PodSandboxConfig,
) -> Result<cri::Image, String> {
    let secrets = pull_secrets(k, pod).await;
    let mut auths: Vec<Option<cri::AuthConfig>> = pull_auth::matching(name, &secrets)
        .into_iter()
        .map(|c| Some(auth(c)))
        .collect();
    if auths.is_empty() {
        auths.push(None);
    }
    let mut last = String::new();
    for auth in auths {
        match k.cri.pull_image(name, auth, sandbox.clone()).await {
            Ok(_) => {
                return match k.cri.image_status(name).await {
                    Ok(Some(image)) => Ok(image),
                    Ok(None) => Err(format!(
                        "the runtime does not have {name:?} after pulling it"
                    )),
                    Err(e) => Err(e.to_string()),
                };
            }
            Err(e) => last = e.message().to_string(),
        }
    }
    Err(last)
}

fn auth(c: Credentials) -> cri::AuthConfig {
    cri::AuthConfig {
        username: c.username,
        password: c.password,
        auth: String::new(),
        server_address: c.server,
        identity_token: c.identity_token,
        registry_token: c.registry_token,
    }
}

/// The pod's pull secrets that exist; a missing one is an Event, as in Kubernetes.
async fn pull_secrets(k: &Kubelet, pod: &Pod) -> Vec<Secret> {
    let ns = pod.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Secret> = Api::namespaced(k.client.clone(), ns);
    let mut out = vec![];
    for r in pod
        .spec
        .iter()
        .flat_map(|s| s.image_pull_secrets.iter().flatten())
    {
        match api.get_opt(&r.name).await {
            Ok(Some(s)) => out.push(s),
            _ => k.events.pod(
                pod,
                None,
                WARNING,
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    r.name
                ),
            ),
        }
    }
    out
}
