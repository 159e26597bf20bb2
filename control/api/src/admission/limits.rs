//! LimitRanges: defaults for what containers ask for, and bounds of it.
//! Source: Kubernetes `plugin/pkg/admission/limitranger`.

use serde_json::{Map, Value};

use super::resources::{Amounts, amounts, of_pod};
use crate::json::{self, list, text};
use crate::quantity::Quantity;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives a pod's containers the defaults of a LimitRange, and notes that in an annotation.
pub fn default_pod(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in list(range, "spec.limits") {
        if text(item, "type") == "Container" {
            requests.extend(
                json::map(item, "defaultRequest")
                    .cloned()
                    .unwrap_or_default(),
            );
            limits.extend(json::map(item, "default").cloned().unwrap_or_default());
        }
    }
    let mut notes = Vec::new();
    for (path, noun) in [
        ("spec.containers", "container"),
        ("spec.initContainers", "init container"),
    ] {
        for container in json::list_mut(pod, path).into_iter().flatten() {
            let name = text(container, "name").to_string();
            let set_limits = fill(container, "limits", &limits);
            let set_requests = fill(container, "requests", &requests);
            for (set, which) in [(set_requests, "request"), (set_limits, "limit")] {
                if !set.is_empty() {
                    notes.push(format!("{} {which} for {noun} {name}", set.join(", ")));
                }
            }
        }
    }
    if notes.is_empty() {
        return;
    }
    let note = format!("LimitRanger plugin set: {}", notes.join("; "));
    let annotations = json::child(pod, "metadata").and_then(|m| json::child(m, "annotations"));
    if let Some(annotations) = annotations {
        annotations[ANNOTATION] = note.into();
    }
}

