//! Gives each node its part of the pod network, once and for good.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use rhumb_client::{EventKind, ObjectKey, Recorder, WorkQueue, is_not_found};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cidr::CidrSet;
use crate::{
    config::Config,
    context::{Context, run_queue},
};

struct Allocator {
    sets: Vec<CidrSet>,
    /// What each node has, or is about to get. Kept when the write failed: it may have gone through.
    held: HashMap<String, Vec<IpNetwork>>,
}

impl Allocator {
    fn new(config: &Config) -> Self {
        let mut sets: Vec<CidrSet> = config
            .cluster_cidrs
            .iter()
            .map(|c| {
                CidrSet::new(
                    *c,
                    if c.is_ipv4() {
                        config.node_mask_v4
                    } else {
                        config.node_mask_v6
                    },
                )
            })
            .collect();
        for set in &mut sets {
            for service in &config.service_cidrs {
                set.occupy(service);
            }
        }
        Self {
            sets,
            held: HashMap::new(),
        }
    }

    /// Takes in what `node` has; names what another node has too.
    fn note(&mut self, node: &str, cidrs: &[IpNetwork]) -> Option<IpNetwork> {
        if self.held.get(node).is_some_and(|held| held == cidrs) {
            return None;
        }
        self.release(node);
        let mut double = None;
        for cidr in cidrs {
            let mut taken = false;
            for set in &mut self.sets {
                taken |= set.occupy(cidr);
            }
            if taken {
                double = Some(*cidr);
            }
        }
        self.held.insert(node.to_string(), cidrs.to_vec());
        double
    }

    fn release(&mut self, node: &str) {
        for cidr in self.held.remove(node).unwrap_or_default() {
            // What two nodes hold stays taken until both are gone.
            if self.held.values().flatten().any(|c| *c == cidr) {
                continue;
            }
            for set in &mut self.sets {
                set.release(&cidr);
            }
        }
    }

    /// A part of each network for `node`, the same again if asked again.
    fn allocate(&mut self, node: &str) -> Option<Vec<IpNetwork>> {
        if let Some(held) = self.held.get(node).filter(|h| h.len() == self.sets.len()) {
            return Some(held.clone());
        }
        self.release(node);
        let mut parts = Vec::new();
        for set in &mut self.sets {
            parts.extend(set.allocate());
        }
        if parts.len() < self.sets.len() {
            for part in &parts {
                for set in &mut self.sets {
                    set.release(part);
                }
            }
            return None;
        }
        self.held.insert(node.to_string(), parts.clone());
        Some(parts)
    }
}

fn cidrs_of(node: &Node) -> Vec<IpNetwork> {
    let spec = node.spec.as_ref();
    let listed = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
    let single = spec.and_then(|s| s.pod_cidr.clone());
    let texts = if listed.is_empty() {
        single.into_iter().collect()
    } else {
        listed
    };
    texts.iter().filter_map(|c| c.parse().ok()).collect()
}

pub struct NodeIpam {
    ctx: Arc<Context>,
    queue: WorkQueue<ObjectKey>,
    recorder: Recorder,
    allocator: Mutex<Allocator>,
}

