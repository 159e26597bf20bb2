//! Notices what happens in the runtime: containerd's events where there are any, and a relist each
//! second that finds everything else.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::containerd;
use crate::cri::CriError;
use crate::kubelet::{Kubelet, lock};
use crate::labels;

const RELIST: Duration = Duration::from_secs(1);
/// The runtime's own view follows its events by a moment.
const SETTLE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(60)];

/// Runs until shutdown.
pub async fn run(k: Arc<Kubelet>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = relist_loop(&k) => {}
        () = events_loop(&k) => {}
    }
}

async fn relist_loop(k: &Kubelet) {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut down = false;
    loop {
        match fingerprints(k).await {
            Ok(now) => {
                if down {
                    warn!("the container runtime is back");
                    down = false;
                }
                let pods = lock(&k.pods);
                for (uid, entry) in pods.iter() {
                    if seen.get(uid) != now.get(uid) {
                        entry.wake.notify_one();
                    }
                }
                drop(pods);
                seen = now;
            }
            Err(error) => {
                if !down {
                    warn!(%error, socket = %k.cri.socket().display(), "the container runtime does not answer");
                }
                down = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RELIST) => {}
            () = k.relist.notified() => {}
        }
    }
}

/// A number for each pod that changes with the state of its sandboxes and containers.
async fn fingerprints(k: &Kubelet) -> Result<BTreeMap<String, u64>, CriError> {
    let (sandboxes, containers) =
        tokio::try_join!(k.cri.list_sandboxes(None), k.cri.list_containers(None))?;
    let mut parts: BTreeMap<String, Vec<(String, i32)>> = BTreeMap::new();
    let all = sandboxes
        .into_iter()
        .map(|s| (s.labels, s.id, s.state))
        .chain(containers.into_iter().map(|c| (c.labels, c.id, c.state)));
    for (mut l, id, state) in all {
        if let Some(uid) = l.remove(labels::POD_UID) {
            parts.entry(uid).or_default().push((id, state));
        }
    }
    Ok(parts
        .into_iter()
        .map(|(uid, mut list)| {
            list.sort();
            let mut h = DefaultHasher::new();
            list.hash(&mut h);
            (uid, h.finish())
        })
        .collect())
}

/// Asks for a relist whenever containerd reports the end of a task.
async fn events_loop(k: &Kubelet) {
    loop {
        if let Err(status) = follow_events(k).await {
            if status.code() == tonic::Code::Unimplemented {
                debug!("the runtime has no event service of containerd's kind; relisting only");
                std::future::pending::<()>().await;
            }
            debug!(%status, "containerd's events ended, subscribing again");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow_events(k: &Kubelet) -> Result<(), tonic::Status> {
    let filters = vec!["namespace==k8s.io,topic==\"/tasks/exit\"".into()];
    let mut stream = containerd::subscribe(&k.cri.channel(), filters).await?;
    while stream.message().await?.is_some() {
        for wait in SETTLE {
            tokio::time::sleep(wait).await;
            k.relist.notify_one();
        }
    }
    Ok(())
}
