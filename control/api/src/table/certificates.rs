//! Rows of certificate signing requests.

use serde_json::Value;

use super::{AGE, Column, NAME, Now, age, col, name};
use crate::csr;
use crate::json::{int, text};
use crate::time;

pub const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    col(
        "SignerName",
        "string",
        "signerName indicates the requested signer, and is a qualified name.",
    ),
    col(
        "Requestor",
        "string",
        "username contains the name of the user that created the CertificateSigningRequest. Populated by the API server on creation and immutable.",
    ),
    col(
        "RequestedDuration",
        "string",
        "expirationSeconds is the requested duration of validity of the issued certificate.",
    ),
    col("Condition", "string", "Conditions applied to the request."),
];

pub fn signing_request(o: &Value, now: Now) -> Vec<Value> {
    let wanted = match int(o, "spec.expirationSeconds") {
        Some(seconds) => time::human(seconds),
        None => "<none>".into(),
    };
    let mut state = match (
        csr::has_condition(o, "Approved"),
        csr::has_condition(o, "Denied"),
    ) {
        (_, true) => "Denied".to_string(),
        (true, false) => "Approved".to_string(),
        (false, false) => "Pending".to_string(),
    };
    if csr::has_condition(o, "Failed") {
        state += ",Failed";
    }
    if !text(o, "status.certificate").is_empty() {
        state += ",Issued";
    }
    vec![
        name(o),
        age(o, now),
        text(o, "spec.signerName").into(),
        text(o, "spec.username").into(),
        wanted.into(),
        state.into(),
    ]
}
