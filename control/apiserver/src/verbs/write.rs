//! create, update and patch, of objects and of their status.

use http::{Response, StatusCode};
use rhumb_api::codec::{self, Decoded};
use rhumb_api::json::text;
use rhumb_api::patch::{self, PatchType};
use rhumb_api::registry::Kind;
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy::{self, CreateContext, UpdateOutcome};
use rhumb_store::{Change, Condition, Outcome, Write};
use serde_json::Value;

use super::admission::dynamic;
use super::{ATTEMPTS, Request, admission, admit, fields, scale, set_version, store_key};
use crate::handler::may_create;
use crate::http::reply::{self, Body};
use crate::ip_addresses;
use crate::object;
use crate::service_ips::Reserved;

/// How long Events are kept, as kube-apiserver's default.
const EVENT_TTL: std::time::Duration = std::time::Duration::from_secs(3600);

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Main,
    /// The main part, by its Scale.
    Scale,
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
    /// The conditions of a certificate signing request.
    Approval,
    /// A pod's `spec.ephemeralContainers`.
    Ephemeral,
}

pub fn put(kind: &Kind, object: &Value) -> Change {
    Change::Put {
        value: object::to_stored(&kind.into_store(object)),
        ttl: (kind.storage().is("", "Event")).then_some(EVENT_TTL),
    }
}

pub async fn create(request: &Request) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let dry_run = request.dry_run()?;
    let manager = fields::manager(request, "CreateOptions", false)?;
    let Decoded {
        mut object,
        warnings,
    } = codec::decode(
        &request.kind,
        request.content_type(),
        &request.body,
        validation,
    )?;
    strategy::conform(&request.kind, &mut object, request.namespace(), None)?;
    rhumb_api::default_object(&request.kind, &mut object);
    manager.track(request, None, &mut object);
    let stored = create_object(request, object, dry_run).await?;
    let mut response = request.answer(StatusCode::CREATED, stored)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Creates a decoded and defaulted object; returns it as stored.
pub async fn create_object(request: &Request, object: Value, dry_run: bool) -> Result<Value> {
    let kind = &request.kind;
    if kind.as_custom().is_some_and(|c| c.terminating()) {
        let mut error = ApiError::method_not_supported(kind, "create");
        error.message = "create not allowed while custom resource definition is terminating".into();
        return Err(error);
    }
    let template = kind.to_stored(object);
    let generated = text(&template, "metadata.name").is_empty();
    for _ in 0..8 {
        let mut object = template.clone();
        let given = text(&template, "metadata.name");
        dynamic::admit_create(request, given, &mut object, dry_run).await?;
        let suffix = strategy::name_suffix(rand::random());
        let context = CreateContext {
            namespace: request.namespace(),
            now: jiff::Timestamp::now(),
            uid: &uuid::Uuid::new_v4().to_string(),
            suffix: &suffix,
        };
        strategy::prepare_create(kind.storage(), &mut object, &context)?;
        let name = text(&object, "metadata.name").to_string();
        // A refused Service gives its cluster IPs back.
        let reserved = admit::allocate(request, &mut object, None)?;
        admission::validate(request, &object, None).await?;
        dynamic::validate(request, None, &object, None, dry_run).await?;
        let charge = admission::quota::begin(request, &object, None).await?;
        if dry_run {
            return Ok(object);
        }
        let write = Write {
            key: store_key(kind, &request.resource.namespace, &name),
            condition: Condition::Absent,
            change: put(kind, &object),
        };
        let outcome = commit(request, charge, write, reserved, &object).await?;
        match outcome {
            Outcome::Committed(revision) => {
                set_version(&mut object, revision);
                return Ok(object);
            }
            Outcome::Conflict(_) if generated => {}
            Outcome::Conflict(_) => return Err(ApiError::already_exists(kind, &name)),
        }
    }
    let base = text(&template, "metadata.generateName");
    Err(ApiError::generate_name_conflict(kind, base))
}

pub async fn update(request: &Request, part: Part) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let dry_run = request.dry_run()?;
    let manager = fields::manager(request, "UpdateOptions", false)?;
    let kind = &request.kind;
    let Decoded {
        mut object,
        warnings,
    } = codec::decode(kind, request.content_type(), &request.body, validation)?;
    let name = request.resource.name.as_str();
    strategy::conform(kind, &mut object, request.namespace(), Some(name))?;
    rhumb_api::default_object(kind, &mut object);
    let modified = modify(request, part, dry_run, |old| {
        let mut new = object.clone();
        manager.track(request, Some(old), &mut new);
        Ok(kind.to_stored(new))
    })
    .await;
    let made = kind.is_made_by_update() && part == Part::Main;
    let (code, stored) = match modified {
        Err(missing) if missing.code == 404 && made => {
            may_create(request).await?;
            manager.track(request, None, &mut object);
            let stored = create_object(request, object, dry_run).await?;
            (StatusCode::CREATED, stored)
        }
        modified => (StatusCode::OK, modified?),
    };
    let mut response = request.answer(code, stored)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

