//! What a webhook answers: an `AdmissionReview`, looked at before anything is believed.
//! Source: apiserver `pkg/admission/plugin/webhook/{request,errors}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::json::{at, flag, int, list, map, text};
use crate::status::ApiError;

/// A verified answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    /// The `Status` that came with a refusal.
    pub status: Option<Value>,
    /// A JSON patch.
    pub patch: Option<Vec<u8>>,
    pub warnings: Vec<String>,
    pub audit_annotations: Vec<(String, String)>,
}

/// Reads the review that answers one of this version and uid.
pub fn verify(body: &[u8], version: &str, uid: &str, mutating: bool) -> Result<Answer, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|e| format!("couldn't decode the answer: {e}"))?;
    let Some(response) = at(&review, "response") else {
        return Err("webhook response was absent".into());
    };
    if version == "v1" {
        let given = text(response, "uid");
        if given != uid {
            return Err(format!("expected response.uid={uid:?}, got {given:?}"));
        }
        let (api_version, kind) = (text(&review, "apiVersion"), text(&review, "kind"));
        if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
            ));
        }
    }
    let patch = text(response, "patch");
    let patch_type = at(response, "patchType").and_then(Value::as_str);
    if version == "v1" && mutating {
        match (patch.is_empty(), patch_type) {
            (false, None) => {
                return Err("webhook returned response.patch but not response.patchType".into());
            }
            (true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".into());
            }
            _ => {}
        }
    }
    if version == "v1" && !mutating {
        if !patch.is_empty() {
            return Err("validating webhook may not return response.patch".into());
        }
        if patch_type.is_some() {
            return Err("validating webhook may not return response.patchType".into());
        }
    }
    let patch = match (patch.is_empty() || !mutating, patch_type) {
        (true, _) => None,
        // v1beta1 need not say it.
        (false, None | Some("JSONPatch")) => Some(
            STANDARD
                .decode(patch)
                .map_err(|e| format!("response.patch is no base64: {e}"))?,
        ),
        (false, Some(other)) => {
            return Err(format!(
                "unsupported patch type {other:?}, must be JSONPatch"
            ));
        }
    };
    let texts = |value: &Value| value.as_str().map(str::to_string);
    Ok(Answer {
        allowed: flag(response, "allowed"),
        status: at(response, "status").filter(|s| s.is_object()).cloned(),
        patch,
        warnings: list(response, "warnings")
            .iter()
            .filter_map(texts)
            .collect(),
        audit_annotations: map(response, "auditAnnotations")
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), texts(value)?)))
            .collect(),
    })
}

/// The refusal that clients see: the webhook's own status, with its name in the message.
pub fn refusal(webhook: &str, status: Option<&Value>) -> ApiError {
    let empty = Value::Object(Map::new());
    let status = status.unwrap_or(&empty);
    let denied = format!("admission webhook {webhook:?} denied the request");
    let (message, reason) = (text(status, "message"), text(status, "reason"));
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    // A refusal never looks like success.
    let code = int(status, "code")
        .and_then(|c| u16::try_from(c).ok())
        .filter(|c| (400..600).contains(c))
        .unwrap_or(400);
    let mut error = ApiError::new(code, reason.to_string(), message);
    error.details = map(status, "details").cloned().map(Box::new);
    error
}
