//! Structural schemas: the part of OpenAPI v3 in which a CustomResourceDefinition describes its
//! objects, compiled once into a form that pruning, defaulting and validation walk.
//! Source: apiextensions-apiserver `pkg/apiserver/schema`.

use std::collections::BTreeMap;

use super::pattern::Pattern;
use serde_json::{Map, Value};

use super::rules::Rule;

/// The schema of one value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// "" for anything (or for int-or-string).
    pub ty: String,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    /// Of an object with free keys. `Some(None)`: anything.
    pub additional: Option<Option<Box<Schema>>>,
    pub items: Option<Box<Schema>>,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list_type: ListType,
    pub map_keys: Vec<String>,
    pub atomic_map: bool,
    pub checks: Checks,
    pub rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub has_rules: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// What a value is checked against besides its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    pub format: String,
    /// Bound, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    pub maximum: Option<(f64, bool)>,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub one_of_values: Vec<Value>,
    pub required: Vec<String>,
    pub all_of: Vec<Nested>,
    pub any_of: Vec<Nested>,
    pub one_of: Vec<Nested>,
    pub not: Option<Box<Nested>>,
}

/// A schema below `allOf`, `anyOf`, `oneOf` or `not`: checks only.
#[derive(Clone, Debug, Default)]
pub struct Nested {
    /// For int-or-string, where the alternatives are types.
    pub ty: String,
    pub checks: Checks,
    pub properties: BTreeMap<String, Nested>,
    pub additional: Option<Box<Nested>>,
    pub items: Option<Box<Nested>>,
}

impl Schema {
    /// Compiles a schema that `faults` has found nothing wrong with. A part that is malformed all
    /// the same counts as absent.
    pub fn compile(schema: &Value) -> Schema {
        Schema::compile_at(schema, true)
    }

    fn compile_at(schema: &Value, root: bool) -> Schema {
        let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(None),
            Some(Value::Object(_)) => Some(Some(Box::new(Schema::compile_at(
                &schema["additionalProperties"],
                false,
            )))),
            _ => None,
        };
        let mut compiled = Schema {
            ty: text(schema, "type").to_string(),
            nullable: flag("nullable"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            properties: object(schema, "properties")
                .map(|(name, schema)| (name.clone(), Schema::compile_at(schema, false)))
                .collect(),
            additional,
            items: schema
                .get("items")
                .map(|s| Box::new(Schema::compile_at(s, false))),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: match text(schema, "x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Atomic,
            },
            map_keys: texts(schema, "x-kubernetes-list-map-keys"),
            atomic_map: text(schema, "x-kubernetes-map-type") == "atomic",
            checks: Checks::compile(schema),
            rules: Vec::new(),
            has_rules: false,
        };
        compiled.rules = super::rules::compile(schema, &compiled, root);
        compiled.has_rules =
            !compiled.rules.is_empty() || compiled.children().any(|child| child.has_rules);
        compiled
    }

    fn children(&self) -> impl Iterator<Item = &Schema> {
        self.properties
            .values()
            .chain(self.additional.iter().flatten().map(|s| &**s))
            .chain(self.items.iter().map(|s| &**s))
    }

    /// Whether a null is a value of its own here, and not the same as none.
    pub fn keeps_null(&self) -> bool {
        self.nullable || (self.ty.is_empty() && self.preserve_unknown && !self.int_or_string)
    }

    /// Whether there is any default below.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Schema::has_defaults)
    }
}

impl Checks {
    fn compile(schema: &Value) -> Checks {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let excluded = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        let nested = |key: &str| {
            let list = schema.get(key).and_then(Value::as_array);
            list.into_iter().flatten().map(Nested::compile).collect()
        };
        Checks {
            format: text(schema, "format").to_string(),
            minimum: number("minimum").map(|n| (n, excluded("exclusiveMinimum"))),
            maximum: number("maximum").map(|n| (n, excluded("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: schema
                .get("pattern")
                .and_then(Value::as_str)
                .filter(|p| !p.is_empty())
                .and_then(|p| Pattern::new(p).ok()),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            one_of_values: schema
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            required: texts(schema, "required"),
            all_of: nested("allOf"),
            any_of: nested("anyOf"),
            one_of: nested("oneOf"),
            not: schema.get("not").map(|s| Box::new(Nested::compile(s))),
        }
    }
}

impl Nested {
    fn compile(schema: &Value) -> Nested {
        let inner = |key: &str| {
            let found = schema.get(key).filter(|s| s.is_object());
            found.map(|s| Box::new(Nested::compile(s)))
        };
        Nested {
            ty: text(schema, "type").to_string(),
            checks: Checks::compile(schema),
            properties: object(schema, "properties")
                .map(|(name, schema)| (name.clone(), Nested::compile(schema)))
                .collect(),
            additional: inner("additionalProperties"),
            items: inner("items"),
        }
    }
}

pub(super) fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn texts(schema: &Value, key: &str) -> Vec<String> {
    let list = schema.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_string))
        .collect()
}

pub(super) fn object<'a>(
    schema: &'a Value,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    let found: Option<&Map<String, Value>> = schema.get(key).and_then(Value::as_object);
    found.into_iter().flatten()
}