impl NodeIpam {
    pub fn new(ctx: &Arc<Context>, config: &Config) -> Arc<Self> {
        let queue = WorkQueue::new();
        let this = Arc::new(Self {
            ctx: ctx.clone(),
            queue: queue.clone(),
            recorder: ctx.recorder("node-ipam-controller"),
            allocator: Mutex::new(Allocator::new(config)),
        });
        ctx.nodes
            .on_change(move |change| queue.add(ObjectKey::of(change.object().as_ref())));
        this
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if self.allocator.lock().sets.is_empty() {
            return shutdown.cancelled().await;
        }
        self.ctx.nodes.synced().await;
        // Everything that is given out must be known before anything is.
        for node in self.ctx.nodes.all() {
            self.note(&node);
        }
        let queue = self.queue.clone();
        run_queue(queue, 1, "node-ipam", shutdown, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    fn note(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let cidrs = cidrs_of(node);
        if cidrs.is_empty() {
            return;
        }
        if let Some(double) = self.allocator.lock().note(name, &cidrs) {
            let message = format!(
                "Node {name} has the pod CIDR {double}, which another node or the Service network has too"
            );
            warn!(node = name, cidr = %double, "a pod CIDR is held twice: delete one of the nodes and let it register again");
            self.recorder
                .record(node, EventKind::Warning, "CIDRConflict", message);
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Option<Duration>> {
        let Some(node) = self.ctx.nodes.get(key) else {
            self.allocator.lock().release(&key.name);
            // Nodes that are waiting for a part may get this one.
            for node in self.ctx.nodes.all() {
                if cidrs_of(&node).is_empty() {
                    self.queue.add(ObjectKey::of(node.as_ref()));
                }
            }
            return Ok(None);
        };
        if node.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        if !cidrs_of(&node).is_empty() {
            self.note(&node);
            return Ok(None);
        }
        let Some(parts) = self.allocator.lock().allocate(&key.name) else {
            self.recorder.record(
                node.as_ref(),
                EventKind::Warning,
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", key.name),
            );
            anyhow::bail!(
                "the cluster CIDRs have no part left: start the server with a larger --cluster-cidr"
            );
        };
        let texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let patch = serde_json::json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": texts[0], "podCIDRs": texts },
        });
        match Api::<Node>::all(self.ctx.client.clone())
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => info!(node = %key, cidrs = ?texts, "pod CIDRs given"),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error).context("writing its podCIDRs"),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator() -> Allocator {
        Allocator::new(&Config {
            cluster_cidrs: vec![
                "10.244.0.0/23".parse().unwrap(),
                "fd00::/63".parse().unwrap(),
            ],
            ..Config::default()
        })
    }

    fn texts(cidrs: Option<Vec<IpNetwork>>) -> Vec<String> {
        cidrs
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_node_gets_the_same_parts_again_and_others_get_others() {
        let mut a = allocator();
        assert_eq!(texts(a.allocate("one")), ["10.244.0.0/24", "fd00::/64"]);
        assert_eq!(texts(a.allocate("one")), ["10.244.0.0/24", "fd00::/64"]);
        assert_eq!(
            texts(a.allocate("two")),
            ["10.244.1.0/24", "fd00:0:0:1::/64"]
        );
        assert_eq!(a.allocate("three"), None);
        a.release("one");
        assert_eq!(texts(a.allocate("three")), ["10.244.0.0/24", "fd00::/64"]);
    }

    #[test]
    fn what_is_given_out_survives_a_restart() {
        let mut a = allocator();
        assert_eq!(
            a.note(
                "one",
                &[
                    "10.244.0.0/24".parse().unwrap(),
                    "fd00::/64".parse().unwrap()
                ]
            ),
            None
        );
        assert_eq!(
            texts(a.allocate("two")),
            ["10.244.1.0/24", "fd00:0:0:1::/64"]
        );
    }

    #[test]
    fn a_part_held_twice_is_told_and_not_given_back_by_one_of_them() {
        let mut a = allocator();
        let part: IpNetwork = "10.244.0.0/24".parse().unwrap();
        assert_eq!(a.note("one", &[part]), None);
        assert_eq!(a.note("two", &[part]), Some(part));
        a.release("one");
        assert_eq!(texts(a.allocate("three"))[0], "10.244.1.0/24");
    }

    #[test]
    fn one_family_short_gives_nothing_of_the_other() {
        let mut a = allocator();
        a.sets[1] = CidrSet::new("fd00::/64".parse().unwrap(), 64);
        assert!(a.allocate("one").is_some());
        assert_eq!(a.allocate("two"), None);
        assert_eq!(a.sets[0].allocate().unwrap().to_string(), "10.244.1.0/24");
    }
}
