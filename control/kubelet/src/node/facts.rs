//! What this machine is.

use std::fs;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::config::Config;
use crate::pure::downward::Allocatable;

/// Facts that don't change while the kubelet runs.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub hostname: String,
    pub host_ips: Vec<String>,
    pub cpus: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub allocatable: Allocatable,
    pub info: NodeSystemInfo,
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map(|s| s.trim().to_string())
        .unwrap_or_default()
}

/// A value in bytes of `/proc/meminfo`.
pub fn meminfo(text: &str, key: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.split(':').next() == Some(key))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The Go name of this architecture, as Kubernetes writes it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn os_image() -> String {
    let text = read("/etc/os-release");
    text.lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map(|v| v.trim_matches('"').to_string())
        .unwrap_or_else(|| "Linux".into())
}

impl NodeFacts {
    pub fn gather(config: &Config, runtime_version: String) -> anyhow::Result<Self> {
        let uname = nix::sys::utsname::uname()?;
        let hostname = uname.nodename().to_string_lossy().into_owned();
        let memory = meminfo(&fs::read_to_string("/proc/meminfo")?, "MemTotal")
            .ok_or_else(|| anyhow::anyhow!("/proc/meminfo has no MemTotal"))?;
        let fs = nix::sys::statvfs::statvfs(&config.root_dir)?;
        let ephemeral_storage = (fs.blocks() as i64).saturating_mul(fs.fragment_size() as i64);
        let cpus = std::thread::available_parallelism()?.get() as i64;
        let kernel = uname.release().to_string_lossy().into_owned();
        Ok(NodeFacts {
            hostname,
            host_ips: config.node_ips.iter().map(ToString::to_string).collect(),
            cpus,
            memory,
            ephemeral_storage,
            allocatable: Allocatable {
                cpu: cpus.to_string(),
                memory: memory.to_string(),
                ephemeral_storage: ephemeral_storage.to_string(),
            },
            info: NodeSystemInfo {
                architecture: architecture().into(),
                boot_id: read("/proc/sys/kernel/random/boot_id"),
                container_runtime_version: runtime_version,
                kernel_version: kernel,
                kube_proxy_version: String::new(),
                kubelet_version: format!("v1.36.0-rhumb.{}", env!("CARGO_PKG_VERSION")),
                machine_id: read("/etc/machine-id"),
                operating_system: "linux".into(),
                os_image: os_image(),
                swap: None,
                system_uuid: read("/sys/class/dmi/id/product_uuid").to_lowercase(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_values() {
        let text = "MemTotal:       1024 kB\nMemAvailable:   512 kB\nMemTotalX: 9 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(524_288));
        assert_eq!(meminfo(text, "None"), None);
    }
}
