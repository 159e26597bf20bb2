//! Values against their schema, with the texts of Kubernetes' OpenAPI validation.
//! Source: kube-openapi `pkg/validation`, apiextensions-apiserver `pkg/apiserver/validation`.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::format;
use super::structural::{Checks, ListType, Nested, Schema};
use crate::status::Errors;

/// Checks a value. What is the same in `old` is not found wrong anew: a schema may get narrower
/// while there are objects that it no longer fits.
pub fn validate(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: &str,
    errors: &mut Errors,
) {
    if old == Some(value) {
        return;
    }
    if !of_type(value, schema, path, errors) {
        return;
    }
    checks(value, &schema.checks, path, errors);
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                embedded(value, path, errors);
            }
            for (key, value) in fields {
                let inner = match (schema.properties.get(key), &schema.additional) {
                    (Some(inner), _) => inner,
                    (None, Some(Some(inner))) => inner,
                    _ => continue,
                };
                let before = old.and_then(|o| o.get(key));
                validate(value, before, inner, &join(path, key), errors);
            }
        }
        Value::Array(items) => {
            unique(items, schema, path, errors);
            let Some(inner) = &schema.items else {
                return;
            };
            for (i, item) in items.iter().enumerate() {
                let before = counterpart(item, old, schema);
                validate(item, before, inner, &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

/// The item that an item of a map-like list was: that with the same keys.
pub fn counterpart<'a>(item: &Value, old: Option<&'a Value>, schema: &Schema) -> Option<&'a Value> {
    let old = old?.as_array()?;
    match schema.list_type {
        ListType::Map => old.iter().find(|o| {
            let mut keys = schema.map_keys.iter();
            keys.all(|key| o.get(key) == item.get(key))
        }),
        _ => None,
    }
}

pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

/// OpenAPI's name of a value's type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || whole(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a number that isn't written as one is an integer: up to where every integer is a float.
fn whole(number: &Number) -> bool {
    const MOST: f64 = ((1_u64 << 53) - 1) as f64;
    let float = number.as_f64().filter(|n| n.abs() <= MOST);
    float.is_some_and(|n| n.fract() == 0.0)
}

fn fits(ty: &str, value: &Value) -> bool {
    let found = type_of(value);
    ty == found || (ty == "number" && found == "integer")
}

fn of_type(value: &Value, schema: &Schema, path: &str, errors: &mut Errors) -> bool {
    if value.is_null() && schema.keeps_null() {
        return true;
    }
    let wanted = match schema.ty.as_str() {
        "" if schema.int_or_string => {
            if fits("integer", value) || fits("string", value) {
                return true;
            }
            "integer,string"
        }
        "" => return true,
        ty if fits(ty, value) => return true,
        ty => ty,
    };
    wrong_type(path, wanted, type_of(value), errors);
    false
}

fn wrong_type(path: &str, wanted: &str, found: &str, errors: &mut Errors) {
    let shown = if path.is_empty() { "<nil>" } else { path };
    errors.type_invalid(
        shown,
        found,
        format!("{path} in body must be of type {wanted}: {found:?}"),
    );
}

fn embedded(value: &Value, path: &str, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        if value
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or("")
            .is_empty()
        {
            errors.required(&join(path, field), "must not be empty");
        }
    }
}

fn unique(items: &[Value], schema: &Schema, path: &str, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = match schema.list_type {
            ListType::Atomic => return,
            ListType::Set => item.clone(),
            ListType::Map => schema
                .map_keys
                .iter()
                .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                .collect(),
        };
        if !seen.insert(canonical(&key)) {
            errors.duplicate(&format!("{path}[{i}]"), key);
        }
    }
}

/// The same text for equal values.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, String> =
                fields.iter().map(|(k, v)| (k, canonical(v))).collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("{items:?}")
        }
        other => other.to_string(),
    }
}

fn checks(value: &Value, checks: &Checks, path: &str, errors: &mut Errors) {
    alternatives(value, checks, path, errors);
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(max) = checks.max_length.filter(|max| length > *max) {
                errors.too_long(path, usize::try_from(max).unwrap_or(usize::MAX));
            }
            if let Some(min) = checks.min_length.filter(|min| length < *min) {
                let why = format!("{path} in body should be at least {min} chars long");
                errors.invalid(path, text.as_str(), why);
            }
            if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.is_match(text)) {
                let why = format!("{path} in body should match '{pattern}'");
                errors.invalid(path, text.as_str(), why);
            }
            if !format::fits(&checks.format, text) {
                let why = format!("{path} in body must be of type {}: {text:?}", checks.format);
                errors.type_invalid(path, text.as_str(), why);
            }
        }
        Value::Number(_) => number(value, checks, path, errors),
        Value::Array(items) => {
            let count = items.len() as u64;
            if let Some(max) = checks.max_items.filter(|max| count > *max) {
                errors.too_many(
                    path,
                    items.len(),
                    usize::try_from(max).unwrap_or(usize::MAX),
                );
            }
            if let Some(min) = checks.min_items.filter(|min| count < *min) {
                let why = format!("{path} in body should have at least {min} items");
                errors.invalid(path, items.len(), why);
            }
        }
        Value::Object(fields) => {
            let count = fields.len() as u64;
            if let Some(max) = checks.max_properties.filter(|max| count > *max) {
                errors.too_many(
                    path,
                    fields.len(),
                    usize::try_from(max).unwrap_or(usize::MAX),
                );
            }
            if let Some(min) = checks.min_properties.filter(|min| count < *min) {
                let why = format!("{path} in body should have at least {min} properties");
                errors.invalid(path, fields.len(), why);
            }
            for name in &checks.required {
                if !fields.contains_key(name) {
                    errors.required(&join(path, name), "");
                }
            }
        }
        _ => {}
    }
    one_of_values(value, checks, path, errors);
}

