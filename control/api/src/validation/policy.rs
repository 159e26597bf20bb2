//! Disruption budgets, priority classes, limits, quotas and runtime classes.
//! Source: Kubernetes `pkg/apis/{policy,scheduling,core,node}/validation`.

use serde_json::{Map, Value};

use super::metadata::{dns1123_label_faults, invalid_each, labels, qualified_name_faults};
use super::workloads::{at_most_all, int_or_percent};
use super::{IMMUTABLE, non_negative, one_of, selector};
use crate::admission::{HIGHEST_USER_PRIORITY, SYSTEM_CLASSES};
use crate::json::{at, flag, int, list, map, text};
use crate::quantity::Quantity;
use crate::status::Errors;

pub fn disruption_budget(budget: &Value, errors: &mut Errors) {
    let (min, max) = (
        at(budget, "spec.minAvailable"),
        at(budget, "spec.maxUnavailable"),
    );
    if min.is_some() && max.is_some() {
        errors.invalid(
            "spec",
            at(budget, "spec").cloned().unwrap_or(Value::Null),
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for (path, value) in [("spec.minAvailable", min), ("spec.maxUnavailable", max)] {
        int_or_percent(path, value, errors);
        at_most_all(path, value, errors);
    }
    if let Some(found) = at(budget, "spec.selector") {
        selector::label_selector("spec.selector", found, errors);
    }
    let path = "spec.unhealthyPodEvictionPolicy";
    if let Some(policy) = at(budget, path).and_then(Value::as_str) {
        one_of(path, policy, &["AlwaysAllow", "IfHealthyBudget"], errors);
    }
}

/// The counts of a budget's status.
pub fn disruption_budget_status(budget: &Value, errors: &mut Errors) {
    for field in [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ] {
        let path = format!("status.{field}");
        if let Some(count) = int(budget, &path) {
            non_negative(&path, count, errors);
        }
    }
}

pub fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (
        text(class, "metadata.name"),
        int(class, "value").unwrap_or(0),
    );
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.iter().find(|(n, _)| *n == name);
        let fault = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, right)) if value != *right => {
                Some(format!("value of {name} PriorityClass must be {right}"))
            }
            Some(_) if flag(class, "globalDefault") => Some(format!(
                "globalDefault of {name} PriorityClass must be false"
            )),
            Some(_) => None,
        };
        if let Some(fault) = fault {
            errors.forbidden(
                "metadata.name",
                format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {fault}"
                ),
            );
        }
    } else if value > HIGHEST_USER_PRIORITY {
        errors.forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        );
    }
    one_of(
        "preemptionPolicy",
        text(class, "preemptionPolicy"),
        &["Never", "PreemptLowerPriority"],
        errors,
    );
}

pub fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if int(new, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
        errors.forbidden("value", "may not be changed in an update.");
    }
    if at(new, "preemptionPolicy") != at(old, "preemptionPolicy") {
        errors.invalid("preemptionPolicy", text(new, "preemptionPolicy"), IMMUTABLE);
    }
}

fn quantities(item: &Value, field: &str) -> Vec<(String, Quantity)> {
    map(item, field)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?)))
        .collect()
}

pub fn limit_range(range: &Value, errors: &mut Errors) {
    let mut types = Vec::new();
    for (i, item) in list(range, "spec.limits").iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let ty = text(item, "type");
        if types.contains(&ty) {
            errors.duplicate(&format!("{path}.type"), ty);
        }
        types.push(ty);
        limit_type(&path, ty, errors);
        match ty {
            "Pod" => {
                for field in ["default", "defaultRequest"] {
                    if map(item, field).is_some_and(|m| !m.is_empty()) {
                        errors.forbidden(
                            &format!("{path}.{field}"),
                            "may not be specified when `type` is 'Pod'",
                        );
                    }
                }
            }
            "PersistentVolumeClaim" => {
                let has = |field: &str| at(item, &format!("{field}.storage")).is_some();
                if !has("min") && !has("max") {
                    errors.required(
                        &format!("{path}.limits"),
                        "either minimum or maximum storage value is required, but neither was provided",
                    );
                }
            }
            _ => {}
        }
        limit_order(&path, item, errors);
    }
}

