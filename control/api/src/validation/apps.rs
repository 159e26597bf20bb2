//! Deployments and replica sets.

use serde_json::Value;

use super::{IMMUTABLE, metadata, non_negative, pod, selector};
use crate::json::{at, int, list, map, text};
use crate::selector::LabelSelector;
use crate::status::Errors;

pub fn replica_set(set: &Value, errors: &mut Errors) {
    common(set, "replica set", errors);
}

pub fn deployment(deployment: &Value, errors: &mut Errors) {
    common(deployment, "deployment", errors);
    let path = "spec.strategy";
    let strategy = at(deployment, path).unwrap_or(&Value::Null);
    match text(strategy, "type") {
        "Recreate" => {
            if at(strategy, "rollingUpdate").is_some() {
                errors.forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => match at(strategy, "rollingUpdate") {
            None => errors.required(
                "spec.strategy.rollingUpdate",
                "this should be defaulted and never be nil",
            ),
            Some(rolling) => rolling_update(rolling, errors),
        },
        other => {
            super::one_of(
                "spec.strategy.type",
                other,
                &["Recreate", "RollingUpdate"],
                errors,
            );
        }
    }
    if let Some(limit) = int(deployment, "spec.revisionHistoryLimit") {
        non_negative("spec.revisionHistoryLimit", limit, errors);
    }
    if let Some(deadline) = int(deployment, "spec.progressDeadlineSeconds") {
        non_negative("spec.progressDeadlineSeconds", deadline, errors);
        if deadline <= int(deployment, "spec.minReadySeconds").unwrap_or(0) {
            errors.invalid(
                "spec.progressDeadlineSeconds",
                deadline,
                "must be greater than minReadySeconds",
            );
        }
    }
}

fn rolling_update(rolling: &Value, errors: &mut Errors) {
    let path = "spec.strategy.rollingUpdate";
    let mut zeros = 0;
    for field in ["maxUnavailable", "maxSurge"] {
        let path = format!("{path}.{field}");
        match at(rolling, field) {
            Some(Value::String(percent)) => match percent.strip_suffix('%') {
                Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
                    zeros += usize::from(number == 0);
                    if field == "maxUnavailable" && number > 100 {
                        errors.invalid(&path, percent.as_str(), "must not be greater than 100%");
                    }
                }
                _ => errors.invalid(
                    &path,
                    percent.as_str(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ),
            },
            Some(number) => {
                let number = number.as_i64().unwrap_or(0);
                non_negative(&path, number, errors);
                zeros += usize::from(number == 0);
            }
            None => zeros += 1,
        }
    }
    if zeros == 2 {
        errors.invalid(
            &format!("{path}.maxUnavailable"),
            at(rolling, "maxUnavailable")
                .cloned()
                .unwrap_or(Value::Null),
            "may not be 0 when `maxSurge` is 0",
        );
    }
}

fn common(object: &Value, what: &str, errors: &mut Errors) {
    for field in ["replicas", "minReadySeconds"] {
        let path = format!("spec.{field}");
        if let Some(number) = int(object, &path) {
            non_negative(&path, number, errors);
        }
    }
    let found = at(object, "spec.selector");
    match found {
        None => errors.required("spec.selector", ""),
        Some(s) => {
            selector::label_selector("spec.selector", s, errors);
            if map(s, "matchLabels").is_none_or(|m| m.is_empty())
                && list(s, "matchExpressions").is_empty()
            {
                errors.invalid(
                    "spec.selector",
                    s.clone(),
                    format!("empty selector is invalid for {what}"),
                );
            }
        }
    }
    let Some(template) = at(object, "spec.template") else {
        errors.required("spec.template", "");
        return;
    };
    let labels = at(template, "metadata.labels");
    let matches = LabelSelector::from_object(found).matches(template);
    if found.is_some() && !matches {
        errors.invalid(
            "spec.template.metadata.labels",
            labels.cloned().unwrap_or(Value::Null),
            "`selector` does not match template `labels`",
        );
    }
    metadata::labels("spec.template.labels", labels, errors);
    metadata::annotations(
        "spec.template.annotations",
        at(template, "metadata.annotations"),
        errors,
    );
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    pod::pod_spec("spec.template.spec", spec, errors);
    let policy = text(spec, "restartPolicy");
    if matches!(policy, "OnFailure" | "Never") {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if at(spec, "activeDeadlineSeconds").is_some() {
        errors.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

pub fn selector_update(new: &Value, old: &Value, errors: &mut Errors) {
    if at(new, "spec.selector") != at(old, "spec.selector") {
        errors.invalid(
            "spec.selector",
            at(new, "spec.selector").cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;
    use serde_json::json;

    fn faults(mut object: Value) -> Vec<String> {
        let kind = find("apps", "v1", "deployments").unwrap();
        crate::default_object(kind, &mut object);
        let mut errors = Errors::default();
        deployment(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn good() -> Value {
        json!({"spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        }})
    }

    #[test]
    fn deployments() {
        assert_eq!(faults(good()), Vec::<String>::new());
        let mut bad = good();
        bad["spec"].as_object_mut().unwrap().remove("selector");
        assert_eq!(faults(bad), ["spec.selector: Required value"]);
        let mut bad = good();
        bad["spec"]["selector"] = json!({"matchLabels": {"app": "y"}});
        assert_eq!(
            faults(bad),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        let mut bad = good();
        bad["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
        assert_eq!(
            faults(bad),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
            ]
        );
        let mut bad = good();
        bad["spec"]["replicas"] = json!(-1);
        bad["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        assert_eq!(
            faults(bad),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
            ]
        );
    }
}
