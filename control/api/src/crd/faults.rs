//! What is wrong with the schema of a CustomResourceDefinition.
//! Source: apiextensions-apiserver `pkg/apiserver/schema/validation.go` and
//! `pkg/apis/apiextensions/validation`.

use serde_json::Value;

use super::pattern::regex;
use super::structural::{Schema, object, text, texts};
use super::{format, prune, rules, validate};
use crate::status::Errors;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Where in the schema a schema is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Finds what is wrong with the schema of a version.
pub fn find(schema: &Value, path: &str, errors: &mut Errors) {
    let before = errors.0.len();
    structure(schema, Level::Root, path, errors);
    if errors.0.len() == before {
        // Only a schema that is one can be asked about its defaults and rules.
        let compiled = Schema::compile(schema);
        defaults(schema, &compiled, path, true, errors);
        rules::faults(schema, &compiled, path, errors);
    }
}

fn is(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn structure(schema: &Value, level: Level, path: &str, errors: &mut Errors) {
    let ty = text(schema, "type");
    let free = is(schema, "x-kubernetes-int-or-string")
        || is(schema, "x-kubernetes-preserve-unknown-fields");
    let type_path = format!("{path}.type");
    match (level, ty) {
        (Level::Root, "") => errors.required(&type_path, "must not be empty at the root"),
        (Level::Root, "object") => {}
        (Level::Root, _) => errors.invalid(&type_path, ty, "must be object at the root"),
        (Level::Item, "") if !free => {
            errors.required(&type_path, "must not be empty for specified array items");
        }
        (Level::Field, "") if !free => {
            errors.required(&type_path, "must not be empty for specified object fields");
        }
        _ => {}
    }
    if ty == "null" {
        errors.forbidden(
            &type_path,
            "type cannot be set to null, use nullable as an alternative",
        );
    } else if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.not_supported(&type_path, ty, TYPES);
    }
    unsupported(schema, path, errors);
    extensions(schema, path, errors);
    checks(schema, path, errors);
    if ty == "array" && !schema.get("items").is_some_and(Value::is_object) {
        errors.required(&format!("{path}.items"), "must be specified");
    }
    let resource = level == Level::Root || is(schema, "x-kubernetes-embedded-resource");
    if resource {
        resource_fields(schema, path, errors);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let list = schema.get(junctor).and_then(Value::as_array);
        for (i, inner) in list.into_iter().flatten().enumerate() {
            nested(inner, schema, &format!("{path}.{junctor}[{i}]"), errors);
        }
    }
    if let Some(inner) = schema.get("not") {
        nested(inner, schema, &format!("{path}.not"), errors);
    }
    for (name, inner) in object(schema, "properties") {
        // Checked as a resource's above.
        if resource && name == "metadata" {
            continue;
        }
        structure(
            inner,
            Level::Field,
            &format!("{path}.properties[{name}]"),
            errors,
        );
    }
    if let Some(inner @ Value::Object(_)) = schema.get("additionalProperties") {
        structure(
            inner,
            Level::Field,
            &format!("{path}.additionalProperties"),
            errors,
        );
    }
    if let Some(inner @ Value::Object(_)) = schema.get("items") {
        structure(inner, Level::Item, &format!("{path}.items"), errors);
    }
}

/// Fields of OpenAPI that CustomResourceDefinitions can't use.
fn unsupported(schema: &Value, path: &str, errors: &mut Errors) {
    for key in [
        "patternProperties",
        "additionalItems",
        "definitions",
        "dependencies",
    ] {
        if schema.get(key).is_some_and(|v| v != &Value::Null) {
            errors.forbidden(&format!("{path}.{key}"), format!("{key} is not supported"));
        }
    }
    if !text(schema, "$ref").is_empty() {
        errors.forbidden(&format!("{path}.$ref"), "$ref is not supported");
    }
    if is(schema, "uniqueItems") {
        errors.forbidden(
            &format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    let additional = format!("{path}.additionalProperties");
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            errors.forbidden(&additional, "additionalProperties cannot be set to false");
        }
        Some(Value::Bool(true) | Value::Object(_))
            if object(schema, "properties").next().is_some() =>
        {
            errors.forbidden(
                &additional,
                "additionalProperties and properties are mutual exclusive",
            );
        }
        _ => {}
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.forbidden(
            &format!("{path}.items"),
            "items must be a schema object and not an array",
        );
    }
    let format = text(schema, "format");
    if format::NOT_CHECKED.contains(&format) {
        errors.not_supported(&format!("{path}.format"), format, format::CHECKED);
    }
}

fn checks(schema: &Value, path: &str, errors: &mut Errors) {
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = regex(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid(&format!("{path}.pattern"), pattern, why);
    }
}

