//! Events, in core's form.

use serde_json::Value;

use super::IMMUTABLE;
use crate::json::{at, text};
use crate::status::Errors;

pub fn event(event: &Value, errors: &mut Errors) {
    let namespace = text(event, "metadata.namespace");
    match text(event, "involvedObject.namespace") {
        // Events about what has no namespace live in `default` (or kube-system).
        "" if matches!(namespace, "" | "default" | "kube-system") => {}
        involved if involved == namespace => {}
        involved => errors.invalid(
            "involvedObject.namespace",
            involved,
            "does not match event.namespace",
        ),
    }
    for (field, max) in [("reason", 128), ("message", 1024), ("action", 128)] {
        // Only new-style events (with eventTime) have limits.
        if at(event, "eventTime").is_some() && text(event, field).len() > max {
            errors.invalid(field, "", format!("can have at most {max} characters"));
        }
    }
    if at(event, "eventTime").is_some() {
        for field in [
            "reportingComponent",
            "reportingInstance",
            "action",
            "reason",
        ] {
            if text(event, field).is_empty() {
                let shown = if field == "reportingComponent" {
                    "reportingController"
                } else {
                    field
                };
                errors.required(shown, "");
            }
        }
    }
}

pub fn event_update(new: &Value, old: &Value, errors: &mut Errors) {
    if at(old, "eventTime").is_none() {
        return;
    }
    for field in [
        "involvedObject",
        "reason",
        "reportingComponent",
        "reportingInstance",
        "action",
        "type",
        "eventTime",
    ] {
        if at(new, field) != at(old, field) {
            errors.invalid(
                field,
                new.get(field).cloned().unwrap_or(Value::Null),
                IMMUTABLE,
            );
        }
    }
}
