//! Defaults of each kind, as kube-apiserver's `zz_generated.defaults.go` and `defaults.go` have
//! them. They work on the wire form and leave malformed values for validation to name.

pub mod admission;
pub mod policy;
pub mod storage;
pub mod workloads;

use serde_json::{Value, json};

use crate::json::{at, child, default, default_text, flag, int, list, list_mut, put, remove, text};

pub fn nothing(_: &mut Value) {}

pub fn event(event: &mut Value) {
    // Go writes these structs always.
    default(event, "source", json!({}));
    default(event, "involvedObject", json!({}));
}

pub fn namespace(namespace: &mut Value) {
    let name = text(namespace, "metadata.name").to_string();
    if !name.is_empty()
        && let Some(labels) = child(namespace, "metadata").and_then(|m| child(m, "labels"))
    {
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    child(namespace, "spec");
}

pub fn node(node: &mut Value) {
    child(node, "spec");
    let capacity = at(node, "status.capacity").cloned();
    if let (Some(capacity), Some(status)) = (capacity, child(node, "status")) {
        default(status, "allocatable", capacity);
    }
}

pub fn secret(secret: &mut Value) {
    use base64::Engine as _;
    let strings = remove(secret, "stringData");
    for (key, value) in strings.iter().filter_map(Value::as_object).flatten() {
        if let (Some(text), Some(data)) = (value.as_str(), child(secret, "data")) {
            data[key.as_str()] = base64::engine::general_purpose::STANDARD
                .encode(text)
                .into();
        }
    }
    default_text(secret, "type", "Opaque");
}

pub fn service(service: &mut Value) {
    let Some(spec) = child(service, "spec") else {
        return;
    };
    default_text(spec, "sessionAffinity", "None");
    default_text(spec, "type", "ClusterIP");
    if text(spec, "sessionAffinity") == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    if text(spec, "sessionAffinity") == "ClientIP"
        && let Some(client) =
            child(spec, "sessionAffinityConfig").and_then(|c| child(c, "clientIP"))
    {
        default(client, "timeoutSeconds", 10_800);
    }
    for port in list_mut(spec, "ports").into_iter().flatten() {
        default_text(port, "protocol", "TCP");
        let number = port.get("port").cloned();
        let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
            || port["targetPort"] == 0
            || port["targetPort"] == "";
        if unset && port.is_object() {
            put(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_string();
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub fn endpoint_slice(slice: &mut Value) {
    for port in list_mut(slice, "ports").into_iter().flatten() {
        default(port, "name", "");
        default_text(port, "protocol", "TCP");
    }
}

/// The group of a role and of subjects goes without saying.
pub fn role_binding(binding: &mut Value) {
    if let Some(role) = child(binding, "roleRef") {
        default_text(role, "apiGroup", crate::rbac::GROUP);
    }
    for subject in list_mut(binding, "subjects").into_iter().flatten() {
        if matches!(text(subject, "kind"), "User" | "Group") {
            default_text(subject, "apiGroup", crate::rbac::GROUP);
        }
    }
}

pub fn network_policy(policy: &mut Value) {
    let Some(spec) = child(policy, "spec") else {
        return;
    };
    default(spec, "podSelector", json!({}));
    for (direction, ports) in [("ingress", "ports"), ("egress", "ports")] {
        for rule in list_mut(spec, direction).into_iter().flatten() {
            for port in list_mut(rule, ports).into_iter().flatten() {
                default_text(port, "protocol", "TCP");
            }
        }
    }
    if list(spec, "policyTypes").is_empty() && spec.is_object() {
        let types = if list(spec, "egress").is_empty() {
            json!(["Ingress"])
        } else {
            json!(["Ingress", "Egress"])
        };
        spec["policyTypes"] = types;
    }
}

pub fn deployment(deployment: &mut Value) {
    let Some(spec) = child(deployment, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    template(spec);
    if let Some(strategy) = child(spec, "strategy") {
        default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
}

pub fn replica_set(set: &mut Value) {
    if let Some(spec) = child(set, "spec") {
        default(spec, "replicas", 1);
        template(spec);
    }
}

fn template(spec: &mut Value) {
    if let Some(template) = child(spec, "template") {
        child(template, "metadata");
        if let Some(pod_spec_value) = child(template, "spec") {
            pod_spec(pod_spec_value);
        }
    }
}

pub fn pod(pod: &mut Value) {
    let Some(spec) = child(pod, "spec") else {
        return;
    };
    // Only pods, not templates: requests come from limits.
    for key in ["initContainers", "containers"] {
        for container in list_mut(spec, key).into_iter().flatten() {
            let limits = at(container, "resources.limits").cloned();
            let Some(Value::Object(limits)) = limits else {
                continue;
            };
            if let Some(requests) = child(container, "resources").and_then(|r| child(r, "requests"))
            {
                for (name, value) in limits {
                    default(requests, &name, value);
                }
            }
        }
    }
    default(spec, "enableServiceLinks", true);
    pod_spec(spec);
    if flag(spec, "hostNetwork") {
        host_ports(spec);
    }
}

/// With the node's network, a port of the container is one of the node.
fn host_ports(spec: &mut Value) {
    for key in ["initContainers", "containers"] {
        for container in list_mut(spec, key).into_iter().flatten() {
            for port in list_mut(container, "ports").into_iter().flatten() {
                if int(port, "hostPort").unwrap_or(0) == 0 {
                    let number = port.get("containerPort").cloned();
                    put(port, "hostPort", number);
                }
            }
        }
    }
}

fn pod_spec(spec: &mut Value) {
    if text(spec, "serviceAccountName").is_empty() {
        let name = text(spec, "serviceAccount").to_string();
        if !name.is_empty() {
            spec["serviceAccountName"] = name.into();
        }
    } else {
        let name = text(spec, "serviceAccountName").to_string();
        spec["serviceAccount"] = name.into();
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for item in list_mut(spec, key).into_iter().flatten() {
            container(item);
        }
    }
    for item in list_mut(spec, "volumes").into_iter().flatten() {
        volume(item);
    }
    default_text(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default_text(spec, "schedulerName", "default-scheduler");
    for constraint in list_mut(spec, "topologySpreadConstraints")
        .into_iter()
        .flatten()
    {
        default_text(constraint, "nodeAffinityPolicy", "Honor");
        default_text(constraint, "nodeTaintsPolicy", "Ignore");
    }
    if flag(spec, "hostNetwork") {
        host_ports(spec);
    }
}

fn container(container: &mut Value) {
    for port in list_mut(container, "ports").into_iter().flatten() {
        default_text(port, "protocol", "TCP");
    }
    for env in list_mut(container, "env").into_iter().flatten() {
        if let Some(field) = env.get_mut("valueFrom").and_then(|f| f.get_mut("fieldRef")) {
            default_text(field, "apiVersion", "v1");
        }
    }
    child(container, "resources");
    let policy = pull_policy(text(container, "image"));
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default_text(container, "imagePullPolicy", policy);
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(key).filter(|p| p.is_object()) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container
            .get_mut("lifecycle")
            .and_then(|l| l.get_mut(hook))
            .and_then(|h| h.get_mut("httpGet"))
        {
            http_get(get);
        }
    }
}

/// `Always` for images without tag or with `latest`, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let name = image.split('@').next().unwrap_or("");
    let digest = image.contains('@');
    let last = name.rsplit('/').next().unwrap_or("");
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn http_get(get: &mut Value) {
    default_text(get, "path", "/");
    default_text(get, "scheme", "HTTP");
}

fn probe(probe: &mut Value) {
    if let Some(get) = probe.get_mut("httpGet").filter(|g| g.is_object()) {
        http_get(get);
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object()) {
        default(grpc, "service", "");
    }
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        // 0 means unset here, as in Go.
        if int(probe, key) == Some(0) {
            remove(probe, key);
        }
        default(probe, key, value);
    }
}

fn volume(volume: &mut Value) {
    const SOURCES: usize = 1;
    if volume
        .as_object()
        .is_some_and(|v| v.len() <= SOURCES && v.contains_key("name"))
    {
        volume["emptyDir"] = json!({});
    }
    for key in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).filter(|s| s.is_object()) {
            default(source, "defaultMode", 420);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|p| p.is_object()) {
        default(path, "type", "");
    }
    if let Some(api) = volume.get_mut("downwardAPI") {
        field_refs(api);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in list_mut(projected, "sources").into_iter().flatten() {
            if let Some(api) = source.get_mut("downwardAPI") {
                field_refs(api);
            }
            if let Some(token) = source
                .get_mut("serviceAccountToken")
                .filter(|t| t.is_object())
            {
                default(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn field_refs(api: &mut Value) {
    for item in list_mut(api, "items").into_iter().flatten() {
        if let Some(field) = item.get_mut("fieldRef").filter(|f| f.is_object()) {
            default_text(field, "apiVersion", "v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_pod() {
        let mut p = json!({"spec": {"containers": [{
            "name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"port": 80}},
        }], "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}});
        pod(&mut p);
        assert_eq!(
            p,
            json!({"spec": {
                "containers": [{
                    "name": "c", "image": "nginx",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "Always",
                }],
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
                ],
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "securityContext": {},
                "schedulerName": "default-scheduler",
            }})
        );
    }

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn other_kinds() {
        let mut d = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}});
        deployment(&mut d);
        assert_eq!(d["spec"]["replicas"], 1);
        assert_eq!(d["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(d["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let mut s = json!({"stringData": {"a": "b"}});
        secret(&mut s);
        assert_eq!(s, json!({"data": {"a": "Yg=="}, "type": "Opaque"}));
        let mut s = json!({"spec": {"ports": [{"port": 80}]}});
        service(&mut s);
        assert_eq!(
            s["spec"]["ports"][0],
            json!({"port": 80, "protocol": "TCP", "targetPort": 80})
        );
        let mut n = json!({"spec": {"egress": [{}]}});
        network_policy(&mut n);
        assert_eq!(n["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }

    #[test]
    fn defaults_are_idempotent() {
        let mut p = json!({"spec": {"containers": [{"name": "c", "image": "x"}]}});
        pod(&mut p);
        let once = p.clone();
        pod(&mut p);
        assert_eq!(p, once);
    }
}
