//! Pods and pod templates.

use serde_json::{Value, json};

use super::container::{self, List};
use super::metadata::{
    dns1123_label_faults, dns1123_subdomain_faults, invalid_each, label_value_faults, labels,
    qualified_name_faults,
};
use super::{non_negative, one_of, selector, volume};
use crate::json::{at, flag, int, list, put, remove, text};
use crate::status::Errors;

pub fn pod(pod: &Value, errors: &mut Errors) {
    let spec = at(pod, "spec").unwrap_or(&Value::Null);
    pod_spec("spec", spec, errors);
}

/// What holds for a new pod only.
pub fn pod_create(pod: &Value, errors: &mut Errors) {
    if !list(pod, "spec.ephemeralContainers").is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
}

pub fn pod_spec(path: &str, spec: &Value, errors: &mut Errors) {
    let volumes = volume::volumes(&format!("{path}.volumes"), spec, errors);
    let mut names = Vec::new();
    let mains = list(spec, "containers");
    if mains.is_empty() {
        errors.required(&format!("{path}.containers"), "");
    }
    container::containers(
        &format!("{path}.containers"),
        mains,
        List::Main,
        &mut names,
        &volumes,
        errors,
    );
    container::containers(
        &format!("{path}.initContainers"),
        list(spec, "initContainers"),
        List::Init,
        &mut names,
        &volumes,
        errors,
    );
    ephemeral_containers(path, spec, names, &volumes, errors);
    one_of(
        &format!("{path}.restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    dns(path, spec, errors);
    labels(
        &format!("{path}.nodeSelector"),
        at(spec, "nodeSelector"),
        errors,
    );
    for (field, rule) in [
        (
            "serviceAccountName",
            dns1123_subdomain_faults as fn(&str) -> Vec<String>,
        ),
        ("nodeName", dns1123_subdomain_faults),
        ("priorityClassName", dns1123_subdomain_faults),
        ("runtimeClassName", dns1123_subdomain_faults),
        ("hostname", dns1123_label_faults),
        ("subdomain", dns1123_label_faults),
    ] {
        let value = text(spec, field);
        if !value.is_empty() {
            invalid_each(&format!("{path}.{field}"), value, rule(value), errors);
        }
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(
            &format!("{path}.activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    if let Some(seconds) = int(spec, "terminationGracePeriodSeconds") {
        non_negative(
            &format!("{path}.terminationGracePeriodSeconds"),
            seconds,
            errors,
        );
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            errors.required(&format!("{path}.imagePullSecrets[{i}].name"), "");
        }
    }
    host_aliases(path, spec, errors);
    tolerations(path, spec, errors);
    affinity(path, spec, errors);
    spread(path, spec, errors);
    security(path, spec, errors);
    container::not_negative(&format!("{path}.overhead"), at(spec, "overhead"), errors);
    let os = text(spec, "os.name");
    if !os.is_empty() {
        one_of(&format!("{path}.os.name"), os, &["linux"], errors);
    }
    let gates = list(spec, "schedulingGates");
    for (i, gate) in gates.iter().enumerate() {
        let name = text(gate, "name");
        let path = format!("{path}.schedulingGates[{i}]");
        invalid_each(&path, name, qualified_name_faults(name), errors);
    }
}

/// `others` are the names of the containers that were there from the start.
fn ephemeral_containers<'a>(
    path: &str,
    spec: &'a Value,
    mut others: Vec<&'a str>,
    volumes: &[&str],
    errors: &mut Errors,
) {
    let added = list(spec, "ephemeralContainers");
    let path = format!("{path}.ephemeralContainers");
    for (i, container) in added.iter().enumerate() {
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&format!("{path}[{i}].targetContainerName"), target);
        }
    }
    let list = List::Ephemeral;
    container::containers(&path, added, list, &mut others, volumes, errors);
}

fn dns(path: &str, spec: &Value, errors: &mut Errors) {
    let policy = text(spec, "dnsPolicy");
    let supported = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&format!("{path}.dnsPolicy"), policy, &supported, errors);
    let servers = list(spec, "dnsConfig.nameservers");
    let path = format!("{path}.dnsConfig.nameservers");
    if policy == "None" && servers.is_empty() {
        errors.required(
            &path,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > 3 {
        errors.invalid(
            &path,
            servers.to_vec(),
            "must not have more than 3 nameservers",
        );
    }
    for (i, server) in servers.iter().enumerate() {
        super::ip_address(
            &format!("{path}[{i}]"),
            server.as_str().unwrap_or(""),
            errors,
        );
    }
}

fn host_aliases(path: &str, spec: &Value, errors: &mut Errors) {
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = format!("{path}.hostAliases[{i}]");
        super::ip_address(&format!("{path}.ip"), text(alias, "ip"), errors);
        for (j, host) in list(alias, "hostnames").iter().enumerate() {
            let host = host.as_str().unwrap_or("");
            let path = format!("{path}.hostnames[{j}]");
            invalid_each(&path, host, dns1123_subdomain_faults(host), errors);
        }
    }
}

