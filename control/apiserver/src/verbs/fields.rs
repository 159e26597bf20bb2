//! Who manages which fields: the hooks of `rhumb_api::apply` in the verbs that write, and the
//! apply patch itself.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Response, StatusCode};
use rhumb_api::apply::{self, Applied, Subject, Versions, Writer};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::{self, at, text};
use rhumb_api::registry::{Kind, Registry};
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy;
use serde_json::Value;

use super::write::{Part, create_object, modify};
use super::{ATTEMPTS, Request};
use crate::handler;
use crate::http::reply::{self, Body};

/// The other served versions of a kind.
struct Served<'a> {
    registry: Arc<Registry>,
    kind: &'a Kind,
}

impl Versions for Served<'_> {
    fn convert(&self, api_version: &str, object: &Value) -> Option<(Arc<Kind>, Value)> {
        let prefix = self.kind.storage_prefix();
        let of_version = |version: &str| {
            let same = |k: &&Arc<Kind>| k.api_version() == version && k.storage_prefix() == prefix;
            self.registry.kinds().iter().find(same)
        };
        let to = of_version(api_version)?.clone();
        let stored = match of_version(text(object, "apiVersion")) {
            Some(from) => from.to_stored(object.clone()),
            None => object.clone(),
        };
        let converted = to.served(stored);
        Some((to, converted))
    }
}

/// How a request that writes says who it is.
pub struct Manager {
    name: String,
    registry: Arc<Registry>,
}

/// Checks the options that a write has about its fields' manager.
pub fn manager(request: &Request, options: &str, applies: bool) -> Result<Manager> {
    let given = request.query.get("fieldManager");
    let force = request.query.has("force");
    apply::check_options(options, given, force, applies)?;
    let agent = request
        .headers
        .get(http::header::USER_AGENT)
        .and_then(|v| v.to_str().ok());
    Ok(Manager {
        name: apply::manager_of(given, agent.unwrap_or("")),
        registry: request.api.registry(),
    })
}

impl Manager {
    /// Runs `f` with the rules for this writer.
    fn writing<T>(&self, request: &Request, f: impl FnOnce(&Writer<'_>) -> T) -> T {
        self.writing_to(request, Subject::of(&request.kind), f)
    }

    fn writing_to<T>(
        &self,
        request: &Request,
        of: Subject<'_>,
        f: impl FnOnce(&Writer<'_>) -> T,
    ) -> T {
        f(&Writer {
            of,
            versions: &Served {
                registry: self.registry.clone(),
                kind: &request.kind,
            },
            manager: &self.name,
            subresource: &request.resource.subresource,
            now: jiff::Timestamp::now(),
        })
    }

    /// Writes the managedFields of a decoded and defaulted object in the served form, made from
    /// `old`, which is in the form of prepared writes.
    pub fn track(&self, request: &Request, old: Option<&Value>, new: &mut Value) {
        let live = old.map(|old| served(&request.kind, old));
        self.writing(request, |writer| writer.track(live.as_deref(), new));
    }

    /// The managedFields of an object after its scale was written; `scale` is the new one, `old`
    /// the one before, as of the object.
    pub fn track_scale(&self, request: &Request, object: &Value, old: &Value, scale: &mut Value) {
        let Some(of) = Subject::scale() else {
            return;
        };
        let live = self.scale_with_managers(request, object, old);
        self.writing_to(request, of, |writer| writer.track(Some(&live), scale));
    }

    fn scale_with_managers(&self, request: &Request, object: &Value, scale: &Value) -> Value {
        let path = apply::scale::path(&request.kind);
        let managed = apply::scale::of_object(at(object, "metadata.managedFields"), &path);
        let mut scale = scale.clone();
        if let Some(metadata) = json::child(&mut scale, "metadata") {
            json::put(metadata, "managedFields", managed);
        }
        scale
    }

    /// A Scale with an applied configuration, not decoded yet, with its managedFields.
    pub fn apply_scale(&self, request: &Request, object: &Value, old: &Value) -> Result<Value> {
        let of = Subject::scale().ok_or_else(|| ApiError::internal("there is no Scale"))?;
        let config = apply::parse(&request.body)?.0;
        let live = self.scale_with_managers(request, object, old);
        let force = request.query.flag("force");
        let applied = self.writing_to(request, of, |writer| {
            writer.apply(Some(&live), &config, force)
        })?;
        Ok(with_managed(applied.object, applied.managed))
    }
}

/// The object with the managedFields of its Scale.
pub fn from_scale(kind: &Kind, object: &mut Value, scale: &Value) {
    let managed = apply::scale::to_object(
        at(object, "metadata.managedFields"),
        at(scale, "metadata.managedFields"),
        &apply::scale::path(kind),
        &kind.api_version(),
    );
    if let Some(metadata) = json::child(object, "metadata") {
        json::put(metadata, "managedFields", managed);
    }
}

fn with_managed(mut object: Value, managed: Option<Value>) -> Value {
    if let Some(metadata) = json::child(&mut object, "metadata") {
        json::put(metadata, "managedFields", managed);
    }
    object
}

/// An object in the form of prepared writes, in the form in which the client sees it.
fn served<'a>(kind: &Kind, object: &'a Value) -> Cow<'a, Value> {
    match std::ptr::eq(kind.storage(), kind) {
        true => Cow::Borrowed(object),
        false => Cow::Owned(kind.served(object.clone())),
    }
}