fn extensions(schema: &Value, path: &str, errors: &mut Errors) {
    let ty = text(schema, "type");
    let at = |key: &str| format!("{path}.{key}");
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid(
            &at("x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        );
    }
    if is(schema, "x-kubernetes-int-or-string") {
        if !ty.is_empty() {
            errors.invalid(
                &at("type"),
                ty,
                "must be empty if x-kubernetes-int-or-string is true",
            );
        }
        for key in [
            "x-kubernetes-embedded-resource",
            "x-kubernetes-preserve-unknown-fields",
        ] {
            if is(schema, key) {
                errors.invalid(
                    &at(key),
                    true,
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
        }
    }
    if is(schema, "x-kubernetes-embedded-resource") {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        match ty {
            "object" => {}
            "" => errors.required(&at("type"), why),
            _ => errors.invalid(&at("type"), ty, why),
        }
        if !is(schema, "x-kubernetes-preserve-unknown-fields")
            && object(schema, "properties").next().is_none()
        {
            errors.required(
                &at("properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            );
        }
    }
    list_type(schema, path, errors);
    match text(schema, "x-kubernetes-map-type") {
        "" => {}
        "granular" | "atomic" if ty == "object" => {}
        "granular" | "atomic" => {
            let why = "must be object if x-kubernetes-map-type is specified";
            match ty {
                "" => errors.required(&at("type"), why),
                _ => errors.invalid(&at("type"), ty, why),
            }
        }
        other => {
            errors.not_supported(&at("x-kubernetes-map-type"), other, &["atomic", "granular"]);
        }
    }
}

fn list_type(schema: &Value, path: &str, errors: &mut Errors) {
    let ty = text(schema, "type");
    let at = |key: &str| format!("{path}.{key}");
    let list_type = text(schema, "x-kubernetes-list-type");
    let keys = texts(schema, "x-kubernetes-list-map-keys");
    let keys_at = at("x-kubernetes-list-map-keys");
    if !list_type.is_empty() && ty != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        match ty {
            "" => errors.required(&at("type"), why),
            _ => errors.invalid(&at("type"), ty, why),
        }
        return;
    }
    if list_type != "map" && !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            "" => errors.required(&at("x-kubernetes-list-type"), why),
            _ => errors.invalid(&at("x-kubernetes-list-type"), list_type, why),
        }
    }
    let none = Value::Null;
    let items = schema.get("items").unwrap_or(&none);
    match list_type {
        "" | "atomic" => {}
        "set" => match text(items, "type") {
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                errors.invalid(
                    &at("items.x-kubernetes-map-type"),
                    text(items, "x-kubernetes-map-type"),
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                );
            }
            "array" if !matches!(text(items, "x-kubernetes-list-type"), "" | "atomic") => {
                errors.invalid(
                    &at("items.x-kubernetes-list-type"),
                    text(items, "x-kubernetes-list-type"),
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                );
            }
            _ if is(items, "nullable") => errors.forbidden(
                &at("items.nullable"),
                "cannot be nullable when x-kubernetes-list-type is set",
            ),
            _ => {}
        },
        "map" => {
            if keys.is_empty() {
                errors.required(
                    &keys_at,
                    "must not be empty if x-kubernetes-list-type is map",
                );
            }
            if text(items, "type") != "object" {
                errors.invalid(
                    &at("items.type"),
                    text(items, "type"),
                    "must be object if parent array's x-kubernetes-list-type is map",
                );
            }
            if is(items, "nullable") {
                errors.forbidden(
                    &at("items.nullable"),
                    "cannot be nullable when x-kubernetes-list-type is map",
                );
            }
            let required = texts(items, "required");
            for (i, key) in keys.iter().enumerate() {
                let found = items.get("properties").and_then(|p| p.get(key));
                match found {
                    None => errors.invalid(
                        &format!("{keys_at}[{i}]"),
                        key.as_str(),
                        "entries must all be names of item properties",
                    ),
                    Some(inner) if inner.get("default").is_none() && !required.contains(key) => {
                        errors.required(
                            &at(&format!("items.properties[{key}].default")),
                            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                        );
                    }
                    Some(inner) if is(inner, "nullable") => errors.forbidden(
                        &at(&format!("items.properties[{key}].nullable")),
                        "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
                    ),
                    Some(_) => {}
                }
            }
        }
        other => errors.not_supported(
            &at("x-kubernetes-list-type"),
            other,
            &["atomic", "map", "set"],
        ),
    }
}

/// `apiVersion`, `kind` and `metadata` of an object that is a resource.
fn resource_fields(schema: &Value, path: &str, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        if let Some(inner) = schema.get("properties").and_then(|p| p.get(field))
            && text(inner, "type") != "string"
        {
            errors.invalid(
                &format!("{path}.properties[{field}].type"),
                text(inner, "type"),
                "must be string",
            );
        }
    }
    let Some(metadata) = schema.get("properties").and_then(|p| p.get("metadata")) else {
        return;
    };
    let at = format!("{path}.properties[metadata]");
    if text(metadata, "type") != "object" {
        errors.invalid(
            &format!("{at}.type"),
            text(metadata, "type"),
            "must be object",
        );
    }
    let allowed = |key: &str| matches!(key, "type" | "description" | "properties");
    let other = metadata
        .as_object()
        .into_iter()
        .flatten()
        .any(|(key, _)| !allowed(key));
    let named =
        object(metadata, "properties").all(|(k, _)| matches!(k.as_str(), "name" | "generateName"));
    if other || !named {
        errors.forbidden(
            &at,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        );
    }
}

