//! Keeps programs on their interfaces: whoever deletes a qdisc takes the programs on it along, and until
//! they are back packets pass without policy.

use std::{collections::HashSet, io, sync::Arc, thread, time::Duration};

use rhumb_cni::{
    attachments::Repair,
    kernel::losses::{Losses, Lost},
};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{
    keeper::{KeepError, Keeper},
    metrics::Metrics,
};

/// All is looked at this often even if nobody told of a loss.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Watches on a thread of its own for as long as the process lives. `uplink` is told of losses that
/// are not pods'.
pub fn start(keeper: Keeper, uplink: Arc<Notify>) -> io::Result<()> {
    let losses = Losses::watch()?;
    thread::Builder::new()
        .name("guard".into())
        .spawn(move || {
            loop {
                if let Err(error) = watch(&losses, &keeper, &uplink) {
                    warn!(%error, "lost programs can't be watched for; trying again");
                    thread::sleep(RETRY);
                }
            }
        })
        .map(drop)
}

fn watch(losses: &Losses, keeper: &Keeper, uplink: &Notify) -> io::Result<()> {
    loop {
        let lost = losses.next(INTERVAL)?;
        let concerns_pods = match &lost {
            Lost::Anywhere => true,
            // Nothing came in all this time.
            Lost::On(indexes) if indexes.is_empty() => true,
            Lost::On(indexes) => {
                let lost: HashSet<u32> = indexes.iter().copied().collect();
                // A pod that goes takes its own with it.
                let (_, pods) = keeper.attachments.list().map_err(io::Error::other)?;
                let pods: HashSet<u32> = pods.iter().map(|a| a.ifindex).collect();
                if !lost.is_subset(&pods) {
                    uplink.notify_one();
                }
                !lost.is_disjoint(&pods)
            }
        };
        if concerns_pods {
            report(keeper.repair(), &keeper.metrics);
        }
    }
}

fn report(repaired: Result<Repair, KeepError>, metrics: &Metrics) {
    match repaired {
        Ok(repair) => {
            let back = repair.reattached.len() + repair.replaced;
            metrics.programs_restored.inc_by(back as u64);
            if back > 0 {
                info!(
                    interfaces = ?repair.reattached,
                    replaced = repair.replaced,
                    "programs were lost and are back; policy did not hold meanwhile"
                );
            }
        }
        Err(error) => warn!(
            error = format!("{:#}", anyhow::Error::from(error)),
            "not every pod has its programs"
        ),
    }
}
