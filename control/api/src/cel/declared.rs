//! Values from JSON whose type no schema of ours gives: none at all, or one that was declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::types::Type;
use super::value::{Key, Value};
use crate::time;

/// As it is: numbers without a fraction are ints, and no string is more than a string.
pub fn dynamic(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Double(n.as_f64().unwrap_or_default()),
        },
        Json::String(s) => Value::text(s),
        Json::Array(items) => Value::list(items.iter().map(dynamic).collect()),
        Json::Object(fields) => {
            let fields = fields.iter();
            map(fields.map(|(name, value)| (name.as_str(), dynamic(value))))
        }
    }
}

/// Of a declared type: what it doesn't know is left out.
pub fn declared(json: &Json, ty: &Type) -> Value {
    match (json, ty) {
        (Json::Object(fields), Type::Object(object)) => {
            map(fields.iter().filter_map(|(name, value)| {
                let ty = object.fields.get(name)?;
                Some((name.as_str(), declared(value, ty)))
            }))
        }
        (Json::Object(fields), Type::Map(_, ty)) => map(fields
            .iter()
            .map(|(name, value)| (name.as_str(), declared(value, ty)))),
        (Json::Array(items), Type::List(ty)) => {
            Value::list(items.iter().map(|item| declared(item, ty)).collect())
        }
        (Json::String(text), Type::Timestamp) => {
            time::parse(text).map_or_else(|| Value::text(text), Value::Timestamp)
        }
        (json, _) => dynamic(json),
    }
}

pub fn map<'a>(fields: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let fields = fields.map(|(name, value)| (Key::String(name.into()), value));
    Value::Map(Arc::new(fields.collect::<BTreeMap<Key, Value>>()))
}
