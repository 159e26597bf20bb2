//! DaemonSets, StatefulSets, their revisions, and the older replication controllers and pod
//! templates. Source: Kubernetes `pkg/apis/{apps,core}/validation`.

use serde_json::{Value, json};

use super::{IMMUTABLE, metadata, non_negative, pod, selector};
use crate::json::{at, int, list, map, remove, text};
use crate::selector::LabelSelector;
use crate::status::Errors;

const MISMATCH: &str = "`selector` does not match template `labels`";

/// The value of an int-or-percent field: the number, or the percents.
fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(percent)) => percent
            .strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0),
        Some(number) => number.as_i64().unwrap_or(0),
        None => 0,
    }
}

/// A number that is not negative, or a percentage (`ValidatePositiveIntOrPercent`).
pub(crate) fn int_or_percent(path: &str, value: Option<&Value>, errors: &mut Errors) {
    match value {
        Some(Value::String(percent)) => {
            let digits = percent.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                errors.invalid(
                    path,
                    percent.as_str(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                );
            }
        }
        Some(number) => non_negative(path, number.as_i64().unwrap_or(0), errors),
        None => {}
    }
}

/// `IsNotMoreThan100Percent`.
pub(crate) fn at_most_all(path: &str, value: Option<&Value>, errors: &mut Errors) {
    if let Some(Value::String(percent)) = value
        && amount(value) > 100
    {
        errors.invalid(path, percent.as_str(), "must not be greater than 100%");
    }
}

/// `ValidatePodTemplateSpec`.
pub(crate) fn pod_template_spec(path: &str, template: &Value, errors: &mut Errors) {
    metadata::labels(
        &format!("{path}.labels"),
        at(template, "metadata.labels"),
        errors,
    );
    metadata::annotations(
        &format!("{path}.annotations"),
        at(template, "metadata.annotations"),
        errors,
    );
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    pod::pod_spec(&format!("{path}.spec"), spec, errors);
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(
            &format!("{path}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn always_restarts(what: &str, spec: &Value, errors: &mut Errors) {
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if at(spec, "activeDeadlineSeconds").is_some() {
        errors.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            format!("activeDeadlineSeconds in {what} is not Supported"),
        );
    }
}

fn empty_selector(selector: &Value) -> bool {
    map(selector, "matchLabels").is_none_or(|m| m.is_empty())
        && list(selector, "matchExpressions").is_empty()
}

fn matches_template(object: &Value, found: Option<&Value>, errors: &mut Errors) {
    let template = at(object, "spec.template").unwrap_or(&Value::Null);
    if !LabelSelector::from_object(found).matches(template) {
        errors.invalid(
            "spec.template.metadata.labels",
            at(template, "metadata.labels")
                .cloned()
                .unwrap_or(Value::Null),
            MISMATCH,
        );
    }
}

pub fn daemon_set(set: &Value, errors: &mut Errors) {
    let found = at(set, "spec.selector");
    match found {
        None => errors.required("spec.selector", ""),
        Some(s) => {
            selector::label_selector("spec.selector", s, errors);
            matches_template(set, found, errors);
            if empty_selector(s) {
                errors.invalid(
                    "spec.selector",
                    s.clone(),
                    "empty selector is invalid for daemonset",
                );
            }
        }
    }
    let template = at(set, "spec.template").unwrap_or(&Value::Null);
    pod_template_spec("spec.template", template, errors);
    always_restarts(
        "DaemonSet",
        at(template, "spec").unwrap_or(&Value::Null),
        errors,
    );
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        let path = format!("spec.{field}");
        if let Some(number) = int(set, &path) {
            non_negative(&path, number, errors);
        }
    }
    let path = "spec.updateStrategy";
    match text(set, "spec.updateStrategy.type") {
        "OnDelete" => {}
        "RollingUpdate" => match at(set, "spec.updateStrategy.rollingUpdate") {
            None => errors.required("spec.updateStrategy.rollingUpdate", ""),
            Some(rolling) => daemon_rolling_update(rolling, errors),
        },
        other => errors.not_supported(path, other, &["RollingUpdate", "OnDelete"]),
    }
}