fn number(value: &Value, checks: &Checks, path: &str, errors: &mut Errors) {
    let Some(found) = value.as_f64() else {
        return;
    };
    let mut refuse = |why: String| {
        errors.invalid(
            path,
            value.clone(),
            format!("{path} in body should be {why}"),
        )
    };
    match checks.maximum {
        Some((max, true)) if found >= max => refuse(format!("less than {max}")),
        Some((max, false)) if found > max => refuse(format!("less than or equal to {max}")),
        _ => {}
    }
    match checks.minimum {
        Some((min, true)) if found <= min => refuse(format!("greater than {min}")),
        Some((min, false)) if found < min => refuse(format!("greater than or equal to {min}")),
        _ => {}
    }
    if let Some(step) = checks.multiple_of
        && step != 0.0
    {
        let times = found / step;
        if (times - times.round()).abs() > 1e-9 * times.abs().max(1.0) {
            refuse(format!("a multiple of {step}"));
        }
    }
    let bounds = match checks.format.as_str() {
        "int32" => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        _ => None,
    };
    if bounds.is_some_and(|(min, max)| found < min || found > max) {
        let why = format!("{path} in body must be of type {}: {value}", checks.format);
        errors.invalid(path, value.clone(), why);
    }
}

fn one_of_values(value: &Value, checks: &Checks, path: &str, errors: &mut Errors) {
    let values = &checks.one_of_values;
    // Numbers are equal whatever they are written as.
    let same = |v: &Value| canonical(v) == canonical(value);
    if values.is_empty() || value.is_null() || values.iter().any(same) {
        return;
    }
    let shown: Vec<String> = values
        .iter()
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string))
        .collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    errors.not_supported(path, value.clone(), &shown);
}

fn alternatives(value: &Value, checks: &Checks, path: &str, errors: &mut Errors) {
    let faults = |nested: &Nested| {
        let mut faults = Errors::default();
        self::nested(value, nested, path, &mut faults);
        faults
    };
    let mut refuse = |why: String, more: Vec<Errors>| {
        errors.invalid("<nil>", "", format!("{path:?} must {why}"));
        if let Some(best) = more.into_iter().min_by_key(|found| found.0.len()) {
            errors.0.extend(best.0);
        }
    };
    if !checks.any_of.is_empty() {
        let found: Vec<Errors> = checks.any_of.iter().map(faults).collect();
        if found.iter().all(|f| !f.is_empty()) {
            refuse("validate at least one schema (anyOf)".into(), found);
        }
    }
    if !checks.one_of.is_empty() {
        let found: Vec<Errors> = checks.one_of.iter().map(faults).collect();
        let text = "validate one and only one schema (oneOf). Found";
        match found.iter().filter(|f| f.is_empty()).count() {
            1 => {}
            0 => refuse(format!("{text} none valid"), found),
            n => refuse(format!("{text} {n} valid alternatives"), Vec::new()),
        }
    }
    if !checks.all_of.is_empty() {
        let found: Vec<Errors> = checks.all_of.iter().map(faults).collect();
        let failed: Vec<Errors> = found.into_iter().filter(|f| !f.is_empty()).collect();
        if !failed.is_empty() {
            let none = match failed.len() == checks.all_of.len() {
                true => ". None validated",
                false => "",
            };
            let text = format!("validate all the schemas (allOf){none}");
            let mut all = Errors::default();
            failed.into_iter().for_each(|f| all.0.extend(f.0));
            refuse(text, vec![all]);
        }
    }
    if let Some(not) = &checks.not
        && faults(not).is_empty()
    {
        refuse("not validate the schema (not)".into(), Vec::new());
    }
}

fn nested(value: &Value, schema: &Nested, path: &str, errors: &mut Errors) {
    if !schema.ty.is_empty() && !fits(&schema.ty, value) {
        wrong_type(path, &schema.ty, type_of(value), errors);
        return;
    }
    checks(value, &schema.checks, path, errors);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let inner = schema.properties.get(key);
                if let Some(inner) = inner.or(schema.additional.as_deref()) {
                    nested(value, inner, &join(path, key), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    nested(item, inner, &format!("{path}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}
