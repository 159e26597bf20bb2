//! The checks of the standards, each as of the versions in which it changed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Level, Standard, Version, Violation};
use crate::json::{at, flag, int, list, map, text};

pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

type Check = fn(&Pod<'_>, Version) -> Option<Violation>;

/// By the names that Kubernetes gives the checks, which order its messages.
const BASELINE: &[Check] = &[
    app_armor,
    baseline_capabilities,
    host_namespaces,
    host_path_volumes,
    host_ports,
    probe_hosts,
    privileged,
    proc_mount,
    se_linux,
    baseline_seccomp,
    sysctls,
    windows_host_process,
];
const RESTRICTED: &[Check] = &[
    privilege_escalation,
    restricted_capabilities,
    restricted_volumes,
    run_as_non_root,
    run_as_user,
    restricted_seccomp,
];

/// A pod, or the template of one.
struct Pod<'a> {
    whole: &'a Value,
    /// Restricted checks stand in for baseline ones.
    restricted: bool,
}

pub fn run(standard: Standard, pod: &Value) -> Vec<Violation> {
    let restricted = standard.level == Level::Restricted;
    let checks: &[&[Check]] = match standard.level {
        Level::Privileged => &[],
        Level::Baseline => &[BASELINE],
        Level::Restricted => &[BASELINE, RESTRICTED],
    };
    let pod = Pod {
        whole: pod,
        restricted,
    };
    let all = checks.iter().flat_map(|checks| checks.iter());
    all.filter_map(|check| check(&pod, standard.version))
        .collect()
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let all = [
            "spec.initContainers",
            "spec.containers",
            "spec.ephemeralContainers",
        ];
        let whole = self.whole;
        all.into_iter().flat_map(move |path| list(whole, path))
    }

    /// The names of the containers that a test holds for.
    fn which(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|c| bad(c))
            .map(|c| text(c, "name"))
            .collect()
    }

    fn context(&self) -> Option<&'a Value> {
        at(self.whole, "spec.securityContext")
    }

    fn is_windows(&self) -> bool {
        text(self.whole, "spec.os.name") == "windows"
    }

    /// A user namespace makes of root nobody.
    fn has_user_namespace(&self) -> bool {
        at(self.whole, "spec.hostUsers") == Some(&Value::Bool(false))
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = map(self.whole, "metadata.annotations");
        annotations
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
    }
}

fn since(version: Version, minor: u32) -> bool {
    version >= Version::Minor(minor)
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
fn quoted<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    let texts: Vec<String> = values
        .into_iter()
        .map(|v| format!("{:?}", v.as_ref()))
        .collect();
    texts.join(", ")
}

/// `container "a"`, `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    let noun = plural(containers.len(), "container", "containers");
    format!("{noun} {}", quoted(containers))
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation {
        reason: reason.into(),
        detail,
    })
}

/// `pod and containers "a", "b"`; `None` if neither is to blame.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut out = Vec::new();
    if pod {
        out.push("pod".to_string());
    }
    if !containers.is_empty() {
        out.push(named(containers));
    }
    (!out.is_empty()).then(|| out.join(" and "))
}

fn app_armor(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| {
        let profile = at(context, "appArmorProfile").map(|p| text(p, "type"));
        let bad = profile.filter(|p| !matches!(*p, "RuntimeDefault" | "Localhost"));
        values.extend(bad.map(str::to_string));
        bad.is_some()
    };
    let of_pod = pod.context().is_some_and(&mut bad);
    let containers = pod.which(|c| at(c, "securityContext").is_some_and(&mut bad));
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let allowed =
                value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let mut by: Vec<String> = setters(of_pod, &containers).into_iter().collect();
    if !annotations.is_empty() {
        by.push(plural(annotations.len(), "annotation", "annotations").into());
    }
    if by.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    violation(
        plural(
            values.len(),
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            by.join(" and "),
            quoted(&values)
        ),
    )
}

/// What containers add that isn't allowed, and which containers do.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut values = BTreeSet::new();
    let containers = pod.which(|c| {
        let added = list(c, "securityContext.capabilities.add").iter();
        let bad: Vec<&str> = added
            .filter_map(Value::as_str)
            .filter(|c| !allowed.contains(c))
            .collect();
        values.extend(bad.iter().copied());
        !bad.is_empty()
    });
    (containers, values)
}

fn baseline_capabilities(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if pod.restricted && since(version, 22) {
        return None;
    }
    let allowed = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (containers, values) = added(pod, &allowed);
    if containers.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&containers),
            quoted(values)
        ),
    )
}

