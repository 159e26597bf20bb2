//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;

/// The small control plane of Rhumb: store, API server, scheduler, controllers and kubelet.
#[derive(Debug, clap::Parser)]
#[command(name = "rhumb-control", version)]
pub struct Args {
    /// What to log: a level, or targets with levels (`info,rhumb_apiserver=debug`).
    #[arg(long, env = "RHUMB_LOG", default_value = "info", global = true)]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run store, API server, scheduler and controllers.
    Server(Server),
    /// Issue a client certificate of the cluster's authority as a kubeconfig.
    Kubeconfig(Kubeconfig),
    /// Run the kubelet of one node.
    Kubelet(rhumb_kubelet::Args),
}

#[derive(Debug, clap::Args)]
pub struct Server {
    /// Directory of the store, the keys and admin.kubeconfig.
    #[arg(long, env = "RHUMB_DATA_DIR", default_value = "/var/lib/rhumb-control")]
    pub data_dir: PathBuf,
    /// Addresses to serve, besides sockets handed over by LISTEN_FDS.
    #[arg(long, env = "RHUMB_LISTEN", value_delimiter = ',', num_args = 1.., default_value = "127.0.0.1:6443")]
    pub listen: Vec<SocketAddr>,
    /// Where nodes and pods reach this server [default: the first address of --listen].
    #[arg(long, env = "RHUMB_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Addresses of Services, one range a family; the first is the default family.
    #[arg(
        long,
        env = "RHUMB_SERVICE_CIDR",
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:10:96::/112"
    )]
    pub service_cidr: Vec<IpNetwork>,
    /// Addresses of pods, one range a family; each node gets a part of each.
    #[arg(
        long,
        env = "RHUMB_CLUSTER_CIDR",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:10:244::/56"
    )]
    pub cluster_cidr: Vec<IpNetwork>,
    /// More names and addresses for the server's certificate.
    #[arg(long, env = "RHUMB_TLS_SAN", value_delimiter = ',', num_args = 1..)]
    pub tls_san: Vec<String>,
    /// Tokens that clients may use: CSV of token, user name, uid and optionally "group1,group2".
    #[arg(long, env = "RHUMB_TOKEN_AUTH_FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Key (P-256, PEM) that signs service-account tokens [default: pki/sa.key in the data directory].
    #[arg(long, env = "RHUMB_SERVICE_ACCOUNT_SIGNING_KEY_FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// More keys, private or public, whose service-account tokens are accepted: that of before, while
    /// its tokens are about.
    #[arg(long, env = "RHUMB_SERVICE_ACCOUNT_KEY_FILE", value_delimiter = ',', num_args = 1..)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Log every request here, a line of JSON each (audit.k8s.io/v1, level Metadata: no bodies).
    #[arg(long, env = "RHUMB_AUDIT_LOG_PATH")]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes after which the audit log is put aside as FILE.1.
    #[arg(long, env = "RHUMB_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_log_maxsize: u64,
    /// Audit logs put aside that are kept.
    #[arg(long, env = "RHUMB_AUDIT_LOG_MAXBACKUP", default_value_t = 10)]
    pub audit_log_maxbackup: usize,
}

#[derive(Debug, clap::Args)]
pub struct Kubeconfig {
    /// The data directory of the cluster's server.
    #[arg(long, env = "RHUMB_DATA_DIR", default_value = "/var/lib/rhumb-control")]
    pub data_dir: PathBuf,
    /// User name: the certificate's common name.
    #[arg(long)]
    pub user: String,
    /// Group of the user; may be given twice.
    #[arg(long)]
    pub group: Vec<String>,
    /// Address or name that the certificate serves under as well (a kubelet's).
    #[arg(long, value_delimiter = ',')]
    pub san: Vec<String>,
    /// URL of the API server.
    #[arg(long)]
    pub server: String,
    /// Where to write it [default: standard output].
    #[arg(long)]
    pub output: Option<PathBuf>,
}
