//! delete and deletecollection.

use http::{Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::text;
use rhumb_api::options;
use rhumb_api::status::{self, ApiError, Result};
use rhumb_api::strategy::{self, DeleteOptions, DeleteOutcome, Propagation};
use rhumb_store::{Change, Condition, Outcome, Write};
use serde_json::Value;

use super::admission::dynamic;
use super::list::page;
use super::write::put;
use super::{ATTEMPTS, Request, admit, list_body, set_version, store_error, store_key};
use crate::http::reply::{self, Body};

const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// From the body, or without one from the query.
fn delete_options(request: &Request) -> Result<DeleteOptions> {
    if !request.body.is_empty() {
        let parsed = codec::parse(request.content_type(), &request.body)?;
        // By its type first: a dry run or a precondition in a wrong form must not be left aside.
        let decoded = codec::decode_named(OPTIONS, parsed, FieldValidation::Ignore)?;
        // An object of another kind is a mistake, and a deletion can't be taken back. Every group has
        // the options.
        let kind = text(&decoded.object, "kind");
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(ApiError::bad_request(format!(
                "the body is a {kind}: it cannot be converted to DeleteOptions"
            )));
        }
        return DeleteOptions::from_value(&decoded.object);
    }
    let query = &request.query;
    let orphan = query
        .has("orphanDependents")
        .then(|| query.flag("orphanDependents"));
    Ok(DeleteOptions {
        grace_period_seconds: options::number(query.get("gracePeriodSeconds"))?,
        propagation: Propagation::of(query.get("propagationPolicy"), orphan)?,
        dry_run: request.dry_run()?,
        ..DeleteOptions::default()
    })
}

/// What a delete left: the object, if it stays for now.
pub(super) enum Deleted {
    Removed(Value),
    Stays(Value),
}

pub async fn delete(request: &Request) -> Result<Response<Body>> {
    let options = delete_options(request)?;
    let name = request.resource.name.as_str();
    let namespace = request.resource.namespace.as_str();
    match delete_one(request, namespace, name, &options).await? {
        Deleted::Removed(last) => {
            if request.kind.is_shown_when_deleted() {
                return request.answer(StatusCode::OK, last);
            }
            let uid = text(&last, "metadata.uid");
            let status = status::deleted(&request.kind, name, uid);
            Ok(reply::object(StatusCode::OK, request.accept, &status))
        }
        Deleted::Stays(object) => request.answer(StatusCode::OK, object),
    }
}

pub(super) async fn delete_one(
    request: &Request,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let kind = &request.kind;
    let key = store_key(kind, namespace, name);
    for _ in 0..ATTEMPTS {
        let kv = request.api.store.get(&key).await.map_err(store_error)?;
        let kv = kv.ok_or_else(|| ApiError::not_found(kind, name))?;
        let old = crate::object::value_of(&kv).map_err(ApiError::internal)?;
        let old = kind.from_store(old);
        admit::delete(request, name).await?;
        // An eviction is another request, and was put before its own.
        if request.resource.subresource.is_empty() {
            dynamic::delete(request, &old, options.dry_run).await?;
        }
        let outcome =
            strategy::prepare_delete(kind.storage(), &old, options, jiff::Timestamp::now())?;
        let (change, mut new) = match outcome {
            DeleteOutcome::Unchanged => return Ok(Deleted::Stays(old)),
            DeleteOutcome::Remove => (Change::Delete, old.clone()),
            DeleteOutcome::Mark(marked) => (put(kind, &marked), *marked),
        };
        let removed = change == Change::Delete;
        let answer = |object| match removed {
            true => Deleted::Removed(object),
            false => Deleted::Stays(object),
        };
        if options.dry_run {
            return Ok(answer(new));
        }
        let written = request
            .api
            .store
            .write(Write {
                key: key.clone(),
                condition: Condition::ModRevision(kv.mod_revision),
                change,
            })
            .await
            .map_err(store_error)?;
        match written {
            Outcome::Committed(revision) => {
                if removed {
                    admit::released(request, &old, None).await;
                }
                set_version(&mut new, revision);
                return Ok(answer(new));
            }
            Outcome::Conflict(None) => return Err(ApiError::not_found(kind, name)),
            Outcome::Conflict(Some(_)) => {}
        }
    }
    Err(ApiError::modified(kind, name))
}

pub async fn delete_collection(request: &Request) -> Result<Response<Body>> {
    let options = delete_options(request)?;
    let page = page(request).await?;
    for object in &page.objects {
        match delete_one(request, object.namespace(), object.name(), &options).await {
            // Somebody else deleted it: that is what was asked for.
            Err(error) if error.code == 404 => {}
            other => {
                other?;
            }
        }
    }
    list_body::answer(request, page)
}
