//! State and apply: one thread that takes changes in, decides, and writes the kernel.
//!
//! Changes are collected while the kernel is being written, so that load makes batches; the first
//! change after a quiet time is written at once. Nothing is written before every source has
//! synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use rhumb_core::{
    Gate, Source, Synced,
    model::{LocalEndpoint, ObjectName},
    planner::Planner,
    routes::{self, HostRoute},
    snapshot::{Change, Dirty, Snapshot},
};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::{metrics::Metrics, writer::Writer};

/// The engine spends at most half of its time writing, and never waits longer than this.
const THROTTLE_MAX: Duration = Duration::from_millis(100);
/// After a failed write.
const RETRY: Duration = Duration::from_secs(1);

type EndpointKey = (String, String);

#[derive(Debug)]
pub enum Command {
    Changes(Vec<Change>),
    Synced(Source),
    /// The journal as of a revision: all endpoints of the node.
    Journal {
        revision: u64,
        endpoints: Vec<LocalEndpoint>,
    },
    /// The plugin's ADD: answered with the snapshot's revision once the pod's policy is in force.
    Add {
        endpoint: LocalEndpoint,
        revision: u64,
        reply: oneshot::Sender<u64>,
    },
    Del {
        key: EndpointKey,
        revision: u64,
    },
    /// The node's settings have changed.
    Configure,
}

/// Sends commands to the engine; the engine ends when all are dropped.
#[derive(Clone, Debug)]
pub struct Handle(Sender<Command>);

impl Handle {
    /// A command to an engine that has ended is lost: the process is ending.
    pub fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

/// What others may look at.
#[derive(Debug)]
pub struct World {
    pub snapshot: Snapshot,
    pub planner: Planner,
    pub gate: Gate,
    /// Revision of the snapshot that the kernel holds.
    pub applied: u64,
    pub last_error: Option<String>,
}

pub type Shared = Arc<RwLock<World>>;

/// For the task that keeps the host's routes; only ever sent with the proof.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    pub routes: BTreeSet<HostRoute>,
    pub proof: Synced,
}

pub struct Engine {
    world: Shared,
    writer: Writer,
    metrics: Arc<Metrics>,
    commands: Receiver<Command>,
    dirty: Dirty,
    /// The first plan, or one after a failure, looks at everything.
    everything: bool,
    /// A write failed: the planner's mirror has to be made again from the kernel.
    reread: bool,
    next_apply: Instant,
    /// Journal revision that put or removed an endpoint, so that an older word of the journal
    /// does not undo it.
    journal: BTreeMap<EndpointKey, u64>,
    adds: Vec<(EndpointKey, oneshot::Sender<u64>)>,
    route_plan: watch::Sender<Option<RoutePlan>>,
    applied: watch::Sender<u64>,
}

pub struct Started {
    pub handle: Handle,
    pub world: Shared,
    pub engine: Engine,
    pub route_plan: watch::Receiver<Option<RoutePlan>>,
    /// Revision that the kernel holds; 0 before the first full write.
    pub applied: watch::Receiver<u64>,
}

impl Engine {
    pub fn prepare(
        snapshot: Snapshot,
        planner: Planner,
        writer: Writer,
        metrics: Arc<Metrics>,
    ) -> Started {
        let (tx, commands) = channel();
        let (route_plan, route_rx) = watch::channel(None);
        let (applied, applied_rx) = watch::channel(0);
        let world = Arc::new(RwLock::new(World {
            snapshot,
            planner,
            gate: Gate::default(),
            applied: 0,
            last_error: None,
        }));
        Started {
            handle: Handle(tx),
            world: world.clone(),
            route_plan: route_rx,
            applied: applied_rx,
            engine: Engine {
                world,
                writer,
                metrics,
                commands,
                dirty: Dirty::default(),
                everything: true,
                reread: false,
                next_apply: Instant::now(),
                journal: BTreeMap::new(),
                adds: Vec::new(),
                route_plan,
                applied,
            },
        }
    }

