//! Patches: RFC 6902, RFC 7386 and Kubernetes' strategic merge.

mod decode;

pub use decode::decode;
use json_patch::PatchOperation;
use serde_json::Value;

use crate::json;
use crate::registry::Kind;
use crate::schema::types;
use crate::status::{ApiError, Result};
use crate::strategic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply: `apply::Writer` merges it.
    Apply,
}

const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl PatchType {
    /// From `Content-Type`.
    pub fn from_media_type(media_type: &str) -> Result<Self> {
        match media_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
            "application/apply-patch+yaml" => Ok(PatchType::Apply),
            _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// The most operations that a JSON patch may have, as in kube-apiserver.
const MAX_OPERATIONS: usize = 10_000;

/// As for a request's body: the most that the copies of one JSON patch may add up to, and the
/// largest object that a patch may make.
const MAX_BYTES: usize = 3 << 20;

/// What a patch made, not decoded yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    pub object: Value,
    /// What strict decoding finds in the patch itself.
    pub findings: Vec<String>,
}

/// Applies a patch to an object in its served form.
pub fn apply(kind: &Kind, patch_type: PatchType, object: &Value, patch: &[u8]) -> Result<Patched> {
    if kind.as_custom().is_some() && patch_type == PatchType::Strategic {
        return Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ]));
    }
    let struct_name = kind.schema_name();
    apply_named(&struct_name, patch_type, object, patch)
}

/// As `apply`, for an object of the type with this OpenAPI name (the Scale of a subresource).
pub fn apply_named(
    struct_name: &str,
    patch_type: PatchType,
    object: &Value,
    patch: &[u8],
) -> Result<Patched> {
    let crate::codec::Parsed {
        value: parsed,
        duplicates,
    } = crate::codec::parse_json(patch)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {}", e.message)))?;
    let mut findings = crate::codec::findings(&duplicates, &[]);
    let patched = match patch_type {
        PatchType::Json => {
            check_operations(&parsed, &mut findings)?;
            let operations: json_patch::Patch =
                serde_json::from_value(parsed).map_err(|e| rejected(&e))?;
            if operations.0.len() > MAX_OPERATIONS {
                return Err(ApiError::request_too_large(format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    operations.0.len()
                )));
            }
            apply_operations(object, &operations.0)?
        }
        PatchType::Merge => {
            if !parsed.is_object() {
                return Err(ApiError::bad_request(
                    "error decoding patch: a merge patch must be a JSON object",
                ));
            }
            let mut patched = object.clone();
            json_patch::merge(&mut patched, &parsed);
            patched
        }
        // It isn't a patch of an object alone, but of who manages it.
        PatchType::Apply => return Err(ApiError::unsupported_media_type(ACCEPTED)),
        PatchType::Strategic => {
            let Some(id) = types().by_name(struct_name) else {
                return Err(ApiError::internal(format!(
                    "the type {struct_name} is not compiled in"
                )));
            };
            strategic::apply(types(), id, object, &parsed).map_err(|e| {
                ApiError::bad_request(format!("unable to apply the strategic merge patch: {e}"))
            })?
        }
    };
    let made = size(&patched);
    // An object that is too large already may shrink.
    if made > MAX_BYTES && made > size(object) {
        return Err(ApiError::request_too_large(format!(
            "the patched object has {made} bytes: limit is {MAX_BYTES}"
        )));
    }
    Ok(Patched {
        object: patched,
        findings,
    })
}

/// A patch that is one, but can't be carried out.
fn rejected(why: &dyn std::fmt::Display) -> ApiError {
    let mut error = ApiError::new(
        422,
        "Invalid",
        format!("the server rejected our request due to an error in our request: {why}"),
    );
    error.details = Some(Default::default());
    error
}

/// The types of the operations' fields. What isn't known goes into `findings`.
fn check_operations(patch: &Value, findings: &mut Vec<String>) -> Result<()> {
    for finding in findings.iter_mut() {
        *finding = format!("json patch {finding}");
    }
    let refuse = |why: &str| ApiError::bad_request(format!("error decoding patch: {why}"));
    let operations = patch
        .as_array()
        .ok_or_else(|| refuse("a JSON patch must be an array"))?;
    for (index, operation) in operations.iter().enumerate() {
        let fields = operation
            .as_object()
            .ok_or_else(|| refuse("an operation of a JSON patch must be an object"))?;
        for (field, value) in fields {
            match field.as_str() {
                "op" | "path" | "from" if !value.is_string() && !value.is_null() => {
                    return Err(refuse(&format!(
                        "{field} of operation {index} is no string"
                    )));
                }
                "op" | "path" | "from" | "value" => {}
                _ => findings.push(format!("json patch unknown field \"[{index}].{field}\"")),
            }
        }
    }
    Ok(())
}

/// One at a time: each copy can double the object, so a few of them would fill all memory before
/// the result could be looked at.
fn apply_operations(object: &Value, operations: &[PatchOperation]) -> Result<Value> {
    let mut patched = object.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, size);
            if copied > MAX_BYTES {
                return Err(ApiError::request_too_large(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_BYTES}"
                )));
            }
        }
        check_depth(&patched, operation)?;
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(
            |mut e| {
                e.operation = index;
                rejected(&e)
            },
        )?;
    }
    Ok(patched)
}

