//! The types of every served kind, made once from k8s-openapi's JSON Schemas: a compact form that
//! the decoder and the strategic merge patch walk, and the definitions that OpenAPI shows.

use std::collections::HashMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::registry::{KINDS, Kind};
use crate::topology::Topology;
use crate::{merge_keys, topology};

/// Index of a struct in `Types`.
pub type StructId = usize;

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Struct(StructId),
    /// An object with free keys.
    Map(Box<Type>),
    List(Box<Type>),
    Text,
    Int32,
    Int64,
    Float,
    Bool,
    /// int32 or string.
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    /// base64.
    Bytes,
    /// A struct, or something that isn't an object (a schema of OpenAPI, or true).
    StructOrAny(StructId),
    /// Anything at all (raw extensions).
    Any,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub ty: Type,
    /// An empty list or map of an optional field is the same as none, as in Go (`omitempty`).
    pub required: bool,
    pub merge: Option<Merge>,
    /// How server-side apply takes the value apart.
    pub topology: Topology,
    /// Go writes the field whatever it holds: its presence alone is nobody's doing.
    pub always: bool,
}

/// How a strategic merge patch treats a field (Go's `patchStrategy` and `patchMergeKey`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Merge lists item by item. With a key: lists of objects; without: lists of values.
    pub merge: bool,
    pub key: Option<&'static str>,
    pub retain_keys: bool,
}

#[derive(Clone, Debug)]
pub struct Struct {
    /// Name in OpenAPI: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    pub fields: HashMap<String, Field>,
    /// Whether server-side apply takes it as one value.
    pub atomic: bool,
    /// Whether it keeps fields that it doesn't declare.
    pub open: bool,
}

impl Struct {
    /// Go's name of the type: `PodSpec`.
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Whether the field with this value is the same as no field: Go leaves empty lists and maps
    /// of optional fields out.
    pub fn omits(&self, field: &str, value: &Value) -> bool {
        let Some(field) = self.fields.get(field) else {
            return false;
        };
        let empty = match (&field.ty, value) {
            (Type::List(_), Value::Array(items)) => items.is_empty(),
            (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
            _ => false,
        };
        empty && !field.required && self.name.starts_with("io.k8s.")
    }
}

#[derive(Debug)]
pub struct Types {
    structs: Vec<Struct>,
    by_name: HashMap<String, StructId>,
}

impl Types {
    pub fn from_structs(structs: Vec<Struct>) -> Types {
        let names = structs.iter().enumerate();
        let by_name = names.map(|(i, s)| (s.name.clone(), i)).collect();
        Types { structs, by_name }
    }

    pub fn get(&self, id: StructId) -> &Struct {
        &self.structs[id]
    }

    pub fn by_name(&self, name: &str) -> Option<StructId> {
        self.by_name.get(name).copied()
    }

    /// The struct of a kind.
    pub fn of(&self, kind: &Kind) -> StructId {
        // Every row's schema is compiled in `types()`; the test `every_kind_compiles` holds it.
        self.by_name[kind.schema_name().as_ref()]
    }
}

/// OpenAPI definitions by name, as k8s-openapi has them, with the extensions that clients read.
pub fn definitions() -> Map<String, Value> {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    for kind in KINDS.iter() {
        let Some(schema) = kind.schema(&mut generator) else {
            continue;
        };
        let schema = schema.to_value();
        generator
            .definitions_mut()
            .insert(kind.schema_name().into_owned(), schema);
    }
    for (name, schema) in extra_schemas() {
        let schema = schema(&mut generator).to_value();
        generator.definitions_mut().insert(name.to_string(), schema);
    }
    let mut definitions = generator.take_definitions(false);
    for (name, schema) in &mut definitions {
        merge_keys::annotate(name, schema);
        topology::annotate(name, schema);
    }
    definitions
}

type SchemaFn = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

/// What subresources and options send, besides the kinds.
fn extra_schemas() -> Vec<(std::borrow::Cow<'static, str>, SchemaFn)> {
    use k8s_openapi::api as k8s;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
    use schemars::JsonSchema;
    fn pair<T: JsonSchema>() -> (std::borrow::Cow<'static, str>, SchemaFn) {
        (T::schema_name(), T::json_schema as SchemaFn)
    }
    vec![
        pair::<k8s::autoscaling::v1::Scale>(),
        pair::<k8s::authentication::v1::SelfSubjectReview>(),
        pair::<k8s::authentication::v1::TokenRequest>(),
        pair::<k8s::authentication::v1::TokenReview>(),
        pair::<k8s::authorization::v1::LocalSubjectAccessReview>(),
        pair::<k8s::authorization::v1::SelfSubjectAccessReview>(),
        pair::<k8s::authorization::v1::SelfSubjectRulesReview>(),
        pair::<k8s::authorization::v1::SubjectAccessReview>(),
        pair::<k8s::core::v1::Binding>(),
        pair::<k8s::policy::v1::Eviction>(),
        pair::<meta::DeleteOptions>(),
        pair::<meta::Status>(),
        pair::<meta::ListMeta>(),
        pair::<meta::Patch>(),
    ]
}

/// The compact types, made at first use.
pub fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| compile(&definitions()))
}

