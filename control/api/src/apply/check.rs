//! Whether a configuration fits its type: undeclared fields, wrong types, items without a name or
//! with the same one. Texts are those of structured-merge-diff.

use std::collections::BTreeSet;

use serde_json::Value;

use super::path::Step;
use super::typed::{Place, Shape, step_of};
use crate::schema::Type;

/// `None` if it fits.
pub fn check(root: Place<'_>, config: &Value) -> Option<String> {
    let mut faults = Vec::new();
    visit(root, config, "", &mut faults);
    match faults.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn fault(faults: &mut Vec<String>, path: &str, what: &str) {
    faults.push(match path {
        "" => what.to_string(),
        path => format!("{path}: {what}"),
    });
}

fn visit(place: Place<'_>, value: &Value, path: &str, faults: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    match (place.ty(), value) {
        (Type::Struct(id), Value::Object(fields)) => {
            let of = place.struct_of(*id);
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if !of.fields.contains_key(name) && !of.open {
                    fault(faults, &path, "field not declared in schema");
                    break;
                }
                visit(place.field(of, name), value, &path, faults);
            }
        }
        (Type::Map(_), Value::Object(fields)) => {
            for (name, value) in fields {
                visit(place.items(), value, &format!("{path}.{name}"), faults);
            }
        }
        (Type::List(_), Value::Array(items)) => list(place, value, items, path, faults),
        (Type::Struct(_) | Type::Map(_), other) => {
            fault(
                faults,
                path,
                &format!("expected map, got &{{{}}}", go(other)),
            );
        }
        (Type::List(_), other) => {
            fault(
                faults,
                path,
                &format!("expected list, got &{{{}}}", go(other)),
            );
        }
        (Type::Text | Type::Bytes | Type::Time | Type::MicroTime, value) if !value.is_string() => {
            let got = format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value));
            fault(faults, path, &format!("expected string, got {got}"));
        }
        (Type::Int32 | Type::Int64 | Type::Float, value) if !value.is_number() => {
            let what = "expected numeric (int or float), got *value.valueUnstructured";
            fault(faults, path, what);
        }
        (Type::Bool, value) if !value.is_boolean() => {
            fault(
                faults,
                path,
                &format!("expected boolean, got &{{{}}}", go(value)),
            );
        }
        _ => {}
    }
}

fn list(place: Place<'_>, value: &Value, items: &[Value], path: &str, faults: &mut Vec<String>) {
    let shape = place.shape(value);
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let step = match shape {
            Shape::Set(_) | Shape::Keyed(..) => match step_of(shape, item) {
                Ok(step) => step,
                Err(why) => {
                    fault(faults, path, &format!("element {i}: {why}"));
                    return;
                }
            },
            _ => Step::Index(i64::try_from(i).unwrap_or(i64::MAX)),
        };
        let item_path = format!("{path}{step}");
        if seen.contains(&step) {
            fault(faults, path, &format!("duplicate entries for key {step}"));
        }
        seen.insert(step);
        visit(place.items(), item, &item_path, faults);
    }
}

/// As Go's `%v` shows it.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(k, v)| format!("{k}:{}", go(v)))
                .collect();
            fields.sort();
            format!("map[{}]", fields.join(" "))
        }
        plain => plain.to_string(),
    }
}

/// As Go's `%#v` shows it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), go_syntax(v)))
                .collect();
            fields.sort();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        plain => plain.to_string(),
    }
}
