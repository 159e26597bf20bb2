//! Names, addresses and paths of a dev cluster: what ARCHITECTURE.md ("Dev cluster") lays down.

use anyhow::ensure;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Pods' addresses of the whole cluster.
pub const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// Services' addresses.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// The registry's host and port, as image names have it.
pub const REGISTRY: &str = "registry.test:5000";

/// Hosts on the wire, by the last number of their addresses.
pub const BRIDGE: u8 = 1;
/// The control plane.
pub const CONTROL: u8 = 2;
/// The client outside of the cluster.
pub const OUTSIDE: u8 = 9;
/// Node 1 is 11, and so on.
const NODES: u8 = 10;
/// The bridge's ports and the last number of an address leave room for so many.
pub const MOST_NODES: usize = 20;

/// IPv4 address of a host on the wire.
pub fn ip4(host: u8) -> IpAddr {
    Ipv4Addr::new(172, 30, 0, host).into()
}

/// IPv6 address of a host on the wire: the same digits, read as people read them.
pub fn ip6(host: u8) -> IpAddr {
    // 11 becomes ::11, which is 0x11.
    let last = u16::from(host / 10) * 16 + u16::from(host % 10);
    Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, last).into()
}

/// A cluster's places.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The cluster's name.
    pub name: String,
    /// `target/dev/<name>`, absolute and without links.
    pub dir: PathBuf,
}

/// A node's places.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its address on the wire.
    pub ip4: IpAddr,
    /// Its IPv6 address on the wire.
    pub ip6: IpAddr,
    /// Its files.
    pub dir: PathBuf,
    /// Its sockets and what else does not outlive a boot.
    pub run_dir: PathBuf,
    /// Its cgroup: daemons below `system`, pods below `pods`.
    pub cgroup: String,
}

impl Layout {
    /// The places of a cluster whose files are below `target`.
    pub fn new(target: &Path, name: &str) -> anyhow::Result<Self> {
        ensure!(
            !name.is_empty()
                && name.len() <= 20
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "`{name}` is no name for a cluster: up to 20 small letters and digits"
        );
        Ok(Self {
            name: name.to_owned(),
            dir: target.join("dev").join(name),
        })
    }

    /// The prefix of namespaces and cgroups.
    pub fn prefix(&self) -> String {
        format!("rhumb-{}-", self.name)
    }

    /// Sockets live here, not below `target`: a socket's path has at most 107 bytes.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/rhumb-{}", self.name))
    }

    /// A namespace's name.
    pub fn netns(&self, role: &str) -> String {
        format!("{}{role}", self.prefix())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        if self.name == "dev" {
            self.dir.with_file_name("kubeconfig")
        } else {
            self.dir.join("kubeconfig")
        }
    }

    /// The supervisor's plan.
    pub fn plan(&self) -> PathBuf {
        self.dir.join("plan.json")
    }

    /// The supervisor's pid: found by the cluster's name alone, since another clone of the
    /// repository may have started it.
    pub fn supervisor_pid(&self) -> PathBuf {
        self.run_dir().join("supervisor.pid")
    }

    /// What was chosen when the cluster was started.
    pub fn state(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// The daemons' logs.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The control plane's files.
    pub fn control_dir(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// The binaries that this cluster runs: a later build does not change them under its feet.
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The layout that the registry serves.
    pub fn registry_dir(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// Node number 1, 2, ….
    pub fn node(&self, number: usize) -> Node {
        let name = format!("node{number}");
        let host = NODES + u8::try_from(number).unwrap_or(u8::MAX - NODES);
        Node {
            netns: self.netns(&name),
            ip4: ip4(host),
            ip6: ip6(host),
            dir: self.dir.join(&name),
            run_dir: self.run_dir().join(&name),
            cgroup: format!("/{}{name}", self.prefix()),
            name,
        }
    }
}

impl Node {
    /// containerd's socket.
    pub fn containerd(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    /// Where the runtime looks for plugins.
    pub fn cni_bin_dir(&self) -> PathBuf {
        self.dir.join("cni/bin")
    }

    /// Where the runtime looks for the network's configuration.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.dir.join("cni/net.d")
    }

    /// The node's bpffs.
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpf")
    }

    /// The agent's pins.
    pub fn bpf_dir(&self) -> PathBuf {
        self.bpffs().join("rhumb")
    }

    /// The agent's and the plugin's state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("rhumb")
    }

    /// The agent's sockets.
    pub fn agent_run_dir(&self) -> PathBuf {
        self.run_dir.join("agent")
    }

    /// The kubelet's root.
    pub fn kubelet_dir(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    /// The pods' logs.
    pub fn pod_log_dir(&self) -> PathBuf {
        self.dir.join("pods-log")
    }

    /// A daemon's name in the supervisor's plan.
    pub fn daemon(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike() {
        assert_eq!(ip4(11).to_string(), "172.30.0.11");
        assert_eq!(ip6(11).to_string(), "fd00:172:30::11");
        assert_eq!(ip6(BRIDGE).to_string(), "fd00:172:30::1");
        assert_eq!(ip6(OUTSIDE).to_string(), "fd00:172:30::9");
    }

    #[test]
    fn names() {
        let target = Path::new("/t");
        assert!(Layout::new(target, "a-b").is_err());
        assert!(Layout::new(target, "../x").is_err());
        let dev = Layout::new(target, "dev").unwrap();
        assert_eq!(dev.kubeconfig(), Path::new("/t/dev/kubeconfig"));
        assert_eq!(dev.netns("wire"), "rhumb-dev-wire");
        let other = Layout::new(target, "other").unwrap();
        assert_eq!(other.kubeconfig(), Path::new("/t/dev/other/kubeconfig"));
        assert_eq!(other.node(2).cgroup, "/rhumb-other-node2");
    }
}
