//! From a definition to its objects, as a client sees it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::structural::Schema;
use super::{kinds, names, prune};
use crate::codec::{self, FieldValidation, JSON};
use crate::registry::{Kind, Registry, find};
use crate::status::{ApiError, Result};
use crate::strategy::{self, CreateContext};

fn now() -> jiff::Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A definition with this schema for `spec`, through all that a create does.
pub fn define(spec: Value) -> Result<Value> {
    define_schema(json!({"type": "object", "properties": {
        "spec": spec,
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }}))
}

pub fn define_schema(schema: Value) -> Result<Value> {
    create_definition(json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            }],
        },
    }))
}

pub fn create_definition(mut crd: Value) -> Result<Value> {
    let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let body = crd.take().to_string();
    let mut crd = codec::decode(kind, JSON, body.as_bytes(), FieldValidation::Strict)?.object;
    strategy::conform(kind, &mut crd, None, None)?;
    kind.default(&mut crd);
    let context = CreateContext {
        namespace: None,
        now: now(),
        uid: "u",
        suffix: "",
    };
    strategy::prepare_create(kind, &mut crd, &context)?;
    Ok(names::decide(&crd, &[], now()))
}

pub fn widget(crd: &Value) -> Kind {
    kinds(crd).into_iter().next().unwrap()
}

fn decoded(kind: &Kind, object: &Value, strict: FieldValidation) -> Result<Value> {
    let mut object = codec::decode(kind, JSON, object.to_string().as_bytes(), strict)?.object;
    strategy::conform(kind, &mut object, Some("ns"), None)?;
    kind.default(&mut object);
    Ok(object)
}

pub fn create(kind: &Kind, spec: Value) -> Result<Value> {
    let object = json!({"metadata": {"name": "a"}, "spec": spec});
    let mut object = decoded(kind, &object, FieldValidation::Warn)?;
    let context = CreateContext {
        namespace: Some("ns"),
        now: now(),
        uid: "u",
        suffix: "",
    };
    strategy::prepare_create(kind, &mut object, &context)?;
    object["metadata"]["resourceVersion"] = "1".into();
    Ok(object)
}

pub fn update(kind: &Kind, old: &Value, spec: Value) -> Result<Value> {
    let object = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": spec});
    let mut object = decoded(kind, &object, FieldValidation::Warn)?;
    strategy::prepare_update(kind, &mut object, old)?;
    Ok(object)
}

/// What a 422 says behind `… is invalid: `.
pub fn why(result: Result<Value>) -> String {
    let error: ApiError = result.unwrap_err();
    assert_eq!(error.code, 422, "{error}");
    let (_, text) = error.message.split_once(" is invalid: ").unwrap();
    text.to_string()
}

#[test]
fn a_definition_becomes_a_kind() {
    let crd = define(json!({"type": "object", "properties": {"replicas": {"type": "integer"}}}));
    let crd = crd.unwrap();
    assert_eq!(crd["spec"]["names"]["singular"], "widget");
    assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(crd["spec"]["conversion"]["strategy"], "None");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["metadata"]["generation"], 1);
    let kind = widget(&crd);
    assert_eq!(kind.qualified_resource(), "widgets.example.com");
    assert_eq!(kind.storage_prefix(), "example.com/widgets");
    let object = create(&kind, json!({"replicas": 3})).unwrap();
    assert_eq!(object["metadata"]["generation"], 1);
    let cells = kind.cells(&object, now());
    assert_eq!(cells, [json!("a"), json!(3), json!("0s")]);
    let scale = crate::scale::of(&kind, &object).unwrap();
    assert_eq!(scale["spec"]["replicas"], 3);
    let scaled = crate::scale::apply(&kind, &object, &json!({"spec": {"replicas": 5}})).unwrap();
    assert_eq!(scaled["spec"]["replicas"], 5);
    // Discovery and OpenAPI tell of it.
    let registry = Registry::with(vec![std::sync::Arc::new(kind)]);
    let list = crate::discovery::resource_list(&registry, "example.com", "v1").unwrap();
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(list["resources"][2]["kind"], "Widget");
    let documents = crate::openapi::Documents::new(&registry);
    let document = documents.v3("apis/example.com/v1").unwrap();
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["replicas"]["type"],
        "integer"
    );
    assert_eq!(
        schema["x-kubernetes-group-version-kind"][0]["kind"],
        "Widget"
    );
    assert!(documents.v2()["definitions"]["com.example.v1.Widget"].is_object());
}

