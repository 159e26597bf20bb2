//! Names, labels, annotations, finalizers, owner references.

use serde_json::Value;

use super::IMMUTABLE;
use crate::json::{at, flag, list, map, text};
use crate::registry::{Kind, NameRule};
use crate::status::Errors;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 << 10;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if inner(*a) && inner(*z))
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

pub fn dns1123_label_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_label(text) {
        faults.push(LABEL.to_string());
    }
    faults
}

pub fn dns1123_subdomain_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if !text.split('.').all(is_label) {
        faults.push(SUBDOMAIN.to_string());
    }
    faults
}

pub fn dns1035_label_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(LABEL_1035.to_string());
    }
    faults
}

/// `[A-Za-z0-9]` at both ends, `[-A-Za-z0-9_.]` between.
fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z))
        if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The faults of a label or annotation key.
pub fn qualified_name_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".to_string());
            name
        }
        Some((prefix, name)) => {
            faults.extend(
                dns1123_subdomain_faults(prefix)
                    .iter()
                    .map(|f| format!("prefix part {f}")),
            );
            name
        }
        None => text,
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", too_long(63)));
    }
    if !is_token(name) {
        faults.push(format!("name part {QUALIFIED}"));
    }
    faults
}

pub fn label_value_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !text.is_empty() && !is_token(text) {
        faults.push(LABEL_VALUE.to_string());
    }
    faults
}

/// The faults of a key of a ConfigMap or Secret.
pub fn config_key_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(legal) {
        faults.push(CONFIG_KEY.to_string());
    }
    match text {
        "." => faults.push("must not be '.'".to_string()),
        ".." => faults.push("must not be '..'".to_string()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_string()),
        _ => {}
    }
    faults
}

/// Adds each fault as `Invalid value`.
pub(crate) fn invalid_each(path: &str, value: &str, faults: Vec<String>, errors: &mut Errors) {
    for fault in faults {
        errors.invalid(path, value, fault);
    }
}

/// `IsValidPathSegmentName`
pub fn path_segment_faults(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let illegal = ["/", "%"].into_iter().filter(|c| text.contains(c));
    illegal.map(|c| format!("may not contain '{c}'")).collect()
}

pub fn name_faults(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Dns1123Subdomain => dns1123_subdomain_faults(name),
        NameRule::Dns1123Label => dns1123_label_faults(name),
        NameRule::Dns1035Label => dns1035_label_faults(name),
        NameRule::PathSegment => path_segment_faults(name),
    }
}

/// Validates an object's metadata (`ValidateObjectMeta`).
pub fn validate(kind: &Kind, object: &Value, errors: &mut Errors) {
    let generate = text(object, "metadata.generateName");
    if !generate.is_empty() {
        // A trailing dash is fine in a prefix.
        let sample = generate.strip_suffix('-').map(|g| format!("{g}a"));
        let sample = sample.as_deref().unwrap_or(generate);
        for fault in name_faults(kind.name_rule, sample) {
            errors.invalid("metadata.generateName", generate, fault);
        }
    }
    match text(object, "metadata.name") {
        "" => errors.required("metadata.name", "name or generateName is required"),
        name => invalid_each(
            "metadata.name",
            name,
            name_faults(kind.name_rule, name),
            errors,
        ),
    }
    if kind.namespaced {
        match text(object, "metadata.namespace") {
            "" => errors.required("metadata.namespace", ""),
            ns => invalid_each("metadata.namespace", ns, dns1123_label_faults(ns), errors),
        }
    }
    labels("metadata.labels", at(object, "metadata.labels"), errors);
    annotations(
        "metadata.annotations",
        at(object, "metadata.annotations"),
        errors,
    );
    owner_references(object, errors);
    let finalizers = list(object, "metadata.finalizers");
    for value in finalizers {
        finalizer("metadata.finalizers", value.as_str().unwrap_or(""), errors);
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(
            "metadata.finalizers",
            finalizers.to_vec(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// Validates what may change (`ValidateObjectMetaUpdate`); system fields were restored before.
pub fn validate_update(kind: &Kind, new: &Value, old: &Value, errors: &mut Errors) {
    validate(kind, new, errors);
    for field in ["name", "namespace"] {
        let path = format!("metadata.{field}");
        if text(new, &path) != text(old, &path) {
            errors.invalid(&path, text(new, &path), IMMUTABLE);
        }
    }
    if at(old, "metadata.deletionTimestamp").is_some() {
        let before = list(old, "metadata.finalizers");
        let added: Vec<&str> = list(new, "metadata.finalizers")
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            errors.forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
                ),
            );
        }
    }
}

pub fn labels(path: &str, labels: Option<&Value>, errors: &mut Errors) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        invalid_each(path, key, qualified_name_faults(key), errors);
        let value = value.as_str().unwrap_or("");
        invalid_each(path, value, label_value_faults(value), errors);
    }
}

