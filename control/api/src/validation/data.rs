//! ConfigMaps and Secrets.

use serde_json::Value;

use super::IMMUTABLE;
use super::metadata::{config_key_faults, invalid_each};
use crate::json::{at, flag, map, text};
use crate::status::Errors;

/// All values of a ConfigMap or Secret together.
const MAX_SIZE: usize = 1 << 20;

fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub fn config_map(object: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map(object, "data").into_iter().flatten() {
        invalid_each(&format!("data[{key}]"), key, config_key_faults(key), errors);
        if map(object, "binaryData").is_some_and(|b| b.contains_key(key)) {
            errors.invalid(
                &format!("data[{key}]"),
                key.as_str(),
                "duplicate of key present in binaryData",
            );
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map(object, "binaryData").into_iter().flatten() {
        invalid_each(
            &format!("binaryData[{key}]"),
            key,
            config_key_faults(key),
            errors,
        );
        size += decoded_length(value);
    }
    if size > MAX_SIZE {
        errors.too_long("", MAX_SIZE);
    }
}

const WHEN_IMMUTABLE: &str = "field is immutable when `immutable` is set";

fn immutable_update(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.forbidden("immutable", WHEN_IMMUTABLE);
    }
    for field in fields {
        if at(new, field) != at(old, field) {
            errors.forbidden(field, WHEN_IMMUTABLE);
        }
    }
}

pub fn config_map_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable_update(new, old, &["data", "binaryData"], errors);
}

pub fn secret(object: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map(object, "data").into_iter().flatten() {
        invalid_each(&format!("data[{key}]"), key, config_key_faults(key), errors);
        size += decoded_length(value);
    }
    if size > MAX_SIZE {
        errors.too_long("data", MAX_SIZE);
    }
    let has = |key: &str| map(object, "data").is_some_and(|d| d.contains_key(key));
    let mut need = |key: &str| {
        if !has(key) {
            errors.required(&format!("data[{key}]"), "");
        }
    };
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let account = map(object, "metadata.annotations")
                .and_then(|a| a.get("kubernetes.io/service-account.name"))
                .and_then(Value::as_str);
            if account.unwrap_or("").is_empty() {
                errors.required(
                    "metadata.annotations[kubernetes.io/service-account.name]",
                    "",
                );
            }
        }
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => {}
    }
    for key in [".dockercfg", ".dockerconfigjson"] {
        let ty = format!("kubernetes.io/{}", &key[1..]);
        if text(object, "type") == ty && has(key) {
            use base64::Engine as _;
            let data = &object["data"][key];
            let json = base64::engine::general_purpose::STANDARD
                .decode(data.as_str().unwrap_or(""))
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if !json.is_some_and(|j| j.is_object()) {
                errors.invalid(
                    &format!("data[{key}]"),
                    "<secret contents redacted>",
                    "is not valid JSON",
                );
            }
        }
    }
}

pub fn secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    if text(new, "type") != text(old, "type") {
        errors.invalid("type", text(new, "type"), IMMUTABLE);
    }
    immutable_update(new, old, &["data"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(check: fn(&Value, &mut Errors), object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn config_maps() {
        assert!(faults(config_map, json!({"data": {"a.B_c": ""}})).is_empty());
        assert!(
            faults(config_map, json!({"data": {"a b": ""}}))[0]
                .starts_with("data[a b]: Invalid value")
        );
        assert!(
            faults(
                config_map,
                json!({"data": {"a": ""}, "binaryData": {"a": ""}})
            )[0]
            .contains("duplicate of key")
        );
        assert_eq!(
            faults(config_map, json!({"data": {"a": "x".repeat(MAX_SIZE + 1)}})),
            [": Too long: may not be more than 1048576 bytes"]
        );
        let mut errors = Errors::default();
        let old = json!({"immutable": true, "data": {"a": "1"}});
        config_map_update(
            &json!({"immutable": true, "data": {"a": "2"}}),
            &old,
            &mut errors,
        );
        assert_eq!(
            errors.0[0].to_string(),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
    }

    #[test]
    fn secrets() {
        assert_eq!(
            faults(
                secret,
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})
            ),
            ["data[tls.key]: Required value"]
        );
        assert!(faults(secret, json!({"type": "Opaque", "data": {"a": "eHg="}})).is_empty());
        assert!(!faults(secret, json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eHg="}})).is_empty());
        assert_eq!(decoded_length(&json!("eHg=")), 2);
        assert_eq!(decoded_length(&json!("")), 0);
        assert_eq!(decoded_length(&json!("=")), 0);
    }
}
