//! The pod fields that this kubelet carries out. A pod with any other is refused by the field's name.

use k8s_openapi::api::core::v1::EphemeralContainer;
use serde_json::{Value, json};

/// Fields of a pod's spec. `[]` is any list item, `{}` any map key, `**` the whole subtree,
/// `=a|b` the only values. `C` at the start of a line stands for `containers[]` and `initContainers[]`.
const FIELDS: &[&str] = &[
    // Read by others or only by the API.
    "affinity.**",
    "nodeName",
    "nodeSelector.**",
    "os.name=linux",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "schedulerName",
    "schedulingGates.**",
    "tolerations.**",
    "topologySpreadConstraints.**",
    // They are looked at when they are started.
    "ephemeralContainers.**",
    // The pod.
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "dnsConfig.**",
    "dnsPolicy=ClusterFirst|ClusterFirstWithHostNet|Default|None",
    "enableServiceLinks",
    "hostAliases[].ip",
    "hostAliases[].hostnames[]",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers=true",
    "hostname",
    "imagePullSecrets[].name",
    "readinessGates[].conditionType",
    "restartPolicy=Always|OnFailure|Never",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.runAsUser",
    "securityContext.appArmorProfile.type=Unconfined",
    "securityContext.seccompProfile.type=RuntimeDefault|Unconfined",
    "securityContext.supplementalGroups[]",
    "securityContext.supplementalGroupsPolicy=Merge",
    "securityContext.sysctls[].name",
    "securityContext.sysctls[].value",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN=false",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    // Containers.
    "Cargs[]",
    "Ccommand[]",
    "Cenv[].name",
    "Cenv[].value",
    "Cenv[].valueFrom.configMapKeyRef.**",
    "Cenv[].valueFrom.fieldRef.**",
    "Cenv[].valueFrom.resourceFieldRef.**",
    "Cenv[].valueFrom.secretKeyRef.**",
    "CenvFrom[].configMapRef.**",
    "CenvFrom[].prefix",
    "CenvFrom[].secretRef.**",
    "Cimage",
    "CimagePullPolicy",
    "Cname",
    "Cports[].containerPort",
    "Cports[].hostIP",
    "Cports[].hostPort",
    "Cports[].name",
    "Cports[].protocol",
    "CresizePolicy.**",
    "Cresources.limits.cpu",
    "Cresources.limits.memory",
    "Cresources.requests.cpu",
    "Cresources.requests.memory",
    "Cresources.requests.ephemeral-storage",
    "CsecurityContext.allowPrivilegeEscalation",
    "CsecurityContext.appArmorProfile.type=Unconfined",
    "CsecurityContext.capabilities.add[]",
    "CsecurityContext.capabilities.drop[]",
    "CsecurityContext.privileged",
    "CsecurityContext.procMount=Default|Unmasked",
    "CsecurityContext.readOnlyRootFilesystem",
    "CsecurityContext.runAsGroup",
    "CsecurityContext.runAsNonRoot",
    "CsecurityContext.runAsUser",
    "CsecurityContext.seccompProfile.type=RuntimeDefault|Unconfined",
    "Cstdin",
    "CstdinOnce",
    "CterminationMessagePath",
    "CterminationMessagePolicy=File|FallbackToLogsOnError",
    "Ctty",
    "CvolumeMounts[].mountPath",
    "CvolumeMounts[].mountPropagation=None|HostToContainer|Bidirectional",
    "CvolumeMounts[].name",
    "CvolumeMounts[].readOnly",
    "CvolumeMounts[].recursiveReadOnly=Disabled",
    "CvolumeMounts[].subPath",
    "CvolumeMounts[].subPathExpr",
    "CworkingDir",
    "ClivenessProbe.P",
    "CreadinessProbe.P",
    "CstartupProbe.P",
    "Clifecycle.postStart.H",
    "Clifecycle.preStop.H",
    "initContainers[].restartPolicy=Always",
    // Volumes.
    "volumes[].name",
    "volumes[].configMap.**",
    "volumes[].downwardAPI.**",
    "volumes[].emptyDir.medium=|Memory",
    "volumes[].emptyDir.sizeLimit",
    "volumes[].hostPath.path",
    "volumes[].hostPath.type=|DirectoryOrCreate|Directory|FileOrCreate|File|Socket|CharDevice|BlockDevice",
    "volumes[].projected.defaultMode",
    "volumes[].projected.sources[].configMap.**",
    "volumes[].projected.sources[].downwardAPI.**",
    "volumes[].projected.sources[].secret.**",
    "volumes[].projected.sources[].serviceAccountToken.**",
    "volumes[].secret.**",
];