fn daemon_rolling_update(rolling: &Value, errors: &mut Errors) {
    let path = "spec.updateStrategy.rollingUpdate";
    let (unavailable, surge) = (at(rolling, "maxUnavailable"), at(rolling, "maxSurge"));
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        let path = format!("{path}.{field}");
        int_or_percent(&path, value, errors);
        at_most_all(&path, value, errors);
    }
    match (amount(unavailable) != 0, amount(surge) != 0) {
        (true, true) => errors.invalid(
            &format!("{path}.maxSurge"),
            surge.cloned().unwrap_or(Value::Null),
            "may not be set when maxUnavailable is non-zero",
        ),
        (false, false) => errors.required(
            &format!("{path}.maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        ),
        _ => {}
    }
}

pub fn stateful_set(set: &Value, errors: &mut Errors) {
    let management = text(set, "spec.podManagementPolicy");
    if !matches!(management, "OrderedReady" | "Parallel") {
        errors.invalid(
            "spec.podManagementPolicy",
            management,
            "must be 'OrderedReady' or 'Parallel'",
        );
    }
    stateful_strategy(set, errors);
    for field in ["whenDeleted", "whenScaled"] {
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        let value = text(set, &path);
        if !matches!(value, "Retain" | "Delete") {
            errors.not_supported(&path, value, &["Retain", "Delete"]);
        }
    }
    for field in ["replicas", "minReadySeconds", "ordinals.start"] {
        let path = format!("spec.{field}");
        if let Some(number) = int(set, &path) {
            non_negative(&path, number, errors);
        }
    }
    let found = at(set, "spec.selector");
    match found {
        None => errors.required("spec.selector", ""),
        Some(s) => {
            selector::label_selector("spec.selector", s, errors);
            if empty_selector(s) {
                errors.invalid(
                    "spec.selector",
                    s.clone(),
                    "empty selector is invalid for statefulset",
                );
            } else {
                matches_template(set, found, errors);
            }
        }
    }
    let template = at(set, "spec.template").unwrap_or(&Value::Null);
    metadata::labels(
        "spec.template.labels",
        at(template, "metadata.labels"),
        errors,
    );
    metadata::annotations(
        "spec.template.annotations",
        at(template, "metadata.annotations"),
        errors,
    );
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if let Some(deadline) = at(spec, "activeDeadlineSeconds") {
        errors.invalid(
            "spec.template.spec.activeDeadlineSeconds",
            deadline.clone(),
            "must not be specified",
        );
    }
}

fn stateful_strategy(set: &Value, errors: &mut Errors) {
    let path = "spec.updateStrategy";
    let rolling = at(set, "spec.updateStrategy.rollingUpdate");
    match text(set, "spec.updateStrategy.type") {
        "OnDelete" => {
            if let Some(rolling) = rolling {
                errors.invalid(
                    &format!("{path}.rollingUpdate"),
                    rolling.clone(),
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            let path = format!("{path}.rollingUpdate");
            if let Some(partition) = int(set, &format!("{path}.partition")) {
                non_negative(&format!("{path}.partition"), partition, errors);
            }
            let unavailable = at(set, &format!("{path}.maxUnavailable"));
            let path = format!("{path}.maxUnavailable");
            int_or_percent(&path, unavailable, errors);
            at_most_all(&path, unavailable, errors);
            if unavailable.is_some() && amount(unavailable) == 0 {
                errors.invalid(
                    &path,
                    unavailable.cloned().unwrap_or(Value::Null),
                    "cannot be 0",
                );
            }
        }
        _ => errors.invalid(
            path,
            at(set, path).cloned().unwrap_or(Value::Null),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
}

/// What of a StatefulSet's spec may change.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    let fixed = |object: &Value| {
        let mut spec = at(object, "spec").cloned().unwrap_or(json!({}));
        for field in CHANGEABLE {
            remove(&mut spec, field);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

pub fn controller_revision(revision: &Value, errors: &mut Errors) {
    if at(revision, "data").is_none() {
        errors.required("data", "data is mandatory");
    }
    non_negative("revision", int(revision, "revision").unwrap_or(0), errors);
}

pub fn controller_revision_update(new: &Value, old: &Value, errors: &mut Errors) {
    if at(new, "data") != at(old, "data") {
        errors.invalid(
            "data",
            at(new, "data").cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        );
    }
}

pub fn replication_controller(controller: &Value, errors: &mut Errors) {
    for field in ["minReadySeconds", "replicas"] {
        let path = format!("spec.{field}");
        if let Some(number) = int(controller, &path) {
            non_negative(&path, number, errors);
        }
    }
    let labels = map(controller, "spec.selector").filter(|s| !s.is_empty());
    if labels.is_none() {
        errors.required("spec.selector", "");
    }
    let Some(template) = at(controller, "spec.template") else {
        errors.required("spec.template", "");
        return;
    };
    if let Some(labels) = labels {
        let wanted = json!({"matchLabels": labels});
        matches_template(controller, Some(&wanted), errors);
    }
    pod_template_spec("spec.template", template, errors);
    always_restarts(
        "ReplicationController",
        at(template, "spec").unwrap_or(&Value::Null),
        errors,
    );
}

pub fn pod_template(object: &Value, errors: &mut Errors) {
    let template = at(object, "template").unwrap_or(&Value::Null);
    pod_template_spec("template", template, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(
        default: fn(&mut Value),
        validate: fn(&Value, &mut Errors),
        mut object: Value,
    ) -> Vec<String> {
        default(&mut object);
        let mut errors = Errors::default();
        validate(&object, &mut errors);
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

    fn with(path: &[&str], value: Value) -> Value {
        let mut object = good();
        let mut slot = &mut object["spec"];
        for step in path {
            slot = &mut slot[*step];
        }
        *slot = value;
        object
    }

    #[test]
    fn daemon_sets() {
        let check = |object| faults(crate::defaults::workloads::daemon_set, daemon_set, object);
        assert_eq!(check(good()), Vec::<String>::new());
        for (object, fault) in [
            (
                with(&["selector"], Value::Null),
                "spec.selector: Required value",
            ),
            (
                with(&["selector", "matchLabels", "app"], json!("y")),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
            ),
            (
                with(&["template", "spec", "restartPolicy"], json!("Never")),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                with(&["updateStrategy", "type"], json!("Recreate")),
                "spec.updateStrategy: Unsupported value: \"Recreate\": supported values: \"RollingUpdate\", \"OnDelete\"",
            ),
            (
                with(&["updateStrategy", "rollingUpdate", "maxSurge"], json!(1)),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ),
            (
                with(
                    &["updateStrategy", "rollingUpdate", "maxUnavailable"],
                    json!("0%"),
                ),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                with(
                    &["updateStrategy", "rollingUpdate", "maxUnavailable"],
                    json!("101%"),
                ),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                with(&["minReadySeconds"], json!(-1)),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
        ] {
            assert_eq!(check(object), [fault]);
        }
    }

    #[test]
    fn stateful_sets() {
        let check = |object| {
            faults(
                crate::defaults::workloads::stateful_set,
                stateful_set,
                object,
            )
        };
        assert_eq!(check(good()), Vec::<String>::new());
        for (object, fault) in [
            (
                with(&["podManagementPolicy"], json!("Any")),
                "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                with(&["selector"], json!({})),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
            (
                with(&["replicas"], json!(-1)),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
        ] {
            assert_eq!(check(object), [fault]);
        }
        let mut errors = Errors::default();
        stateful_set_update(&with(&["serviceName"], json!("a")), &good(), &mut errors);
        stateful_set_update(&with(&["replicas"], json!(7)), &good(), &mut errors);
        assert_eq!(errors.0.len(), 1);
        assert!(
            errors.0[0].to_string().starts_with(
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals'"
            )
        );
    }

    #[test]
    fn replication_controllers_and_revisions() {
        let check = |object| {
            faults(
                crate::defaults::workloads::replication_controller,
                replication_controller,
                object,
            )
        };
        assert_eq!(
            check(with(&["selector"], Value::Null)),
            Vec::<String>::new()
        );
        assert_eq!(
            check(with(&["selector"], json!({"app": "y"}))),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        let mut errors = Errors::default();
        controller_revision(&json!({"revision": -1}), &mut errors);
        controller_revision_update(&json!({"data": 1}), &json!({"data": 2}), &mut errors);
        let shown: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
                "data: Invalid value: 1: field is immutable",
            ]
        );
    }
}