fn host_namespaces(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| flag(pod.whole, &format!("spec.{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    violation("host namespaces", set.join(", "))
}

fn host_path_volumes(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    if pod.restricted {
        return None;
    }
    let volumes: Vec<&str> = list(pod.whole, "spec.volumes")
        .iter()
        .filter(|v| at(v, "hostPath").is_some())
        .map(|v| text(v, "name"))
        .collect();
    if volumes.is_empty() {
        return None;
    }
    let noun = plural(volumes.len(), "volume", "volumes");
    violation("hostPath volumes", format!("{noun} {}", quoted(volumes)))
}

fn host_ports(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.which(|c| {
        let bad: Vec<String> = list(c, "ports")
            .iter()
            .filter_map(|p| int(p, "hostPort"))
            .filter(|p| *p != 0)
            .map(|p| p.to_string())
            .collect();
        ports.extend(bad.iter().cloned());
        !bad.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    let list: Vec<String> = ports.into_iter().collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            named(&containers),
            plural(containers.len(), "uses", "use"),
            plural(list.len(), "hostPort", "hostPorts"),
            list.join(", ")
        ),
    )
}

fn probe_hosts(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !since(version, 34) {
        return None;
    }
    let mut hosts = BTreeSet::new();
    let containers: BTreeSet<&str> = pod
        .which(|c| {
            let handlers = [
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
                "lifecycle.postStart",
                "lifecycle.preStop",
            ];
            let found: Vec<&str> = handlers
                .into_iter()
                .filter_map(|path| at(c, path))
                .flat_map(|h| [text(h, "httpGet.host"), text(h, "tcpSocket.host")])
                .filter(|host| !host.is_empty())
                .collect();
            hosts.extend(found.iter().copied());
            !found.is_empty()
        })
        .into_iter()
        .collect();
    if containers.is_empty() {
        return None;
    }
    let containers: Vec<&str> = containers.into_iter().collect();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            named(&containers),
            plural(containers.len(), "uses", "use"),
            plural(
                hosts.len(),
                "probe or lifecycle host",
                "probe or lifecycle hosts"
            ),
            quoted(hosts)
        ),
    )
}

fn privileged(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let containers = pod.which(|c| flag(c, "securityContext.privileged"));
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.privileged=true",
        named(&containers)
    );
    violation("privileged", detail)
}

fn proc_mount(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if since(version, 35) && pod.has_user_namespace() {
        return None;
    }
    let mut values = BTreeSet::new();
    let containers = pod.which(|c| match text(c, "securityContext.procMount") {
        "" | "Default" => false,
        other => {
            values.insert(other);
            true
        }
    });
    if containers.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            named(&containers),
            quoted(values)
        ),
    )
}

fn se_linux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |context: &Value| {
        let Some(options) = at(context, "seLinuxOptions") else {
            return false;
        };
        let ty = text(options, "type");
        let allowed = matches!(
            ty,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || (ty == "container_engine_t" && since(version, 31));
        if !allowed {
            types.insert(ty.to_string());
        }
        let (has_user, has_role) = (
            !text(options, "user").is_empty(),
            !text(options, "role").is_empty(),
        );
        user |= has_user;
        role |= has_role;
        !allowed || has_user || has_role
    };
    let of_pod = pod.context().is_some_and(&mut bad);
    let containers = pod.which(|c| at(c, "securityContext").is_some_and(&mut bad));
    let by = setters(of_pod, &containers)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        let noun = plural(types.len(), "type", "types");
        data.push(format!("{noun} {}", quoted(types)));
    }
    if user {
        data.push("user may not be set".into());
    }
    if role {
        data.push("role may not be set".into());
    }
    violation(
        "seLinuxOptions",
        format!(
            "{by} set forbidden securityContext.seLinuxOptions: {}",
            data.join("; ")
        ),
    )
}

fn seccomp_type(context: &Value) -> Option<&str> {
    at(context, "seccompProfile").map(|p| text(p, "type"))
}

fn is_good_seccomp(ty: &str) -> bool {
    matches!(ty, "RuntimeDefault" | "Localhost")
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let names: Vec<String> = pod
        .containers()
        .map(|c| format!("{SECCOMP_CONTAINER}{}", text(c, "name")))
        .collect();
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, _)| *key == SECCOMP_POD || names.iter().any(|n| n == key))
        .filter(|(_, value)| {
            !matches!(*value, "runtime/default" | "docker/default")
                && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let noun = plural(bad.len(), "annotation", "annotations");
    let list: Vec<String> = bad.into_iter().collect();
    violation(
        "seccompProfile",
        format!("forbidden {noun} {}", list.join(", ")),
    )
}

/// Profiles that are set, and may not be.
fn bad_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| match seccomp_type(context) {
        Some(ty) if !is_good_seccomp(ty) => {
            values.insert(ty.to_string());
            true
        }
        _ => false,
    };
    let of_pod = pod.context().is_some_and(&mut bad);
    let containers = pod.which(|c| at(c, "securityContext").is_some_and(&mut bad));
    let by = setters(of_pod, &containers)?;
    violation(
        "seccompProfile",
        format!(
            "{by} must not set securityContext.seccompProfile.type to {}",
            quoted(values)
        ),
    )
}

