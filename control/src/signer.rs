//! Signs approved certificate requests with the cluster's key. A client of the API like the other
//! controllers; it stands here because the key is at hand here.
//! Source: `pkg/controller/certificates/signer`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use rhumb_api::csr;
use rhumb_apiserver::pki::Authority;
use rhumb_client::workqueue::Outcome;
use rhumb_client::{Informer, ObjectKey, WorkQueue};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The longest that a certificate is valid, and how long one is that says nothing.
const MOST: Duration = Duration::from_secs(365 * 24 * 3600);
const LEAST: Duration = Duration::from_secs(600);

/// What comes of a request.
enum Verdict {
    /// Not ours, not approved, or done.
    Nothing,
    Issued(String),
    Failed(String),
}

fn lifetime(seconds: Option<i32>) -> Duration {
    let asked = seconds.and_then(|s| u64::try_from(s).ok());
    asked.map_or(MOST, Duration::from_secs).clamp(LEAST, MOST)
}

fn decide(authority: &Authority, request: &CertificateSigningRequest) -> Verdict {
    let object = match serde_json::to_value(request) {
        Ok(object) => object,
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    let issued = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    let open = csr::has_condition(&object, "Approved")
        && !csr::has_condition(&object, "Denied")
        && !csr::has_condition(&object, "Failed")
        && issued.is_none_or(|c| c.0.is_empty());
    if !open {
        return Verdict::Nothing;
    }
    let usages = csr::usages(&object);
    let asked = match csr::parse(&request.spec.request.0) {
        Ok(asked) => asked,
        Err(why) => return Verdict::Failed(why),
    };
    match csr::signer(&request.spec.signer_name, &asked, &usages) {
        None => return Verdict::Nothing,
        Some(Err(why)) => return Verdict::Failed(why),
        Some(Ok(())) => {}
    }
    let lifetime = lifetime(request.spec.expiration_seconds);
    match authority.sign_request(&request.spec.request.0, &asked, &usages, lifetime) {
        Ok(certificate) => Verdict::Issued(certificate),
        Err(error) => Verdict::Failed(error.to_string()),
    }
}

fn patch_of(request: &CertificateSigningRequest, verdict: Verdict) -> Option<Value> {
    use base64::Engine as _;
    let status = match verdict {
        Verdict::Nothing => return None,
        Verdict::Issued(certificate) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
            json!({"certificate": encoded})
        }
        Verdict::Failed(why) => {
            let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
            let status = serde_json::to_value(&request.status).unwrap_or_default();
            let mut conditions = rhumb_api::json::list(&status, "conditions").to_vec();
            conditions.push(json!({
                "type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                "message": why, "lastUpdateTime": now, "lastTransitionTime": now,
            }));
            json!({"conditions": conditions})
        }
    };
    // A patch replaces the list, so it must be of the version that was read.
    let version = &request.metadata.resource_version;
    Some(json!({"metadata": {"resourceVersion": version}, "status": status}))
}

/// Runs until `shutdown`.
pub async fn run(
    client: kube::Client,
    authority: Authority,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let authority = Arc::new(authority);
    let requests: Informer<CertificateSigningRequest> = Informer::new();
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let adds = queue.clone();
    requests.on_change(move |change| adds.add(ObjectKey::of(change.object().as_ref())));
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let config = watcher::Config::default();
    let watch = requests.run(api.clone(), config, |_| {}, shutdown.clone());
    let known = requests.clone();
    let work = queue.run(1, shutdown, move |key: ObjectKey| {
        let (known, authority, api) = (known.clone(), authority.clone(), api.clone());
        async move {
            let Some(request) = known.get(&key) else {
                return Outcome::Done;
            };
            let Some(patch) = patch_of(&request, decide(&authority, &request)) else {
                return Outcome::Done;
            };
            let written = api
                .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .context("writing the status");
            match written {
                Ok(_) => {
                    tracing::info!(
                        name = key.name,
                        signer = request.spec.signer_name,
                        "answered a certificate signing request"
                    );
                    Outcome::Done
                }
                Err(error) => {
                    tracing::warn!(
                        name = key.name,
                        error = format!("{error:#}"),
                        "signing, trying again"
                    );
                    Outcome::Retry
                }
            }
        }
    });
    tokio::join!(watch, work);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime(None), MOST);
        assert_eq!(lifetime(Some(3600)), Duration::from_secs(3600));
        assert_eq!(lifetime(Some(1)), LEAST);
        assert_eq!(lifetime(Some(i32::MAX)), MOST);
    }
}
