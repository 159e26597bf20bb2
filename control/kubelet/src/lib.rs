//! The kubelet: runs the pods of one node through CRI, as a client of the public Kubernetes API.
//!
//! `pods` follows the API and keeps a `worker` a pod; a worker takes a `snapshot` of the runtime, asks
//! `pure::plan` what to do, does it, and hands `pure::status` to the `status_writer`.

pub mod cgroups;
pub mod config;
pub mod container;
pub mod containerd;
pub mod cri;
pub mod events;
pub mod hooks;
pub mod http_get;
pub mod images;
pub mod kubelet;
pub mod labels;
pub mod node;
pub mod pleg;
pub mod pods;
pub mod probes;
pub mod pure;
pub mod sandbox;
pub mod server;
pub mod snapshot;
pub mod status_writer;
pub mod terminate;
pub mod volumes;
pub mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::{Args, Config};

use crate::kubelet::Kubelet;

/// Waits between tries of a watch: short, since a node without its API server can do little else.
#[derive(Debug, Default)]
pub struct ApiBackoff {
    tries: u32,
}

impl Iterator for ApiBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.tries = (self.tries + 1).min(6);
        // 100 ms to 3.2 s, and up to a half more so that nodes don't come all at once.
        let base = Duration::from_millis(50 << self.tries);
        Some(base + base.mul_f64(rand::random::<f64>() / 2.0))
    }
}

impl Backoff for ApiBackoff {
    fn reset(&mut self) {
        self.tries = 0;
    }
}

pub(crate) fn api_backoff() -> ApiBackoff {
    ApiBackoff::default()
}

/// Runs the kubelet until `shutdown`. Pods keep running after it; the next start adopts them.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    info!(?config, "starting the kubelet");
    let kubeconfig = Kubeconfig::read_from(&config.kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", config.kubeconfig.display()))?;
    let identity = server::identity::Identity::from_kubeconfig(&config.kubeconfig, &kubeconfig)?;
    let mut client_config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("using the kubeconfig {}", config.kubeconfig.display()))?;
    // By this name the fields that it writes are known.
    let agent = concat!("kubelet/", env!("CARGO_PKG_VERSION"));
    let agent = http::HeaderValue::from_static(agent);
    client_config
        .headers
        .push((http::header::USER_AGENT, agent));
    let client = kube::Client::try_from(client_config).context("making the API client")?;
    for dir in [config.root_dir.join("pods"), config.pod_log_dir.clone()] {
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    server::exec::remove_leftovers(&config.root_dir);
    let cri = cri::Cri::new(&config.runtime_socket);
    let runtime = wait_for_runtime(&cri, &shutdown).await?;
    let node =
        node::facts::NodeFacts::gather(&config, runtime).context("reading the node's facts")?;
    let cgroups = cgroups::Cgroups::detect(&config.cgroup_parent)?;
    let events = events::Recorder::start(client.clone(), &config.node_name);

    let (services, writer) = reflector::store::<Service>();
    let service_watch = watcher(
        Api::<Service>::all(client.clone()),
        watcher::Config::default(),
    )
    .backoff(api_backoff())
    .reflect(writer);

    let k = Arc::new(Kubelet {
        config,
        client,
        cri,
        events,
        node,
        cgroups,
        services,
        pods: Mutex::new(HashMap::new()),
        relist: Notify::new(),
    });
    let follow_services = async {
        let mut stream = std::pin::pin!(service_watch);
        while let Some(event) = stream.next().await {
            if let Err(error) = event {
                warn!(%error, "watching Services");
            }
        }
    };
    let serving = server::bind(k.clone(), identity).await?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        r = serving.run(shutdown.clone()) => r?,
        () = follow_services => {}
        _ = async { tokio::join!(
            node::run_status(k.clone(), shutdown.clone()),
            node::run_lease(k.clone(), shutdown.clone()),
            pods::run(k.clone(), shutdown.clone()),
            pleg::run(k.clone(), shutdown.clone()),
        ) } => {}
    }
    info!("the kubelet ends; its pods keep running");
    Ok(())
}

/// The runtime's name and version, as the Node shows it.
async fn wait_for_runtime(cri: &cri::Cri, shutdown: &CancellationToken) -> anyhow::Result<String> {
    let mut told = false;
    loop {
        match cri.version().await {
            Ok(v) => {
                return Ok(format!(
                    "{}://{}",
                    v.runtime_name,
                    v.runtime_version.trim_start_matches('v')
                ));
            }
            Err(error) => {
                if !told {
                    warn!(%error, socket = %cri.socket().display(), "waiting for the container runtime");
                    told = true;
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => anyhow::bail!("stopped while waiting for the container runtime"),
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
}