    /// Runs until every [`Handle`] is gone.
    pub fn run(mut self) {
        loop {
            let pending = self.pending();
            let received = if pending {
                let wait = self.next_apply.saturating_duration_since(Instant::now());
                self.commands.recv_timeout(wait)
            } else {
                self.commands
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected)
            };
            match received {
                Ok(command) => {
                    let mut world = self.world.write();
                    Self::take(
                        &mut world,
                        command,
                        &mut self.dirty,
                        &mut self.journal,
                        &mut self.adds,
                    );
                    // What has queued up meanwhile belongs to the same batch.
                    while let Ok(command) = self.commands.try_recv() {
                        Self::take(
                            &mut world,
                            command,
                            &mut self.dirty,
                            &mut self.journal,
                            &mut self.adds,
                        );
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.pending() && Instant::now() >= self.next_apply {
                self.apply();
            }
            self.answer_adds();
        }
    }

    fn pending(&self) -> bool {
        (self.everything || !self.dirty.is_clean()) && self.world.read().gate.proof().is_some()
    }

    fn take(
        world: &mut World,
        command: Command,
        dirty: &mut Dirty,
        journal: &mut BTreeMap<EndpointKey, u64>,
        adds: &mut Vec<(EndpointKey, oneshot::Sender<u64>)>,
    ) {
        match command {
            Command::Changes(changes) => {
                for change in changes {
                    dirty.merge(world.snapshot.apply(change));
                }
            }
            Command::Synced(source) => {
                let before = world.gate.proof().is_some();
                world.gate.mark(source);
                if !before {
                    debug!(source = source.name(), "synced");
                    if world.gate.proof().is_some() {
                        info!(
                            revision = world.snapshot.revision,
                            "every source has synced"
                        );
                    }
                }
            }
            Command::Journal {
                revision,
                endpoints,
            } => {
                let mut gone: BTreeSet<EndpointKey> =
                    world.snapshot.endpoints.keys().cloned().collect();
                for endpoint in endpoints {
                    let key = (endpoint.container_id.clone(), endpoint.ifname.clone());
                    gone.remove(&key);
                    if journal.get(&key).is_none_or(|r| *r <= revision) {
                        journal.remove(&key);
                        dirty.merge(world.snapshot.apply(Change::Endpoint(key, Some(endpoint))));
                    }
                }
                for key in gone {
                    if journal.get(&key).is_none_or(|r| *r <= revision) {
                        dirty.merge(world.snapshot.apply(Change::Endpoint(key, None)));
                    }
                }
                journal.retain(|_, r| *r > revision);
            }
            Command::Add {
                endpoint,
                revision,
                reply,
            } => {
                let key = (endpoint.container_id.clone(), endpoint.ifname.clone());
                journal.insert(key.clone(), revision);
                dirty.merge(
                    world
                        .snapshot
                        .apply(Change::Endpoint(key.clone(), Some(endpoint))),
                );
                adds.push((key, reply));
            }
            Command::Del { key, revision } => {
                journal.insert(key.clone(), revision);
                dirty.merge(world.snapshot.apply(Change::Endpoint(key, None)));
            }
            // Written with every plan.
            Command::Configure => dirty.routes = true,
        }
    }

    fn apply(&mut self) {
        let start = Instant::now();
        let mut world = self.world.write();
        let Some(proof) = world.gate.proof() else {
            return;
        };
        if self.reread {
            // The mirror is not what the kernel holds: nothing may be planned from it.
            match self.writer.read() {
                Ok(tables) => {
                    let ids = world.planner.ids().clone();
                    // A backend's id must not come back under the generation that it went with.
                    let generation = self.writer.next_generation();
                    world.planner = Planner::restore(tables, ids, generation);
                    self.reread = false;
                }
                Err(error) => {
                    warn!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "cannot read the kernel's tables; trying again"
                    );
                    self.next_apply = Instant::now() + RETRY;
                    return;
                }
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        let dirty = if self.everything {
            Dirty::all(&world.snapshot)
        } else {
            dirty
        };
        let world = &mut *world;
        let steps = world.planner.plan(&world.snapshot, &dirty, &proof);
        let planned = start.elapsed();
        let mut written = self
            .writer
            .write(world.planner.ids_mut(), &steps, &proof)
            .and_then(|()| self.writer.configure(&world.snapshot));
        if self.everything && written.is_ok() {
            // Whoever wrote the tables before may have ended just before its own.
            written = self.writer.bump_epoch();
        }
        match written {
            Ok(()) => {
                self.everything = false;
                world.applied = world.snapshot.revision;
                world.last_error = None;
                self.metrics.applied(&steps, planned, start.elapsed());
                debug!(
                    revision = world.applied,
                    steps = steps.len(),
                    plan_us = planned.as_micros() as u64,
                    total_us = start.elapsed().as_micros() as u64,
                    "applied"
                );
                self.next_apply = Instant::now() + start.elapsed().min(THROTTLE_MAX);
                if dirty.routes {
                    self.route_plan.send_replace(Some(RoutePlan {
                        routes: routes::host_routes(&world.snapshot),
                        proof: proof.clone(),
                    }));
                }
                self.applied.send_replace(world.applied);
            }
            Err(error) => {
                // The mirror no longer is what the kernel holds: read it again, and plan anew.
                let text = format!("{:#}", anyhow::Error::from(error));
                error!(
                    error = text,
                    "cannot write the kernel's tables; trying again"
                );
                self.metrics.apply_errors.inc();
                world.last_error = Some(text);
                self.reread = true;
                self.everything = true;
                self.next_apply = Instant::now() + RETRY;
            }
        }
    }

    /// ADDs whose pod's policy is in the kernel now.
    fn answer_adds(&mut self) {
        if self.adds.is_empty() || self.everything || !self.dirty.is_clean() {
            return;
        }
        let world = self.world.read();
        if world.gate.proof().is_none() {
            return;
        }
        let adds = std::mem::take(&mut self.adds);
        for (key, reply) in adds {
            if reply.is_closed() {
                continue;
            }
            match world.snapshot.endpoints.get(&key) {
                // Deleted meanwhile: the caller sees the reply's end.
                None => {}
                Some(e) if world.snapshot.pod_of(e).is_some() => {
                    let _ = reply.send(world.applied);
                }
                Some(_) => self.adds.push((key, reply)),
            }
        }
    }
}

/// Whether the watch or a direct answer has told of the endpoint's pod.
pub fn knows_pod(world: &World, pod: &ObjectName, uid: &str) -> bool {
    world
        .snapshot
        .pods
        .get(pod)
        .is_some_and(|p| uid.is_empty() || p.uid == uid)
}