fn tolerations(path: &str, spec: &Value, errors: &mut Errors) {
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = format!("{path}.tolerations[{i}]");
        let (key, value) = (text(toleration, "key"), text(toleration, "value"));
        let (operator, effect) = (text(toleration, "operator"), text(toleration, "effect"));
        if key.is_empty() {
            if operator != "Exists" {
                errors.invalid(
                    &format!("{path}.operator"),
                    operator,
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                );
            }
        } else {
            invalid_each(
                &format!("{path}.key"),
                key,
                qualified_name_faults(key),
                errors,
            );
        }
        match operator {
            "" | "Equal" => {
                invalid_each(
                    &format!("{path}.value"),
                    value,
                    label_value_faults(value),
                    errors,
                );
            }
            "Exists" if !value.is_empty() => errors.invalid(
                &format!("{path}.operator"),
                toleration.clone(),
                "value must be empty when `operator` is 'Exists'",
            ),
            "Exists" => {}
            other => {
                errors.not_supported(&format!("{path}.operator"), other, &["Equal", "Exists"]);
            }
        }
        if !effect.is_empty() {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            one_of(&format!("{path}.effect"), effect, &supported, errors);
        }
        if int(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(
                &format!("{path}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
    }
}

fn affinity(path: &str, spec: &Value, errors: &mut Errors) {
    let path = format!("{path}.affinity");
    let Some(affinity) = at(spec, "affinity") else {
        return;
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = at(affinity, "nodeAffinity") {
        let path = format!("{path}.nodeAffinity");
        if let Some(must) = at(node, required) {
            let path = format!("{path}.{required}.nodeSelectorTerms");
            node_terms(&path, list(must, "nodeSelectorTerms"), errors);
        }
        for (i, want) in list(node, preferred).iter().enumerate() {
            let path = format!("{path}.{preferred}[{i}]");
            weight(&path, want, errors);
            let term = at(want, "preference").unwrap_or(&Value::Null);
            node_term(&format!("{path}.preference"), term, errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = at(affinity, kind) else {
            continue;
        };
        let path = format!("{path}.{kind}");
        for (i, term) in list(pods, required).iter().enumerate() {
            pod_term(&format!("{path}.{required}[{i}]"), term, errors);
        }
        for (i, want) in list(pods, preferred).iter().enumerate() {
            let path = format!("{path}.{preferred}[{i}]");
            weight(&path, want, errors);
            let term = at(want, "podAffinityTerm").unwrap_or(&Value::Null);
            pod_term(&format!("{path}.podAffinityTerm"), term, errors);
        }
    }
}

fn weight(path: &str, want: &Value, errors: &mut Errors) {
    let weight = int(want, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(
            &format!("{path}.weight"),
            weight,
            "must be in the range 1-100",
        );
    }
}

/// The terms of a required node selector.
pub(crate) fn node_terms(path: &str, terms: &[Value], errors: &mut Errors) {
    if terms.is_empty() {
        errors.required(path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(&format!("{path}[{i}]"), term, errors);
    }
}

fn node_term(path: &str, term: &Value, errors: &mut Errors) {
    for field in ["matchExpressions", "matchFields"] {
        for (i, expression) in list(term, field).iter().enumerate() {
            let path = format!("{path}.{field}[{i}]");
            let values = list(expression, "values");
            let key = text(expression, "key");
            if field == "matchExpressions" {
                invalid_each(
                    &format!("{path}.key"),
                    key,
                    qualified_name_faults(key),
                    errors,
                );
            } else if key != "metadata.name" {
                errors.invalid(
                    &format!("{path}.key"),
                    key,
                    "not a valid field selector key",
                );
            }
            let path_values = format!("{path}.values");
            match text(expression, "operator") {
                "In" | "NotIn" if values.is_empty() => errors.required(
                    &path_values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ),
                "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                    &path_values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                "Gt" | "Lt" if values.len() != 1 => errors.required(
                    &path_values,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                ),
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => errors.invalid(
                    &format!("{path}.operator"),
                    other,
                    "not a valid selector operator",
                ),
            }
        }
    }
}

fn pod_term(path: &str, term: &Value, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(found) = at(term, field) {
            selector::label_selector(&format!("{path}.{field}"), found, errors);
        }
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&format!("{path}.topologyKey"), "can not be empty");
    } else {
        invalid_each(
            &format!("{path}.topologyKey"),
            key,
            qualified_name_faults(key),
            errors,
        );
    }
}

fn spread(path: &str, spec: &Value, errors: &mut Errors) {
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(
                &format!("{path}.maxSkew"),
                skew,
                "must be greater than zero",
            );
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.required(&format!("{path}.topologyKey"), "can not be empty");
        }
        one_of(
            &format!("{path}.whenUnsatisfiable"),
            text(constraint, "whenUnsatisfiable"),
            &["DoNotSchedule", "ScheduleAnyway"],
            errors,
        );
        if let Some(found) = at(constraint, "labelSelector") {
            selector::label_selector(&format!("{path}.labelSelector"), found, errors);
        }
    }
}

fn security(path: &str, spec: &Value, errors: &mut Errors) {
    let contexts = std::iter::once((
        format!("{path}.securityContext"),
        at(spec, "securityContext"),
    ))
    .chain(
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|key| {
                list(spec, key).iter().enumerate().map(move |(i, c)| {
                    (
                        format!("{path}.{key}[{i}].securityContext"),
                        at(c, "securityContext"),
                    )
                })
            }),
    );
    for (path, context) in contexts {
        let Some(context) = context else { continue };
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            if let Some(id) = int(context, field)
                && !(0..=i64::from(i32::MAX)).contains(&id)
            {
                errors.invalid(
                    &format!("{path}.{field}"),
                    id,
                    "must be between 0 and 2147483647, inclusive",
                );
            }
        }
        let escalation = at(context, "allowPrivilegeEscalation").and_then(Value::as_bool);
        if escalation == Some(false) && flag(context, "privileged") {
            errors.invalid(
                &path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let profile = text(context, "seccompProfile.type");
        if !profile.is_empty() {
            one_of(
                &format!("{path}.seccompProfile.type"),
                profile,
                &["Localhost", "RuntimeDefault", "Unconfined"],
                errors,
            );
        }
    }
}

const MAY_NOT_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn pod_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["containers", "initContainers"] {
        if list(new, &format!("spec.{key}")).len() != list(old, &format!("spec.{key}")).len() {
            errors.forbidden(
                &format!("spec.{key}"),
                "pod updates may not add or remove containers",
            );
            return;
        }
    }
    let (before, after) = (
        int(old, "spec.activeDeadlineSeconds"),
        int(new, "spec.activeDeadlineSeconds"),
    );
    match (before, after) {
        (Some(_), None) => errors.invalid(
            "spec.activeDeadlineSeconds",
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        (Some(old), Some(new)) if new > old => errors.invalid(
            "spec.activeDeadlineSeconds",
            new,
            format!("must be less than or equal to previous value {old}"),
        ),
        _ => {}
    }
    let tolerations = list(new, "spec.tolerations");
    for (i, toleration) in list(old, "spec.tolerations").iter().enumerate() {
        let kept = tolerations.iter().any(|t| {
            let strip = |t: &Value| {
                let mut t = t.clone();
                remove(&mut t, "tolerationSeconds");
                t
            };
            strip(t) == strip(toleration)
        });
        if !kept {
            errors.forbidden(
                &format!("spec.tolerations[{i}]"),
                "existing toleration can not be modified except its tolerationSeconds",
            );
        }
    }
    let gates = list(old, "spec.schedulingGates");
    if let Some(added) = list(new, "spec.schedulingGates")
        .iter()
        .find(|g| !gates.contains(g))
    {
        errors.forbidden(
            "spec.schedulingGates",
            format!(
                "only deletion is allowed, but found new scheduling gate {:?}",
                text(added, "name")
            ),
        );
    }
    if fixed_part(new) != fixed_part(old) {
        errors.forbidden("spec", changed(new, old));
    }
}

/// `pods/ephemeralcontainers` adds, and does nothing else.
pub fn ephemeral_containers_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = "spec.ephemeralContainers";
    let after = list(new, path);
    for (i, before) in list(old, path).iter().enumerate() {
        let name = text(before, "name");
        match after.iter().find(|c| text(c, "name") == name) {
            None => errors.forbidden(
                path,
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            ),
            Some(now) if now != before => errors.forbidden(
                &format!("{path}[{i}]"),
                format!("existing ephemeral containers {name:?} may not be changed\n"),
            ),
            Some(_) => {}
        }
    }
}

