//! `x-kubernetes-validations`.

use serde_json::Value;

use super::structural::{Schema, object};
use crate::status::Errors;

#[derive(Clone, Debug)]
pub struct Rule {}

pub fn compile(_: &Value, _: &Schema) -> Vec<Rule> {
    Vec::new()
}

/// Rules can't be checked yet, and are refused by name.
pub fn faults(schema: &Value, _: &Schema, path: &str, errors: &mut Errors) {
    let rules = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array);
    if rules.is_some_and(|rules| !rules.is_empty()) {
        errors.forbidden(
            &format!("{path}.x-kubernetes-validations"),
            "validation rules are not supported",
        );
    }
    let none = Schema::default();
    for (name, inner) in object(schema, "properties") {
        faults(inner, &none, &format!("{path}.properties[{name}]"), errors);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key) {
            faults(inner, &none, &format!("{path}.{key}"), errors);
        }
    }
}

pub fn check(_: &Value, _: Option<&Value>, _: &Schema, _: &mut Errors) {}