fn baseline_seccomp(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    match since(version, 19) {
        true if pod.restricted => None,
        true => bad_seccomp(pod),
        false => seccomp_annotations(pod),
    }
}

fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed = |name: &str| match name {
        "kernel.shm_rmid_forced"
        | "net.ipv4.ip_local_port_range"
        | "net.ipv4.tcp_syncookies"
        | "net.ipv4.ping_group_range"
        | "net.ipv4.ip_unprivileged_port_start" => true,
        "net.ipv4.ip_local_reserved_ports" => since(version, 27),
        "net.ipv4.tcp_keepalive_time"
        | "net.ipv4.tcp_fin_timeout"
        | "net.ipv4.tcp_keepalive_intvl"
        | "net.ipv4.tcp_keepalive_probes" => since(version, 29),
        "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => since(version, 32),
        _ => false,
    };
    let bad: Vec<&str> = list(pod.whole, "spec.securityContext.sysctls")
        .iter()
        .map(|s| text(s, "name"))
        .filter(|name| !allowed(name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    violation("forbidden sysctls", bad.join(", "))
}

fn windows_host_process(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let bad = |context: &Value| flag(context, "windowsOptions.hostProcess");
    let containers = pod.which(|c| at(c, "securityContext").is_some_and(bad));
    let by = setters(pod.context().is_some_and(bad), &containers)?;
    let detail = format!("{by} must not set securityContext.windowsOptions.hostProcess=true");
    violation("hostProcess", detail)
}

fn privilege_escalation(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !since(version, 8) || (since(version, 25) && pod.is_windows()) {
        return None;
    }
    let no = Some(&Value::Bool(false));
    let containers = pod.which(|c| at(c, "securityContext.allowPrivilegeEscalation") != no);
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must set securityContext.allowPrivilegeEscalation=false",
        named(&containers)
    );
    violation("allowPrivilegeEscalation != false", detail)
}

fn restricted_capabilities(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !since(version, 22) || (since(version, 25) && pod.is_windows()) {
        return None;
    }
    let keeping = pod.which(|c| {
        let dropped = list(c, "securityContext.capabilities.drop");
        !dropped.iter().any(|c| c == "ALL")
    });
    let (adding, values) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named(&keeping)
        ));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&adding),
            quoted(values)
        ));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

fn restricted_volumes(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const KNOWN: &[&str] = &[
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let (mut volumes, mut types) = (Vec::new(), BTreeSet::new());
    for volume in list(pod.whole, "spec.volumes") {
        if ALLOWED.iter().any(|source| at(volume, source).is_some()) {
            continue;
        }
        let ty = KNOWN.iter().find(|source| at(volume, source).is_some());
        volumes.push(text(volume, "name"));
        types.insert(*ty.unwrap_or(&"unknown"));
    }
    if volumes.is_empty() {
        return None;
    }
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural(volumes.len(), "volume", "volumes"),
            quoted(&volumes),
            plural(volumes.len(), "uses", "use"),
            plural(
                types.len(),
                "restricted volume type",
                "restricted volume types"
            ),
            quoted(types)
        ),
    )
}

fn run_as_non_root(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if since(version, 35) && pod.has_user_namespace() {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let of = |context: Option<&Value>| {
        context
            .and_then(|c| at(c, "runAsNonRoot"))
            .and_then(Value::as_bool)
    };
    let of_pod = of(pod.context());
    let refusing = pod.which(|c| of(at(c, "securityContext")) == Some(false));
    if let Some(by) = setters(of_pod == Some(false), &refusing) {
        let detail = format!("{by} must not set securityContext.runAsNonRoot=false");
        return violation(REASON, detail);
    }
    let silent = pod.which(|c| of(at(c, "securityContext")).is_none() && of_pod != Some(true));
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.runAsNonRoot=true",
        named(&silent)
    );
    violation(REASON, detail)
}

fn run_as_user(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !since(version, 23) || (since(version, 35) && pod.has_user_namespace()) {
        return None;
    }
    let root = |context: &Value| int(context, "runAsUser") == Some(0);
    let containers = pod.which(|c| at(c, "securityContext").is_some_and(root));
    let by = setters(pod.context().is_some_and(root), &containers)?;
    violation("runAsUser=0", format!("{by} must not set runAsUser=0"))
}

fn restricted_seccomp(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !since(version, 19) || (since(version, 25) && pod.is_windows()) {
        return None;
    }
    if let Some(found) = bad_seccomp(pod) {
        return Some(found);
    }
    let set = |context: Option<&Value>| context.and_then(seccomp_type).is_some();
    let of_pod = set(pod.context());
    let silent = pod.which(|c| !of_pod && !set(at(c, "securityContext")));
    if silent.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&silent)
        ),
    )
}
