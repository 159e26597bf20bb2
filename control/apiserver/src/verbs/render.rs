//! Objects in the form that the client asked for. The plain form of a stored kind is its JSON as
//! it is in memory; everything else goes through a `Value`.

use bytes::Bytes;
use rhumb_api::json::text;
use rhumb_api::status::Result;
use rhumb_api::table::{self, IncludeObject};
use rhumb_store::Revision;
use serde_json::{Value, json};

use super::Request;
use super::list::Page;
use crate::http::negotiate::Form;
use crate::object::Object;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

fn include(request: &Request) -> Result<IncludeObject> {
    IncludeObject::parse(request.query.get("includeObject"))
}

fn table(request: &Request, stored: &[Value], metadata: Value, headers: bool) -> Result<Value> {
    let include = include(request)?;
    let now = jiff::Timestamp::now();
    Ok(table::render(
        &request.kind,
        stored,
        metadata,
        include,
        headers,
        now,
    ))
}

fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// One stored object, as the answer of a write.
pub fn one(request: &Request, stored: Value) -> Result<Bytes> {
    let value = match request.accept.form {
        Form::Table => {
            let version = json!({"resourceVersion": text(&stored, "metadata.resourceVersion")});
            table(request, &[stored], version, true)?
        }
        Form::Metadata => metadata_only(&stored),
        Form::Plain | Form::Discovery(_) => request.kind.served(stored),
    };
    Ok(value.to_string().into())
}

/// One object of the cache, as the answer of a get.
pub fn single(request: &Request, object: &Object) -> Result<Bytes> {
    if request.accept.form == Form::Plain && !request.kind.is_view() {
        return Ok(object.json.clone());
    }
    one(request, object.value())
}

pub fn list(request: &Request, page: &Page) -> Result<Bytes> {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if !page.next.is_empty() {
        metadata["continue"] = page.next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    if request.accept.form == Form::Table {
        let stored: Vec<Value> = page.objects.iter().map(|o| o.value()).collect();
        return Ok(table(request, &stored, metadata, true)?.to_string().into());
    }
    let (kind, api_version) = match request.accept.form {
        Form::Metadata => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
        _ => (
            request.kind.list_kind.to_string(),
            request.kind.api_version(),
        ),
    };
    let size: usize = page.objects.iter().map(|o| o.json.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}).to_string();
    // Without the closing brace.
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(b",\"items\":[");
    for (i, object) in page.objects.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match request.accept.form {
            Form::Metadata => {
                out.extend_from_slice(metadata_only(&object.value()).to_string().as_bytes());
            }
            _ if request.kind.is_view() => {
                let served = request.kind.served(object.value());
                out.extend_from_slice(served.to_string().as_bytes());
            }
            _ => out.extend_from_slice(&object.json),
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out.into())
}

/// An object in a watch event. Tables have their column definitions in the first one only.
pub fn event(request: &Request, object: &Object, first: bool) -> Result<Bytes> {
    match request.accept.form {
        Form::Table => {
            let version = json!({"resourceVersion": object.revision.to_string()});
            Ok(table(request, &[object.value()], version, first)?
                .to_string()
                .into())
        }
        _ => single(request, object),
    }
}

pub fn bookmark(request: &Request, revision: Revision, initial_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if initial_end {
        metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    match request.accept.form {
        Form::Table => {
            let mut row = json!({"cells": [], "object": metadata_only(&Value::Null)});
            row["object"]["metadata"] = metadata.clone();
            let rows = if initial_end { json!([row]) } else { json!([]) };
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null, "rows": rows,
            })
        }
        Form::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        }),
        _ => json!({
            "kind": request.kind.kind, "apiVersion": request.kind.api_version(),
            "metadata": metadata,
        }),
    }
}
