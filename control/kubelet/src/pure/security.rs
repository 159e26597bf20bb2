//! Pod and container security settings in one effective form.

use k8s_openapi::api::core::v1::{Capabilities, Container, PodSpec, SeccompProfile};

/// Paths that a container doesn't see (the runtime's usual set, as the kubelet asks for it).
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that a container sees read-only.
pub const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Sysctls that Kubernetes lets any pod set.
/// <https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// A container's effective settings.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: bool,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub unmasked_proc: bool,
    pub seccomp_runtime_default: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub supplemental_groups: Vec<i64>,
}

fn runtime_default(profile: Option<&SeccompProfile>) -> bool {
    profile.is_some_and(|p| p.type_ == "RuntimeDefault")
}

/// The container's own settings over the pod's.
pub fn effective(spec: &PodSpec, c: &Container) -> Effective {
    let pod = spec.security_context.as_ref();
    let own = c.security_context.as_ref();
    let no_caps = Capabilities::default();
    let caps = own
        .and_then(|s| s.capabilities.as_ref())
        .unwrap_or(&no_caps);
    let mut supplemental_groups: Vec<i64> = pod
        .and_then(|p| p.supplemental_groups.clone())
        .unwrap_or_default();
    supplemental_groups.extend(pod.and_then(|p| p.fs_group));
    let privileged = own.and_then(|s| s.privileged).unwrap_or(false);
    Effective {
        run_as_user: own
            .and_then(|s| s.run_as_user)
            .or(pod.and_then(|p| p.run_as_user)),
        run_as_group: own
            .and_then(|s| s.run_as_group)
            .or(pod.and_then(|p| p.run_as_group)),
        run_as_non_root: own
            .and_then(|s| s.run_as_non_root)
            .or(pod.and_then(|p| p.run_as_non_root))
            .unwrap_or(false),
        privileged,
        read_only_root: own
            .and_then(|s| s.read_only_root_filesystem)
            .unwrap_or(false),
        no_new_privileges: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        unmasked_proc: own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked"),
        seccomp_runtime_default: runtime_default(
            own.and_then(|s| s.seccomp_profile.as_ref())
                .or(pod.and_then(|p| p.seccomp_profile.as_ref())),
        ),
        add_capabilities: caps.add.clone().unwrap_or_default(),
        drop_capabilities: caps.drop.clone().unwrap_or_default(),
        supplemental_groups,
    }
}

/// Whether any container of the pod is privileged: then the sandbox is too.
pub fn any_privileged(spec: &PodSpec) -> bool {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| c.security_context.as_ref())
        .chain(
            spec.ephemeral_containers
                .iter()
                .flatten()
                .map(|e| e.security_context.as_ref()),
        )
        .any(|s| s.and_then(|s| s.privileged) == Some(true))
}

/// The first sysctl that a pod may not set, with the reason.
pub fn forbidden_sysctl(spec: &PodSpec) -> Option<String> {
    let sysctls = spec.security_context.as_ref()?.sysctls.as_ref()?;
    sysctls.iter().find_map(|s| {
        let name = s.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: {:?} not allowlisted", s.name));
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return Some(format!(
                "forbidden sysctl: {:?} not allowed with host net enabled",
                s.name
            ));
        }
        (name.starts_with("kernel.shm") && spec.host_ipc == Some(true)).then(|| {
            format!(
                "forbidden sysctl: {:?} not allowed with host ipc enabled",
                s.name
            )
        })
    })
}

/// Why a container with runAsNonRoot may not run, given the image's user.
pub fn non_root_violation(
    e: &Effective,
    image_uid: Option<i64>,
    image_user: &str,
) -> Option<String> {
    if !e.run_as_non_root {
        return None;
    }
    match (e.run_as_user, image_uid) {
        (Some(0), _) => Some("container's runAsUser breaks non-root policy".into()),
        (Some(_), _) => None,
        (None, Some(0)) => Some("container has runAsNonRoot and image will run as root".into()),
        (None, Some(_)) => None,
        (None, None) if image_user.is_empty() => {
            Some("container has runAsNonRoot and image will run as root".into())
        }
        (None, None) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn own_settings_win() {
        let s: PodSpec = serde_json::from_value(json!({
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9, "supplementalGroups": [5],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "Unconfined"}}}, {"name": "d"}]}))
        .unwrap();
        let e = effective(&s, &s.containers[0]);
        assert_eq!((e.run_as_user, e.run_as_group), (Some(7), Some(2)));
        assert!(e.no_new_privileges && !e.seccomp_runtime_default);
        assert_eq!(e.supplemental_groups, [5, 9]);
        assert!(effective(&s, &s.containers[1]).seccomp_runtime_default);
    }

    #[test]
    fn non_root() {
        let e = |uid: Option<i64>| Effective {
            run_as_non_root: true,
            run_as_user: uid,
            ..Default::default()
        };
        assert!(non_root_violation(&e(None), Some(0), "").is_some());
        assert!(non_root_violation(&e(Some(0)), Some(5), "").is_some());
        assert!(
            non_root_violation(&e(None), None, "nobody")
                .unwrap()
                .contains("non-numeric")
        );
        assert!(non_root_violation(&e(Some(5)), Some(0), "").is_none());
        assert!(non_root_violation(&Effective::default(), Some(0), "").is_none());
    }

    #[test]
    fn sysctls() {
        let s = |name: &str, host: bool| -> PodSpec {
            serde_json::from_value(json!({"hostNetwork": host, "containers": [],
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}))
            .unwrap()
        };
        assert_eq!(forbidden_sysctl(&s("net.ipv4.tcp_syncookies", false)), None);
        assert!(forbidden_sysctl(&s("net.ipv4.tcp_syncookies", true)).is_some());
        assert!(
            forbidden_sysctl(&s("kernel.msgmax", false))
                .unwrap()
                .contains("not allowlisted")
        );
    }
}