#[test]
fn definitions_are_refused_with_kubernetes_words() {
    let whole = |change: fn(&mut Value)| {
        let mut crd = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        change(&mut crd);
        why(create_definition(crd))
    };
    for (found, expected) in [
        (
            whole(|c| c["metadata"]["name"] = "widget.example.com".into()),
            r#"metadata.name: Invalid value: "widget.example.com": must be spec.names.plural+"."+spec.group"#,
        ),
        (
            whole(|c| c["spec"]["versions"][0]["storage"] = false.into()),
            r#"[spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version, status.storedVersions: Invalid value: []: must have at least one stored version]"#,
        ),
        (
            whole(|c| c["spec"]["scope"] = "Everywhere".into()),
            r#"spec.scope: Unsupported value: "Everywhere": supported values: "Cluster", "Namespaced""#,
        ),
        (
            whole(|c| c["spec"]["versions"][0]["schema"] = json!({})),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            whole(|c| c["spec"]["conversion"] = json!({"strategy": "Webhook"})),
            "spec.conversion.strategy: Forbidden: conversion webhooks are not supported; only the strategy None is",
        ),
        (
            whole(|c| c["spec"]["preserveUnknownFields"] = true.into()),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            whole(|c| {
                c["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "a", "type": "string", "jsonPath": ".a..b"}])
            }),
            r#"spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: ".a..b": unrecognized or unsupported json path: recursive descent (..) is not supported"#,
        ),
        (
            why(define_schema(json!({"properties": {}}))),
            "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root",
        ),
        (
            why(define(json!({}))),
            "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            why(define(json!({"type": "array"}))),
            "spec.validation.openAPIV3Schema.properties[spec].items: Required value: must be specified",
        ),
        (
            why(define(
                json!({"type": "object", "additionalProperties": false}),
            )),
            "spec.validation.openAPIV3Schema.properties[spec].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            why(define(
                json!({"type": "object", "anyOf": [{"properties": {"x": {"minimum": 1}}}]}),
            )),
            "spec.validation.openAPIV3Schema.properties[spec].properties[x]: Required value: because it is defined in anyOf[0].properties[x]",
        ),
        (
            why(define(json!({"type": "integer", "default": "x"}))),
            r#"spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: "string": spec.validation.openAPIV3Schema.properties[spec].default in body must be of type integer: "string""#,
        ),
        (
            why(define(
                json!({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
            )),
            "spec.validation.openAPIV3Schema.properties[spec].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let unknown =
        define(json!({"type": "object", "additionalProperties": {"type": "object", "colour": 1}}));
    assert_eq!(unknown.unwrap_err().code, 400);
}

#[test]
fn values_are_refused_with_kubernetes_words() {
    let crd = define(json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {
                    "k": {"type": "string"}, "v": {"type": "integer"}}}},
            "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        },
    }))
    .unwrap();
    let kind = widget(&crd);
    let good = json!({"name": "ab", "replicas": 2, "mode": "a", "port": "http", "set": ["x", "y"],
        "when": "2026-01-01T00:00:00Z", "map": [{"k": "1"}, {"k": "2"}], "one": {"a": "x"}});
    create(&kind, good.clone()).unwrap();
    let with = |key: &str, value: Value| {
        let mut spec = good.clone();
        spec[key] = value;
        why(create(&kind, spec))
    };
    for (found, expected) in [
        (
            with("replicas", "x".into()),
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ),
        (
            with("replicas", 0.into()),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        (
            with("name", "abcde".into()),
            "spec.name: Too long: may not be more than 4 bytes",
        ),
        (
            with("name", "AB".into()),
            r#"spec.name: Invalid value: "AB": spec.name in body should match '^[a-z]+$'"#,
        ),
        (
            with("mode", "c".into()),
            r#"spec.mode: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            with("port", true.into()),
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ),
        (
            with("when", "noon".into()),
            r#"spec.when: Invalid value: "noon": spec.when in body must be of type date-time: "noon""#,
        ),
        (
            with("list", json!(["a", "b"])),
            "spec.list: Too many: 2: must have at most 1 items",
        ),
        (
            with("list", json!([1])),
            r#"spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer""#,
        ),
        (
            with("set", json!(["x", "x"])),
            r#"spec.set[1]: Duplicate value: "x""#,
        ),
        (
            with("map", json!([{"k": "1"}, {"k": "1", "v": 1}])),
            r#"spec.map[1]: Duplicate value: {"k":"1"}"#,
        ),
        (
            with("one", json!({"a": "x", "b": "x"})),
            r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (why(create(&kind, json!({}))), "spec.name: Required value"),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn unknown_fields_are_pruned_and_defaults_filled_in() {
    let crd = define(json!({
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "default": 1},
            "nested": {"type": "object", "default": {}, "properties": {"a": {"type": "string", "default": "x"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "maybe": {"type": "string", "nullable": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true},
        },
    }))
    .unwrap();
    let kind = widget(&crd);
    let spec = json!({"foo": 1, "free": {"x": {"y": 1}}, "labels": {"a": "b"}, "maybe": null,
        "replicas": null,
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {}}});
    let object = create(&kind, spec.clone()).unwrap();
    assert_eq!(
        object["spec"],
        json!({"free": {"x": {"y": 1}}, "labels": {"a": "b"}, "maybe": null,
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
            "replicas": 1, "nested": {"a": "x"}})
    );
    let body = json!({"metadata": {"name": "a", "bar": 1}, "spec": spec});
    let error = decoded(&kind, &body, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.message,
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"metadata.bar\", unknown field \"spec.template.metadata.odd\", unknown field \"spec.foo\""
    );
    let wrong = json!({"metadata": {"name": "a", "labels": {"a": 1}}});
    assert_eq!(
        decoded(&kind, &wrong, FieldValidation::Warn)
            .unwrap_err()
            .code,
        400
    );
}

#[test]
fn what_was_wrong_before_may_stay() {
    let loose = widget(&define(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}})).unwrap());
    let old = create(&loose, json!({"a": "long", "b": "x"})).unwrap();
    let tight = widget(&define(json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 2}, "b": {"type": "string"}}})).unwrap());
    let new = update(&tight, &old, json!({"a": "long", "b": "y"})).unwrap();
    assert_eq!(new["metadata"]["generation"], 2);
    assert!(why(update(&tight, &old, json!({"a": "longer"}))).contains("Too long"));
}

