//! Patches: RFC 6902, RFC 7386 and Kubernetes' strategic merge.

use serde_json::Value;

use crate::registry::Kind;
use crate::schema::types;
use crate::status::{ApiError, Result};
use crate::strategic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

impl PatchType {
    /// From `Content-Type`. Server-side apply is refused by name.
    pub fn from_media_type(media_type: &str) -> Result<Self> {
        match media_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                let mut error = ApiError::unsupported_media_type(ACCEPTED);
                error.message = format!(
                    "server-side apply (application/apply-patch+yaml) is not supported; apply on the client's side (kubectl apply without --server-side) or use one of: {}",
                    ACCEPTED.join(", ")
                );
                Err(error)
            }
            _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// The most operations that a JSON patch may have, as in kube-apiserver.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a patch to an object in its served form. The result is not decoded yet.
pub fn apply(kind: &Kind, patch_type: PatchType, object: &Value, patch: &[u8]) -> Result<Value> {
    let struct_name = (kind.schema_name)();
    apply_named(&struct_name, patch_type, object, patch)
}

/// As `apply`, for an object of the type with this OpenAPI name (the Scale of a subresource).
pub fn apply_named(
    struct_name: &str,
    patch_type: PatchType,
    object: &Value,
    patch: &[u8],
) -> Result<Value> {
    let parsed = crate::codec::parse_json(patch)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {}", e.message)))?
        .value;
    match patch_type {
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(parsed)
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            if operations.0.len() > MAX_OPERATIONS {
                return Err(ApiError::request_too_large(format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    operations.0.len()
                )));
            }
            let mut patched = object.clone();
            json_patch::patch(&mut patched, &operations).map_err(|e| {
                let mut error = ApiError::new(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {e}"),
                );
                error.details = Some(Default::default());
                error
            })?;
            Ok(patched)
        }
        PatchType::Merge => {
            if !parsed.is_object() {
                return Err(ApiError::bad_request(
                    "error decoding patch: a merge patch must be a JSON object",
                ));
            }
            let mut patched = object.clone();
            json_patch::merge(&mut patched, &parsed);
            Ok(patched)
        }
        PatchType::Strategic => {
            let Some(id) = types().by_name(struct_name) else {
                return Err(ApiError::internal(format!(
                    "the type {struct_name} is not compiled in"
                )));
            };
            strategic::apply(types(), id, object, &parsed).map_err(|e| {
                ApiError::bad_request(format!("unable to apply the strategic merge patch: {e}"))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;
    use serde_json::json;

    #[test]
    fn media_types() {
        assert_eq!(
            PatchType::from_media_type("application/merge-patch+json; charset=utf-8").unwrap(),
            PatchType::Merge
        );
        let error = PatchType::from_media_type("application/apply-patch+yaml").unwrap_err();
        assert_eq!(error.code, 415);
        assert!(error.message.contains("server-side apply"));
    }

    #[test]
    fn json_and_merge_patches() {
        let kind = find("", "v1", "configmaps").unwrap();
        let object = json!({"data": {"a": "1", "b": "2"}});
        let patched = apply(
            kind,
            PatchType::Json,
            &object,
            br#"[{"op":"test","path":"/data/a","value":"1"},{"op":"remove","path":"/data/a"}]"#,
        )
        .unwrap();
        assert_eq!(patched, json!({"data": {"b": "2"}}));
        let failed = apply(
            kind,
            PatchType::Json,
            &object,
            br#"[{"op":"test","path":"/data/a","value":"x"}]"#,
        );
        assert_eq!(failed.unwrap_err().code, 422);
        let merged = apply(
            kind,
            PatchType::Merge,
            &object,
            br#"{"data":{"a":null,"c":"3"}}"#,
        )
        .unwrap();
        assert_eq!(merged, json!({"data": {"b": "2", "c": "3"}}));
        for bad in ["", "{", "[{}]", "[1]"] {
            assert_eq!(
                apply(kind, PatchType::Json, &object, bad.as_bytes())
                    .unwrap_err()
                    .code,
                400,
                "{bad}"
            );
        }
        assert_eq!(
            apply(kind, PatchType::Merge, &object, b"[]")
                .unwrap_err()
                .code,
            400
        );
    }
}
