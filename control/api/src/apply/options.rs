//! What a write says about itself in its query, and the body of an apply patch.
//! Source: apimachinery `pkg/apis/meta/v1/validation`.

use serde_json::{Map, Value};

use crate::codec::{self, Parsed};
use crate::status::{ApiError, Errors, Result};

/// Bytes of a manager's name.
pub const LONGEST_NAME: usize = 128;

/// Checks `fieldManager` and whether `force` is given. `options` is the type that refusals name:
/// `PatchOptions`.
pub fn check_options(options: &str, manager: &str, force: bool, applies: bool) -> Result<()> {
    let mut errors = Errors::default();
    if applies && manager.is_empty() {
        errors.required("fieldManager", "is required for apply patch");
    }
    if !applies && force {
        errors.forbidden("force", "may not be specified for non-apply patch");
    }
    if manager.len() > LONGEST_NAME {
        errors.too_long("fieldManager", LONGEST_NAME);
    }
    // Go counts bytes.
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| !is_printable(*c)) {
        let shown = format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(c)
        );
        errors.invalid("fieldManager", manager, shown);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid_named("meta.k8s.io", options, "", errors))
}

pub fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// The manager of a write that is no apply: `fieldManager`, or what the client calls itself.
pub fn manager_of(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_string();
    }
    let agent = user_agent.split('/').next().unwrap_or("");
    let mut name = String::new();
    for c in agent.chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > LONGEST_NAME {
            break;
        }
        name.push(c);
    }
    if name.is_empty() {
        "unknown".to_string()
    } else {
        name
    }
}

/// The configuration of an apply patch: YAML, of which JSON is a part. Also what to warn of.
pub fn parse(body: &[u8]) -> Result<(Value, Vec<String>)> {
    let json = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let parsed = match json {
        // Braces may still be YAML's.
        true => codec::parse_json(body).or_else(|_| codec::parse(codec::YAML, body)),
        false => codec::parse(codec::YAML, body),
    };
    let Parsed { value, duplicates } =
        parsed.map_err(|e| ApiError::bad_request(format!("error decoding YAML: {}", e.message)))?;
    let value = match value {
        Value::Null => Value::Object(Map::new()),
        object @ Value::Object(_) => object,
        _ => {
            return Err(ApiError::bad_request(
                "error decoding YAML: the body is not an object",
            ));
        }
    };
    let warnings = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""));
    Ok((value, warnings.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_are_checked() {
        let refused = |manager: &str, force, applies| {
            check_options("PatchOptions", manager, force, applies)
                .unwrap_err()
                .message
        };
        assert_eq!(check_options("PatchOptions", "", false, false), Ok(()));
        assert_eq!(check_options("PatchOptions", "me", true, true), Ok(()));
        assert_eq!(
            refused("", false, true),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        assert_eq!(
            refused("me", true, false),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        );
        assert!(refused(&"x".repeat(129), false, false).contains("Too long"));
        assert!(refused("a\nb", false, false).contains("invalid character U+000A (at position 1)"));
    }

    #[test]
    fn names_of_managers() {
        assert_eq!(manager_of("me", "kubectl/v1.36"), "me");
        assert_eq!(manager_of("", "kubectl/v1.36.0 (linux/amd64)"), "kubectl");
        assert_eq!(manager_of("", ""), "unknown");
        assert_eq!(manager_of("", &"x".repeat(300)).len(), 128);
    }

    #[test]
    fn configurations_are_yaml() {
        let (config, warnings) = parse(b"kind: ConfigMap\ndata:\n  a: b\n").unwrap();
        assert_eq!(config, json!({"kind": "ConfigMap", "data": {"a": "b"}}));
        assert!(warnings.is_empty());
        let (config, warnings) = parse(br#" {"a":1,"a":2}"#).unwrap();
        assert_eq!(config, json!({"a": 2}));
        assert_eq!(warnings, ["duplicate field \"a\""]);
        assert_eq!(parse(b"{a: b}").unwrap().0, json!({"a": "b"}));
        assert_eq!(parse(b"").unwrap().0, json!({}));
        for bad in [&b"[]"[..], b"a: [", b"\xff", b"x", b"- a"] {
            assert_eq!(parse(bad).unwrap_err().code, 400, "{bad:?}");
        }
    }
}
