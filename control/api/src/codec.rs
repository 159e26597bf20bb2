//! Bodies to objects: JSON or YAML, then the kind's types: unknown and duplicate fields (strict,
//! warned about or ignored, as `fieldValidation` asks), and type errors in Go's words.

use std::cell::RefCell;
use std::fmt::Write as _;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, json};

use crate::json;
use crate::registry::{self, Kind};
use crate::schema::{StructId, Type, types};
use crate::status::{ApiError, Result};
use crate::{options, protobuf, quantity, time};

/// `fieldValidation`; Kubernetes' default is `Warn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The value of `fieldValidation` in options of the type `options`.
    pub fn parse(options: &str, text: &str) -> Result<Self> {
        options::check_field_validation(options, text)?;
        Ok(match text {
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            _ => FieldValidation::Warn,
        })
    }
}

/// A decoded object, and what to send in `Warning: 299` headers.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";

/// A parsed body: the value, and its duplicate fields by path.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// Parses a body by its media type (parameters are ignored; none means JSON).
pub fn parse(media_type: &str, body: &[u8]) -> Result<Parsed> {
    let parsed = match media_type.split(';').next().unwrap_or("").trim() {
        "" | "application/json" | "*/*" => parse_json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => parse_yaml(body),
        protobuf::MEDIA_TYPE => protobuf::decode(body)
            .map(|value| Parsed {
                value,
                duplicates: Vec::new(),
            })
            .map_err(|e| ApiError::bad_request(format!("couldn't decode the protobuf body: {e}"))),
        _ => Err(ApiError::unsupported_media_type(&[
            JSON,
            YAML,
            protobuf::MEDIA_TYPE,
        ])),
    }?;
    // What is stored is read as JSON, whose parser has a bound; field ownership nests a little deeper
    // than the object.
    match json::depth(&parsed.value) {
        deep if deep > json::MAX_DEPTH => Err(ApiError::bad_request(format!(
            "the body nests too deep: limit is {}",
            json::MAX_DEPTH
        ))),
        _ => Ok(parsed),
    }
}

fn parse_yaml(body: &[u8]) -> Result<Parsed> {
    let text = std::str::from_utf8(body)
        .map_err(|e| ApiError::bad_request(format!("the body is not valid UTF-8: {e}")))?;
    serde_saphyr::from_str::<Value>(text)
        .map(|value| Parsed {
            value,
            duplicates: Vec::new(),
        })
        .map_err(|e| ApiError::bad_request(format!("error converting YAML to JSON: {e}")))
}

/// Parses JSON, noting fields that occur twice (the last one counts, as in Go).
pub fn parse_json(body: &[u8]) -> Result<Parsed> {
    let duplicates = RefCell::new(Vec::new());
    let path = RefCell::new(String::new());
    let seed = Noting {
        duplicates: &duplicates,
        path: &path,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| ApiError::bad_request(format!("couldn't parse the body as JSON: {e}")))?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_inner(),
    })
}

/// Builds a `Value` and notes duplicate keys with their path.
#[derive(Clone, Copy)]
struct Noting<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: &'a RefCell<String>,
}

impl Noting<'_> {
    /// Runs `f` with `step` appended to the path.
    fn inside<T>(&self, step: &str, f: impl FnOnce() -> T) -> T {
        let length = self.path.borrow().len();
        self.path.borrow_mut().push_str(step);
        let result = f();
        self.path.borrow_mut().truncate(length);
        result
    }
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let step = format!("[{}]", items.len());
            match self.inside(&step, || seq.next_element_seed(self))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let step = if self.path.borrow().is_empty() {
                key.clone()
            } else {
                format!(".{key}")
            };
            let value = self.inside(&step, || {
                if object.contains_key(&key) {
                    self.duplicates
                        .borrow_mut()
                        .push(self.path.borrow().clone());
                }
                map.next_value_seed(self)
            })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Parses and decodes a body as an object of `kind`.
