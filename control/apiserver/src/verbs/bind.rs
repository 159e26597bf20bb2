//! `pods/binding`: how the scheduler puts a pod on a node.

use http::{Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::text;
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy;
use rhumb_store::{Condition, Outcome, Write};
use serde_json::json;

use super::admission::dynamic::{self, Own};
use super::write::put;
use super::{ATTEMPTS, Request, store_error};
use crate::http::reply::{self, Body};

const BINDING: &str = "io.k8s.api.core.v1.Binding";

const OWN: Own = Own {
    group: "",
    version: "v1",
    kind: "Binding",
    schema: BINDING,
};

/// The pod that the body names.
pub fn named(request: &Request) -> Result<String> {
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let binding = codec::decode_named(BINDING, parsed, FieldValidation::Ignore)?.object;
    match text(&binding, "metadata.name") {
        "" => Err(ApiError::bad_request(
            "the binding does not say which pod it is for: metadata.name must be provided",
        )),
        name => Ok(name.to_string()),
    }
}

pub async fn create(request: &Request) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let dry_run = request.dry_run()?;
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let mut binding = codec::decode_named(BINDING, parsed, validation)?.object;
    dynamic::post(request, &OWN, &mut binding, dry_run).await?;
    let name = request.resource.name.as_str();
    for _ in 0..ATTEMPTS {
        let (kv, pod) = request.current(name).await?;
        let bound = strategy::bind(&request.kind, &pod, &binding, jiff::Timestamp::now())?;
        let written = match dry_run {
            true => Outcome::Committed(kv.mod_revision),
            false => request
                .api
                .store
                .write(Write {
                    key: kv.key.clone(),
                    condition: Condition::ModRevision(kv.mod_revision),
                    change: put(&request.kind, &bound),
                })
                .await
                .map_err(store_error)?,
        };
        match written {
            Outcome::Committed(_) => {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "code": 201,
                });
                return Ok(reply::object(StatusCode::CREATED, request.accept, &status));
            }
            Outcome::Conflict(None) => return Err(ApiError::not_found(&request.kind, name)),
            Outcome::Conflict(Some(_)) => {}
        }
    }
    Err(ApiError::modified(&request.kind, name))
}
