//! Pruning: what the schema doesn't know is dropped. Defaulting: what it has a default for is
//! filled in. Both change nothing when they are done again.
//! Source: apiextensions-apiserver `pkg/apiserver/schema/{pruning,defaulting}`.

use serde_json::{Map, Value};

use super::structural::Schema;

/// Drops what the schema doesn't know; the paths of what was dropped go into `unknown`.
/// `apiVersion`, `kind` and `metadata` of the root stay.
pub fn prune(object: &mut Value, schema: &Schema, unknown: &mut Vec<String>) {
    walk(object, schema, true, &mut String::new(), unknown);
}

/// As `prune`, for a value that is no object of its own.
pub fn prune_value(value: &mut Value, schema: &Schema, unknown: &mut Vec<String>) {
    walk(value, schema, false, &mut String::new(), unknown);
}

fn walk(
    value: &mut Value,
    schema: &Schema,
    root: bool,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(fields) => {
            let resource = root || schema.embedded;
            drop_unknown(fields, schema, resource, path, unknown);
            for (key, value) in fields.iter_mut() {
                let inner = match schema.properties.get(key) {
                    Some(inner) => inner,
                    None => match &schema.additional {
                        Some(Some(inner)) => inner,
                        _ => continue,
                    },
                };
                // The metadata of a resource is checked by its own type.
                if resource && key == "metadata" {
                    continue;
                }
                inside(path, key, |path| walk(value, inner, false, path, unknown));
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else {
                return;
            };
            for (i, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{i}]"));
                walk(item, inner, false, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn drop_unknown(
    fields: &mut Map<String, Value>,
    schema: &Schema,
    resource: bool,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    if schema.preserve_unknown || schema.additional.is_some() {
        return;
    }
    let known = |key: &str| {
        schema.properties.contains_key(key)
            || (resource && matches!(key, "apiVersion" | "kind" | "metadata"))
    };
    // Without type and properties nothing is said about an object's content, so nothing is known.
    fields.retain(|key, _| {
        let known = known(key);
        if !known {
            inside(path, key, |path| unknown.push(path.clone()));
        }
        known
    });
}

fn inside<T>(path: &mut String, key: &str, f: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
    let result = f(path);
    path.truncate(length);
    result
}

/// Fills in defaults, and drops nulls where they mean nothing: both before anything is validated,
/// and when an object that was stored under an older schema is read.
pub fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| {
                !value.is_null() || of_key(schema, key).is_none_or(Schema::keeps_null)
            });
            for (key, inner) in &schema.properties {
                if !fields.contains_key(key)
                    && let Some(default) = &inner.default
                {
                    fields.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in fields.iter_mut() {
                if let Some(inner) = of_key(schema, key) {
                    fill(value, inner);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else {
                return;
            };
            for item in items {
                if item.is_null()
                    && !inner.keeps_null()
                    && let Some(default) = &inner.default
                {
                    *item = default.clone();
                }
                fill(item, inner);
            }
        }
        _ => {}
    }
}

fn of_key<'a>(schema: &'a Schema, key: &str) -> Option<&'a Schema> {
    match (schema.properties.get(key), &schema.additional) {
        (Some(inner), _) => Some(inner),
        (None, Some(Some(inner))) => Some(inner),
        _ => None,
    }
}
