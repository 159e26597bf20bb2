//! The values that expressions work on.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::authorizer::{Decision, Question};
use super::list_kinds;
use super::semver::Semver;
use super::types::{Type, escape};
use crate::crd::format;
use crate::crd::structural::{ListType, Schema};
use crate::quantity::Quantity;
use crate::time;

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpNetwork),
    Url(Arc<str>),
    Semver(Arc<Semver>),
    /// By its name.
    Format(&'static str),
    Question(Arc<Question>),
    Decision(Arc<Decision>),
    Type(Arc<str>),
    List(Arc<List>),
    Map(Arc<BTreeMap<Key, Value>>),
    Optional(Option<Arc<Value>>),
    /// What a comprehension carries on with after a step that failed.
    Failed(Arc<str>),
}

#[derive(Clone, Debug, Default)]
pub struct List {
    pub items: Vec<Value>,
    /// Lists that a schema says are sets or maps are equal in any order, and add up by item.
    pub kind: ListType,
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    pub fn of(value: &Value) -> Option<Key> {
        match value {
            Value::Bool(b) => Some(Key::Bool(*b)),
            Value::Int(n) => Some(Key::Int(*n)),
            // The same number is the same key.
            Value::Uint(n) => Some(i64::try_from(*n).map_or(Key::Uint(*n), Key::Int)),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(Key::Int(*n as i64)),
            Value::String(s) => Some(Key::String(s.clone())),
            _ => None,
        }
    }

    pub fn value(&self) -> Value {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(s) => Value::String(s.clone()),
        }
    }
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::String(text.as_ref().into())
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Arc::new(List {
            items,
            ..Default::default()
        }))
    }

    pub fn some(value: Value) -> Value {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn none() -> Value {
        Value::Optional(None)
    }

    pub fn type_name(&self) -> String {
        let ty = match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::Quantity(_) => Type::Quantity,
            Value::Ip(_) => Type::Ip,
            Value::Cidr(_) => Type::Cidr,
            Value::Url(_) => Type::Url,
            Value::Semver(_) => Type::Semver,
            Value::Format(_) => Type::Format,
            Value::Question(question) => question.stage.ty(),
            Value::Decision(_) => Type::Decision,
            Value::Type(_) => Type::Type,
            Value::List(_) => return "list".into(),
            Value::Map(_) => return "map".into(),
            Value::Optional(_) => return "optional_type".into(),
            Value::Failed(_) => return "error".into(),
        };
        ty.to_string()
    }

    /// How much of the budget it takes to look at all of it.
    pub fn weight(&self) -> u64 {
        match self {
            Value::String(s) | Value::Url(s) => 1 + s.len() as u64 / 10,
            Value::Bytes(b) => 1 + b.len() as u64 / 10,
            Value::List(list) => list.items.iter().map(Value::weight).sum::<u64>() + 1,
            Value::Map(map) => map.values().map(Value::weight).sum::<u64>() + 1,
            _ => 1,
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Double(n) => Some(*n),
        _ => None,
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b))
            | (Value::Url(a), Value::Url(b))
            | (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b) == Ordering::Equal,
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Semver(a), Value::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Decision(a), Value::Decision(b)) => a == b,
            (Value::List(a), Value::List(b)) => list_kinds::equal(a, b),
            (Value::Map(a), Value::Map(b)) => a == b,
            (Value::Optional(a), Value::Optional(b)) => a == b,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }
}

impl Value {
    /// The order of two values that have one.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (a, b) => number(a)?.partial_cmp(&number(b)?),
        }
    }
}

/// A JSON value that a schema describes. `resource`: the root of an object.
pub fn of_json(json: &Json, schema: &Schema, resource: bool) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), schema.ty.as_str()) {
            (Some(n), ty) if ty != "number" => Value::Int(n),
            _ => {
                let float = n.as_f64().unwrap_or_default();
                match schema.ty.as_str() {
                    "integer" => Value::Int(float as i64),
                    _ => Value::Double(float),
                }
            }
        },
        Json::String(s) => text(s, &schema.checks.format),
        Json::Array(items) => {
            let inner = schema.items.as_deref();
            let none = Schema::default();
            let items = items
                .iter()
                .map(|item| of_json(item, inner.unwrap_or(&none), false));
            Value::List(Arc::new(List {
                items: items.collect(),
                kind: schema.list_type,
                keys: schema.map_keys.iter().filter_map(|k| escape(k)).collect(),
            }))
        }
        Json::Object(fields) => object(fields, schema, resource || schema.embedded),
    }
}

fn object(fields: &serde_json::Map<String, Json>, schema: &Schema, resource: bool) -> Value {
    let none = Schema::default();
    let mut out = BTreeMap::new();
    for (name, value) in fields {
        let free = matches!(schema.additional, Some(Some(_)));
        let own = resource && matches!(name.as_str(), "apiVersion" | "kind");
        let inner = match (schema.properties.get(name), &schema.additional) {
            (Some(inner), _) => inner,
            (None, Some(Some(inner))) => inner,
            _ if own => &none,
            _ if resource && name == "metadata" => &none,
            _ => continue,
        };
        let value = match resource && name == "metadata" {
            true => metadata(value),
            false => of_json(value, inner, false),
        };
        let key = if free {
            Some(name.clone())
        } else {
            escape(name)
        };
        if let Some(key) = key {
            out.insert(Key::String(key.into()), value);
        }
    }
    Value::Map(Arc::new(out))
}

/// Of the metadata rules see the names only.
fn metadata(json: &Json) -> Value {
    let text = |name: &'static str| {
        let found = json.get(name)?.as_str()?;
        Some((Key::String(name.into()), Value::text(found)))
    };
    let fields = ["name", "generateName"].into_iter().filter_map(text);
    Value::Map(Arc::new(fields.collect()))
}

fn text(text: &str, format: &str) -> Value {
    let found = match format {
        "date-time" => time::parse(text).map(Value::Timestamp),
        "date" => time::parse(&format!("{text}T00:00:00Z")).map(Value::Timestamp),
        "duration" => format::nanoseconds(text).map(Value::Duration),
        "byte" => {
            use base64::Engine as _;
            let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
            decoded.map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    };
    found.unwrap_or_else(|| Value::text(text))
}
