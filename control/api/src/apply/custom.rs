//! The types of a custom kind: its definition's schema in the form that apply walks.
//! Source: apiextensions-apiserver, kube-openapi `pkg/schemaconv`.

use serde_json::{Map, Value};

use crate::schema::{Field, Struct, StructId, Type, Types, types};
use crate::topology::Topology;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The root is the first struct.
pub const ROOT: StructId = 0;

/// Compiles the schema of one version of a definition.
pub fn compile(source: &Value) -> Types {
    let mut structs = vec![empty()];
    let metadata = copy_metadata(&mut structs);
    let mut root = object(source, metadata, &mut structs);
    envelope(&mut root, metadata);
    structs[ROOT] = root;
    Types::from_structs(structs)
}

/// Its name begins with no group of Kubernetes', whose structs are Go's.
fn empty() -> Struct {
    Struct {
        name: "custom".into(),
        fields: Default::default(),
        atomic: false,
        open: false,
    }
}

fn plain(ty: Type) -> Field {
    Field {
        ty,
        required: false,
        merge: None,
        topology: Topology::default(),
        always: false,
    }
}

/// What every object has.
fn envelope(of: &mut Struct, metadata: Option<StructId>) {
    of.fields.insert("apiVersion".into(), plain(Type::Text));
    of.fields.insert("kind".into(), plain(Type::Text));
    let metadata = metadata.map_or(Type::Any, Type::Struct);
    of.fields.insert("metadata".into(), plain(metadata));
}

/// Copies the built-in struct and those that it refers to.
fn copy_metadata(into: &mut Vec<Struct>) -> Option<StructId> {
    fn copy(id: StructId, into: &mut Vec<Struct>) -> StructId {
        let mut of = types().get(id).clone();
        let at = into.len();
        into.push(empty());
        for field in of.fields.values_mut() {
            renumber(&mut field.ty, into);
        }
        into[at] = of;
        at
    }
    fn renumber(ty: &mut Type, into: &mut Vec<Struct>) {
        match ty {
            Type::Struct(id) | Type::StructOrAny(id) => *id = copy(*id, into),
            Type::List(inner) | Type::Map(inner) => renumber(inner, into),
            _ => {}
        }
    }
    types().by_name(OBJECT_META).map(|id| copy(id, into))
}

fn object(schema: &Value, metadata: Option<StructId>, structs: &mut Vec<Struct>) -> Struct {
    let no_definitions = Map::new();
    let mut of = empty();
    of.open = flag(schema, "x-kubernetes-preserve-unknown-fields");
    of.atomic = schema
        .get("x-kubernetes-map-type")
        .is_some_and(|t| t == "atomic");
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let mut field = plain(compile_type(property, metadata, structs));
        field.topology = Topology::of(property, &no_definitions);
        of.fields.insert(name.clone(), field);
    }
    if flag(schema, "x-kubernetes-embedded-resource") {
        envelope(&mut of, metadata);
    }
    of
}

fn compile_type(schema: &Value, metadata: Option<StructId>, structs: &mut Vec<Struct>) -> Type {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Type::IntOrString;
    }
    let has = |key: &str| schema.get(key).is_some_and(Value::is_object);
    match schema.get("type").and_then(Value::as_str).unwrap_or("") {
        "object" if has("properties") || flag(schema, "x-kubernetes-embedded-resource") => {
            let of = object(schema, metadata, structs);
            structs.push(of);
            Type::Struct(structs.len() - 1)
        }
        "object" if has("additionalProperties") => Type::Map(Box::new(compile_type(
            &schema["additionalProperties"],
            metadata,
            structs,
        ))),
        "array" => Type::List(Box::new(match schema.get("items") {
            Some(items) => compile_type(items, metadata, structs),
            None => Type::Any,
        })),
        "string" => Type::Text,
        "integer" => Type::Int64,
        "number" => Type::Float,
        "boolean" => Type::Bool,
        _ => Type::Any,
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}