/// Sets what is missing; returns its names in order.
fn fill(container: &mut Value, which: &str, defaults: &Map<String, Value>) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    let list = json::child(container, "resources").and_then(|r| json::child(r, which));
    let Some(list) = list.and_then(Value::as_object_mut) else {
        return Vec::new();
    };
    let mut set = Vec::new();
    for (name, value) in defaults {
        if !list.contains_key(name) {
            list.insert(name.clone(), value.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

/// What a new pod or claim breaks of a LimitRange: the reason for a refusal.
pub fn check(range: &Value, group: &str, kind: &str, object: &Value) -> Result<(), String> {
    let mut faults = Vec::new();
    for item in list(range, "spec.limits") {
        match (group, kind, text(item, "type")) {
            ("", "Pod", "Container") => {
                for path in ["spec.containers", "spec.initContainers"] {
                    for container in list(object, path) {
                        let requests = amounts(container, "resources.requests");
                        let limits = amounts(container, "resources.limits");
                        bounds(item, &requests, &limits, &mut faults);
                    }
                }
            }
            ("", "Pod", "Pod") => {
                let (requests, limits) = (of_pod(object, "requests"), of_pod(object, "limits"));
                bounds(item, &requests, &limits, &mut faults);
            }
            ("", "PersistentVolumeClaim", "PersistentVolumeClaim") => {
                claim(item, object, &mut faults);
            }
            _ => {}
        }
    }
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.remove(0)),
        _ => Err(format!("[{}]", faults.join(", "))),
    }
}

fn bounds(item: &Value, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let ty = text(item, "type");
    for (name, bound) in amounts(item, "min") {
        faults.extend(below(
            ty,
            &name,
            bound,
            requests.get(&name),
            limits.get(&name),
        ));
    }
    for (name, bound) in amounts(item, "max") {
        faults.extend(above(
            ty,
            &name,
            bound,
            requests.get(&name),
            limits.get(&name),
        ));
    }
    for (name, bound) in amounts(item, "maxLimitRequestRatio") {
        faults.extend(ratio(
            ty,
            &name,
            bound,
            requests.get(&name),
            limits.get(&name),
        ));
    }
}

type Given<'a> = Option<&'a Quantity>;

fn below(
    ty: &str,
    name: &str,
    bound: Quantity,
    request: Given<'_>,
    limit: Given<'_>,
) -> Option<String> {
    let says = format!("minimum {name} usage per {ty} is {bound}");
    match (request, limit) {
        (None, _) => Some(format!("{says}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{says}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{says}, but limit is {limit}")),
        _ => None,
    }
}

fn above(
    ty: &str,
    name: &str,
    bound: Quantity,
    request: Given<'_>,
    limit: Given<'_>,
) -> Option<String> {
    let says = format!("maximum {name} usage per {ty} is {bound}");
    match (request, limit) {
        (_, None) => Some(format!("{says}.  No limit is specified")),
        (_, Some(limit)) if *limit > bound => Some(format!("{says}, but limit is {limit}")),
        (Some(request), _) if *request > bound => Some(format!("{says}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    ty: &str,
    name: &str,
    bound: Quantity,
    request: Given<'_>,
    limit: Given<'_>,
) -> Option<String> {
    let says = format!("{name} max limit to request ratio per {ty} is {bound}");
    let Some(request) = request.filter(|r| !r.is_zero()) else {
        return Some(format!(
            "{says}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = limit.filter(|l| !l.is_zero()) else {
        return Some(format!("{says}, but no limit is specified or limit is 0"));
    };
    let provided = limit.millis() as f64 / request.millis() as f64;
    (provided * 1000.0 > bound.millis() as f64)
        .then(|| format!("{says}, but provided ratio is {provided:.6}"))
}

/// Claims have requests only.
fn claim(item: &Value, claim: &Value, faults: &mut Vec<String>) {
    let ty = text(item, "type");
    let requests = amounts(claim, "spec.resources.requests");
    for (name, bound) in amounts(item, "min") {
        faults.extend(below(ty, &name, bound, requests.get(&name), None));
    }
    for (name, bound) in amounts(item, "max") {
        let says = format!("maximum {name} usage per {ty} is {bound}");
        match requests.get(&name) {
            None => faults.push(format!("{says}.  No request is specified")),
            Some(request) if *request > bound => {
                faults.push(format!("{says}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The LimitRange of these items.
    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": limits}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn defaults_fill_what_is_missing_and_say_so() {
        let range = range(
            json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"memory": "64Mi", "cpu": "100m"}}]),
        );
        let mut pod = pod(json!({"requests": {"cpu": "10m"}}));
        pod["spec"]["initContainers"] = json!([{"name": "i"}]);
        default_pod(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c; cpu, memory request for init container i; cpu, memory limit for init container i"
        );
        let before = pod.clone();
        default_pod(&range, &mut pod);
        assert_eq!(pod, before);
        let mut plain = json!({"spec": {"containers": [{"name": "c"}]}});
        default_pod(
            &self::range(json!([{"type": "Pod", "max": {"cpu": "1"}}])),
            &mut plain,
        );
        assert_eq!(plain, json!({"spec": {"containers": [{"name": "c"}]}}));
    }

    #[test]
    fn bounds_have_kubernetes_words() {
        let given = |r: &str, l: &str| {
            let mut resources = json!({});
            if !r.is_empty() {
                resources["requests"] = json!({"cpu": r});
            }
            if !l.is_empty() {
                resources["limits"] = json!({"cpu": l});
            }
            resources
        };
        let cases = [
            (
                json!({"min": {"cpu": "100m"}}),
                given("", ""),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                json!({"min": {"cpu": "100m"}}),
                given("50m", "1"),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (json!({"min": {"cpu": "100m"}}), given("100m", ""), ""),
            (
                json!({"max": {"cpu": "1"}}),
                given("", ""),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                given("1", "2"),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                given("2", "1"),
                "maximum cpu usage per Container is 1, but request is 2",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                given("", "1"),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                given("1", ""),
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                given("100m", "300m"),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                given("100m", "200m"),
                "",
            ),
            (
                json!({"min": {"cpu": "100m"}, "max": {"cpu": "1"}}),
                given("50m", "2"),
                "[minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per Container is 1, but limit is 2]",
            ),
        ];
        for (mut item, resources, expected) in cases {
            item["type"] = "Container".into();
            let range = range(json!([item]));
            let found = check(&range, "", "Pod", &pod(resources)).err();
            assert_eq!(found.unwrap_or_default(), expected, "{range}");
        }
    }

    #[test]
    fn pods_as_wholes_and_claims() {
        let whole = range(json!([{"type": "Pod", "max": {"memory": "1Gi"}}]));
        let mut pod = pod(json!({"limits": {"memory": "600Mi"}}));
        assert_eq!(check(&whole, "", "Pod", &pod), Ok(()));
        let second = pod["spec"]["containers"][0].clone();
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(second);
        assert_eq!(
            check(&whole, "", "Pod", &pod).unwrap_err(),
            "maximum memory usage per Pod is 1Gi, but limit is 1200Mi"
        );
        let storage = range(json!([{"type": "PersistentVolumeClaim",
            "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let check = |size| check(&storage, "", "PersistentVolumeClaim", &claim(size));
        assert_eq!(check("2Gi"), Ok(()));
        assert_eq!(
            check("3Gi").unwrap_err(),
            "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
        );
        assert_eq!(
            check("1Mi").unwrap_err(),
            "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"
        );
    }
}
