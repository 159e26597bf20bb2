//! The scale subresource.

use http::{Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::patch::{self, PatchType};
use rhumb_api::registry::Kind;
use rhumb_api::scale;
use rhumb_api::status::{ApiError, Result};
use serde_json::Value;

use super::admission::dynamic::Own;
use super::write::{Part, modify};
use super::{Request, fields};
use crate::http::reply::{self, Body};

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// What admission is shown of it.
pub const OWN: Own = Own {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    schema: SCALE,
};

pub fn of(kind: &Kind, object: &Value) -> Result<Value> {
    scale::of(kind, object).ok_or_else(|| {
        let field = kind
            .as_custom()
            .and_then(|c| c.scale())
            .map(|s| &s.spec_replicas);
        let field = field.map_or("spec.replicas", String::as_str);
        ApiError::internal(format!(
            "the spec replicas field \".{field}\" does not exist"
        ))
    })
}

/// The object with what its Scale says now.
pub fn with_scale(request: &Request, old: &Value, scaled: &Value) -> Result<Value> {
    let mut object = scale::apply(&request.kind, old, scaled)?;
    fields::from_scale(&request.kind, &mut object, scaled);
    Ok(object)
}

pub async fn get(request: &Request) -> Result<Response<Body>> {
    let (_, object) = request.current(&request.resource.name).await?;
    Ok(reply::object(
        StatusCode::OK,
        request.accept,
        &of(&request.kind, &object)?,
    ))
}

pub async fn update(request: &Request) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let decoded = codec::decode_named(SCALE, parsed, validation)?;
    let dry_run = request.dry_run()?;
    let manager = fields::manager(request, "UpdateOptions", false)?;
    let stored = modify(request, Part::Scale, dry_run, |old| {
        let mut scaled = decoded.object.clone();
        manager.track_scale(request, old, &of(&request.kind, old)?, &mut scaled);
        with_scale(request, old, &scaled)
    })
    .await?;
    let mut response = reply::object(StatusCode::OK, request.accept, &of(&request.kind, &stored)?);
    reply::warn(&mut response, &decoded.warnings);
    Ok(response)
}

pub async fn patch(request: &Request) -> Result<Response<Body>> {
    let patch_type = PatchType::from_media_type(request.content_type())?;
    let dry_run = request.dry_run()?;
    let applies = patch_type == PatchType::Apply;
    let manager = fields::manager(request, "PatchOptions", applies)?;
    let stored = modify(request, Part::Scale, dry_run, |old| {
        let live = of(&request.kind, old)?;
        let patched = match applies {
            true => manager.apply_scale(request, old, &live)?,
            false => patch::apply_named(SCALE, patch_type, &live, &request.body)?.object,
        };
        let parsed = codec::Parsed {
            value: patched,
            duplicates: Vec::new(),
        };
        let mut scaled = codec::decode_named(SCALE, parsed, FieldValidation::Ignore)?.object;
        if !applies {
            manager.track_scale(request, old, &live, &mut scaled);
        }
        with_scale(request, old, &scaled)
    })
    .await?;
    Ok(reply::object(
        StatusCode::OK,
        request.accept,
        &of(&request.kind, &stored)?,
    ))
}