pub fn decode(
    kind: &Kind,
    media_type: &str,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded> {
    let bare = media_type.split(';').next().unwrap_or("").trim();
    if bare == protobuf::MEDIA_TYPE && !protobuf::knows(kind) {
        return Err(ApiError::unsupported_media_type(&[JSON, YAML]));
    }
    let parsed = parse(media_type, body)?;
    decode_parsed(kind, parsed, validation)
}

/// Decodes a parsed body as an object of `kind`: its types are checked, unknown fields and nulls
/// are dropped.
pub fn decode_parsed(kind: &Kind, parsed: Parsed, validation: FieldValidation) -> Result<Decoded> {
    if kind.as_custom().is_none() {
        refuse_another(kind, &parsed.value)?;
    }
    let read = read(kind, parsed.value, Words::Json);
    judge(
        &kind.kind,
        &kind.version,
        read,
        &parsed.duplicates,
        validation,
    )
}

/// A body that says it is of another kind, in the words of Kubernetes' decoder.
fn refuse_another(kind: &Kind, object: &Value) -> Result<()> {
    let (given, api_version) = (json::text(object, "kind"), json::text(object, "apiVersion"));
    if given.is_empty() || given == kind.kind {
        return Ok(());
    }
    let (group, version) = match (api_version, api_version.split_once('/')) {
        ("", _) => (&*kind.group, &*kind.version),
        (_, Some(both)) => both,
        (version, None) => ("", version),
    };
    let known = registry::KINDS
        .iter()
        .any(|k| k.group == group && k.version == version && k.kind == given);
    let why = if known {
        let package = match kind.group.split('.').next() {
            Some("") | None => "core",
            Some(first) => first,
        };
        format!(
            "converting ({version}.{given}) to ({package}.{}): unknown conversion",
            kind.kind
        )
    } else {
        let written = match group {
            "" => version.to_string(),
            _ => format!("{group}/{version}"),
        };
        format!(
            "no kind \"{given}\" is registered for version \"{written}\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(ApiError::bad_request(format!(
        "{given} in version \"{version}\" cannot be handled as a {}: {why}",
        kind.kind
    )))
}

/// Decodes what apply made: an object of `kind`, but for what both sides had in it that it doesn't know.
pub fn decode_applied(kind: &Kind, value: Value) -> Result<Value> {
    let parsed = Parsed {
        value,
        duplicates: Vec::new(),
    };
    Ok(decode_parsed(kind, parsed, FieldValidation::Ignore)?.object)
}

/// As `decode_parsed`, for a subresource's body: `name` is its OpenAPI name.
pub fn decode_named(name: &str, parsed: Parsed, validation: FieldValidation) -> Result<Decoded> {
    let id = types()
        .by_name(name)
        .ok_or_else(|| ApiError::internal(format!("the type {name} is not compiled in")))?;
    let version = name.rsplit('.').nth(1).unwrap_or("v1").to_string();
    let go_name = types().get(id).go_name().to_string();
    let read = read_type(&go_name, &version, id, parsed.value, Words::Json);
    judge(&go_name, &version, read, &parsed.duplicates, validation)
}

/// An object, and the paths of what its type doesn't know.
pub(crate) type Read = std::result::Result<(Value, Vec<String>), String>;

/// Reads a value as an object of `kind`; the error says what doesn't fit.
pub(crate) fn read(kind: &Kind, value: Value, words: Words) -> Read {
    match kind.as_custom() {
        Some(custom) => custom.read(value),
        None => read_type(&kind.kind, &kind.version, types().of(kind), value, words),
    }
}

fn read_type(kind: &str, version: &str, id: StructId, value: Value, words: Words) -> Read {
    if !value.is_object() {
        return Err(format!(
            "json: cannot unmarshal {} into Go value of type {version}.{kind}",
            json_type(&value)
        ));
    }
    let mut walk = Walk {
        unknown: Vec::new(),
        words,
    };
    let object = walk.object(id, value, &mut String::new())?;
    Ok((object, walk.unknown))
}

/// What a body is answered with: 400 if it doesn't fit, or isn't what `validation` asks for.
fn judge(
    kind: &str,
    version: &str,
    read: Read,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Decoded> {
    let refuse = |why: &str| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    let (object, unknown) = read.map_err(|why| refuse(&why))?;
    let warnings = findings(duplicates, &unknown);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => Err(refuse(&format!(
            "strict decoding error: {}",
            warnings.join(", ")
        ))),
        FieldValidation::Ignore => Ok(Decoded {
            object,
            warnings: Vec::new(),
        }),
        _ => Ok(Decoded { object, warnings }),
    }
}