#[test]
fn versions_without_a_converter_share_objects() {
    let schema = |fields: Value| json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}});
    let crd = create_definition(json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": schema(json!({"a": {"type": "string"}}))},
                {"name": "v1", "served": true, "storage": true,
                    "schema": schema(json!({"a": {"type": "string"}, "b": {"type": "string", "default": "d"}}))},
            ],
        },
    }))
    .unwrap();
    let kinds = kinds(&crd);
    let versions: Vec<&str> = kinds.iter().map(|k| &*k.version).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    let (v1, beta) = (&kinds[0], &kinds[1]);
    assert!(!v1.is_view() && beta.is_view());
    assert_eq!(
        beta.as_custom().unwrap().warning(),
        Some("example.com/v1beta1 Widget is deprecated")
    );
    let object = create(beta, json!({"a": "x", "b": "unknown here"})).unwrap();
    let stored = beta.into_store(&object);
    assert_eq!(stored["apiVersion"], "example.com/v1");
    assert_eq!(stored["spec"], json!({"a": "x"}));
    assert_eq!(
        v1.from_store(stored.clone())["spec"],
        json!({"a": "x", "b": "d"})
    );
    let back = beta.from_store(v1.from_store(stored));
    assert_eq!(
        (&back["apiVersion"], &back["spec"]),
        (&json!("example.com/v1beta1"), &json!({"a": "x"}))
    );
}

#[test]
fn rules_are_checked_in_both_directions() {
    let crd = define(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min must not exceed max"},
            {"rule": "!has(self.odd) || self.odd % 2 == 1", "messageExpression": "'not odd: ' + string(self.odd)", "fieldPath": ".odd", "reason": "FieldValueForbidden"},
            {"rule": "oldSelf.orValue(self).max >= self.max || self.max < 100", "optionalOldSelf": true},
        ],
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "odd": {"type": "integer"},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}]},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {
                    "k": {"type": "string"},
                    "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}},
        },
    }))
    .unwrap();
    let kind = widget(&crd);
    let good = json!({"min": 1, "max": 2, "odd": 3, "fixed": "a", "items": [{"k": "x", "n": 1}, {"k": "y", "n": 5}]});
    let old = create(&kind, good.clone()).unwrap();
    let with = |key: &str, value: Value| {
        let mut spec = good.clone();
        spec[key] = value;
        spec
    };
    for (found, expected) in [
        (
            why(create(&kind, with("min", 9.into()))),
            r#"spec: Invalid value: "object": min must not exceed max"#,
        ),
        (
            why(create(&kind, with("odd", 4.into()))),
            "spec.odd: Forbidden: not odd: 4",
        ),
        (
            why(update(&kind, &old, with("fixed", "b".into()))),
            r#"spec.fixed: Invalid value: "string": Value is immutable"#,
        ),
        (
            why(update(&kind, &old, with("max", 200.into()))),
            r#"spec: Invalid value: "object": failed rule: oldSelf.orValue(self).max >= self.max || self.max < 100"#,
        ),
        (
            // Items are told apart by their key, wherever they stand.
            why(update(
                &kind,
                &old,
                with("items", json!([{"k": "y", "n": 4}, {"k": "x", "n": 1}])),
            )),
            r#"spec.items[0].n: Invalid value: "integer": failed rule: self >= oldSelf"#,
        ),
        (
            why(create(&kind, json!({"min": 1}))),
            r#"[spec: Invalid value: "object": no such key: max evaluating rule: min must not exceed max, spec: Invalid value: "object": no such key: max evaluating rule: failed rule: oldSelf.orValue(self).max >= self.max || self.max < 100]"#,
        ),
        (
            why(create(&kind, with("min", "x".into()))),
            r#"[spec.min: Invalid value: "string": spec.min in body must be of type integer: "string", <nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"#,
        ),
    ] {
        assert_eq!(found, expected);
    }
    update(
        &kind,
        &old,
        with("items", json!([{"k": "y", "n": 6}, {"k": "z", "n": 0}])),
    )
    .unwrap();
}