/// What `P` (a probe) and `H` (a lifecycle handler) stand for.
const PROBE: &[&str] = &[
    "exec.command[]",
    "failureThreshold",
    "httpGet.**",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "tcpSocket.**",
    "terminationGracePeriodSeconds",
    "timeoutSeconds",
];
const HANDLER: &[&str] = &["exec.command[]", "httpGet.**", "sleep.seconds"];

fn patterns() -> Vec<String> {
    let mut out = vec![];
    for field in FIELDS {
        let heads: &[&str] = if field.starts_with('C') {
            &["containers[].", "initContainers[]."]
        } else {
            &[""]
        };
        let field = field.strip_prefix('C').unwrap_or(field);
        for head in heads {
            if let Some(base) = field.strip_suffix(".P") {
                out.extend(PROBE.iter().map(|p| format!("{head}{base}.{p}")));
            } else if let Some(base) = field.strip_suffix(".H") {
                out.extend(HANDLER.iter().map(|p| format!("{head}{base}.{p}")));
            } else {
                out.push(format!("{head}{field}"));
            }
        }
    }
    out
}

/// What an ephemeral container has besides.
const EPHEMERAL: &[&str] = &["ephemeralContainers[].targetContainerName"];

/// The fields of an ephemeral container that aren't supported: they fail it alone, not the pod.
pub fn unsupported_ephemeral(e: &EphemeralContainer) -> Vec<String> {
    let mut patterns: Vec<String> = patterns()
        .iter()
        .filter_map(|p| p.strip_prefix("containers[]."))
        .map(|field| format!("ephemeralContainers[].{field}"))
        .collect();
    patterns.extend(EPHEMERAL.iter().map(|p| p.to_string()));
    let mut out = vec![];
    let spec = json!({"ephemeralContainers": [e]});
    walk(&spec, &patterns, "", "spec", &mut out);
    let own = "spec.ephemeralContainers[0].";
    out.iter()
        .map(|path| path.strip_prefix(own).unwrap_or(path).to_string())
        .collect()
}

/// The fields of a pod's spec (as JSON) that aren't supported, as paths such as
/// `spec.containers[0].livenessProbe.grpc`. Empty values ask for nothing and are passed.
pub fn unsupported(spec: &Value) -> Vec<String> {
    let mut out = vec![];
    walk(spec, &patterns(), "", "spec", &mut out);
    host_ports(spec, &mut out);
    out
}

/// Ports of the node can be TCP's and UDP's. With host networking a hostPort is only a note of the
/// containerPort.
fn host_ports(spec: &Value, out: &mut Vec<String>) {
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned();
    for (i, container) in list(spec, "containers").iter().flatten().enumerate() {
        for (j, port) in list(container, "ports").iter().flatten().enumerate() {
            let wanted = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) > 0;
            if wanted && port.get("protocol").and_then(Value::as_str) == Some("SCTP") {
                out.push(format!("spec.containers[{i}].ports[{j}].hostPort: SCTP"));
            }
        }
    }
}

fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn walk(v: &Value, patterns: &[String], at: &str, shown: &str, out: &mut Vec<String>) {
    if is_empty(v) {
        // `emptyDir: {}` asks for something all the same.
        let prefix = format!("{at}.");
        let known = v.is_null()
            || patterns.iter().any(|p| {
                bare(p) == at || p.starts_with(&prefix) || p.starts_with(&format!("{at}["))
            });
        if !known && v.is_object() {
            out.push(shown.to_string());
        }
        return;
    }
    // The whole subtree is supported.
    if patterns
        .iter()
        .any(|p| p.strip_suffix(".**").is_some_and(|base| base == at))
    {
        return;
    }
    match v {
        Value::Object(map) => {
            for (key, child) in map {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                let child_shown = format!("{shown}.{key}");
                let deeper = |p: &String| {
                    let b = bare(p);
                    b == path
                        || b.starts_with(&format!("{path}."))
                        || b.starts_with(&format!("{path}["))
                };
                if patterns.iter().any(deeper) {
                    walk(child, patterns, &path, &child_shown, out);
                } else if !child.is_null() && !matches!(child, Value::Array(a) if a.is_empty()) {
                    out.push(child_shown);
                }
            }
        }
        Value::Array(items) => {
            for (i, child) in items.iter().enumerate() {
                walk(
                    child,
                    patterns,
                    &format!("{at}[]"),
                    &format!("{shown}[{i}]"),
                    out,
                );
            }
        }
        leaf => {
            let allowed = patterns
                .iter()
                .filter(|p| bare(p) == at)
                .find_map(|p| p.split_once('=').map(|(_, v)| v));
            if let Some(values) = allowed {
                let text = match leaf {
                    Value::String(s) => s.clone(),
                    other => other.to_string(),
                };
                if !values.split('|').any(|v| v == text) {
                    out.push(format!("{shown}: {text}"));
                }
            }
        }
    }
}

