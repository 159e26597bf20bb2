//! The options of requests (`ListOptions`, `CreateOptions`, …) as queries have them.
//! Source: apimachinery `pkg/apis/meta/internalversion/validation` and `pkg/runtime/converter.go`.

use crate::status::{ApiError, Errors, Result};

/// Go's `strconv.ParseInt` of a parameter; an empty one is none.
pub fn number(text: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    // Rust takes everything that Go takes in base 10.
    text.parse()
        .map(Some)
        .map_err(|error: std::num::ParseIntError| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        })
}

/// What the query of a list or a watch says about where it begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListOptions<'a> {
    pub watch: bool,
    pub resource_version: &'a str,
    pub resource_version_match: &'a str,
    pub continue_token: &'a str,
    pub send_initial_events: Option<bool>,
}

impl ListOptions<'_> {
    /// 422 for what doesn't go together.
    pub fn check(&self) -> Result<()> {
        const MATCH: &str = "resourceVersionMatch";
        const CONTINUED: &str = "resourceVersionMatch is forbidden when continue is provided";
        let mut errors = Errors::default();
        let matching = self.resource_version_match;
        if self.watch {
            if self.send_initial_events.is_some() && matching != "NotOlderThan" {
                errors.forbidden(
                    MATCH,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if !matching.is_empty() {
                if self.send_initial_events.is_none() {
                    errors.forbidden(MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
                }
                if matching != "NotOlderThan" {
                    errors.not_supported(MATCH, matching, &["NotOlderThan"]);
                }
                if !self.continue_token.is_empty() {
                    errors.forbidden(MATCH, CONTINUED);
                }
            }
        } else {
            if !matching.is_empty() {
                if self.resource_version.is_empty() {
                    errors.forbidden(
                        MATCH,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    );
                }
                if !self.continue_token.is_empty() {
                    errors.forbidden(MATCH, CONTINUED);
                }
                if !matches!(matching, "Exact" | "NotOlderThan") {
                    errors.not_supported(MATCH, matching, &["Exact", "NotOlderThan", ""]);
                }
                if matching == "Exact" && self.resource_version == "0" {
                    errors.forbidden(
                        MATCH,
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    );
                }
            }
            if self.send_initial_events.is_some() {
                errors.forbidden(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for list",
                );
            }
        }
        refuse("ListOptions", errors)
    }
}

/// 422 about options of this type, if anything is wrong with them.
pub fn refuse(options: &str, errors: Errors) -> Result<()> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_named("meta.k8s.io", options, "", errors)),
    }
}

/// The values of `dryRun` in options of the type `options`: only `All` is known.
pub fn dry_run<'a>(options: &str, values: impl Iterator<Item = &'a str>) -> Result<bool> {
    let values: Vec<&str> = values.collect();
    if values.iter().all(|value| *value == "All") {
        return Ok(!values.is_empty());
    }
    let mut errors = Errors::default();
    errors.not_supported("dryRun", values, &["All"]);
    refuse(options, errors)?;
    Ok(false)
}

/// Whether `text` is one of the values of `fieldValidation`.
pub fn check_field_validation(options: &str, text: &str) -> Result<()> {
    let mut errors = Errors::default();
    if !matches!(text, "" | "Ignore" | "Warn" | "Strict") {
        errors.not_supported("fieldValidation", text, &["Ignore", "Strict", "Warn"]);
    }
    refuse(options, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_gos_words() {
        assert_eq!(number("").unwrap(), None);
        assert_eq!(number("-3").unwrap(), Some(-3));
        assert_eq!(number("+3").unwrap(), Some(3));
        assert_eq!(
            number("x").unwrap_err().message,
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            number("99999999999999999999").unwrap_err().message,
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
    }

    #[test]
    fn lists_and_watches() {
        let list = ListOptions::default();
        let watch = ListOptions {
            watch: true,
            ..list
        };
        for good in [
            list,
            watch,
            ListOptions {
                resource_version: "1",
                resource_version_match: "Exact",
                ..list
            },
            ListOptions {
                send_initial_events: Some(false),
                resource_version_match: "NotOlderThan",
                ..watch
            },
        ] {
            good.check().unwrap();
        }
        for (bad, message) in [
            (
                ListOptions {
                    resource_version_match: "Exact",
                    ..list
                },
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                ListOptions {
                    resource_version_match: "Foo",
                    resource_version: "1",
                    continue_token: "x",
                    ..list
                },
                "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"]",
            ),
            (
                ListOptions {
                    resource_version_match: "Exact",
                    resource_version: "0",
                    ..list
                },
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                ListOptions {
                    send_initial_events: Some(true),
                    ..list
                },
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                ListOptions {
                    resource_version_match: "NotOlderThan",
                    ..watch
                },
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (
                ListOptions {
                    send_initial_events: Some(true),
                    ..watch
                },
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        ] {
            let error = bad.check().unwrap_err();
            assert_eq!((error.code, &*error.reason), (422, "Invalid"));
            assert_eq!(
                error.message,
                format!("ListOptions.meta.k8s.io \"\" is invalid: {message}")
            );
        }
    }

    #[test]
    fn dry_runs_and_field_validation() {
        let dry = |values: &[&str]| dry_run("CreateOptions", values.iter().copied());
        assert!(!dry(&[]).unwrap());
        assert!(dry(&["All"]).unwrap());
        assert_eq!(
            dry(&["x"]).unwrap_err().message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"x\"]: supported values: \"All\""
        );
        assert_eq!(dry(&["All", ""]).unwrap_err().code, 422);
        check_field_validation("PatchOptions", "Strict").unwrap();
        assert_eq!(
            check_field_validation("PatchOptions", "x")
                .unwrap_err()
                .message,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"Ignore\", \"Strict\", \"Warn\""
        );
    }
}
