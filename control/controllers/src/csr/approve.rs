//! Approval of client certificates of kubelets: of one that renews its own (`selfnodeclient`), and of
//! one that may make nodes (`nodeclient`). Who may, RBAC says.
//! Source: `pkg/controller/certificates/approver`.

use anyhow::Context as _;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use rhumb_api::{csr, json};
use serde_json::json;
use tracing::info;

use super::{has, is_issued};

/// The subresource whose creation says that a request may be approved, and what then is said.
const SELF: (&str, &str) = (
    "selfnodeclient",
    "Auto approving self kubelet client certificate after SubjectAccessReview.",
);
const NODE: (&str, &str) = (
    "nodeclient",
    "Auto approving kubelet client certificate after SubjectAccessReview.",
);

/// What to ask about a request: the permissions of which one is enough.
fn questions(request: &CertificateSigningRequest) -> Vec<(&'static str, &'static str)> {
    if request.spec.signer_name != csr::KUBELET_CLIENT
        || is_issued(request)
        || ["Approved", "Denied", "Failed"]
            .iter()
            .any(|c| has(request, c))
    {
        return Vec::new();
    }
    let Ok(asked) = csr::parse(&request.spec.request.0) else {
        return Vec::new();
    };
    let usages: Vec<&str> = request
        .spec
        .usages
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if csr::kubelet_client(&asked, &usages).is_err() {
        return Vec::new();
    }
    match request.spec.username.as_deref() == Some(&asked.common_name) {
        true => vec![SELF, NODE],
        false => vec![NODE],
    }
}

pub async fn reconcile(client: &Client, request: &CertificateSigningRequest) -> anyhow::Result<()> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    for (subresource, message) in questions(request) {
        if !allowed(client, request, subresource).await? {
            continue;
        }
        let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
        let status = serde_json::to_value(&request.status).context("the status as JSON")?;
        let mut conditions = json::list(&status, "conditions").to_vec();
        conditions.push(json!({
            "type": "Approved", "status": "True", "reason": "AutoApproved",
            "message": message, "lastUpdateTime": now, "lastTransitionTime": now,
        }));
        // A patch replaces the list, so it must be of the version that was read.
        let patch = json!({
            "metadata": {"resourceVersion": request.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        api.patch_approval(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("approving")?;
        info!(name, subresource, "approved a certificate signing request");
        return Ok(());
    }
    Ok(())
}

async fn allowed(
    client: &Client,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> anyhow::Result<bool> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                verb: Some("create".into()),
                subresource: Some(subresource.into()),
                version: Some("*".into()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .context("asking whether the requestor may have the certificate")?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}
