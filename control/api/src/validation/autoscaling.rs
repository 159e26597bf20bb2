//! HorizontalPodAutoscalers. Source: Kubernetes `pkg/apis/autoscaling/validation`.

use serde_json::Value;

use super::one_of;
use crate::json::{at, int, list, text};
use crate::quantity::Quantity;
use crate::status::Errors;

/// Metric types and the fields that hold their sources.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("External", "external"),
    ("ContainerResource", "containerResource"),
];
const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

pub fn autoscaler(scaler: &Value, errors: &mut Errors) {
    replicas(scaler, errors);
    let target = at(scaler, "spec.scaleTargetRef").unwrap_or(&Value::Null);
    for field in ["kind", "name"] {
        if text(target, field).is_empty() {
            errors.required(&format!("spec.scaleTargetRef.{field}"), "");
        }
    }
    for (i, metric) in list(scaler, "spec.metrics").iter().enumerate() {
        one_metric(&format!("spec.metrics[{i}]"), metric, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let path = format!("spec.behavior.{direction}");
        if let Some(rules) = at(scaler, &path) {
            scaling_rules(&path, rules, errors);
        }
    }
}

/// The older form, which knows the use of CPU only.
pub fn autoscaler_v1(scaler: &Value, errors: &mut Errors) {
    let path = "spec.targetCPUUtilizationPercentage";
    if let Some(percent) = int(scaler, path).filter(|p| *p < 1) {
        errors.invalid(path, percent, "must be greater than 0");
    }
}

fn replicas(scaler: &Value, errors: &mut Errors) {
    let min = int(scaler, "spec.minReplicas");
    let max = int(scaler, "spec.maxReplicas").unwrap_or(0);
    if let Some(min) = min.filter(|m| *m < 1) {
        errors.invalid(
            "spec.minReplicas",
            min,
            "must be greater than or equal to 1",
        );
    }
    if max < 1 {
        errors.invalid("spec.maxReplicas", max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(
            "spec.maxReplicas",
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
}

fn one_metric(path: &str, metric: &Value, errors: &mut Errors) {
    let ty = text(metric, "type");
    if ty.is_empty() {
        errors.required(&format!("{path}.type"), "must specify a metric source type");
        return;
    }
    let Some((_, field)) = SOURCES.iter().find(|(t, _)| *t == ty) else {
        one_of(
            &format!("{path}.type"),
            ty,
            &[
                "ContainerResource",
                "External",
                "Object",
                "Pods",
                "Resource",
            ],
            errors,
        );
        return;
    };
    for (_, other) in SOURCES {
        if other != field && at(metric, other).is_some() {
            errors.forbidden(
                &format!("{path}.{other}"),
                "must populate the given metric source only",
            );
        }
    }
    let path = format!("{path}.{field}");
    let Some(source) = at(metric, field) else {
        errors.required(
            &path,
            "must populate information for the given metric source",
        );
        return;
    };
    match *field {
        "resource" | "containerResource" => {
            if text(source, "name").is_empty() {
                errors.required(&format!("{path}.name"), "must specify a resource name");
            }
            if *field == "containerResource" && text(source, "container").is_empty() {
                errors.required(&format!("{path}.container"), "must specify a container");
            }
        }
        _ => {
            if text(source, "metric.name").is_empty() {
                errors.required(&format!("{path}.metric.name"), "must specify a metric name");
            }
            if *field == "object" {
                for part in ["kind", "name"] {
                    if text(source, &format!("describedObject.{part}")).is_empty() {
                        errors.required(&format!("{path}.describedObject.{part}"), "");
                    }
                }
            }
        }
    }
    target(&path, field, source, errors);
}

fn target(path: &str, field: &str, source: &Value, errors: &mut Errors) {
    let path = format!("{path}.target");
    let Some(target) = at(source, "target") else {
        errors.required(&format!("{path}.type"), "must specify a metric target type");
        return;
    };
    let ty = text(target, "type");
    if ty.is_empty() {
        errors.required(&format!("{path}.type"), "must specify a metric target type");
    } else if !matches!(ty, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(
            &format!("{path}.type"),
            ty,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    for amount in ["value", "averageValue"] {
        if let Ok(quantity) = Quantity::parse(text(target, amount))
            && (quantity.is_zero() || quantity.is_negative())
        {
            errors.invalid(
                &format!("{path}.{amount}"),
                quantity.to_string(),
                "must be positive",
            );
        }
    }
    let utilization = int(target, "averageUtilization");
    if let Some(percent) = utilization.filter(|p| *p < 1) {
        errors.invalid(
            &format!("{path}.averageUtilization"),
            percent,
            "must be greater than 0",
        );
    }
    let average = at(target, "averageValue").is_some();
    let value = at(target, "value").is_some();
    match field {
        "resource" | "containerResource" => match (utilization.is_some(), average) {
            (false, false) => errors.required(
                &format!("{path}.averageUtilization"),
                "must set either a target raw value or a target utilization",
            ),
            (true, true) => errors.forbidden(
                &format!("{path}.averageValue"),
                "may not set both a target raw value and a target utilization",
            ),
            _ => {}
        },
        "pods" if !average => errors.required(
            &format!("{path}.averageValue"),
            "must specify a positive target averageValue",
        ),
        "object" | "external" if !value && !average => errors.required(
            &format!("{path}.averageValue"),
            "must set either a target value or averageValue",
        ),
        _ => {}
    }
}

fn scaling_rules(path: &str, rules: &Value, errors: &mut Errors) {
    if let Some(window) = int(rules, "stabilizationWindowSeconds") {
        let path = format!("{path}.stabilizationWindowSeconds");
        if window < 0 {
            errors.invalid(&path, window, "must be greater than or equal to zero");
        } else if window > MAX_WINDOW {
            errors.invalid(&path, window, "must be less than or equal to 3600");
        }
    }
    one_of(
        &format!("{path}.selectPolicy"),
        text(rules, "selectPolicy"),
        &["Disabled", "Max", "Min"],
        errors,
    );
    let policies = list(rules, "policies");
    if policies.is_empty() {
        errors.required(
            &format!("{path}.policies"),
            "must specify at least one Policy",
        );
    }
    for (i, policy) in policies.iter().enumerate() {
        let path = format!("{path}.policies[{i}]");
        one_of(
            &format!("{path}.type"),
            text(policy, "type"),
            &["Percent", "Pods"],
            errors,
        );
        let value = int(policy, "value").unwrap_or(0);
        if value <= 0 {
            errors.invalid(&format!("{path}.value"), value, "must be greater than zero");
        }
        let period = int(policy, "periodSeconds").unwrap_or(0);
        let path = format!("{path}.periodSeconds");
        if period <= 0 {
            errors.invalid(&path, period, "must be greater than zero");
        } else if period > MAX_PERIOD {
            errors.invalid(&path, period, "must be less than or equal to 1800");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(spec: Value) -> Vec<String> {
        let mut scaler = json!({"spec": spec});
        crate::defaults::policy::autoscaler(&mut scaler);
        let mut errors = Errors::default();
        autoscaler(&scaler, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn autoscalers() {
        let target = json!({"kind": "Deployment", "name": "d"});
        assert_eq!(
            faults(json!({"scaleTargetRef": target, "maxReplicas": 3, "behavior": {}})),
            Vec::<String>::new()
        );
        assert_eq!(
            faults(json!({"scaleTargetRef": {}, "minReplicas": 2, "maxReplicas": 1})),
            [
                "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Required value",
            ]
        );
        assert_eq!(
            faults(
                json!({"scaleTargetRef": target, "maxReplicas": 3, "metrics": [
                    {"type": "Pods"}, {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}},
                    {"type": "Weather"},
                ]})
            ),
            [
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                "spec.metrics[1].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[2].type: Unsupported value: \"Weather\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ]
        );
        assert_eq!(
            faults(
                json!({"scaleTargetRef": target, "maxReplicas": 3, "behavior": {
                    "scaleDown": {"stabilizationWindowSeconds": 4000, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 0}]},
                }})
            ),
            [
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
            ]
        );
    }
}