fn limit_type(path: &str, ty: &str, errors: &mut Errors) {
    let path = format!("{path}.type");
    if !matches!(ty, "Container" | "Pod" | "PersistentVolumeClaim") {
        invalid_each(&path, ty, qualified_name_faults(ty), errors);
        if !ty.contains('/') {
            errors.invalid(
                &path,
                ty,
                "must be a standard limit type or fully qualified",
            );
        }
    }
}

/// Which of two bounds must not be above the other, and how the refusal names them; the third is
/// the field that is blamed.
const ORDER: &[(&str, &str, &str, &str, &str)] = &[
    ("min", "max", "min", "min value", "max value"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "min value",
        "default request value",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "default request value",
        "max value",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "default request value",
        "default limit value",
    ),
    ("min", "default", "default", "min value", "default value"),
    ("default", "max", "default", "default value", "max value"),
];

fn limit_order(path: &str, item: &Value, errors: &mut Errors) {
    for (low, high, blamed, low_name, high_name) in ORDER {
        let highs = quantities(item, high);
        for (name, low_value) in quantities(item, low) {
            let Some((_, high_value)) = highs.iter().find(|(n, _)| *n == name) else {
                continue;
            };
            if low_value > *high_value {
                let blamed_value = text(item, &format!("{blamed}.{name}")).to_string();
                errors.invalid(
                    &format!("{path}.{blamed}[{name}]"),
                    blamed_value,
                    format!("{low_name} {low_value} is greater than {high_name} {high_value}"),
                );
            }
        }
    }
    for (name, ratio) in quantities(item, "maxLimitRequestRatio") {
        if ratio < Quantity::from_units(1) {
            errors.invalid(
                &format!("{path}.maxLimitRequestRatio[{name}]"),
                ratio.to_string(),
                format!("ratio {ratio} is less than 1"),
            );
        }
    }
}

/// What a quota can count without a domain in its name.
const QUOTA_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those that are counts.
const COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn quota_amounts(path: &str, amounts: Option<&Map<String, Value>>, errors: &mut Errors) {
    for (name, value) in amounts.into_iter().flatten() {
        let path = format!("{path}[{name}]");
        let faults = qualified_name_faults(name);
        let standard = QUOTA_RESOURCES.contains(&name.as_str())
            || ["requests.", "limits."]
                .iter()
                .any(|p| name.starts_with(&format!("{p}hugepages-")));
        if faults.is_empty() && !name.contains('/') && !standard {
            errors.invalid(
                &path,
                name.as_str(),
                "must be a standard resource for quota",
            );
        }
        invalid_each(&path, name, faults, errors);
        let Some(amount) = value.as_str().and_then(|v| Quantity::parse(v).ok()) else {
            continue;
        };
        if amount.is_negative() {
            errors.invalid(
                &path,
                amount.to_string(),
                "must be greater than or equal to 0",
            );
        }
        let counted = COUNTS.contains(&name.as_str()) || name.starts_with("count/");
        if counted && !amount.is_integer() {
            errors.invalid(&path, amount.to_string(), "must be an integer");
        }
    }
}

pub fn resource_quota(quota: &Value, errors: &mut Errors) {
    quota_amounts("spec.hard", map(quota, "spec.hard"), errors);
    let scopes = list(quota, "spec.scopes");
    for scope in scopes.iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.invalid("spec.scopes", scopes.to_vec(), "unsupported scope");
        }
    }
    let has = |scope: &str| scopes.iter().any(|s| s == scope);
    for (a, b) in [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ] {
        if has(a) && has(b) {
            errors.invalid("spec.scopes", scopes.to_vec(), "conflicting scopes");
        }
    }
    for (i, requirement) in list(quota, "spec.scopeSelector.matchExpressions")
        .iter()
        .enumerate()
    {
        let path = format!("spec.scopeSelector.matchExpressions[{i}]");
        let scope = text(requirement, "scopeName");
        if !SCOPES.contains(&scope) {
            errors.invalid(&format!("{path}.scopeName"), scope, "unsupported scope");
        }
        one_of(
            &format!("{path}.operator"),
            text(requirement, "operator"),
            &["DoesNotExist", "Exists", "In", "NotIn"],
            errors,
        );
    }
}