/// A schema below a junctor: it may check values, but not say what there is.
fn nested(schema: &Value, outer: &Value, path: &str, errors: &mut Errors) {
    let alternatives = is(outer, "x-kubernetes-int-or-string")
        && matches!(text(schema, "type"), "integer" | "string");
    let structural = [
        "type",
        "default",
        "description",
        "title",
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
    ];
    for key in structural {
        let set = schema
            .get(key)
            .is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)) && v != "");
        if set && !(key == "type" && alternatives) {
            errors.forbidden(&format!("{path}.{key}"), "must be empty to be structural");
        }
    }
    if matches!(schema.get("additionalProperties"), Some(Value::Object(_))) {
        errors.forbidden(
            &format!("{path}.additionalProperties"),
            "must be undefined to be structural",
        );
    }
    unsupported(schema, path, errors);
    checks(schema, path, errors);
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let list = schema.get(junctor).and_then(Value::as_array);
        for (i, inner) in list.into_iter().flatten().enumerate() {
            nested(inner, outer, &format!("{path}.{junctor}[{i}]"), errors);
        }
    }
    if let Some(inner) = schema.get("not") {
        nested(inner, outer, &format!("{path}.not"), errors);
    }
    let none = Value::Null;
    for (name, inner) in object(schema, "properties") {
        let at = format!("{path}.properties[{name}]");
        let specified = outer.get("properties").and_then(|p| p.get(name));
        let free = outer.get("additionalProperties").filter(|a| a.is_object());
        match specified.or(free) {
            Some(outer) => nested(inner, outer, &at, errors),
            None if is(outer, "x-kubernetes-preserve-unknown-fields") => {
                nested(inner, &none, &at, errors);
            }
            None => {
                let outside = outside_of(path);
                errors.required(
                    &format!("{outside}.properties[{name}]"),
                    &format!("because it is defined in {}", inside_of(&at)),
                );
            }
        }
    }
    if let Some(inner @ Value::Object(_)) = schema.get("items") {
        let outer = outer.get("items").unwrap_or(&none);
        nested(inner, outer, &format!("{path}.items"), errors);
    }
}

/// The path of the schema around a junctor.
fn outside_of(path: &str) -> &str {
    junctor_at(path).map_or(path, |at| &path[..at])
}

/// The path from the junctor on.
fn inside_of(path: &str) -> &str {
    junctor_at(path).map_or(path, |at| &path[at + 1..])
}

fn junctor_at(path: &str) -> Option<usize> {
    [".allOf[", ".anyOf[", ".oneOf[", ".not"]
        .iter()
        .filter_map(|j| path.find(j))
        .min()
}

/// Defaults must be objects of their own schema.
fn defaults(schema: &Value, compiled: &Schema, path: &str, root: bool, errors: &mut Errors) {
    if let Some(default) = &compiled.default {
        let at = format!("{path}.default");
        if root {
            errors.forbidden(&at, "must not be set at the root of the schema");
        }
        let mut filled = default.clone();
        prune::fill(&mut filled, compiled);
        let mut unknown = Vec::new();
        let mut pruned = filled.clone();
        prune::prune_value(&mut pruned, compiled, &mut unknown);
        if !unknown.is_empty() {
            errors.invalid(&at, default.clone(), "must not have unknown fields");
        }
        validate::validate(&filled, None, compiled, &at, errors);
    }
    for (name, inner) in object(schema, "properties") {
        if let Some(compiled) = compiled.properties.get(name) {
            let at = format!("{path}.properties[{name}]");
            defaults(inner, compiled, &at, false, errors);
        }
    }
    if let (Some(inner), Some(Some(compiled))) =
        (schema.get("additionalProperties"), &compiled.additional)
    {
        let at = format!("{path}.additionalProperties");
        defaults(inner, compiled, &at, false, errors);
    }
    if let (Some(inner), Some(compiled)) = (schema.get("items"), &compiled.items) {
        defaults(inner, compiled, &format!("{path}.items"), false, errors);
    }
}