pub fn annotations(path: &str, annotations: Option<&Value>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        // Case doesn't matter in annotation keys.
        invalid_each(
            path,
            key,
            qualified_name_faults(&key.to_lowercase()),
            errors,
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(path, MAX_ANNOTATIONS);
    }
}

pub fn finalizer(path: &str, name: &str, errors: &mut Errors) {
    invalid_each(path, name, qualified_name_faults(name), errors);
    if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
        errors.invalid(
            path,
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

fn owner_references(object: &Value, errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for (i, owner) in list(object, "metadata.ownerReferences").iter().enumerate() {
        let path = format!("metadata.ownerReferences[{i}]");
        if text(owner, "apiVersion").is_empty() {
            errors.invalid(
                &format!("{path}.apiVersion"),
                "",
                "version must not be empty",
            );
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                errors.invalid(&format!("{path}.{field}"), "", "must not be empty");
            }
        }
        if flag(owner, "controller") {
            let name = text(owner, "name");
            match controller {
                Some(first) => errors.invalid(
                    "metadata.ownerReferences",
                    list(object, "metadata.ownerReferences").to_vec(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    ),
                ),
                None => controller = Some(name),
            }
        }
    }
    if map(object, "metadata").is_none() {
        errors.required("metadata", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;
    use serde_json::json;

    fn faults(kind: (&str, &str), metadata: Value) -> Vec<String> {
        let kind = find(kind.0, "v1", kind.1).unwrap();
        let mut errors = Errors::default();
        validate(kind, &json!({"metadata": metadata}), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names() {
        let pods = ("", "pods");
        assert!(faults(pods, json!({"name": "a.b-c", "namespace": "n"})).is_empty());
        assert_eq!(
            faults(pods, json!({"name": "A", "namespace": "n"})),
            [format!("metadata.name: Invalid value: \"A\": {SUBDOMAIN}")]
        );
        assert_eq!(
            faults(pods, json!({"namespace": "n"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(
            faults(("", "services"), json!({"name": "1a", "namespace": "n"}))[0]
                .contains("DNS-1035")
        );
        assert!(faults(("", "namespaces"), json!({"name": "a.b"}))[0].contains("RFC 1123 label"));
    }

    #[test]
    fn labels_annotations_finalizers() {
        let pods = ("", "pods");
        let meta = |extra: Value| {
            let mut m = json!({"name": "a", "namespace": "n"});
            for (k, v) in extra.as_object().unwrap() {
                m[k.as_str()] = v.clone();
            }
            m
        };
        for (good, extra) in [
            (true, json!({"labels": {"a.b/C-d": "", "x": "A_1"}})),
            (false, json!({"labels": {"a/b/c": "x"}})),
            (false, json!({"labels": {"/b": "x"}})),
            (false, json!({"labels": {"a": "-x"}})),
            (false, json!({"labels": {"a": "x".repeat(64)}})),
            (
                true,
                json!({"annotations": {"A.b/c": "anything at all \u{1F980}"}}),
            ),
            (false, json!({"annotations": {"a b": ""}})),
            (false, json!({"annotations": {"a": "x".repeat(300_000)}})),
            (true, json!({"finalizers": ["a.b/c", "orphan"]})),
            (false, json!({"finalizers": ["mine"]})),
            (
                false,
                json!({"finalizers": ["orphan", "foregroundDeletion"]}),
            ),
            (false, json!({"ownerReferences": [{"name": "x"}]})),
        ] {
            assert_eq!(
                faults(pods, meta(extra.clone())).is_empty(),
                good,
                "{extra}"
            );
        }
    }
}
