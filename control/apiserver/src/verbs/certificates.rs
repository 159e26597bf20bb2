//! Admission of certificate signing requests: who asks, who may approve, who may sign.
//! Source: Kubernetes `plugin/pkg/admission/certificates`.

use rhumb_api::csr;
use rhumb_api::json::{self, at, text};
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy;
use serde_json::{Value, json};

use super::Request;
use crate::auth::MASTERS;
use crate::auth::authorize::Attributes;

const GROUP: &str = "certificates.k8s.io";

fn concerns(request: &Request) -> bool {
    request.kind.is(GROUP, "CertificateSigningRequest")
}

/// Whose request it is, the server says.
pub fn create(request: &Request, object: &mut Value) -> Result<()> {
    if !concerns(request) {
        return Ok(());
    }
    let user = &request.user;
    let name = strategy::called(object).to_string();
    let Some(spec) = json::child(object, "spec") else {
        return Ok(());
    };
    let of = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    json::put(spec, "username", of(&user.name));
    json::put(spec, "uid", of(&user.uid));
    let groups = (!user.groups.is_empty()).then(|| user.groups.clone().into());
    json::put(spec, "groups", groups);
    let extra = (!user.extra.is_empty()).then(|| json!(user.extra));
    json::put(spec, "extra", extra);
    if text(object, "spec.signerName") == csr::CLIENT
        && let Ok(asked) = csr::pem_of(object).and_then(|pem| csr::parse(&pem))
        && asked.organizations.iter().any(|o| o == MASTERS)
    {
        return Err(ApiError::forbidden(
            &request.kind,
            &name,
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ));
    }
    Ok(())
}

/// An approval needs `approve` on the signer, a certificate or failure `sign`.
pub fn update(request: &Request, new: &Value, old: &Value) -> Result<()> {
    if !concerns(request) {
        return Ok(());
    }
    let failed = |object| csr::has_condition(object, "Failed");
    let certificate = |object| at(object, "status.certificate");
    let (verb, doing) = match request.resource.subresource.as_str() {
        "approval" => ("approve", "approve"),
        "status" if failed(new) != failed(old) || certificate(new) != certificate(old) => {
            ("sign", "sign")
        }
        _ => return Ok(()),
    };
    let signer = text(old, "spec.signerName");
    let all_of = signer
        .split_once('/')
        .map(|(domain, _)| format!("{domain}/*"));
    let may = |name: &str| {
        let attributes = Attributes {
            verb,
            group: GROUP,
            resource: "signers",
            name,
            ..Default::default()
        };
        let authorizer = &request.api.authorizer;
        authorizer.resource(&request.user, &attributes).allowed
    };
    if may(signer) || all_of.as_deref().is_some_and(may) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        &request.kind,
        text(old, "metadata.name"),
        &format!("user not permitted to {doing} requests with signerName {signer:?}"),
    ))
}
