//! `application/vnd.kubernetes.protobuf` request bodies, which Go clients prefer (kubectl's `create`
//! among them): decoded into the JSON form. Answers are JSON always; clients that send protobuf
//! accept it. Source: apimachinery `pkg/runtime/serializer/protobuf`, and generated.proto files.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::registry;
use crate::schema::{StructId, Type, types};
use crate::time;

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";

const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoPrefix,
    #[error("the body ends within a field")]
    Truncated,
    #[error("the wire type of field {0} doesn't fit its type")]
    WireType(String),
    #[error("the text of field {0} is not UTF-8")]
    Text(String),
    #[error("the body is nested too deep")]
    TooDeep,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { kind: String, api_version: String },
    #[error("the content encoding {0:?} is not supported")]
    Encoding(String),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// The JSON name of a field, or the type that is embedded.
#[derive(Clone, Copy, Debug)]
enum Named {
    Field {
        name: &'static str,
        keep_empty: bool,
    },
    Embedded(&'static str),
}

type Message = HashMap<u64, Named>;

fn messages() -> &'static HashMap<&'static str, Message> {
    static MESSAGES: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let mut messages = HashMap::new();
        let table = include_str!("protobuf_fields.txt");
        for line in table.lines().filter(|l| !l.starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(ty) = words.next() else { continue };
            let fields = words
                .filter_map(|word| {
                    let (name, number) = word.split_once('=')?;
                    let named = match (name.strip_prefix('+'), name.strip_suffix('!')) {
                        (Some(embedded), _) => Named::Embedded(embedded),
                        (None, Some(name)) => Named::Field {
                            name,
                            keep_empty: true,
                        },
                        (None, None) => Named::Field {
                            name,
                            keep_empty: false,
                        },
                    };
                    Some((number.parse().ok()?, named))
                })
                .collect();
            messages.insert(ty, fields);
        }
        messages
    })
}

/// Whether bodies of the kind are taken: of custom kinds nobody knows the fields' numbers, and
/// definitions of them come as JSON and YAML only.
pub fn knows(kind: &registry::Kind) -> bool {
    kind.as_custom().is_none() && messages().contains_key(&*kind.schema_name())
}

/// Decodes a body into the JSON form of the object that it says it holds.
pub fn decode(body: &[u8]) -> Result<Value> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoPrefix)?;
    // runtime.Unknown: typeMeta 1, raw 2, contentEncoding 3, contentType 4.
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &body[..0]);
    let mut reader = Reader { rest: body };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader { rest: meta };
                while let Some((number, wire)) = meta.field()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = utf8(text, "apiVersion")?,
                        (2, Wire::Bytes(text)) => kind = utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Encoding(utf8(encoding, "contentEncoding")?));
            }
            _ => {}
        }
    }
    let name = type_name(&api_version, &kind);
    let found = name
        .as_deref()
        .and_then(|n| types().by_name(n).map(|id| (n, id)));
    let Some((name, id)) = found else {
        return Err(ProtobufError::UnknownKind { kind, api_version });
    };
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    message(name, id, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// The OpenAPI name of a kind, a subresource's kind or the options of a request.
fn type_name(api_version: &str, kind: &str) -> Option<String> {
    if let Some(kind) = registry::of_object(api_version, kind) {
        let name = kind.schema_name().into_owned();
        return messages().contains_key(name.as_str()).then_some(name);
    }
    let name = match (api_version, kind) {
        ("autoscaling/v1", "Scale") => "io.k8s.api.autoscaling.v1.Scale",
        ("authentication.k8s.io/v1", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest",
        ("policy/v1", "Eviction") => "io.k8s.api.policy.v1.Eviction",
        ("v1", "Binding") => "io.k8s.api.core.v1.Binding",
        // Registered in every group.
        (_, "DeleteOptions") => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        _ => {
            let review = registry::REVIEWS
                .iter()
                .find(|r| r.kind == kind && format!("{}/{}", r.group, r.version) == api_version)?;
            review.schema_name
        }
    };
    Some(name.to_string())
}

fn utf8(bytes: &[u8], field: &str) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Text(field.to_string()))
}

#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.rest.len() {
            return Err(ProtobufError::Truncated);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Wire::Fixed32(bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
            }
            _ => return Err(ProtobufError::WireType((tag >> 3).to_string())),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