/// The metadata of an object whose kind isn't compiled in. The paths of what its type doesn't know
/// go into `unknown`.
pub(crate) fn metadata(
    value: Value,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Value, String> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let Some(id) = types().by_name(NAME).filter(|_| !value.is_null()) else {
        return Ok(json!({}));
    };
    let mut walk = Walk {
        unknown: Vec::new(),
        words: Words::Json,
    };
    let object = walk.object(id, value, &mut path.to_string())?;
    unknown.append(&mut walk.unknown);
    Ok(object)
}

pub(crate) fn findings(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let mut all: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .collect();
    all.extend(
        unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\"")),
    );
    all
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// In whose words a type error is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// `encoding/json`'s: of bodies.
    Json,
    /// The unstructured converter's: of what a strategic merge made.
    Unstructured,
}

struct Walk {
    unknown: Vec<String>,
    words: Words,
}

/// The struct and path that a type error names.
struct Place<'a> {
    owner: &'a str,
    path: &'a str,
    words: Words,
}

/// `found`: what is there, as `encoding/json` and as the unstructured converter call it.
fn mismatch(place: &Place<'_>, found: (&str, &str), go_type: &str) -> String {
    if place.words == Words::Unstructured {
        let (_, found) = found;
        return match go_type {
            list if list.starts_with("[]") => format!("cannot restore slice from {found}"),
            map if map.starts_with("map[") => format!("cannot restore map from {found}"),
            // Go's `reflect` converts a number to a string of one character; the converter doesn't.
            "string" if found == "int64" => "cannot convert int64 to string".into(),
            "int32" | "int64" if found == "float64" => {
                format!("cannot convert float64 to {go_type}")
            }
            plain @ ("string" | "int32" | "int64" | "float64" | "bool") => {
                format!("unrecognized type: {plain}")
            }
            _ => format!("cannot restore struct from: {found}"),
        };
    }
    format!(
        "json: cannot unmarshal {} into Go struct field {}.{} of type {go_type}",
        found.0, place.owner, place.path
    )
}

/// The Go kind of what JSON decodes to.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "interface",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

impl Walk {
    fn object(&mut self, id: StructId, value: Value, path: &mut String) -> Result<Value, String> {
        let ty = types().get(id);
        let Value::Object(fields) = value else {
            let place = Place {
                owner: ty.go_name(),
                path,
                words: self.words,
            };
            return Err(mismatch(
                &place,
                (json_type(&value), go_kind(&value)),
                &format!("v1.{}", ty.go_name()),
            ));
        };
        let mut out = Map::new();
        for (key, value) in fields {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&key);
            match ty.fields.get(&key) {
                None => self.unknown.push(path.clone()),
                Some(_) if value.is_null() => {}
                Some(field) => {
                    let value = self.value(&field.ty, value, ty.go_name(), path)?;
                    // Go's omitempty: an empty optional list or map is none.
                    let empty = match (&field.ty, &value) {
                        (Type::List(_), Value::Array(items)) => items.is_empty(),
                        (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
                        _ => false,
                    };
                    // But an empty list of managers is an order (`apply`).
                    if !empty || field.required || key == "managedFields" {
                        out.insert(key, value);
                    }
                }
            }
            path.truncate(length);
        }
        Ok(Value::Object(out))
    }