fn compile(definitions: &Map<String, Value>) -> Types {
    let mut names: Vec<&String> = definitions
        .iter()
        .filter(|(_, s)| s.get("properties").is_some())
        .map(|(n, _)| n)
        .collect();
    names.sort();
    let by_name: HashMap<String, StructId> = names
        .iter()
        .enumerate()
        .map(|(i, n)| ((*n).clone(), i))
        .collect();
    let structs = names
        .iter()
        .map(|name| {
            let schema = &definitions[*name];
            let required: Vec<&str> = crate::json::list(schema, "required")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let fields = schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(field, schema)| {
                    let required = required.contains(&field.as_str());
                    let field_type = Field {
                        ty: compile_type(schema, definitions, &by_name),
                        required,
                        merge: merge_keys::of(name, field),
                        topology: Topology::of(schema, definitions),
                        always: topology::always(name, field, required),
                    };
                    (field.clone(), field_type)
                })
                .collect();
            Struct {
                name: (*name).clone(),
                fields,
                atomic: schema
                    .get("x-kubernetes-map-type")
                    .is_some_and(|t| t == "atomic"),
                open: false,
            }
        })
        .collect();
    Types { structs, by_name }
}

fn compile_type(
    schema: &Value,
    definitions: &Map<String, Value>,
    by_name: &HashMap<String, StructId>,
) -> Type {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return match name {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => Type::Quantity,
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Type::IntOrString,
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Type::Time,
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Type::MicroTime,
            _ if name.contains(".JSONSchemaPropsOr") => {
                let schema = name.split("Or").next().and_then(|n| by_name.get(n));
                schema.map_or(Type::Any, |id| Type::StructOrAny(*id))
            }
            _ => match (by_name.get(name), definitions.get(name)) {
                (Some(id), _) => Type::Struct(*id),
                (None, Some(schema)) => compile_type(schema, definitions, by_name),
                (None, None) => Type::Any,
            },
        };
    }
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or("");
    if let Some(all) = schema.get("allOf").and_then(Value::as_array)
        && let [one] = all.as_slice()
    {
        return compile_type(one, definitions, by_name);
    }
    match (text("type"), text("format")) {
        ("string", "byte") => Type::Bytes,
        ("string", "date-time") => Type::Time,
        ("string", _) => Type::Text,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Float,
        ("boolean", _) => Type::Bool,
        ("array", _) => Type::List(Box::new(
            schema
                .get("items")
                .map_or(Type::Any, |s| compile_type(s, definitions, by_name)),
        )),
        ("object", _) => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => {
                Type::Map(Box::new(compile_type(values, definitions, by_name)))
            }
            _ => Type::Any,
        },
        _ => Type::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_compiles() {
        let types = types();
        for kind in KINDS.iter() {
            let fields = &types.get(types.of(kind)).fields;
            assert!(matches!(fields["metadata"].ty, Type::Struct(_)), "{kind:?}");
        }
        let spec = types.get(types.by_name("io.k8s.api.core.v1.PodSpec").unwrap());
        assert_eq!(spec.go_name(), "PodSpec");
        assert_eq!(spec.fields["containers"].merge.unwrap().key, Some("name"));
        assert!(matches!(&spec.fields["overhead"].ty, Type::Map(t) if **t == Type::Quantity));
        assert_eq!(spec.fields["activeDeadlineSeconds"].ty, Type::Int64);
        let port = types.get(types.by_name("io.k8s.api.core.v1.ServicePort").unwrap());
        assert_eq!(port.fields["targetPort"].ty, Type::IntOrString);
        let secret = types.get(types.by_name("io.k8s.api.core.v1.Secret").unwrap());
        assert!(matches!(&secret.fields["data"].ty, Type::Map(t) if **t == Type::Bytes));
        let lease = types.get(
            types
                .by_name("io.k8s.api.coordination.v1.LeaseSpec")
                .unwrap(),
        );
        assert_eq!(lease.fields["renewTime"].ty, Type::MicroTime);
    }
}
