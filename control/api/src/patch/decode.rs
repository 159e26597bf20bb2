//! What a patch made, as an object of its kind. Source: kube-apiserver's `handlers/patch.go`.

use serde_json::Value;

use super::{PatchType, Patched};
use crate::codec::{self, Decoded, FieldValidation, Words};
use crate::registry::Kind;
use crate::status::{ApiError, Errors, Result};

/// Decodes what a patch made. Unlike a body's, what doesn't fit is 422, and shown: the patched
/// object, or of a strategic merge the patch.
pub fn decode(
    kind: &Kind,
    patch_type: PatchType,
    patched: Patched,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Decoded> {
    let words = match patch_type {
        PatchType::Strategic => Words::Unstructured,
        _ => Words::Json,
    };
    let shown = || match patch_type {
        PatchType::Strategic => {
            go_map(&codec::parse_json(patch).map_or(Value::Null, |parsed| parsed.value))
        }
        _ => patched.object.to_string(),
    };
    let refuse = |shown: String, why: &str| {
        let mut errors = Errors::default();
        errors.invalid("patch", shown, why);
        // There is no kind in it: Kubernetes has the empty one.
        ApiError::invalid_named("", "", "", errors)
    };
    let (object, unknown) =
        codec::read(kind, patched.object.clone(), words).map_err(|why| refuse(shown(), &why))?;
    let mut warnings = patched.findings.clone();
    warnings.extend(codec::findings(&[], &unknown));
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => Err(refuse(
            shown(),
            &format!("strict decoding error: {}", warnings.join(", ")),
        )),
        FieldValidation::Ignore => Ok(Decoded {
            object,
            warnings: Vec::new(),
        }),
        _ => Ok(Decoded { object, warnings }),
    }
}

/// Go's `%+v` of a decoded JSON value.
fn go_map(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_map).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", go_map(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::registry::find;
    use serde_json::json;

    fn patched(patch_type: PatchType, patch: &str, validation: FieldValidation) -> Result<Decoded> {
        let kind = find("apps", "v1", "deployments").unwrap();
        let object = json!({"spec": {"replicas": 1}});
        let made = apply(kind, patch_type, &object, patch.as_bytes())?;
        decode(kind, patch_type, made, patch.as_bytes(), validation)
    }

    fn refusal(patch_type: PatchType, patch: &str) -> String {
        let error = patched(patch_type, patch, FieldValidation::Strict).unwrap_err();
        assert_eq!((error.code, &*error.reason), (422, "Invalid"));
        let causes = &error.details.as_ref().unwrap()["causes"];
        assert_eq!(causes[0]["field"], "patch");
        error.message
    }

    #[test]
    fn what_does_not_fit_is_invalid() {
        use PatchType::{Json, Merge, Strategic};
        for (patch_type, patch, message) in [
            (
                Strategic,
                r#"{"spec":{"replicas":"x"}}"#,
                r#" "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32"#,
            ),
            (
                Strategic,
                r#"{"metadata":{"labels":{"a":1}}}"#,
                r#" "" is invalid: patch: Invalid value: "map[metadata:map[labels:map[a:1]]]": cannot convert int64 to string"#,
            ),
            (
                Strategic,
                r#"{"spec":{"template":7}}"#,
                r#" "" is invalid: patch: Invalid value: "map[spec:map[template:7]]": cannot restore struct from: int64"#,
            ),
            (
                Merge,
                r#"{"spec":{"replicas":"x"}}"#,
                r#" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":\"x\"}}": json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
            ),
            (
                Merge,
                r#"{"spec":{"a":1,"a":2}}"#,
                r#" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":1,\"a\":2}}": strict decoding error: duplicate field "spec.a", unknown field "spec.a""#,
            ),
            (
                Json,
                r#"[{"op":"add","path":"/spec/a","value":1,"x":1}]"#,
                r#" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":1,\"a\":1}}": strict decoding error: json patch unknown field "[0].x", unknown field "spec.a""#,
            ),
        ] {
            assert_eq!(refusal(patch_type, patch), message);
        }
    }

    #[test]
    fn warnings_or_nothing() {
        let patch = r#"{"spec":{"paused":true,"paused":false,"foo":1}}"#;
        for patch_type in [PatchType::Merge, PatchType::Strategic] {
            let warned = patched(patch_type, patch, FieldValidation::Warn).unwrap();
            assert_eq!(
                warned.warnings,
                [
                    "duplicate field \"spec.paused\"",
                    "unknown field \"spec.foo\""
                ]
            );
            let ignored = patched(patch_type, patch, FieldValidation::Ignore).unwrap();
            assert!(ignored.warnings.is_empty());
        }
    }
}
