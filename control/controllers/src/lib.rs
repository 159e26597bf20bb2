//! The controllers: each watches through the public API, decides in pure code, and writes back.
//!
//! | module | keeps |
//! |---|---|
//! | [`deployment`] | one ReplicaSet a template, scaled as the strategy says |
//! | [`replicaset`] | as many pods as asked for |
//! | [`daemonset`] | one pod a node |
//! | [`disruption`] | how many pods may be evicted |
//! | [`endpointslice`] | the pods behind each Service |
//! | [`node::ipam`] | each node's part of the pod network |
//! | [`node::lifecycle`], [`node::eviction`] | conditions and taints of nodes that are silent; their pods |
//! | [`namespace`] | deletion of namespaces with all that is in them |
//! | [`gc`] | deletion of what has lost its owners |
//! | [`pod_gc`] | deletion of pods that nobody looks after |
//! | [`cluster_roles`] | the rules of ClusterRoles that gather those of others |
//! | [`csr`] | approval of kubelets' certificate requests; removal of old requests |
//! | [`resource_quota`] | what is used of each quota |
//! | [`service_accounts`] | the ServiceAccount `default` and the CA's ConfigMap in each namespace |
//!
//! Every reconcile is idempotent and starts from what is there, so a restart at any point is harmless.
//! Nothing is deleted on the word of a cache that hasn't read a complete list.

pub mod cluster_roles;
pub mod config;
pub mod context;
pub mod csr;
pub mod daemonset;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpointslice;
pub mod gc;
pub mod namespace;
pub mod node;
pub mod owner;
pub mod pod;
pub mod pod_gc;
pub mod replicaset;
pub mod resource_quota;
pub mod service_accounts;

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use config::Config;
use context::Context;

/// Runs all controllers until `shutdown`.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.validate()?;
    let ctx = Arc::new(Context::new(client.clone(), shutdown.clone()));
    let mut tasks = JoinSet::new();
    // Controllers first: they hang their handlers on the informers, which must not have started.
    let deployments = deployment::DeploymentController::new(&ctx);
    let replica_sets = replicaset::ReplicaSetController::new(&ctx);
    let daemon_sets = daemonset::DaemonSetController::new(&ctx);
    let disruptions = disruption::DisruptionController::new(&ctx);
    let endpoint_slices = endpointslice::EndpointSliceController::new(&ctx);
    let ipam = node::ipam::NodeIpam::new(&ctx, &config);
    let lifecycle = node::lifecycle::NodeLifecycle::new(&ctx, &config);
    let eviction = node::eviction::TaintEviction::new(&ctx);
    let namespaces = namespace::NamespaceController::new(&ctx);
    let defaults = service_accounts::NamespaceDefaults::new(&ctx, &config.root_ca_pem);
    let cluster_roles = cluster_roles::ClusterRoleAggregation::new(&ctx);
    let certificate_requests = csr::CertificateRequests::new(&ctx);
    let quotas = resource_quota::QuotaController::new(&ctx);
    let pod_gc = pod_gc::PodGc::new(&ctx, config.finished_pods_kept);
    ctx.start_informers(&mut tasks);
    tasks.spawn(deployments.run(shutdown.clone()));
    tasks.spawn(replica_sets.run(shutdown.clone()));
    tasks.spawn(daemon_sets.run(shutdown.clone()));
    tasks.spawn(disruptions.run(shutdown.clone()));
    tasks.spawn(endpoint_slices.run(shutdown.clone()));
    tasks.spawn(ipam.run(shutdown.clone()));
    tasks.spawn(lifecycle.run(shutdown.clone()));
    tasks.spawn(eviction.run(shutdown.clone()));
    tasks.spawn(namespaces.run(shutdown.clone()));
    tasks.spawn(defaults.run(shutdown.clone()));
    tasks.spawn(pod_gc.run(shutdown.clone()));
    tasks.spawn(cluster_roles.run(shutdown.clone()));
    tasks.spawn(certificate_requests.run(shutdown.clone()));
    tasks.spawn(quotas.run(shutdown.clone()));
    tasks.spawn(gc::run(client, shutdown.clone()));
    info!("controllers started");
    while let Some(ended) = tasks.join_next().await {
        if shutdown.is_cancelled() {
            continue;
        }
        // A controller that has ended leaves the cluster half looked after: let the supervisor start anew.
        ended?;
        anyhow::bail!("a controller ended although nothing asked it to");
    }
    Ok(())
}
