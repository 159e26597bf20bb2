//! The plugin's journal as a source: this node's endpoints.

use std::{sync::Arc, thread, time::Duration};

use rhumb_cni::{
    attachment::{Attachment, Phase, PortMapping},
    ipam::store::Store,
};
use rhumb_core::{
    Source,
    model::{HostPort, LocalEndpoint, ObjectName},
};
use tracing::warn;

use crate::engine::{Command, Handle};

/// Without a change it is read this often nevertheless: the watch on the file may have failed.
const IDLE: Duration = Duration::from_secs(10);

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

/// Follows the journal on a thread of its own for as long as the process lives.
pub fn start(store: Arc<Store>, engine: Handle) -> std::io::Result<()> {
    thread::Builder::new()
        .name("journal".into())
        .spawn(move || follow(&store, &engine))
        .map(drop)
}

fn follow(store: &Store, engine: &Handle) {
    let watch = store.watch();
    if let Err(error) = &watch {
        warn!(%error, "the journal can't be watched; reading it now and then");
    }
    let mut seen = None;
    loop {
        match store.snapshot() {
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
            Err(error) => warn!(%error, "the plugin's journal can't be read; trying again"),
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
