//! `agent.sock`: the local gRPC API, for the CLI.

use std::{path::Path, pin::Pin, sync::Arc};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use rhumb_agent_api as api;
use rhumb_cni::{attachment::Phase, attachments::Attachments, node::NodeConfig};
use rhumb_common::ABI_VERSION;
use rhumb_core::{dump, model::protocol};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{
    BroadcastStream, UnixListenerStream, errors::BroadcastStreamRecvError,
};
use tonic::{Request, Response, Status, transport::Server};
use tracing::error;

use crate::{cni_socket, drops::Drop, observe::Observer};

struct Service {
    observer: Observer,
    attachments: Attachments,
    drops: broadcast::Sender<Arc<Drop>>,
    node: String,
}

/// Serves on `path` until the process ends.
pub fn start(
    path: &Path,
    observer: Observer,
    attachments: Attachments,
    drops: broadcast::Sender<Arc<Drop>>,
    node: &str,
) -> Result<()> {
    let listener =
        cni_socket::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    let service = Service {
        observer,
        attachments,
        drops,
        node: node.to_owned(),
    };
    tokio::spawn(async move {
        let served = Server::builder()
            .add_service(api::agent_server::AgentServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await;
        if let Err(error) = served {
            error!(%error, "the local API ended");
        }
    });
    Ok(())
}

#[tonic::async_trait]
impl api::agent_server::Agent for Service {
    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::Status>, Status> {
        let world = self.observer.world.read();
        Ok(Response::new(api::Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            revision: world.snapshot.revision,
            applied: world.applied,
            not_synced: world
                .gate
                .missing()
                .iter()
                .map(|s| s.name().to_owned())
                .collect(),
            last_error: world.last_error.clone().unwrap_or_default(),
            services: world.planner.balancer().len() as u64,
            backends: world.planner.balancer().backend_count() as u64,
            pods: world.snapshot.pods.len() as u64,
            endpoints: world.snapshot.endpoints.len() as u64,
            policies: world.snapshot.policies.len() as u64,
            policy_rows: world.planner.rows().len() as u64,
        }))
    }

    async fn list_addresses(
        &self,
        _: Request<api::ListAddressesRequest>,
    ) -> Result<Response<api::ListAddressesResponse>, Status> {
        let node = NodeConfig::read(&self.attachments.paths().node_json())
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let state = self.attachments.store().snapshot();
        let state = state.map_err(|e| Status::internal(e.to_string()))?;
        let cidrs = node.pod_cidrs.iter().map(|cidr| {
            let usage = state.usage(cidr);
            let released = state.released.iter().filter(|ip| cidr.contains(**ip));
            api::PodCidr {
                cidr: cidr.to_string(),
                capacity: usage.capacity.to_string(),
                attached: usage.attached as u64,
                adding: usage.adding as u64,
                deleting: usage.deleting as u64,
                resting: released.count() as u64,
            }
        });
        let addresses = state.attachments.values().map(|a| api::Address {
            addresses: a.ips.iter().map(ToString::to_string).collect(),
            namespace: a.namespace.clone(),
            pod: a.pod.clone(),
            container_id: a.container_id.clone(),
            ifname: a.ifname.clone(),
            phase: match a.phase {
                Phase::Adding => "adding",
                Phase::Attached => "attached",
                Phase::Deleting => "deleting",
            }
            .to_owned(),
            host_ifname: a.host_ifname.clone(),
        });
        Ok(Response::new(api::ListAddressesResponse {
            cidrs: cidrs.collect(),
            addresses: addresses.collect(),
        }))
    }

    async fn list_services(
        &self,
        _: Request<api::ListServicesRequest>,
    ) -> Result<Response<api::ListServicesResponse>, Status> {
        let world = self.observer.world.read();
        let claims = world.planner.claims();
        let mut frontends: Vec<api::Frontend> = claims
            .keys()
            .filter(|key| !key.is_address())
            .filter_map(|key| {
                let (owner, frontend) = claims.get(key)?;
                let address = dump::frontend(key);
                Some(api::Frontend {
                    namespace: owner.namespace.clone(),
                    name: owner.name.clone(),
                    address: address
                        .rsplit_once('/')
                        .map_or(address.clone(), |(a, _)| a.to_owned()),
                    protocol: protocol::name(key.protocol).to_owned(),
                    backends: frontend.backends.iter().map(ToString::to_string).collect(),
                })
            })
            .collect();
        frontends.sort_by(|a, b| {
            (&a.namespace, &a.name, &a.address).cmp(&(&b.namespace, &b.name, &b.address))
        });
        Ok(Response::new(api::ListServicesResponse { frontends }))
    }

    async fn list_endpoints(
        &self,
        _: Request<api::ListEndpointsRequest>,
    ) -> Result<Response<api::ListEndpointsResponse>, Status> {
        let world = self.observer.world.read();
        let ids = world.planner.ids();
        let policies = |set: u32| match set {
            0 => Vec::new(),
            _ => ids
                .set(set)
                .map_or_else(|| vec![format!("set {set}")], |s| s.policies.clone()),
        };
        let endpoints = world
            .snapshot
            .endpoints
            .values()
            .map(|e| {
                let sets = e
                    .ips
                    .first()
                    .and_then(|ip| {
                        let held = &world.planner.actual().endpoint_policy;
                        held.get(&(*ip).into()).copied()
                    })
                    .unwrap_or_default();
                api::Endpoint {
                    namespace: e.pod.namespace.clone(),
                    pod: e.pod.name.clone(),
                    addresses: e.ips.iter().map(ToString::to_string).collect(),
                    container_id: e.container_id.clone(),
                    ifname: e.ifname.clone(),
                    known: world.snapshot.pod_of(e).is_some(),
                    ingress: policies(sets.ingress_set),
                    egress: policies(sets.egress_set),
                }
            })
            .collect();
        Ok(Response::new(api::ListEndpointsResponse { endpoints }))
    }

    async fn list_policies(
        &self,
        _: Request<api::ListPoliciesRequest>,
    ) -> Result<Response<api::ListPoliciesResponse>, Status> {
        let world = self.observer.world.read();
        let policies = world
            .snapshot
            .policies
            .values()
            .map(|p| api::Policy {
                namespace: p.name.namespace.clone(),
                name: p.name.name.clone(),
                local_pods: world
                    .snapshot
                    .endpoints
                    .values()
                    .filter(|e| e.pod.namespace == p.name.namespace)
                    .filter_map(|e| world.snapshot.pod_of(e))
                    .filter(|pod| p.pods.matches(&pod.labels))
                    .map(|pod| pod.name.name.clone())
                    .collect(),
                ingress: p.ingress.is_some(),
                egress: p.egress.is_some(),
            })
            .collect();
        Ok(Response::new(api::ListPoliciesResponse { policies }))
    }

    type WatchDropsStream = Pin<Box<dyn Stream<Item = Result<api::Drop, Status>> + Send>>;

    async fn watch_drops(
        &self,
        _: Request<api::WatchDropsRequest>,
    ) -> Result<Response<Self::WatchDropsStream>, Status> {
        let mut missed = 0;
        let stream = BroadcastStream::new(self.drops.subscribe()).filter_map(move |item| {
            let out = match item {
                Ok(d) => Some(Ok(api::Drop {
                    reason: d.reason.to_owned(),
                    hook: d.hook.to_owned(),
                    protocol: d.protocol.clone(),
                    src: d.src.clone(),
                    dst: d.dst.clone(),
                    by: d.by.clone(),
                    len: d.len,
                    missed: std::mem::take(&mut missed),
                })),
                Err(BroadcastStreamRecvError::Lagged(n)) => {
                    missed += n;
                    None
                }
            };
            std::future::ready(out)
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn dump(
        &self,
        request: Request<api::DumpRequest>,
    ) -> Result<Response<api::DumpResponse>, Status> {
        let what = request.into_inner().what;
        let observer = self.observer.clone();
        let name = what.clone();
        let dumped = tokio::task::spawn_blocking(move || observer.dump(&name))
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        match dumped {
            Some(Ok(text)) => Ok(Response::new(api::DumpResponse { text })),
            Some(Err(error)) => Err(Status::internal(format!(
                "{:#}",
                anyhow::Error::from(error)
            ))),
            None => Err(Status::not_found(format!(
                "there is no dump {what:?}; there are {}",
                crate::observe::DUMPS.join(", ")
            ))),
        }
    }
}
