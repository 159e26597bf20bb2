//! `metav1.LabelSelector`.

use serde_json::Value;

use super::metadata::{self, invalid_each};
use crate::json::{at, list, text};
use crate::status::Errors;

pub fn label_selector(path: &str, selector: &Value, errors: &mut Errors) {
    metadata::labels(
        &format!("{path}.matchLabels"),
        at(selector, "matchLabels"),
        errors,
    );
    for (i, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let values = list(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Exists" | "DoesNotExist" => {}
            other => errors.invalid(
                &format!("{path}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
        let key = text(expression, "key");
        invalid_each(
            &format!("{path}.key"),
            key,
            metadata::qualified_name_faults(key),
            errors,
        );
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            let path = format!("{path}.values[{j}]");
            invalid_each(&path, value, metadata::label_value_faults(value), errors);
        }
    }
}
