//! The kubelet's flags, checked once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Flags of `rhumb-control kubelet`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Name of this node in the cluster.
    #[arg(long)]
    pub node_name: String,
    /// Kubeconfig with this node's client certificate; the same certificate serves the kubelet's port.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Addresses of this node, one a family, the primary one first.
    #[arg(long, value_delimiter = ',', required = true)]
    pub node_ip: Vec<IpAddr>,
    /// CRI endpoint of the container runtime.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub containerd: String,
    /// Directory for pod volumes and the kubelet's files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Directory for container logs.
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_log_dir: PathBuf,
    /// Cgroup below which each pod gets one, as a path from the root of every hierarchy.
    #[arg(long, default_value = "/kubepods")]
    pub cgroup_parent: String,
    /// TLS port for logs and exec.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Name servers of the cluster for pods with dnsPolicy ClusterFirst.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Resolver file that pods with dnsPolicy Default inherit.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// The largest number of pods on this node.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u32,
    /// The node has DiskPressure, and takes no new pods, when less than this percentage of the
    /// root directory's file system is free.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub min_disk_free: u64,
}

/// What the kubelet runs with.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    pub kubeconfig: PathBuf,
    pub node_ips: Vec<IpAddr>,
    /// Path of the runtime's unix socket.
    pub runtime_socket: PathBuf,
    pub root_dir: PathBuf,
    pub pod_log_dir: PathBuf,
    /// With a leading slash and without a trailing one.
    pub cgroup_parent: String,
    pub port: u16,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    /// Percent.
    pub min_disk_free: u64,
}

impl TryFrom<Args> for Config {
    type Error = anyhow::Error;

    fn try_from(a: Args) -> anyhow::Result<Self> {
        let socket = a.containerd.strip_prefix("unix://").with_context(|| {
            format!(
                "--containerd {:?}: write it as unix:///path/to/containerd.sock",
                a.containerd
            )
        })?;
        if !Path::new(socket).is_absolute() {
            bail!(
                "--containerd {:?}: the socket's path must be absolute",
                a.containerd
            );
        }
        if a.node_name.is_empty() {
            bail!("--node-name is empty");
        }
        if a.node_ip.len() > 2
            || (a.node_ip.len() == 2 && a.node_ip[0].is_ipv4() == a.node_ip[1].is_ipv4())
        {
            bail!("--node-ip takes one address, or one of each family");
        }
        for (flag, path) in [
            ("--root-dir", &a.root_dir),
            ("--pod-log-dir", &a.pod_log_dir),
        ] {
            if !path.is_absolute() {
                bail!("{flag} {}: the path must be absolute", path.display());
            }
        }
        let parent = a.cgroup_parent.trim_matches('/');
        if parent.is_empty()
            || parent
                .split('/')
                .any(|p| p.is_empty() || p == "." || p == "..")
        {
            bail!(
                "--cgroup-parent {:?}: name a cgroup below the root, such as /kubepods",
                a.cgroup_parent
            );
        }
        Ok(Config {
            node_name: a.node_name,
            kubeconfig: a.kubeconfig,
            node_ips: a.node_ip,
            runtime_socket: socket.into(),
            root_dir: a.root_dir,
            pod_log_dir: a.pod_log_dir,
            cgroup_parent: format!("/{parent}"),
            port: a.port,
            cluster_dns: a.cluster_dns,
            cluster_domain: a.cluster_domain,
            resolv_conf: a.resolv_conf,
            max_pods: a.max_pods,
            min_disk_free: a.min_disk_free,
        })
    }
}

impl Config {
    /// `<root>/pods/<uid>`: everything of one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// `<logs>/<namespace>_<name>_<uid>`: the pod's container logs.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