pub fn resource_quota_update(new: &Value, old: &Value, errors: &mut Errors) {
    let scopes = |quota: &Value| {
        let mut all: Vec<String> = list(quota, "spec.scopes")
            .iter()
            .filter_map(|s| s.as_str().map(str::to_string))
            .collect();
        all.sort();
        all
    };
    if scopes(new) != scopes(old) {
        errors.invalid("spec.scopes", scopes(new), IMMUTABLE);
    }
}

pub fn resource_quota_status(quota: &Value, errors: &mut Errors) {
    for field in ["status.hard", "status.used"] {
        quota_amounts(field, map(quota, field), errors);
    }
}

pub fn runtime_class(class: &Value, errors: &mut Errors) {
    let handler = text(class, "handler");
    if handler.is_empty() {
        errors.required("handler", "");
    } else {
        invalid_each("handler", handler, dns1123_label_faults(handler), errors);
    }
    super::container::not_negative("overhead.podFixed", at(class, "overhead.podFixed"), errors);
    labels(
        "scheduling.nodeSelector",
        at(class, "scheduling.nodeSelector"),
        errors,
    );
}

pub fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if text(new, "handler") != text(old, "handler") {
        errors.invalid("handler", text(new, "handler"), IMMUTABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(validate: fn(&Value, &mut Errors), object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn budgets() {
        let check = |spec: Value| faults(disruption_budget, json!({"spec": spec}));
        assert!(check(json!({"minAvailable": "50%", "selector": {}})).is_empty());
        assert_eq!(
            check(json!({"minAvailable": 1, "maxUnavailable": 1})),
            [
                "spec: Invalid value: {\"minAvailable\":1,\"maxUnavailable\":1}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
        assert_eq!(
            check(json!({"maxUnavailable": "200%", "unhealthyPodEvictionPolicy": "Never"})),
            [
                "spec.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ]
        );
    }

    #[test]
    fn priority_classes() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": "Never"});
        assert!(faults(priority_class, class("a", 1_000_000_000)).is_empty());
        assert!(faults(priority_class, class("system-node-critical", 2_000_001_000)).is_empty());
        assert_eq!(
            faults(priority_class, class("a", 1_000_000_001)),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert_eq!(
            faults(priority_class, class("system-mine", 1)),
            [
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"
            ]
        );
        let mut errors = Errors::default();
        priority_class_update(&class("a", 1), &class("a", 2), &mut errors);
        assert_eq!(
            errors.0[0].to_string(),
            "value: Forbidden: may not be changed in an update."
        );
    }

    #[test]
    fn limits_and_quotas() {
        let check = |item: Value| faults(limit_range, json!({"spec": {"limits": [item]}}));
        assert!(
            check(json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}))
                .is_empty()
        );
        assert_eq!(
            check(json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}})),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"
            ]
        );
        assert_eq!(
            check(json!({"type": "Pod", "default": {"cpu": "3"}})),
            ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]
        );
        assert_eq!(
            faults(
                resource_quota,
                json!({"spec": {"hard": {"pods": "1500m", "fun": "1", "a.b/c": "2"}}})
            ),
            [
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[fun]: Invalid value: \"fun\": must be a standard resource for quota",
            ]
        );
        assert_eq!(
            faults(
                resource_quota,
                json!({"spec": {"scopes": ["BestEffort", "NotBestEffort"]}})
            ),
            ["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"]
        );
        assert_eq!(
            faults(runtime_class, json!({"handler": ""})),
            ["handler: Required value"]
        );
    }
}
