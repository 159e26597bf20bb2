//! HorizontalPodAutoscalers have two versions of one stored object, `autoscaling/v2`. Version 1
//! knows the use of CPU only; the rest travels in its annotations.
//! Source: Kubernetes `pkg/apis/autoscaling/v1/conversion.go`.

use serde_json::{Map, Value, json};

use crate::json::{self, at, int, list, map, put, remove, text};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Version 1's names of a source's parts: in the source itself (`target…` in a spec, `current…`
/// in a status) instead of in an object below it.
struct Names {
    /// `target` or `current`.
    inner: &'static str,
    prefix: &'static str,
}

const SPEC: Names = Names {
    inner: "target",
    prefix: "target",
};
const STATUS: Names = Names {
    inner: "current",
    prefix: "current",
};

fn source_field(metric: &Value) -> Option<&'static str> {
    Some(match text(metric, "type") {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => return None,
    })
}

/// (version 1's field, path in version 2) of a source's parts.
fn parts(field: &str, names: &Names) -> Vec<(String, String)> {
    let (inner, prefix) = (names.inner, names.prefix);
    let amount = |name: &str, part: &str| (format!("{prefix}{name}"), format!("{inner}.{part}"));
    let same = |name: &str, path: &str| (name.to_string(), path.to_string());
    match field {
        "object" => vec![
            same("target", "describedObject"),
            same("metricName", "metric.name"),
            same("selector", "metric.selector"),
            amount("Value", "value"),
            same("averageValue", &format!("{inner}.averageValue")),
        ],
        "pods" => vec![
            same("metricName", "metric.name"),
            same("selector", "metric.selector"),
            amount("AverageValue", "averageValue"),
        ],
        "external" => vec![
            same("metricName", "metric.name"),
            same("metricSelector", "metric.selector"),
            amount("Value", "value"),
            amount("AverageValue", "averageValue"),
        ],
        _ => vec![
            same("name", "name"),
            same("container", "container"),
            amount("AverageUtilization", "averageUtilization"),
            amount("AverageValue", "averageValue"),
        ],
    }
}

fn set(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_string(), value);
        }
        Some((first, rest)) => {
            let inner = object
                .entry(first)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn metric_to_v1(metric: &Value, names: &Names) -> Option<Value> {
    let field = source_field(metric)?;
    let mut source = Map::new();
    for (old, new) in parts(field, names) {
        if let Some(value) = at(metric, &format!("{field}.{new}")) {
            source.insert(old, value.clone());
        }
    }
    Some(json!({"type": text(metric, "type"), field: source}))
}

fn metric_to_v2(metric: &Value, names: &Names) -> Option<Value> {
    let field = source_field(metric)?;
    let mut source = Map::new();
    for (old, new) in parts(field, names) {
        if let Some(value) = at(metric, field).and_then(|s| s.get(&old)) {
            set(&mut source, &new, value.clone());
        }
    }
    if names.inner == "target" {
        let has = |part: &str| source.get("target").is_some_and(|t| t.get(part).is_some());
        let ty = if has("averageUtilization") {
            "Utilization"
        } else if has("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        set(&mut source, "target.type", ty.into());
    }
    Some(json!({"type": text(metric, "type"), field: source}))
}

/// The use of CPU, which version 1 has a field for.
fn is_cpu(metric: &Value) -> bool {
    text(metric, "resource.name") == "cpu"
        && at(metric, "resource.target.averageUtilization").is_some()
}

fn parsed(scaler: &Value, annotation: &str) -> Option<Value> {
    let text = map(scaler, "metadata.annotations")?
        .get(annotation)?
        .as_str()?;
    serde_json::from_str(text).ok()
}

/// A version 1 object in the stored form.
pub fn to_v2(mut scaler: Value) -> Value {
    let metrics = parsed(&scaler, METRICS);
    let mut all: Vec<Value> = metrics
        .iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|m| metric_to_v2(m, &SPEC))
        .collect();
    let behavior = parsed(&scaler, BEHAVIOR).filter(Value::is_object);
    let current = parsed(&scaler, CURRENT);
    let conditions = parsed(&scaler, CONDITIONS).filter(Value::is_array);
    if let Some(spec) = scaler.get_mut("spec").filter(|s| s.is_object()) {
        if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage") {
            all.push(cpu(percent));
        } else if all.is_empty() {
            all.push(cpu(80.into()));
        }
        spec["metrics"] = all.into();
        put(spec, "behavior", behavior);
    }
    if let Some(status) = scaler.get_mut("status").filter(|s| s.is_object()) {
        let mut now: Vec<Value> = current
            .iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|m| metric_to_v2(m, &STATUS))
            .collect();
        if let Some(percent) = remove(status, "currentCPUUtilizationPercentage") {
            let cpu = json!({"name": "cpu", "current": {"averageUtilization": percent}});
            now.push(json!({"type": "Resource", "resource": cpu}));
        }
        put(status, "currentMetrics", Some(now.into()));
        put(status, "conditions", conditions);
    }
    annotate(
        &mut scaler,
        [METRICS, CURRENT, CONDITIONS, BEHAVIOR].map(|a| (a, None)),
    );
    put(&mut scaler, "apiVersion", Some("autoscaling/v2".into()));
    scaler
}