pub async fn patch(request: &Request, part: Part) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let dry_run = request.dry_run()?;
    let kind = &request.kind;
    let patch_type = PatchType::from_media_type(request.content_type())?;
    if patch_type == PatchType::Apply {
        return fields::apply(request, part).await;
    }
    let manager = fields::manager(request, "PatchOptions", false)?;
    let name = request.resource.name.as_str();
    let mut warnings = Vec::new();
    let stored = modify(request, part, dry_run, |old| {
        let served = kind.served(old.clone());
        let patched = patch::apply(kind, patch_type, &served, &request.body)?;
        let decoded = patch::decode(kind, patch_type, patched, &request.body, validation)?;
        warnings = decoded.warnings;
        let mut object = decoded.object;
        strategy::conform(kind, &mut object, request.namespace(), Some(name))?;
        rhumb_api::default_object(kind, &mut object);
        manager.track(request, Some(old), &mut object);
        Ok(kind.to_stored(object))
    })
    .await?;
    let mut response = request.answer(StatusCode::OK, stored)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Writes an object. The addresses that it was given get objects of their own at the same time; if
/// it isn't written, both go back.
async fn commit(
    request: &Request,
    charge: admission::quota::Charge,
    write: Write,
    reserved: Reserved,
    object: &Value,
) -> Result<Outcome> {
    let api = &request.api;
    let (written, held) = tokio::join!(
        charge.write(request, write),
        ip_addresses::hold(api, reserved.addresses(), object)
    );
    admit::report(held);
    match written {
        Ok(Outcome::Committed(_)) => reserved.keep(),
        _ => admit::report(ip_addresses::let_go(api, reserved.addresses()).await),
    }
    written
}

/// Replaces the current object by what `transform` makes of it, again from the start when
/// somebody else was faster; a resourceVersion that the client named then no longer matches.
/// Returns the object as stored.
pub async fn modify(
    request: &Request,
    part: Part,
    dry_run: bool,
    mut transform: impl FnMut(&Value) -> Result<Value>,
) -> Result<Value> {
    let kind = &request.kind;
    let name = request.resource.name.as_str();
    for _ in 0..ATTEMPTS {
        let (kv, old) = request.current(name).await?;
        let mut new = transform(&old)?;
        mutate(request, part, &mut new, &old, dry_run).await?;
        let storage = kind.storage();
        let outcome = match part {
            Part::Main | Part::Scale => {
                if let Some(families) = admit::service_families(request, storage) {
                    // What the update leaves out comes from the old object first.
                    rhumb_api::service::patch_allocated(&mut new, &old);
                    rhumb_api::service::default_families(&mut new, families);
                }
                strategy::prepare_update(storage, &mut new, &old)?
            }
            Part::Status => strategy::prepare_status_update(storage, &mut new, &old)?,
            Part::Finalize => strategy::prepare_finalize(storage, &mut new, &old)?,
            Part::Ephemeral => strategy::prepare_ephemeral(storage, &mut new, &old)?,
            Part::Approval => {
                strategy::prepare_approval(storage, &mut new, &old, jiff::Timestamp::now())?
            }
        };
        admit::update(request, &new, &old).await?;
        let reserved = admit::allocate(request, &mut new, Some(&old))?;
        admission::validate(request, &new, Some(&old)).await?;
        validate(request, part, &new, &old, dry_run).await?;
        let charge = admission::quota::begin(request, &new, Some(&old)).await?;
        let change = match outcome {
            UpdateOutcome::Remove => Change::Delete,
            // Writing what is there already would only wake every watcher.
            UpdateOutcome::Store if new == old => return Ok(old),
            UpdateOutcome::Store => put(kind, &new),
        };
        if dry_run {
            return Ok(new);
        }
        let removed = change == Change::Delete;
        let write = Write {
            key: kv.key.clone(),
            condition: Condition::ModRevision(kv.mod_revision),
            change,
        };
        let written = commit(request, charge, write, reserved, &new).await?;
        match written {
            Outcome::Committed(revision) => {
                admit::released(request, &old, (!removed).then_some(&new)).await;
                set_version(&mut new, revision);
                return Ok(new);
            }
            Outcome::Conflict(None) => return Err(ApiError::not_found(kind, name)),
            Outcome::Conflict(Some(_)) => {}
        }
    }
    Err(ApiError::modified(kind, name))
}

/// Asks those who may change a changed object.
async fn mutate(
    request: &Request,
    part: Part,
    new: &mut Value,
    old: &Value,
    dry_run: bool,
) -> Result<()> {
    if part != Part::Scale || !dynamic::is_any(request) {
        return dynamic::admit_update(request, None, new, old, dry_run).await;
    }
    let before = scale::of(&request.kind, new)?;
    let mut scaled = before.clone();
    let old = scale::of(&request.kind, old)?;
    dynamic::admit_update(request, Some(&scale::OWN), &mut scaled, &old, dry_run).await?;
    if scaled != before {
        *new = scale::with_scale(request, new, &scaled)?;
    }
    Ok(())
}

/// Asks those who may refuse it.
async fn validate(
    request: &Request,
    part: Part,
    new: &Value,
    old: &Value,
    dry_run: bool,
) -> Result<()> {
    if part != Part::Scale || !dynamic::is_any(request) {
        return dynamic::validate(request, None, new, Some(old), dry_run).await;
    }
    let (new, old) = (
        scale::of(&request.kind, new)?,
        scale::of(&request.kind, old)?,
    );
    dynamic::validate(request, Some(&scale::OWN), &new, Some(&old), dry_run).await
}