    fn value(
        &mut self,
        ty: &Type,
        value: Value,
        owner: &str,
        path: &mut String,
    ) -> Result<Value, String> {
        let found = (json_type(&value), go_kind(&value));
        let place = Place {
            owner,
            path,
            words: self.words,
        };
        match (ty, value) {
            (Type::Any, value) => Ok(value),
            (Type::StructOrAny(id), value @ Value::Object(_)) => self.object(*id, value, path),
            (Type::StructOrAny(_), value) => Ok(value),
            (Type::Struct(id), value @ Value::Object(_)) => self.object(*id, value, path),
            (Type::Struct(id), _) => Err(mismatch(
                &place,
                found,
                &format!("v1.{}", types().get(*id).go_name()),
            )),
            (Type::List(item), Value::Array(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for (i, value) in items.into_iter().enumerate() {
                    let length = path.len();
                    // Writing to a String can't fail.
                    let _ = write!(path, "[{i}]");
                    let value = if value.is_null() { zero(item) } else { value };
                    out.push(self.value(item, value, owner, path)?);
                    path.truncate(length);
                }
                Ok(Value::Array(out))
            }
            (Type::Map(item), Value::Object(entries)) => {
                let mut out = Map::new();
                for (key, value) in entries {
                    let length = path.len();
                    path.push('.');
                    path.push_str(&key);
                    let value = if value.is_null() { zero(item) } else { value };
                    let mut value = self.value(item, value, owner, path)?;
                    // A list of resources, whose defaults round it (`SetDefaults_ResourceList`).
                    if matches!(**item, Type::Quantity)
                        && let Some(Ok(given)) = value.as_str().map(quantity::Quantity::parse)
                    {
                        value = given.to_millis().to_string().into();
                    }
                    out.insert(key, value);
                    path.truncate(length);
                }
                Ok(Value::Object(out))
            }
            (Type::List(item), _) => Err(mismatch(&place, found, &format!("[]{}", go_type(item)))),
            (Type::Map(item), _) => Err(mismatch(
                &place,
                found,
                &format!("map[string]{}", go_type(item)),
            )),
            (Type::Text, value @ Value::String(_)) => Ok(value),
            (Type::Bool, value @ Value::Bool(_)) => Ok(value),
            (Type::Int32, Value::Number(n)) => match integer(&n) {
                Some(i) if i32::try_from(i).is_ok() => Ok(i.into()),
                _ => Err(mismatch(&place, (&format!("number {n}"), found.1), "int32")),
            },
            (Type::Int64, Value::Number(n)) => match integer(&n) {
                Some(i) => Ok(i.into()),
                None => Err(mismatch(&place, (&format!("number {n}"), found.1), "int64")),
            },
            (Type::Float, value @ Value::Number(_)) => Ok(value),
            (Type::IntOrString, value @ Value::String(_)) => Ok(value),
            (Type::IntOrString, Value::Number(n)) => match integer(&n) {
                Some(i) if i32::try_from(i).is_ok() => Ok(i.into()),
                _ => Err(mismatch(&place, (&format!("number {n}"), found.1), "int32")),
            },
            (Type::Quantity, Value::String(text)) => quantity::Quantity::parse(&text)
                .map(|q| q.to_string().into())
                .map_err(|e| e.to_string()),
            (Type::Quantity, Value::Number(n)) => quantity::Quantity::parse(&n.to_string())
                .map(|q| q.to_string().into())
                .map_err(|e| e.to_string()),
            (Type::Time, Value::String(text)) => match time::parse(&text) {
                Some(t) => Ok(time::format(t).into()),
                None => Err(bad_time(&text, "2006-01-02T15:04:05Z07:00")),
            },
            (Type::MicroTime, Value::String(text)) => match time::parse(&text) {
                Some(t) => Ok(time::format_micro(t).into()),
                None => Err(bad_time(&text, "2006-01-02T15:04:05.000000Z07:00")),
            },
            (Type::Bytes, Value::String(text)) => {
                use base64::Engine as _;
                // Go ignores line breaks in base64.
                let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
                match base64::engine::general_purpose::STANDARD.decode(&text) {
                    Ok(_) => Ok(text.into()),
                    Err(e) => Err(format!("illegal base64 data in {path}: {e}")),
                }
            }
            (other, _) => Err(mismatch(&place, found, &go_type(other))),
        }
    }
}

fn bad_time(text: &str, layout: &str) -> String {
    format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
}

/// A whole number, also when it is written as `3.0`.
fn integer(n: &Number) -> Option<i64> {
    n.as_i64().or_else(|| {
        n.as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() < 9e15)
            .map(|f| f as i64)
    })
}

