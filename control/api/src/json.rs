//! Small readers over `serde_json::Value`: objects are handled in their wire form, so that one
//! piece of code serves every kind.

use serde_json::{Map, Value};

/// The value at a dotted path of object keys (`metadata.labels`); `None` if any step is absent.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |v, key| v.get(key))
        .filter(|v| !v.is_null())
}

/// The string at a path, or "".
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The integer at a path.
pub fn int(value: &Value, path: &str) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The boolean at a path, or false.
pub fn flag(value: &Value, path: &str) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The array at a path, or an empty one.
pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or(&[])
}

/// The object at a path.
pub fn map<'a>(value: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(value, path).and_then(Value::as_object)
}

/// The array at a path for changing, if it is there.
pub fn list_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Vec<Value>> {
    path.split('.')
        .try_fold(value, |v, key| v.get_mut(key))
        .and_then(Value::as_array_mut)
}

/// The object at one key, made if absent or null; `None` if something else is there.
pub fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let slot = value
        .as_object_mut()?
        .entry(key)
        .or_insert_with(|| Value::Object(Map::new()));
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.is_object().then_some(slot)
}

/// Sets `key` if it is absent or null. Does nothing to a value that is no object.
pub fn default(value: &mut Value, key: &str, to: impl Into<Value>) {
    if let Some(object) = value.as_object_mut() {
        match object.get(key) {
            None | Some(Value::Null) => {
                object.insert(key.to_string(), to.into());
            }
            Some(_) => {}
        }
    }
}

/// As `default`, for strings, where "" counts as absent, as it does in Go.
pub fn default_text(value: &mut Value, key: &str, to: &str) {
    if value.get(key).and_then(Value::as_str) == Some("")
        && let Some(object) = value.as_object_mut()
    {
        object.insert(key.to_string(), to.into());
        return;
    }
    default(value, key, to);
}

/// Removes a key of an object.
pub fn remove(value: &mut Value, key: &str) -> Option<Value> {
    // shift_remove keeps the order of the other keys, which users see in `-o yaml`.
    value.as_object_mut().and_then(|o| o.shift_remove(key))
}

/// How deep a value may nest: what is deeper could be stored, but not be parsed again.
pub const MAX_DEPTH: usize = 120;

/// How many lists and objects are one inside another.
pub fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// Sets or removes a key, as `to` says.
pub fn put(value: &mut Value, key: &str, to: Option<Value>) {
    match to {
        Some(v) => {
            if let Some(object) = value.as_object_mut() {
                object.insert(key.to_string(), v);
            }
        }
        None => {
            remove(value, key);
        }
    }
}
