//! Objects in the form that the client asked for. The plain form of a stored kind is its JSON as
//! it is in memory; everything else goes through a `Value`.

use std::sync::Arc;

use bytes::Bytes;
use rhumb_api::json::{self, text};
use rhumb_api::registry::Kind;
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
        return Ok(Bytes::copy_from_slice(&object.json));
    }
    one(request, object.value())
}

/// How a list is written, an object at a time.
pub struct ListForm {
    kind: Arc<Kind>,
    form: Form,
    include: IncludeObject,
    now: jiff::Timestamp,
}

impl ListForm {
    pub fn of(request: &Request) -> Result<ListForm> {
        Ok(ListForm {
            kind: request.kind.clone(),
            form: request.accept.form,
            include: include(request)?,
            now: jiff::Timestamp::now(),
        })
    }

    /// Up to the first object.
    pub fn head(&self, page: &Page) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if !page.next.is_empty() {
            metadata["continue"] = page.next.as_str().into();
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let (head, items) = match self.form {
            Form::Table => {
                let none: [&Value; 0] = [];
                let mut head =
                    table::render(&self.kind, none, metadata, self.include, true, self.now);
                json::remove(&mut head, "rows");
                (head, "rows")
            }
            Form::Metadata => (
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
                "items",
            ),
            Form::Plain | Form::Discovery(_) => (
                json!({"kind": self.kind.list_kind, "apiVersion": self.kind.api_version(), "metadata": metadata}),
                "items",
            ),
        };
        let mut out = head.to_string().into_bytes();
        // The closing brace comes at the end.
        out.pop();
        out.extend_from_slice(format!(",\"{items}\":[").as_bytes());
        out
    }

    pub fn item(&self, object: &Object, out: &mut Vec<u8>) {
        let value = match self.form {
            Form::Table => table::row(&self.kind, &object.value(), self.include, self.now),
            Form::Metadata => metadata_only(&object.value()),
            _ if self.kind.is_view() => self.kind.served(object.value()),
            _ => {
                out.extend_from_slice(&object.json);
                return;
            }
        };
        out.extend_from_slice(value.to_string().as_bytes());
    }

    /// After the last object.
    pub const TAIL: &[u8] = b"]}";
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
