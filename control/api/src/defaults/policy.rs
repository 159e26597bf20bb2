//! Defaults of quotas, classes, autoscalers and ingress.
//! Source: Kubernetes `pkg/apis/{core,autoscaling,networking,scheduling}/v*/defaults.go`.

use serde_json::{Map, Value, json};

use crate::json::{at, child, default, default_text, list, list_mut, map, text};

pub fn endpoints(endpoints: &mut Value) {
    for subset in list_mut(endpoints, "subsets").into_iter().flatten() {
        for port in list_mut(subset, "ports").into_iter().flatten() {
            default_text(port, "protocol", "TCP");
        }
    }
}

/// What a container may have becomes what it gets, and what it gets what it asks for.
pub fn limit_range(range: &mut Value) {
    for item in list_mut(range, "spec.limits").into_iter().flatten() {
        if text(item, "type") != "Container" {
            continue;
        }
        let copy = |item: &mut Value, from: &str, to: &str| {
            let given: Map<String, Value> = map(item, from).cloned().unwrap_or_default();
            if given.is_empty() {
                return;
            }
            if let Some(target) = child(item, to) {
                for (name, quantity) in given {
                    default(target, &name, quantity);
                }
            }
        };
        copy(item, "max", "default");
        copy(item, "default", "defaultRequest");
        copy(item, "min", "defaultRequest");
    }
}

pub fn priority_class(class: &mut Value) {
    default_text(class, "preemptionPolicy", "PreemptLowerPriority");
}

pub fn ingress_class(class: &mut Value) {
    if let Some(spec) = child(class, "spec")
        && let Some(parameters) = spec.get_mut("parameters").filter(|p| p.is_object())
    {
        default_text(parameters, "scope", "Cluster");
    }
}

pub fn autoscaler_v1(scaler: &mut Value) {
    if let Some(spec) = child(scaler, "spec") {
        default(spec, "minReplicas", 1);
    }
}

pub fn autoscaler(scaler: &mut Value) {
    let Some(spec) = child(scaler, "spec") else {
        return;
    };
    default(spec, "minReplicas", 1);
    if list(spec, "metrics").is_empty() && at(spec, "metrics").is_none_or(Value::is_array) {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else {
        return;
    };
    if let Some(up) = child(behavior, "scaleUp") {
        default(up, "stabilizationWindowSeconds", 0);
        scaling_rules(
            up,
            json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]),
        );
    }
    if let Some(down) = child(behavior, "scaleDown") {
        scaling_rules(
            down,
            json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
}

fn scaling_rules(rules: &mut Value, policies: Value) {
    default_text(rules, "selectPolicy", "Max");
    default(rules, "policies", policies);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_containers_follow_from_each_other() {
        let mut range = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "2"}},
        ]}});
        limit_range(&mut range);
        assert_eq!(
            range["spec"]["limits"],
            json!([
                {
                    "type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"},
                    "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"},
                },
                {"type": "Pod", "max": {"cpu": "2"}},
            ])
        );
    }

    #[test]
    fn autoscalers() {
        let mut hpa =
            json!({"spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}});
        autoscaler(&mut hpa);
        assert_eq!(hpa["spec"]["minReplicas"], 1);
        assert_eq!(
            hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
        assert_eq!(
            hpa["spec"]["behavior"],
            json!({
                "scaleDown": {
                    "selectPolicy": "Min",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
                },
                "scaleUp": {
                    "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                    "policies": [
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                        {"type": "Percent", "value": 100, "periodSeconds": 15},
                    ],
                },
            })
        );
    }

    #[test]
    fn classes() {
        let mut class =
            json!({"spec": {"controller": "a/b", "parameters": {"kind": "K", "name": "n"}}});
        ingress_class(&mut class);
        assert_eq!(class["spec"]["parameters"]["scope"], "Cluster");
        let mut class = json!({"value": 1});
        priority_class(&mut class);
        assert_eq!(class["preemptionPolicy"], "PreemptLowerPriority");
    }
}
