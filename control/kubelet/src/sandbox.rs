//! The pod sandbox's configuration, and the files that go with it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};

use crate::kubelet::Kubelet;
use crate::labels;
use crate::pure::dns::{self, DnsSource};
use crate::pure::resources::qos;
use crate::pure::security;

pub fn meta(pod: &Pod) -> (&str, &str, &str) {
    let m = &pod.metadata;
    (
        m.namespace.as_deref().unwrap_or("default"),
        m.name.as_deref().unwrap_or(""),
        m.uid.as_deref().unwrap_or(""),
    )
}

/// The pod's host name: its spec's, or its own name cut to what the kernel takes.
pub fn hostname(pod: &Pod) -> String {
    let own = pod
        .spec
        .as_ref()
        .and_then(|s| s.hostname.as_deref())
        .filter(|h| !h.is_empty());
    let name = own.unwrap_or_else(|| pod.metadata.name.as_deref().unwrap_or(""));
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_string()
}

/// Namespaces that the pod shares with the node or among its containers.
pub fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let node = |on: Option<bool>| {
        (if on == Some(true) {
            cri::NamespaceMode::Node
        } else {
            cri::NamespaceMode::Pod
        }) as i32
    };
    cri::NamespaceOption {
        network: node(spec.host_network),
        ipc: node(spec.host_ipc),
        pid: match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => cri::NamespaceMode::Node,
            (_, Some(true)) => cri::NamespaceMode::Pod,
            _ => cri::NamespaceMode::Container,
        } as i32,
        ..Default::default()
    }
}

pub fn profile(runtime_default: bool) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = if runtime_default {
        ProfileType::RuntimeDefault
    } else {
        ProfileType::Unconfined
    };
    cri::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: String::new(),
    }
}

/// The configuration, and whether dnsPolicy ClusterFirst had to fall back.
pub fn config(k: &Kubelet, pod: &Pod, attempt: u32) -> (cri::PodSandboxConfig, bool) {
    let (namespace, name, uid) = meta(pod);
    let no_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let host = dns::parse(&fs::read_to_string(&k.config.resolv_conf).unwrap_or_default());
    let servers: Vec<String> = k
        .config
        .cluster_dns
        .iter()
        .map(ToString::to_string)
        .collect();
    let (resolver, fell_back) = dns::for_pod(
        spec,
        &DnsSource {
            host: &host,
            cluster_servers: &servers,
            cluster_domain: &k.config.cluster_domain,
            namespace,
        },
    );
    let mut all_labels: HashMap<String, String> = pod
        .metadata
        .labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    all_labels.extend(pod_labels(pod));
    let host_network = spec.host_network == Some(true);
    let security = spec.security_context.as_ref();
    let id = |v: Option<i64>| v.map(|value| cri::Int64Value { value });
    let mut groups = security
        .and_then(|s| s.supplemental_groups.clone())
        .unwrap_or_default();
    groups.extend(security.and_then(|s| s.fs_group));
    let sysctls = security
        .and_then(|s| s.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|s| (s.name.replace('/', "."), s.value.clone()));
    let run_as_user = security.and_then(|s| s.run_as_user);
    let config = cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt,
        }),
        // The node's own name stays with host networking.
        hostname: if host_network {
            String::new()
        } else {
            hostname(pod)
        },
        log_directory: k
            .config
            .pod_log_dir(namespace, name, uid)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(cri::DnsConfig {
            servers: resolver.servers,
            searches: resolver.searches,
            options: resolver.options,
        }),
        port_mappings: match host_network {
            true => vec![],
            false => port_mappings(spec),
        },
        labels: all_labels,
        annotations: pod
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: k.cgroups.pod_path(uid, qos(spec)),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(spec)),
                run_as_user: id(run_as_user),
                // CRI refuses a group without a user.
                run_as_group: id(run_as_user.and(security.and_then(|s| s.run_as_group))),
                supplemental_groups: groups,
                privileged: security::any_privileged(spec),
                seccomp: Some(profile(true)),
                ..Default::default()
            }),
            sysctls: sysctls.collect(),
            ..Default::default()
        }),
        windows: None,
    };
    (config, fell_back)
}

/// The ports of the node that are to lead to the pod, for the runtime to tell its network plugin.
fn port_mappings(spec: &PodSpec) -> Vec<cri::PortMapping> {
    let ports = spec
        .containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten());
    let mapping = |port: &ContainerPort| {
        let host_port = port.host_port.filter(|p| *p > 0)?;
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        };
        Some(cri::PortMapping {
            protocol: protocol.into(),
            container_port: port.container_port,
            host_port,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    ports.filter_map(mapping).collect()
}

/// The labels by which sandboxes and containers are found again.
pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let (namespace, name, uid) = meta(pod);
    [
        (labels::POD_NAME, name),
        (labels::POD_NAMESPACE, namespace),
        (labels::POD_UID, uid),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect()
}

/// The pod's /etc/hosts.
pub fn hosts_file(
    pod: &Pod,
    ips: &[String],
    cluster_domain: &str,
    node_hosts: Option<&str>,
) -> String {
    let no_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let mut out = String::new();
    match node_hosts {
        Some(text) => {
            out.push_str("# Kubernetes-managed hosts file (host network).\n");
            out.push_str(text);
        }
        None => {
            out.push_str(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
            );
            let name = hostname(pod);
            let full = spec
                .subdomain
                .as_deref()
                .filter(|s| !s.is_empty())
                .map(|sub| {
                    format!(
                        "{name}.{sub}.{}.svc.{cluster_domain}",
                        pod.metadata.namespace.as_deref().unwrap_or("default")
                    )
                });
            for ip in ips {
                // Writing to a String can't fail.
                let _ = match &full {
                    Some(full) => writeln!(out, "{ip}\t{full}\t{name}"),
                    None => writeln!(out, "{ip}\t{name}"),
                };
            }
        }
    }
    if let Some(aliases) = spec.host_aliases.as_ref().filter(|a| !a.is_empty()) {
        out.push_str("\n# Entries added by HostAliases.\n");
        for a in aliases {
            let _ = writeln!(
                out,
                "{}\t{}",
                a.ip,
                a.hostnames.clone().unwrap_or_default().join("\t")
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_names_and_hosts() {
        let long = "a".repeat(62) + "-bcd";
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": long, "namespace": "n"}, "spec": {"containers": []}}),
        )
        .unwrap();
        assert_eq!(hostname(&pod), "a".repeat(62));
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}}))
        .unwrap();
        let text = hosts_file(&pod, &["10.0.0.1".into()], "cluster.local", None);
        assert!(
            text.contains("10.0.0.1\th.s.n.svc.cluster.local\th\n"),
            "{text}"
        );
        assert!(text.ends_with("1.2.3.4\tx\ty\n"), "{text}");
        assert!(hosts_file(&pod, &[], "c", Some("127.0.0.1 me\n")).contains("127.0.0.1 me\n"));
    }
}