#[test]
fn rules_that_can_not_be_are_refused() {
    let rule = |rule: Value| {
        why(define(
            json!({"type": "object", "x-kubernetes-validations": [rule],
            "properties": {"a": {"type": "integer"}}}),
        ))
    };
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (found, expected) in [
        (
            rule(json!({"rule": "self.b == 1"})),
            format!(
                r#"{at}.rule: Invalid value: "self.b == 1": compilation failed: undefined field 'b'"#
            ),
        ),
        (
            rule(json!({"rule": "self.a"})),
            format!(
                r#"{at}.rule: Invalid value: "self.a": compilation failed: must evaluate to a bool"#
            ),
        ),
        (
            rule(json!({"rule": "self.a == 1", "reason": "Because"})),
            format!(
                r#"{at}.reason: Unsupported value: "Because": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#
            ),
        ),
        (
            rule(json!({"rule": "self.a == 1", "fieldPath": ".b"})),
            format!(r#"{at}.fieldPath: Invalid value: ".b": fieldPath must be a valid path"#),
        ),
        (
            rule(json!({"rule": "self.a == 1", "messageExpression": "self.a"})),
            format!(
                r#"{at}.messageExpression: Invalid value: "self.a": messageExpression must evaluate to a string"#
            ),
        ),
    ] {
        assert_eq!(found, expected);
    }
    let loose = why(define(json!({"type": "array", "items": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}})));
    assert!(
        loose.contains("oldSelf cannot be used on the uncorrelatable portion"),
        "{loose}"
    );
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "nullable": true})),
        Just(json!({"type": "integer", "default": 3})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::btree_map("[a-c]", inner.clone(), 0..4)
                .prop_map(|p| json!({"type": "object", "default": {}, "properties": p})),
            inner
                .clone()
                .prop_map(|s| json!({"type": "array", "items": s})),
            inner.prop_map(|s| json!({"type": "object", "additionalProperties": s})),
        ]
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}

proptest! {
    /// Doing it twice is doing it once, for pruning, defaulting and both together.
    #[test]
    fn pruning_and_defaulting_are_idempotent(schema in any_schema(), value in any_json()) {
        let schema = Schema::compile(&schema);
        let mut unknown = Vec::new();
        let mut pruned = value.clone();
        prune::prune(&mut pruned, &schema, &mut unknown);
        let mut again = pruned.clone();
        let mut none = Vec::new();
        prune::prune(&mut again, &schema, &mut none);
        prop_assert_eq!(&pruned, &again);
        prop_assert!(none.is_empty());
        let mut filled = pruned.clone();
        prune::fill(&mut filled, &schema);
        let mut again = filled.clone();
        prune::fill(&mut again, &schema);
        prop_assert_eq!(&filled, &again);
        prune::prune(&mut again, &schema, &mut none);
        prop_assert_eq!(&filled, &again);
    }

    /// No schema and no value makes any step panic.
    #[test]
    fn every_step_takes_everything(schema in any_json(), value in any_json()) {
        let mut errors = crate::status::Errors::default();
        super::faults::find(&schema, "schema", &mut errors);
        let compiled = Schema::compile(&schema);
        let mut filled = value.clone();
        prune::fill(&mut filled, &compiled);
        super::validate::validate(&filled, Some(&value), &compiled, "", &mut errors);
    }
}
