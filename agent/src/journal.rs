//! The plugin's journal as a source: this node's endpoints.

use std::{thread, time::Duration};

use rhumb_cni::{
    attachment::{Attachment, Phase, PortMapping},
    ipam::store::StoreError,
};
use rhumb_core::{
    Source,
    model::{HostPort, LocalEndpoint, ObjectName},
};
use tracing::{error, warn};

use crate::{
    engine::{Command, Handle},
    keeper::Keeper,
};

/// Without a change it is read this often nevertheless: the watch on the file may have failed.
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait before a lost journal is tried to be made anew again.
const RETRY: Duration = Duration::from_secs(2);

pub fn endpoint(a: &Attachment) -> Option<LocalEndpoint> {
    // What the runtime attached without Kubernetes' names is no pod: the plugin opens it.
    if a.pod.is_empty() || a.phase == Phase::Deleting {
        return None;
    }
    Some(LocalEndpoint {
        container_id: a.container_id.clone(),
        ifname: a.ifname.clone(),
        pod: ObjectName::new(a.namespace.clone(), a.pod.clone()),
        uid: a.uid.clone(),
        netns_cookie: a.netns_cookie,
        ips: a.ips.clone(),
        ports: host_ports(&a.ports),
        revision: a.revision,
    })
}

pub fn host_ports(ports: &[PortMapping]) -> Vec<HostPort> {
    let port = |p: &PortMapping| HostPort {
        host_ip: p.host_ip,
        host_port: p.host_port,
        port: p.container_port,
        protocol: p.protocol.number(),
    };
    ports.iter().map(port).collect()
}

/// Follows the journal on a thread of its own for as long as the process lives. `trusted`: whether it knows
/// the pods that run; nothing is told of it until it does.
pub fn start(keeper: Keeper, engine: Handle, trusted: bool) -> std::io::Result<()> {
    thread::Builder::new()
        .name("journal".into())
        .spawn(move || follow(&keeper, &engine, trusted))
        .map(drop)
}

fn follow(keeper: &Keeper, engine: &Handle, mut trusted: bool) {
    let store = keeper.attachments.store();
    let watch = store.watch();
    if let Err(error) = &watch {
        warn!(%error, "the journal can't be watched; reading it now and then");
    }
    let mut seen = None;
    let mut last_problem = String::new();
    loop {
        if !trusted {
            match keeper.repair() {
                Ok(_) => {}
                Err(error) if error.leaves_it_sound() => {
                    warn!(%error, "pods are not all in step with the plugin's journal");
                }
                Err(error) => {
                    let problem = error.to_string();
                    if problem != last_problem {
                        error!(problem, "the plugin's journal is in doubt; trying again");
                        last_problem = problem;
                    }
                    thread::sleep(RETRY);
                    continue;
                }
            }
            last_problem.clear();
            seen = None;
        }
        trusted = true;
        match store.snapshot() {
            // Another file, which may know less.
            Ok(state) if seen.is_some_and(|seen| state.revision < seen) => trusted = false,
            Ok(state) => {
                if seen != Some(state.revision) {
                    engine.send(Command::Journal {
                        revision: state.revision,
                        endpoints: state.attachments.values().filter_map(endpoint).collect(),
                    });
                    engine.send(Command::Synced(Source::Journal));
                    seen = Some(state.revision);
                }
            }
            Err(StoreError::Damaged { .. }) => trusted = false,
            Err(error) => warn!(%error, "the plugin's journal can't be read; trying again"),
        }
        if !trusted {
            continue;
        }
        let waited = match &watch {
            Ok(watch) => watch.changed(IDLE).map(drop),
            Err(_) => Err(std::io::ErrorKind::Unsupported.into()),
        };
        if waited.is_err() {
            thread::sleep(IDLE);
        }
    }
}