fn cpu(percent: Value) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
    }})
}

/// Sets or removes annotations.
fn annotate<const N: usize>(scaler: &mut Value, annotations: [(&str, Option<String>); N]) {
    let Some(meta) = scaler.get_mut("metadata").filter(|m| m.is_object()) else {
        return;
    };
    for (name, value) in annotations {
        match value {
            Some(value) => {
                if let Some(all) = json::child(meta, "annotations") {
                    all[name] = value.into();
                }
            }
            None => {
                if let Some(all) = meta.get_mut("annotations") {
                    remove(all, name);
                }
            }
        }
    }
    if map(meta, "annotations").is_some_and(|a| a.is_empty()) {
        remove(meta, "annotations");
    }
}

/// A stored object in version 1's form.
pub fn from_v2(mut scaler: Value) -> Value {
    let metrics = list(&scaler, "spec.metrics").to_vec();
    let first_cpu = metrics.iter().position(is_cpu);
    let others: Vec<Value> = metrics
        .iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != first_cpu)
        .filter_map(|(_, m)| metric_to_v1(m, &SPEC))
        .collect();
    let current: Vec<Value> = list(&scaler, "status.currentMetrics")
        .iter()
        .filter_map(|m| metric_to_v1(m, &STATUS))
        .collect();
    let used = list(&scaler, "status.currentMetrics")
        .iter()
        .filter(|m| text(m, "resource.name") == "cpu")
        .find_map(|m| int(m, "resource.current.averageUtilization"));
    let conditions = list(&scaler, "status.conditions").to_vec();
    let mut behavior = None;
    if let Some(spec) = scaler.get_mut("spec").filter(|s| s.is_object()) {
        remove(spec, "metrics");
        behavior = remove(spec, "behavior");
        let percent = first_cpu
            .and_then(|i| at(&metrics[i], "resource.target.averageUtilization"))
            .cloned();
        put(spec, "targetCPUUtilizationPercentage", percent);
    }
    if let Some(status) = scaler.get_mut("status").filter(|s| s.is_object()) {
        remove(status, "currentMetrics");
        remove(status, "conditions");
        crate::json::default(status, "currentReplicas", 0);
        put(
            status,
            "currentCPUUtilizationPercentage",
            used.map(Value::from),
        );
    }
    let text_of =
        |values: Vec<Value>| (!values.is_empty()).then(|| Value::Array(values).to_string());
    annotate(
        &mut scaler,
        [
            (METRICS, text_of(others)),
            (CURRENT, text_of(current)),
            (CONDITIONS, text_of(conditions)),
            (BEHAVIOR, behavior.map(|b| b.to_string())),
        ],
    );
    put(&mut scaler, "apiVersion", Some("autoscaling/v1".into()));
    scaler
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_has_a_field() {
        let old = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
        });
        let new = to_v2(old.clone());
        assert_eq!(new["apiVersion"], "autoscaling/v2");
        assert_eq!(
            new["spec"],
            json!({"maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
            }}]})
        );
        assert_eq!(from_v2(new), old);
        let plain = to_v2(json!({"metadata": {}, "spec": {"maxReplicas": 3}}));
        assert_eq!(
            plain["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
    }

    #[test]
    fn the_rest_travels_in_annotations() {
        let new = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "annotations": {"mine": "kept"}},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {
                        "metric": {"name": "rps", "selector": {}},
                        "target": {"averageValue": "5", "type": "AverageValue"},
                    }},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Ingress", "name": "i"},
                        "metric": {"name": "rps"},
                        "target": {"value": "9", "type": "Value"},
                    }},
                    {"type": "External", "external": {
                        "metric": {"name": "queue"},
                        "target": {"averageValue": "2", "type": "AverageValue"},
                    }},
                ],
                "behavior": {"scaleDown": {"selectPolicy": "Min"}},
            },
            "status": {
                "currentReplicas": 1,
                "currentMetrics": [{"type": "Pods", "pods": {
                    "metric": {"name": "rps"}, "current": {"averageValue": "4"},
                }}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let old = from_v2(new.clone());
        assert_eq!(old["metadata"]["annotations"]["mine"], "kept");
        assert_eq!(
            old["metadata"]["annotations"][METRICS],
            json!([
                {"type": "Pods", "pods": {"metricName": "rps", "selector": {}, "targetAverageValue": "5"}},
                {"type": "Object", "object": {
                    "target": {"kind": "Ingress", "name": "i"}, "metricName": "rps", "targetValue": "9",
                }},
                {"type": "External", "external": {"metricName": "queue", "targetAverageValue": "2"}},
            ])
            .to_string()
        );
        assert!(old["spec"].get("behavior").is_none());
        assert_eq!(to_v2(old), new);
    }
}