/// `application/apply-patch+yaml`. An object that isn't there is created.
pub async fn apply(request: &Request, part: Part) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let dry_run = request.dry_run()?;
    let manager = manager(request, "PatchOptions", true)?;
    let (config, mut warnings) = apply::parse(&request.body)?;
    if validation == FieldValidation::Strict
        && let Some(first) = warnings.first()
    {
        return Err(ApiError::bad_request(format!(
            "error strict decoding YAML: {first}"
        )));
    }
    if validation == FieldValidation::Ignore {
        warnings.clear();
    }
    let (code, stored) = apply_config(request, part, dry_run, &manager, &config).await?;
    let mut response = request.answer(code, stored)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

async fn apply_config(
    request: &Request,
    part: Part,
    dry_run: bool,
    manager: &Manager,
    config: &Value,
) -> Result<(StatusCode, Value)> {
    let kind = &request.kind;
    let force = request.query.flag("force");
    for _ in 0..ATTEMPTS {
        let updated = modify(request, part, dry_run, |old| {
            let live = served(kind, old);
            let applied =
                manager.writing(request, |writer| writer.apply(Some(&live), config, force))?;
            Ok(kind.to_stored(finish(request, applied)?))
        })
        .await;
        match updated {
            // What there is no object of has no status either.
            Err(error) if error.code == 404 && part == Part::Main => {}
            other => return Ok((StatusCode::OK, other?)),
        }
        handler::may_create(request).await?;
        let name = &request.resource.name;
        let uid = text(config, "metadata.uid");
        if !uid.is_empty() {
            return Err(ApiError::conflict(
                kind,
                name,
                &format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                ),
            ));
        }
        let applied = manager.writing(request, |writer| writer.apply(None, config, force))?;
        let object = finish(request, applied)?;
        match create_object(request, object, dry_run).await {
            // Somebody else was faster.
            Err(error) if error.reason == "AlreadyExists" => {}
            other => return Ok((StatusCode::CREATED, other?)),
        }
    }
    Err(ApiError::modified(kind, &request.resource.name))
}

/// A merged object as an update would send it, with its managedFields.
fn finish(request: &Request, applied: Applied) -> Result<Value> {
    let kind = &request.kind;
    let mut object = codec::decode_applied(kind, applied.object)?;
    let name = Some(request.resource.name.as_str());
    strategy::conform(kind, &mut object, request.namespace(), name)?;
    rhumb_api::default_object(kind, &mut object);
    Ok(with_managed(object, applied.managed))
}
