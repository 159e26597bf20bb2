use serde_json::{Value, json};

use super::*;

fn standard(text: &str) -> Standard {
    let (level_text, version_text) = text.split_once(':').unwrap();
    Standard {
        level: level(level_text).unwrap(),
        version: version(version_text).unwrap(),
    }
}

fn found(text: &str, pod: &Value) -> String {
    details(&evaluate(standard(text), pod))
}

fn good() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {}}]}})
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let pod = json!({"spec": {"containers": [{"name": "c"}]}});
    assert_eq!(found("privileged:latest", &pod), "");
    assert_eq!(found("baseline:latest", &pod), "");
    assert_eq!(
        found("restricted:latest", &pod),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(found("restricted:latest", &good()), "");
    // Before 1.8 nothing but root was forbidden here.
    assert_eq!(
        found("restricted:v1.7", &pod),
        "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
    );
}

/// Where a good pod is changed, to what, and what that breaks of which standard.
#[test]
fn each_check_has_its_words() {
    let c = "/spec/containers/0/securityContext";
    let cases: &[(&str, String, Value, &str)] = &[
        (
            "baseline:latest",
            "/spec/hostNetwork".into(),
            json!(true),
            "host namespaces (hostNetwork=true)",
        ),
        (
            "baseline:latest",
            "/spec/volumes/0".into(),
            json!({"name": "v", "hostPath": {"path": "/"}}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            "restricted:latest",
            "/spec/volumes/0".into(),
            json!({"name": "v", "hostPath": {"path": "/"}}),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            "baseline:latest",
            "/spec/containers/0/ports".into(),
            json!([{"hostPort": 80}, {"hostPort": 443}]),
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            "baseline:latest",
            format!("{c}/privileged"),
            json!(true),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            "baseline:latest",
            format!("{c}/procMount"),
            json!("Unmasked"),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "baseline:latest",
            format!("{c}/capabilities/add"),
            json!(["SYS_ADMIN", "KILL"]),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "restricted:latest",
            format!("{c}/capabilities/add"),
            json!(["KILL", "NET_BIND_SERVICE"]),
            "unrestricted capabilities (container \"c\" must not include \"KILL\" in securityContext.capabilities.add)",
        ),
        (
            "restricted:v1.21",
            format!("{c}/capabilities/add"),
            json!(["KILL"]),
            "",
        ),
        (
            "baseline:latest",
            format!("{c}/appArmorProfile"),
            json!({"type": "Unconfined"}),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "baseline:latest",
            "/metadata/annotations".into(),
            json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\\\"unconfined\\\"\")",
        ),
        (
            "baseline:latest",
            "/spec/securityContext/seLinuxOptions".into(),
            json!({"type": "spc_t", "user": "u"}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            "baseline:latest",
            "/spec/securityContext/seLinuxOptions".into(),
            json!({"type": "container_engine_t"}),
            "",
        ),
        (
            "baseline:v1.30",
            "/spec/securityContext/seLinuxOptions".into(),
            json!({"type": "container_engine_t"}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        ),
        (
            "baseline:latest",
            format!("{c}/seccompProfile"),
            json!({"type": "Unconfined"}),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "restricted:latest",
            "/spec/securityContext/seccompProfile".into(),
            json!({"type": "Unconfined"}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "baseline:v1.18",
            "/metadata/annotations".into(),
            json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}),
            "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
        ),
        (
            "baseline:latest",
            "/spec/securityContext/sysctls".into(),
            json!([{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "baseline:v1.31",
            "/spec/securityContext/sysctls".into(),
            json!([{"name": "net.ipv4.tcp_rmem"}]),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        (
            "baseline:latest",
            "/spec/securityContext/windowsOptions".into(),
            json!({"hostProcess": true}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "baseline:latest",
            "/spec/containers/0/livenessProbe".into(),
            json!({"httpGet": {"host": "10.0.0.1"}}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            "baseline:v1.33",
            "/spec/containers/0/livenessProbe".into(),
            json!({"httpGet": {"host": "10.0.0.1"}}),
            "",
        ),
        (
            "restricted:latest",
            format!("{c}/runAsNonRoot"),
            json!(false),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            "restricted:latest",
            "/spec/securityContext/runAsUser".into(),
            json!(0),
            "runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            "restricted:v1.22",
            "/spec/securityContext/runAsUser".into(),
            json!(0),
            "",
        ),
    ];
    for (text, path, value, expected) in cases {
        let mut pod = good();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let place = pod.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(i) => place[i] = value.clone(),
            Err(_) => place[key] = value.clone(),
        }
        assert_eq!(found(text, &pod), *expected, "{text} {path}={value}");
    }
}

#[test]
fn labels_make_the_policy() {
    let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
    let (policy_of, errors) = policy(&namespace(json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.25",
        "pod-security.kubernetes.io/warn": "restricted",
    })));
    assert!(errors.is_empty());
    assert_eq!(policy_of.enforce.to_string(), "baseline:v1.25");
    assert_eq!(policy_of.warn.to_string(), "restricted:latest");
    assert_eq!(policy_of.audit.to_string(), "privileged:latest");
    let (policy_of, errors) = policy(&namespace(json!({
        "pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/warn": "strict",
        "pod-security.kubernetes.io/audit-version": "v1.025",
    })));
    assert_eq!(policy_of.enforce.level, Level::Restricted);
    assert_eq!(policy_of.warn.level, Level::Privileged);
    let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts[0],
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    assert_eq!(
        texts[1],
        "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.025\": must be \"latest\" or \"v1.x\""
    );
}

#[test]
fn only_what_matters_is_looked_at_again() {
    let old = good();
    let mut new = good();
    new["metadata"]["labels"] = json!({"a": "b"});
    assert!(!is_significant_update(&new, &old));
    new["spec"]["containers"][0]["image"] = "j".into();
    assert!(is_significant_update(&new, &old));
    let mut new = good();
    new["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
    assert!(is_significant_update(&new, &old));

    let (baseline, restricted) = (standard("baseline:latest"), standard("restricted:latest"));
    assert!(tightens(restricted, baseline));
    assert!(!tightens(baseline, restricted));
    assert!(!tightens(baseline, baseline));
    assert!(tightens(standard("baseline:v1.20"), restricted));
    assert!(!tightens(standard("privileged:v1.20"), restricted));
}

#[test]
fn existing_pods_are_warned_about() {
    let named = |name: &str, network: bool| json!({"metadata": {"name": name}, "spec": {"hostNetwork": network, "containers": []}});
    let pods = [named("b", true), named("a", true), named("c", false)];
    assert_eq!(
        existing("ns", standard("baseline:latest"), &pods),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
        ]
    );
    assert!(existing("ns", standard("baseline:latest"), &pods[2..]).is_empty());
}

#[test]
fn templates_are_found() {
    let job = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"a": 1}}}}}});
    assert_eq!(pod_of("batch", "CronJob", &job).unwrap()["spec"]["a"], 1);
    assert!(pod_of("apps", "Deployment", &json!({})).is_none());
    assert!(pod_of("", "Service", &json!({"spec": {}})).is_none());
}
