//! One decision: from a pod and the cache to a node, or to why there is none.

use rand::Rng;

use crate::{
    cache::Cache,
    filter::{self, Reason},
    node::NodeInfo,
    pod::PodInfo,
    score,
    topology::Topology,
};

/// Nodes that are looked at in any case before the search may stop.
const ENOUGH: usize = 100;

/// Why a pod stays Pending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    #[error("the field {0} is not supported by this scheduler")]
    Unsupported(String),
    #[error("{0}")]
    NoNode(String),
}

/// Remembers where the last search stopped, so that all nodes get their turn.
#[derive(Debug, Default)]
pub struct Scheduler {
    start: usize,
}

impl Scheduler {
    /// Chooses a node for `pod`. With many nodes the search stops once enough of them fit, like
    /// kube-scheduler's adaptive percentageOfNodesToScore.
    pub fn place(
        &mut self,
        pod: &PodInfo,
        cache: &Cache,
        rng: &mut impl Rng,
    ) -> Result<String, Unplaced> {
        if let Some(field) = &pod.unsupported {
            return Err(Unplaced::Unsupported(field.clone()));
        }
        let nodes = cache.nodes();
        let topology = Topology::count(pod, cache);
        let enough = enough(nodes.len());
        let mut fitting: Vec<&NodeInfo> = Vec::with_capacity(enough);
        let mut reasons: Vec<Vec<Reason>> = Vec::new();
        let mut looked_at = 0;
        for i in 0..nodes.len() {
            let node = &nodes[(self.start + i) % nodes.len()];
            looked_at += 1;
            let verdict = filter::node_fits(pod, node).and_then(|()| match &topology {
                Some(topology) => topology.admits(node).map_err(|r| vec![r]),
                None => Ok(()),
            });
            match verdict {
                Ok(()) => {
                    fitting.push(node);
                    if fitting.len() >= enough {
                        break;
                    }
                }
                Err(why) => reasons.push(why),
            }
        }
        if !nodes.is_empty() {
            self.start = (self.start + looked_at) % nodes.len();
        }
        let scores = match fitting.as_slice() {
            [] => return Err(Unplaced::NoNode(filter::message(nodes.len(), &reasons))),
            [only] => return Ok(only.spec.name.clone()),
            many => score::scores(pod, many, cache, topology.as_ref()),
        };
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Among equals the choice is random, or small clusters would fill node by node.
        let ties: Vec<usize> = (0..scores.len())
            .filter(|i| scores[*i] >= best - 1e-9)
            .collect();
        let chosen = ties[rng.random_range(0..ties.len())];
        Ok(fitting[chosen].spec.name.clone())
    }
}

/// How many fitting nodes are enough, of `nodes`.
fn enough(nodes: usize) -> usize {
    if nodes <= ENOUGH {
        return nodes.max(1);
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ENOUGH)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