/// Go's zero value, which a null list item or map value decodes to.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Struct(_) | Type::Map(_) => json!({}),
        Type::List(_) => json!([]),
        Type::Text | Type::Bytes => "".into(),
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Bool => false.into(),
        Type::Time | Type::MicroTime | Type::StructOrAny(_) | Type::Any => Value::Null,
    }
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::Struct(id) => format!("v1.{}", types().get(*id).go_name()),
        Type::Map(item) => format!("map[string]{}", go_type(item)),
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Text => "string".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Float => "float64".into(),
        Type::Bool => "bool".into(),
        Type::IntOrString => "intstr.IntOrString".into(),
        Type::Quantity => "resource.Quantity".into(),
        Type::Time => "v1.Time".into(),
        Type::MicroTime => "v1.MicroTime".into(),
        Type::Bytes => "[]uint8".into(),
        Type::StructOrAny(_) | Type::Any => "interface {}".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    fn strict(plural: &str, body: &str) -> Result<Value> {
        let kind = KINDS_OF.iter().find(|k| k.2 == plural).unwrap();
        let kind = find(kind.0, kind.1, plural).unwrap();
        decode(kind, JSON, body.as_bytes(), FieldValidation::Strict).map(|d| d.object)
    }

    const KINDS_OF: &[(&str, &str, &str)] = &[
        ("", "v1", "pods"),
        ("", "v1", "secrets"),
        ("", "v1", "configmaps"),
        ("apps", "v1", "deployments"),
    ];

    #[test]
    fn unknown_and_duplicate_fields() {
        let error = strict(
            "deployments",
            r#"{"spec":{"foo":1,"replicas":1,"replicas":2}}"#,
        )
        .unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
             duplicate field \"spec.replicas\", unknown field \"spec.foo\""
        );
        let kind = find("apps", "v1", "deployments").unwrap();
        let warned = decode(
            kind,
            "",
            br#"{"spec":{"foo":1,"template":{"spec":{"containers":[{"bar":2}]}}}}"#,
            FieldValidation::Warn,
        )
        .unwrap();
        assert_eq!(
            warned.warnings,
            [
                "unknown field \"spec.foo\"",
                "unknown field \"spec.template.spec.containers[0].bar\""
            ]
        );
        assert!(warned.object["spec"].get("foo").is_none());
        let ignored = decode(kind, "", br#"{"spec":{"foo":1}}"#, FieldValidation::Ignore).unwrap();
        assert!(ignored.warnings.is_empty());
    }

    #[test]
    fn type_errors_are_worded_as_go_words_them() {
        let error = strict("deployments", r#"{"spec":{"replicas":"x"}}"#).unwrap_err();
        assert_eq!(
            error.message,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal \
             string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        for bad in [
            r#"{"spec":[]}"#,
            r#"{"spec":{"containers":{}}}"#,
            r#"{"spec":{"containers":[1]}}"#,
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"much"}}}]}}"#,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            r#"{"metadata":{"creationTimestamp":"noon"}}"#,
            r#"{"spec":{"activeDeadlineSeconds":1.5}}"#,
            r#"{"spec":{"priority":99999999999}}"#,
            "[]",
            "{",
            "",
            "{} {}",
        ] {
            assert_eq!(strict("pods", bad).unwrap_err().code, 400, "{bad}");
        }
        assert_eq!(
            strict("secrets", r#"{"data":{"a":"*"}}"#).unwrap_err().code,
            400
        );
    }

    #[test]
    fn nulls_and_empties_are_dropped() {
        let pod = strict(
            "pods",
            r#"{"metadata":{"creationTimestamp":null,"labels":{},"annotations":{"a":null}},
                "spec":{"containers":[{"name":"a","env":[],"resources":{}}],
                        "volumes":[{"name":"v","emptyDir":{}}]},"status":{}}"#,
        )
        .unwrap();
        assert_eq!(
            pod,
            json!({"metadata": {"annotations": {"a": ""}},
                   "spec": {"containers": [{"name": "a", "resources": {}}],
                            "volumes": [{"name": "v", "emptyDir": {}}]},
                   "status": {}})
        );
    }

    #[test]
    fn resources_are_no_finer_than_a_thousandth() {
        let pod = strict(
            "pods",
            r#"{"spec":{"containers":[{"name":"a","resources":{"limits":
                {"cpu":"0.30000000000000004","memory":"0.9Gi","x/y":1}}}]}}"#,
        )
        .unwrap();
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "301m", "memory": "966367641600m", "x/y": "1"})
        );
    }

    #[test]
    fn yaml_and_other_media_types() {
        let kind = find("", "v1", "configmaps").unwrap();
        let body = b"kind: ConfigMap\ndata:\n  a: b\n";
        let decoded = decode(kind, "application/yaml", body, FieldValidation::Strict).unwrap();
        assert_eq!(decoded.object["data"]["a"], "b");
        let error = decode(kind, "text/plain", body, FieldValidation::Strict).unwrap_err();
        assert_eq!(error.code, 415);
    }
}