/// Decodes the message `name` into `out`, which has the JSON type `id`: the two differ for embedded
/// messages only.
fn message(
    name: &str,
    id: StructId,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    let fields = messages().get(name);
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        match fields.and_then(|f| f.get(&number)) {
            // A field that a newer client knows: named, so that strict validation refuses it.
            None => {
                out.insert(format!("field number {number}"), Value::Null);
            }
            Some(Named::Embedded(inner)) => {
                let Wire::Bytes(bytes) = wire else {
                    return Err(ProtobufError::WireType((*inner).to_string()));
                };
                message(inner, id, bytes, out, depth + 1)?;
            }
            Some(Named::Field { name, keep_empty }) => {
                let Some(field) = types().get(id).fields.get(*name) else {
                    out.insert((*name).to_string(), Value::Null);
                    continue;
                };
                add(name, &field.ty, wire, *keep_empty, out, depth)?;
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field.
fn add(
    name: &str,
    ty: &Type,
    wire: Wire<'_>,
    keep_empty: bool,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<()> {
    match ty {
        Type::List(item) => {
            let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = list else {
                return Ok(());
            };
            let packed = match (&**item, wire) {
                (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(bytes)) => Some(bytes),
                _ => None,
            };
            match packed {
                Some(bytes) => {
                    let mut reader = Reader { rest: bytes };
                    while !reader.rest.is_empty() {
                        let number = Wire::Varint(reader.varint()?);
                        items.push(value(name, item, number, depth)?);
                    }
                }
                None => items.push(value(name, item, wire, depth)?),
            }
        }
        Type::Map(item) => {
            let Wire::Bytes(entry) = wire else {
                return Err(ProtobufError::WireType(name.to_string()));
            };
            let (mut key, mut found) = (String::new(), None);
            let mut reader = Reader { rest: entry };
            while let Some((number, wire)) = reader.field()? {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => key = utf8(text, name)?,
                    (2, wire) => found = Some(entry_value(name, item, wire, depth)?),
                    _ => {}
                }
            }
            let found = match found {
                Some(found) => found,
                None => entry_value(name, item, Wire::Bytes(&[]), depth)?,
            };
            let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = map {
                entries.insert(key, found);
            }
        }
        _ => {
            let decoded = value(name, ty, wire, depth)?;
            // Protobuf carries what Go's JSON leaves out.
            let empty = match &decoded {
                Value::Null => true,
                Value::Bool(b) => !b,
                Value::Number(n) => n.as_i64() == Some(0),
                Value::String(s) => s.is_empty(),
                _ => false,
            };
            if !decoded.is_null() && (keep_empty || !empty) {
                out.insert(name.to_string(), decoded);
            }
        }
    }
    Ok(())
}

/// The value of a map's entry. A list can't be one in protobuf, so Kubernetes wraps it in a
/// message with the items as its field 1 (`ExtraValue`).
fn entry_value(name: &str, ty: &Type, wire: Wire<'_>, depth: usize) -> Result<Value> {
    let Type::List(item) = ty else {
        return value(name, ty, wire, depth);
    };
    let Wire::Bytes(wrapped) = wire else {
        return Err(ProtobufError::WireType(name.to_string()));
    };
    let mut items = Vec::new();
    let mut reader = Reader { rest: wrapped };
    while let Some((number, wire)) = reader.field()? {
        if number == 1 {
            items.push(value(name, item, wire, depth)?);
        }
    }
    Ok(items.into())
}

fn value(name: &str, ty: &Type, wire: Wire<'_>, depth: usize) -> Result<Value> {
    let mismatch = || ProtobufError::WireType(name.to_string());
    match (ty, wire) {
        (Type::Struct(id), Wire::Bytes(bytes)) => {
            let mut out = Map::new();
            message(&types().get(*id).name, *id, bytes, &mut out, depth + 1)?;
            Ok(Value::Object(out))
        }
        (Type::Text, Wire::Bytes(bytes)) => Ok(utf8(bytes, name)?.into()),
        (Type::Bytes, Wire::Bytes(bytes)) => Ok(base64::engine::general_purpose::STANDARD
            .encode(bytes)
            .into()),
        (Type::Bool, Wire::Varint(n)) => Ok((n != 0).into()),
        // Negative numbers are sign-extended to 64 bits.
        (Type::Int32 | Type::Int64, Wire::Varint(n)) => Ok((n as i64).into()),
        (Type::Int32, Wire::Fixed32(n)) => Ok((n as i32).into()),
        (Type::Int64, Wire::Fixed64(n)) => Ok((n as i64).into()),
        (Type::Float, Wire::Fixed64(n)) => Ok(f64::from_bits(n).into()),
        (Type::Quantity, Wire::Bytes(bytes)) => {
            let mut text = String::new();
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field()? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    text = utf8(bytes, name)?;
                }
            }
            Ok(if text.is_empty() {
                "0".into()
            } else {
                text.into()
            })
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number_value, mut text) = (false, 0_i64, String::new());
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field()? {
                match (number, wire) {
                    (1, Wire::Varint(n)) => is_text = n == 1,
                    (2, Wire::Varint(n)) => number_value = n as i64,
                    (3, Wire::Bytes(bytes)) => text = utf8(bytes, name)?,
                    _ => {}
                }
            }
            Ok(if is_text {
                text.into()
            } else {
                number_value.into()
            })
        }
        (Type::Time | Type::MicroTime, Wire::Bytes(bytes)) => {
            let (mut seconds, mut nanos) = (0_i64, 0_i32);
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field()? {
                match (number, wire) {
                    (1, Wire::Varint(n)) => seconds = n as i64,
                    (2, Wire::Varint(n)) => nanos = n as i32,
                    _ => {}
                }
            }
            // The zero time is none.
            if (seconds, nanos) == (0, 0) {
                return Ok(Value::Null);
            }
            let time = Timestamp::new(seconds, nanos).map_err(|_| mismatch())?;
            Ok(match ty {
                Type::Time => time::format(time).into(),
                _ => time::format_micro(time).into(),
            })
        }
        (Type::Any, Wire::Bytes(bytes)) => {
            // FieldsV1 and RawExtension: JSON text in field 1.
            let mut raw: &[u8] = b"null";
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field()? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    raw = bytes;
                }
            }
            Ok(serde_json::from_slice(raw).unwrap_or(Value::Null))
        }
        _ => Err(mismatch()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn varint(mut n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    }

    fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [
            varint(number << 3 | 2),
            varint(content.len() as u64),
            content.to_vec(),
        ]
        .concat()
    }

    fn int(number: u64, n: i64) -> Vec<u8> {
        [varint(number << 3), varint(n as u64)].concat()
    }

    fn envelope(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
        let meta = [bytes(1, api_version), bytes(2, kind)].concat();
        [
            MAGIC.to_vec(),
            bytes(1, meta),
            bytes(2, raw),
            bytes(3, ""),
            bytes(4, ""),
        ]
        .concat()
    }

    #[test]
    fn a_deployment() {
        let container = [
            bytes(1, "c"),
            bytes(2, "img"),
            // ports: hostPort 0 is not written by Go's JSON, containerPort is.
            bytes(
                6,
                [bytes(1, ""), int(2, 0), int(3, 80), bytes(4, "TCP")].concat(),
            ),
            // resources.limits["cpu"] = "1"
            bytes(
                8,
                bytes(1, [bytes(1, "cpu"), bytes(2, bytes(1, "1"))].concat()),
            ),
        ]
        .concat();
        let volume = [bytes(1, "v"), bytes(2, bytes(2, ""))].concat();
        let pod_spec = [bytes(1, volume), bytes(2, container)].concat();
        let template = [bytes(1, ""), bytes(2, pod_spec)].concat();
        let rolling = bytes(2, [int(1, 1), int(2, 0), bytes(3, "25%")].concat());
        let strategy = [bytes(1, ""), bytes(2, rolling)].concat();
        let spec = [int(1, 0), bytes(3, template), bytes(4, strategy), int(5, 0)].concat();
        let meta = [
            bytes(1, "d"),
            bytes(2, ""),
            bytes(8, ""),
            bytes(11, [bytes(1, "a"), bytes(2, "b")].concat()),
        ]
        .concat();
        let body = envelope(
            "apps/v1",
            "Deployment",
            [bytes(1, meta), bytes(2, spec), bytes(3, "")].concat(),
        );
        assert_eq!(
            decode(&body).unwrap(),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "d", "labels": {"a": "b"}},
                "spec": {
                    "replicas": 0,
                    "template": {
                        "metadata": {},
                        "spec": {
                            "volumes": [{"name": "v", "emptyDir": {}}],
                            "containers": [{
                                "name": "c", "image": "img",
                                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                                "resources": {"limits": {"cpu": "1"}},
                            }],
                        },
                    },
                    "strategy": {"rollingUpdate": {"maxSurge": "25%"}},
                },
                "status": {},
            })
        );
    }

    #[test]
    fn secrets_times_and_options() {
        let meta = bytes(8, [int(1, 1_767_225_600), int(2, 0)].concat());
        let data = [bytes(1, "k"), bytes(2, [0xff_u8, 0])].concat();
        let body = envelope("v1", "Secret", [bytes(1, meta), bytes(2, data)].concat());
        let secret = decode(&body).unwrap();
        assert_eq!(secret["data"]["k"], "/wA=");
        assert_eq!(
            secret["metadata"]["creationTimestamp"],
            "2026-01-01T00:00:00Z"
        );
        let options = decode(&envelope("apps/v1", "DeleteOptions", int(1, 0))).unwrap();
        assert_eq!(options["gracePeriodSeconds"], 0);
        let negative = decode(&envelope("v1", "DeleteOptions", int(1, -1))).unwrap();
        assert_eq!(negative["gracePeriodSeconds"], -1);
    }

    #[test]
    fn lists_in_maps_are_wrapped() {
        let items = [bytes(1, "x"), bytes(1, "y")].concat();
        let entry = |key: &str, value: Vec<u8>| bytes(5, [bytes(1, key), bytes(2, value)].concat());
        let spec = [bytes(3, "anna"), entry("a", items), entry("b", vec![])].concat();
        let group = "authorization.k8s.io/v1";
        let review = decode(&envelope(group, "SubjectAccessReview", bytes(2, spec))).unwrap();
        assert_eq!(
            review["spec"],
            json!({"user": "anna", "extra": {"a": ["x", "y"], "b": []}})
        );
    }

    #[test]
    fn bad_bodies_are_named() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::NoPrefix));
        let unknown = decode(&envelope("v1", "Gadget", vec![])).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no kind \"Gadget\" is registered for version \"v1\""
        );
        let body = envelope("v1", "Pod", bytes(2, bytes(2, vec![0x0a, 0x7f])));
        assert_eq!(decode(&body), Err(ProtobufError::Truncated));
        let body = envelope("v1", "Pod", int(2, 1));
        assert_eq!(decode(&body), Err(ProtobufError::WireType("spec".into())));
        let newer = decode(&envelope("v1", "ConfigMap", int(99, 1))).unwrap();
        assert!(newer.get("field number 99").is_some());
    }

    #[test]
    fn every_field_of_every_type_has_a_number() {
        let table = messages();
        let names = |message: &Message| -> Vec<&'static str> {
            let mut out = Vec::new();
            let mut queue = vec![message];
            while let Some(message) = queue.pop() {
                for named in message.values() {
                    match named {
                        Named::Field { name, .. } => out.push(*name),
                        Named::Embedded(inner) => queue.push(&table[inner]),
                    }
                }
            }
            out
        };
        let mut queue: Vec<StructId> = registry::KINDS
            .iter()
            // Nobody sends what is only read.
            .filter(|k| k.group != "apiextensions.k8s.io" && k.verbs.contains(&"create"))
            .inspect(|k| assert!(knows(k), "{k:?}"))
            .map(|k| types().of(k))
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(id) = queue.pop() {
            if !seen.insert(id) {
                continue;
            }
            let ty = types().get(id);
            let message = table
                .get(ty.name.as_str())
                .unwrap_or_else(|| panic!("{}", ty.name));
            let known = names(message);
            for (field, found) in &ty.fields {
                if !matches!(field.as_str(), "apiVersion" | "kind")
                    || ty.fields.contains_key("name")
                {
                    assert!(
                        known.contains(&field.as_str()),
                        "{} has no number for {field}",
                        ty.name
                    );
                }
                let mut inner = &found.ty;
                while let Type::List(item) | Type::Map(item) = inner {
                    inner = item;
                }
                if let Type::Struct(id) = inner {
                    queue.push(*id);
                }
            }
        }
        assert!(seen.len() > 100);
    }

    proptest! {
        #[test]
        fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..80), kind in 0..registry::KINDS.len()) {
            let kind = &registry::KINDS[kind];
            let _ = decode(&envelope(&kind.api_version(), &kind.kind, raw.clone()));
            let _ = decode(&[MAGIC.to_vec(), raw].concat());
        }
    }
}