/// A pattern without its values.
fn bare(p: &str) -> &str {
    p.split_once('=').map_or(p, |(b, _)| b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_pod_passes() {
        let spec = json!({
            "containers": [{"name": "a", "image": "b", "command": ["x"], "resources": {},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 1},
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}],
            "tolerations": [{"key": "a", "operator": "Exists"}], "securityContext": {},
            "hostUsers": null, "ephemeralContainers": []});
        assert_eq!(unsupported(&spec), Vec::<String>::new());
    }

    #[test]
    fn others_are_named() {
        for (spec, want) in [
            (
                json!({"containers": [{"livenessProbe": {"grpc": {"port": 1}}}]}),
                "spec.containers[0].livenessProbe.grpc",
            ),
            (json!({"runtimeClassName": "kata"}), "spec.runtimeClassName"),
            (
                json!({"volumes": [{"name": "a"}, {"name": "n", "nfs": {"server": "x"}}]}),
                "spec.volumes[1].nfs",
            ),
            (
                json!({"volumes": [{"name": "n", "ephemeral": {}}]}),
                "spec.volumes[0].ephemeral",
            ),
            (
                json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": 1, "protocol": "SCTP"}]}]}),
                "spec.containers[0].ports[0].hostPort: SCTP",
            ),
            (
                json!({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}),
                "spec.containers[0].resources.limits.nvidia.com/gpu",
            ),
            (
                json!({"containers": [{"securityContext": {"seccompProfile": {"type": "Localhost"}}}]}),
                "spec.containers[0].securityContext.seccompProfile.type: Localhost",
            ),
            (json!({"hostUsers": false}), "spec.hostUsers: false"),
            (json!({"os": {"name": "windows"}}), "spec.os.name: windows"),
            (
                json!({"volumes": [{"emptyDir": {"medium": "HugePages"}}]}),
                "spec.volumes[0].emptyDir.medium: HugePages",
            ),
            (
                json!({"containers": [{"restartPolicy": "Always"}]}),
                "spec.containers[0].restartPolicy",
            ),
        ] {
            assert_eq!(unsupported(&spec), [want], "{spec}");
        }
    }

    #[test]
    fn ephemeral_containers_fail_alone() {
        let spec = json!({"ephemeralContainers": [{"name": "x", "newField": 1}]});
        assert_eq!(unsupported(&spec), Vec::<String>::new());
        let of = |value: Value| unsupported_ephemeral(&serde_json::from_value(value).unwrap());
        let good = json!({"name": "d", "image": "i", "targetContainerName": "c", "stdin": true,
            "resources": {}, "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}});
        assert_eq!(of(good), Vec::<String>::new());
        assert_eq!(
            of(
                json!({"name": "d", "volumeDevices": [{"name": "b", "devicePath": "/b"}],
                "securityContext": {"seccompProfile": {"type": "Localhost"}}})
            ),
            [
                "securityContext.seccompProfile.type: Localhost",
                "volumeDevices"
            ]
        );
    }

    #[test]
    fn host_ports_are_notes_with_host_network() {
        let spec = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 1, "hostPort": 1, "protocol": "SCTP"}]}]});
        assert_eq!(unsupported(&spec), Vec::<String>::new());
        let spec = json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": 1, "hostIP": "::1", "protocol": "UDP"}]}]});
        assert_eq!(unsupported(&spec), Vec::<String>::new());
    }

    #[test]
    fn every_field_of_the_api_is_decided() {
        // A made-up field is refused rather than ignored.
        assert_eq!(unsupported(&json!({"newField": 1})), ["spec.newField"]);
        assert_eq!(
            unsupported(&json!({"containers": [{"name": "a", "x": {"y": 1}}]})),
            ["spec.containers[0].x"]
        );
    }
}