/// The spec without what may change.
fn fixed_part(pod: &Value) -> Value {
    let mut spec = at(pod, "spec").cloned().unwrap_or_else(|| json!({}));
    for key in ["containers", "initContainers"] {
        for container in crate::json::list_mut(&mut spec, key).into_iter().flatten() {
            put(container, "image", None);
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        remove(&mut spec, key);
    }
    if int(&spec, "terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    spec
}

/// The refusal, naming the fields that differ.
fn changed(new: &Value, old: &Value) -> String {
    let (new, old) = (fixed_part(new), fixed_part(old));
    let keys = |v: &Value| -> Vec<String> {
        v.as_object()
            .map(|o| o.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut names: Vec<String> = keys(&new)
        .into_iter()
        .chain(keys(&old))
        .filter(|k| new.get(k) != old.get(k))
        .collect();
    names.sort();
    names.dedup();
    format!("{MAY_NOT_CHANGE}\nchanged: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    fn defaulted(spec: Value) -> Value {
        let mut object = json!({"spec": spec});
        crate::default_object(find("", "v1", "pods").unwrap(), &mut object);
        object
    }

    fn faults(spec: Value) -> Vec<String> {
        let mut errors = Errors::default();
        pod(&defaulted(spec), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_pod_passes() {
        let none: [&str; 0] = [];
        assert_eq!(
            faults(json!({
                "containers": [{
                    "name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}],
                    "env": [{"name": "A", "value": "1"},
                            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "readinessProbe": {"httpGet": {"port": "http"}},
                    "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
                }],
                "volumes": [{"name": "v", "configMap": {"name": "m"}}],
                "tolerations": [{"operator": "Exists"}],
            })),
            none
        );
    }

    #[test]
    fn faults_have_kubernetes_texts() {
        let with = |extra: Value| {
            let mut c = json!({"name": "c", "image": "i"});
            for (k, v) in extra.as_object().unwrap() {
                c[k.as_str()] = v.clone();
            }
            json!({"containers": [c]})
        };
        for (spec, fault) in [
            (json!({}), "spec.containers: Required value"),
            (
                json!({"containers": [{"name": "c"}]}),
                "spec.containers[0].image: Required value",
            ),
            (
                json!({"containers": [{"image": "i"}]}),
                "spec.containers[0].name: Required value",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                with(json!({"imagePullPolicy": "Sometimes"})),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                with(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
            ),
            (
                with(json!({"ports": [{"containerPort": 70000}]})),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                with(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                with(json!({"livenessProbe": {}})),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                with(json!({"env": [{"name": "a=b"}]})),
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
        ] {
            assert_eq!(faults(spec), [fault]);
        }
    }

    #[test]
    fn ephemeral_containers() {
        let with = |added: Value| {
            json!({"containers": [{"name": "c", "image": "i"}], "ephemeralContainers": added,
                   "initContainers": [{"name": "init", "image": "i"}],
                   "volumes": [{"name": "v", "emptyDir": {}}]})
        };
        let none: [&str; 0] = [];
        let good = json!([{
            "name": "d", "image": "i", "stdin": true, "tty": true, "targetContainerName": "c",
            "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}], "resources": {},
        }]);
        assert_eq!(faults(with(good)), none);
        for (extra, fault) in [
            (json!({"name": "c"}), "name: Duplicate value: \"c\""),
            (json!({"name": "init"}), "name: Duplicate value: \"init\""),
            (json!({"name": ""}), "name: Required value"),
            (json!({"image": ""}), "image: Required value"),
            (
                json!({"targetContainerName": "x"}),
                "targetContainerName: Not found: \"x\"",
            ),
            // Not another ephemeral one either.
            (
                json!({"targetContainerName": "d"}),
                "targetContainerName: Not found: \"d\"",
            ),
            (
                json!({"ports": [{"containerPort": 80}]}),
                "ports: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                json!({"resources": {"limits": {"cpu": "1"}}}),
                "resources: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                json!({"livenessProbe": {"exec": {"command": ["x"]}}}),
                "livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                json!({"lifecycle": {}}),
                "lifecycle: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]}),
                "volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                json!({"securityContext": {"runAsUser": -1}}),
                "securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
        ] {
            let mut container = json!({"name": "d", "image": "i"});
            for (key, value) in extra.as_object().unwrap() {
                container[key.as_str()] = value.clone();
            }
            let fault = format!("spec.ephemeralContainers[0].{fault}");
            assert_eq!(faults(with(json!([container]))), [fault], "{extra}");
        }
    }

    #[test]
    fn what_may_change() {
        let old = defaulted(json!({"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}));
        let check = |edit: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            edit(&mut new);
            let mut errors = Errors::default();
            pod_update(&new, &old, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(check(&|p| p["spec"]["containers"][0]["image"] = json!("j")).is_empty());
        assert!(check(&|p| p["metadata"] = json!({"labels": {"a": "b"}})).is_empty());
        let refused = check(&|p| p["spec"]["nodeName"] = json!("m"));
        assert!(
            refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than")
        );
        assert!(refused[0].ends_with("changed: nodeName"));
        assert_eq!(
            check(&|p| p["spec"]["containers"] = json!([])),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
    }
}
