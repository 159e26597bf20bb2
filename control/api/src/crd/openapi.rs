//! The OpenAPI definition of a custom kind: the schema as it was written, with what every object
//! has. Source: apiextensions-apiserver `pkg/controller/openapi/builder`.

use serde_json::{Value, json};

use crate::json;
use crate::registry::Kind;

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const OBJECT_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

pub fn definition(kind: &Kind, source: &Value) -> Value {
    let mut schema = source.clone();
    embedded(&mut schema);
    resource(&mut schema);
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": kind.group, "kind": kind.kind, "version": kind.version}]);
    schema
}

fn resource(schema: &mut Value) {
    if let Some(properties) = json::child(schema, "properties") {
        properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
        properties["kind"] = json!({"type": "string", "description": KIND});
        properties["metadata"] = json!({"allOf": [{"$ref": OBJECT_META}], "description": METADATA});
    }
}

/// Objects within objects are resources as well.
fn embedded(schema: &mut Value) {
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = schema.get_mut(key).filter(|s| s.is_object()) {
            inside(inner);
        }
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flatten()
        .for_each(|(_, s)| inside(s));
}

fn inside(schema: &mut Value) {
    embedded(schema);
    if schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        resource(schema);
    }
}

/// As version 2 has it, which knows neither alternatives nor nulls.
pub fn to_v2(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(to_v2),
        Value::Object(fields) => {
            let reference = |v: &Value| {
                v.as_array()
                    .and_then(|all| all.first())
                    .is_some_and(|one| one.get("$ref").is_some())
            };
            fields.retain(|key, value| match key.as_str() {
                "anyOf" | "oneOf" => !value.is_array(),
                "allOf" => !value.is_array() || reference(value),
                "not" | "nullable" => !value.is_object() && !value.is_boolean(),
                _ => true,
            });
            fields.values_mut().for_each(to_v2);
        }
        _ => {}
    }
}
