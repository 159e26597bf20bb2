//! Everything that can be set, parsed once and printed at start.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use ipnetwork::IpNetwork;

#[derive(Debug, Parser)]
#[command(
    name = "rhumb-agent",
    version,
    about = "Rhumb's node agent: Services, NetworkPolicy and routes in eBPF"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent. The datapath stays in place when it ends.
    // The last of an option given twice counts, as deployments append to a base's arguments.
    #[command(args_override_self = true)]
    Run(Box<Config>),
    /// Take away everything of ours on this node: programs, maps, routes, plugin and conflist.
    Uninstall(Dirs),
    /// Print version and ABI.
    Version,
}

/// Where things are.
#[derive(Clone, Debug, Args)]
pub struct Dirs {
    /// Pins of maps, programs and links; on a bpf file system.
    #[arg(long, env = "RHUMB_BPF_DIR", default_value = "/sys/fs/bpf/rhumb")]
    pub bpf_dir: PathBuf,
    /// node.json, the plugin's journal, the contents of policy ids.
    #[arg(long, env = "RHUMB_STATE_DIR", default_value = "/var/lib/rhumb")]
    pub state_dir: PathBuf,
    /// Sockets.
    #[arg(long, env = "RHUMB_RUN_DIR", default_value = "/run/rhumb")]
    pub run_dir: PathBuf,
    /// Where the runtime looks for plugins.
    #[arg(long, env = "RHUMB_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Where the runtime looks for network configurations.
    #[arg(long, env = "RHUMB_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Name of this node's Node object.
    #[arg(long, env = "RHUMB_NODE_NAME")]
    pub node_name: String,
    /// Default: the in-cluster service account.
    #[arg(long, env = "RHUMB_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub dirs: Dirs,
    /// cgroup2 directory of the socket hooks. Default: the cgroup2 mount.
    #[arg(long, env = "RHUMB_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
    /// Interface to other nodes and the outside. Default: that of the default route, or of the
    /// node's address.
    #[arg(long, env = "RHUMB_UPLINK")]
    pub uplink: Option<String>,
    /// Masquerade what pods send out of the cluster.
    #[arg(long, env = "RHUMB_MASQUERADE", default_value_t = true, action = clap::ArgAction::Set)]
    pub masquerade: bool,
    /// Destinations that are never masqueraded, beside the cluster's own.
    #[arg(long, env = "RHUMB_NON_MASQUERADE_CIDRS", value_delimiter = ',')]
    pub non_masquerade_cidrs: Vec<IpNetwork>,
    /// Note a pod's addresses on it (annotation `rhumb.io/addresses`), so that other nodes know the pod before
    /// its status has them.
    #[arg(long, env = "RHUMB_ANNOUNCE_ADDRESSES", default_value_t = true, action = clap::ArgAction::Set)]
    pub announce_addresses: bool,
    /// The container runtime's CRI socket, to find addresses that it has leaked: `unix:///…`, or `none`.
    /// Default: the first of containerd's, CRI-O's and cri-dockerd's usual ones that is there.
    #[arg(long, env = "RHUMB_CRI_ENDPOINT")]
    pub cri_endpoint: Option<String>,
    /// Seconds between two looks at the runtime's sandboxes.
    #[arg(long, env = "RHUMB_RECONCILE_INTERVAL", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub reconcile_interval: u64,
    /// /healthz /readyz /metrics /dump/…
    #[arg(long, env = "RHUMB_LISTEN", default_value = "127.0.0.1:9470")]
    pub listen: SocketAddr,
    /// What to log: a level, or tracing's filter syntax.
    #[arg(long, env = "RHUMB_LOG", default_value = "info")]
    pub log: String,
}
