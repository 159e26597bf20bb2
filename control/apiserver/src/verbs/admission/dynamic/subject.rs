//! A write, or a connection, as webhooks and policies see it.

use std::borrow::Cow;
use std::sync::Arc;

use rhumb_api::admission::dynamic::{Attributes, Named, Operation, Place};
use rhumb_api::codec::{self, FieldValidation, Parsed};
use rhumb_api::json::{self, at};
use rhumb_api::options::number;
use rhumb_api::registry::Kind;
use rhumb_api::status::Result;
use rhumb_api::strategy;
use serde_json::{Value, json};

use crate::verbs::{Request, admit};

/// What the objects are.
pub enum Objects {
    /// Those of the request's kind, in the form of prepared writes.
    Whole,
    /// What a subresource has of its own: kind, and name in OpenAPI.
    Own(Named, &'static str),
}

/// A form in which the objects can be shown: a resource and its kind.
pub struct Form {
    pub resource: Named,
    pub kind: Named,
    /// Of whole objects.
    view: Option<Arc<Kind>>,
}

pub struct Subject<'a> {
    pub request: &'a Request,
    pub attributes: Attributes,
    /// The request's own form, and the others in which the same objects are served.
    pub forms: Vec<Form>,
    schema: &'static str,
    /// The Namespace around the objects, if there is one.
    pub namespace: Option<Value>,
}

fn named(group: &str, version: &str, name: &str) -> Named {
    Named {
        group: group.into(),
        version: version.into(),
        name: name.into(),
    }
}

impl<'a> Subject<'a> {
    /// `name`: of the object, "" if the server makes it. `dry_run`: the query's, or the options'.
    pub async fn new(
        request: &'a Request,
        operation: Operation,
        objects: Objects,
        name: &str,
        dry_run: bool,
    ) -> Result<Subject<'a>> {
        let kind = &request.kind;
        let is_namespace = kind.is("", "Namespace");
        let namespace = match is_namespace {
            true => name.to_string(),
            false => request.namespace().unwrap_or("").to_string(),
        };
        let own = |kind: &Kind| named(&kind.group, &kind.version, &kind.plural);
        let registry = request.api.registry();
        let prefix = kind.storage_prefix();
        let others = registry.kinds().iter();
        let others = others.filter(|k| k.storage_prefix() == prefix && **k != *kind);
        let (forms, schema): (Vec<Form>, _) = match objects {
            Objects::Whole => {
                let form = |kind: &Arc<Kind>| Form {
                    resource: own(kind),
                    kind: named(&kind.group, &kind.version, &kind.kind),
                    view: Some(kind.clone()),
                };
                let forms = std::iter::once(kind).chain(others).map(form).collect();
                (forms, "")
            }
            Objects::Own(seen, schema) => {
                let form = |kind: &Arc<Kind>| Form {
                    resource: own(kind),
                    kind: seen.clone(),
                    view: None,
                };
                // Other versions that have the subresource too.
                let subresource = &request.resource.subresource;
                let others = others.filter(|k| k.subresource(subresource).is_some());
                let forms = std::iter::once(kind).chain(others).map(form).collect();
                (forms, schema)
            }
        };
        let around = match namespace.as_str() {
            "" => None,
            namespace => admit::find(request, "namespaces", "", namespace).await?,
        };
        let first: &Form = &forms[0];
        Ok(Subject {
            attributes: Attributes {
                operation,
                kind: first.kind.clone(),
                resource: first.resource.clone(),
                subresource: request.resource.subresource.clone(),
                namespace,
                name: name.into(),
                user: request.user.to_value(),
                dry_run,
                options: options(request, operation, dry_run),
            },
            request,
            forms,
            schema,
            namespace: around,
        })
    }

    pub fn is_namespace(&self) -> bool {
        self.request.kind.is("", "Namespace")
    }

    /// The object's name in refusals.
    pub fn called(&self) -> &str {
        match self.attributes.name.as_str() {
            "" => "Unknown",
            name => name,
        }
    }

    /// What rules are asked about: the request's own place, and those of the other forms.
    pub fn places(&self) -> (Place<'_>, Vec<Place<'_>>) {
        let own = self.attributes.place();
        let others = self.forms[1..].iter().map(|form| Place {
            group: &form.resource.group,
            version: &form.resource.version,
            resource: &form.resource.name,
            ..own
        });
        (own, others.collect())
    }

    /// An object in one of the forms.
    pub fn shown<'v>(&self, form: &Form, object: &'v Value) -> Cow<'v, Value> {
        let own = &self.request.kind;
        match &form.view {
            None => Cow::Borrowed(object),
            Some(view) if view == own && view.storage() == &**own => Cow::Borrowed(object),
            Some(view) => {
                let stored = view.from_store(own.into_store(object));
                Cow::Owned(view.served(stored))
            }
        }
    }

    /// The object that a patch of a shown one has made: its types are checked and its defaults
    /// filled in, as of what a client sends.
    pub fn taken(&self, form: &Form, patched: Value) -> Result<Value> {
        let ignore = FieldValidation::Ignore;
        let parsed = Parsed {
            value: patched,
            duplicates: Vec::new(),
        };
        let Some(view) = &form.view else {
            return Ok(codec::decode_named(self.schema, parsed, ignore)?.object);
        };
        let mut object = codec::decode_parsed(view, parsed, ignore)?.object;
        let name = match self.attributes.operation {
            Operation::Create => None,
            _ => Some(self.request.resource.name.as_str()),
        };
        strategy::conform(view, &mut object, self.request.namespace(), name)?;
        rhumb_api::default_object(view, &mut object);
        let own = &self.request.kind;
        let stored = view.to_stored(object);
        match view == own {
            true => Ok(stored),
            false => Ok(own.from_store(view.into_store(&stored))),
        }
    }
}

/// The options of the request, as Kubernetes' types for them.
fn options(request: &Request, operation: Operation, dry_run: bool) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    let query = &request.query;
    if operation != Operation::Delete {
        for key in ["fieldManager", "fieldValidation"] {
            if query.has(key) {
                options[key] = query.get(key).into();
            }
        }
    } else if request.body.is_empty() {
        if query.has("propagationPolicy") {
            options["propagationPolicy"] = query.get("propagationPolicy").into();
        }
        if query.has("orphanDependents") {
            options["orphanDependents"] = query.flag("orphanDependents").into();
        }
        if let Ok(Some(seconds)) = number(query.get("gracePeriodSeconds")) {
            options["gracePeriodSeconds"] = seconds.into();
        }
    } else if let Ok(Parsed { value, .. }) = codec::parse(request.content_type(), &request.body) {
        for key in [
            "gracePeriodSeconds",
            "preconditions",
            "orphanDependents",
            "propagationPolicy",
        ] {
            if let Some(given) = at(&value, key) {
                json::default(&mut options, key, given.clone());
            }
        }
    }
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}