/// Each operation can put one value below another: many of them would make an object that no
/// recursion over it survives.
fn check_depth(object: &Value, operation: &PatchOperation) -> Result<()> {
    let below = |from: &str| object.pointer(from).map_or(0, json::depth);
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, json::depth(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, json::depth(&replace.value)),
        PatchOperation::Move(to) => (&to.path, below(to.from.as_str())),
        PatchOperation::Copy(to) => (&to.path, below(to.from.as_str())),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if path.tokens().count() + value <= json::MAX_DEPTH {
        return Ok(());
    }
    Err(ApiError::request_too_large(format!(
        "the patched object nests too deep: limit is {}",
        json::MAX_DEPTH
    )))
}

/// How long the value is as JSON.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // Neither the writer nor a `Value` fails.
        Err(_) => usize::MAX,
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
        assert_eq!(
            PatchType::from_media_type("application/apply-patch+yaml").unwrap(),
            PatchType::Apply
        );
        let error = PatchType::from_media_type("application/apply-patch+cbor").unwrap_err();
        assert_eq!(error.code, 415);
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
        .unwrap()
        .object;
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
        .unwrap()
        .object;
        assert_eq!(merged, json!({"data": {"b": "2", "c": "3"}}));
        for (bad, code) in [
            ("", 400),
            ("{", 400),
            ("{}", 400),
            ("[1]", 400),
            (r#"[{"op":1}]"#, 400),
            ("[{}]", 422),
            (r#"[{"op":"foo","path":"/a"}]"#, 422),
            (r#"[{"op":"remove","path":"a"}]"#, 422),
        ] {
            assert_eq!(
                apply(kind, PatchType::Json, &object, bad.as_bytes())
                    .unwrap_err()
                    .code,
                code,
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

    #[test]
    fn a_patch_can_not_make_much_of_little() {
        let kind = find("", "v1", "configmaps").unwrap();
        let object = json!({"data": {"a": "x".repeat(1024)}});
        // Each copies everything so far: a 1 KiB object would have 2^60 bytes.
        let bomb: Vec<Value> = (0..50)
            .map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/c{i}")}))
            .collect();
        let bomb = Value::from(bomb).to_string();
        let refused = apply(kind, PatchType::Json, &object, bomb.as_bytes()).unwrap_err();
        assert_eq!(refused.code, 413);
        let few = br#"[{"op":"copy","from":"/data/a","path":"/data/b"}]"#;
        let patched = apply(kind, PatchType::Json, &object, few).unwrap().object;
        assert_eq!(patched["data"]["a"], patched["data"]["b"]);
        // The object counts, not the patch alone.
        let object = json!({"data": {"a": "x".repeat(2 << 20)}});
        let more = json!({"data": {"b": "x".repeat(2 << 20)}}).to_string();
        for patch_type in [PatchType::Merge, PatchType::Strategic] {
            let refused = apply(kind, patch_type, &object, more.as_bytes()).unwrap_err();
            assert_eq!(refused.code, 413);
        }
    }

    #[test]
    fn a_patch_can_not_nest_without_end() {
        let kind = find("", "v1", "configmaps").unwrap();
        let deeper: Vec<Value> = (0..1000)
            .map(|i| json!({"op": "add", "path": "/a".repeat(i + 1), "value": {}}))
            .collect();
        let deeper = Value::from(deeper).to_string();
        let refused = apply(kind, PatchType::Json, &json!({}), deeper.as_bytes()).unwrap_err();
        assert_eq!(refused.code, 413);
        // And by doubling: what is moved comes with what is below it.
        let moves: Vec<Value> = (0..20)
            .flat_map(|_| {
                [
                    json!({"op": "copy", "from": "/a", "path": "/b"}),
                    json!({"op": "move", "from": "/b", "path": "/a/n/n/n/n/n/n/n/n/n/n"}),
                    json!({"op": "move", "from": "/a", "path": "/c"}),
                    json!({"op": "add", "path": "/a", "value": {}}),
                    json!({"op": "move", "from": "/c", "path": "/a/n"}),
                ]
            })
            .collect();
        let moves = Value::from(moves).to_string();
        let nest = (0..11).fold(json!({}), |inner, _| json!({"n": inner}));
        let start = json!({"a": nest});
        assert!(apply(kind, PatchType::Json, &start, moves.as_bytes()).is_err());
        let few = br#"[{"op":"add","path":"/a","value":{"b":{}}},{"op":"add","path":"/a/b/c","value":[1]}]"#;
        let patched = apply(kind, PatchType::Json, &json!({}), few)
            .unwrap()
            .object;
        assert_eq!(patched, json!({"a": {"b": {"c": [1]}}}));
    }

    #[test]
    fn a_failed_operation_is_named() {
        let kind = find("", "v1", "configmaps").unwrap();
        let patch = br#"[{"op":"add","path":"/a","value":1},{"op":"remove","path":"/b"}]"#;
        let refused = apply(kind, PatchType::Json, &json!({}), patch).unwrap_err();
        assert!(refused.message.contains("'/1'"), "{}", refused.message);
    }
}
