//! One pod's worker: looks at the runtime, decides by the plan, acts, and reports.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::container::{self, StartRequest, field_path, spec_hash};
use crate::cri::CriError;
use crate::events::{NORMAL, WARNING};
use crate::hooks::{self, Stop};
use crate::images::PullState;
use crate::kubelet::Kubelet;
use crate::probes::ProbeSet;
use crate::pure::backoff::Backoff;
use crate::pure::model::{ProbeKind, RunState};
use crate::pure::plan::{Kill, KillWhy, Plan, Role, Start, plan};
use crate::pure::resources::{pod_limits, qos};
use crate::pure::status::{StatusInputs, Verdict, Waiting, pod_status};
use crate::pure::{ephemeral, security, supported};
use crate::sandbox::{self, meta};
use crate::snapshot::{self, Snapshot};
use crate::status_writer::StatusWriter;
use crate::volumes::content::TokenCache;
use crate::volumes::{self, Mounted};

/// Without anything to do, a pod is looked at this often.
const RESYNC: Duration = Duration::from_secs(60);
/// Volumes whose content comes from the API are brought up to date this often.
const VOLUME_REFRESH: Duration = Duration::from_secs(20);
/// How often the size of disk-backed emptyDirs with a limit is looked at.
const SIZE_CHECK: Duration = Duration::from_secs(10);
/// Wait after a failure that isn't backed off otherwise.
const RETRY: Duration = Duration::from_secs(5);

/// What the API wants of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The API no longer has it.
    pub gone: bool,
}

impl Desired {
    pub fn ending(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Seconds that the pod has to stop; at least one, as in Kubernetes.
    pub(crate) fn grace(&self) -> i64 {
        let own = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds);
        stop_seconds(self.pod.metadata.deletion_grace_period_seconds.or(own))
    }
}

/// A grace period as one can count with: the API takes any number, and a clock has an end.
fn stop_seconds(asked: Option<i64>) -> i64 {
    asked.unwrap_or(30).clamp(1, i64::from(i32::MAX))
}

/// When to look again.
enum Next {
    At(Instant),
    Done,
}

pub struct Worker {
    pub(crate) k: Arc<Kubelet>,
    pub(crate) uid: String,
    pub(crate) rx: watch::Receiver<Desired>,
    pub(crate) wake: Arc<Notify>,
    /// Cancelled when the pod is to end: image pulls and hooks stop at once.
    ending: CancellationToken,
    pub(crate) writer: StatusWriter,
    pub(crate) probes: ProbeSet,
    restarts: HashMap<String, Backoff>,
    pulls: HashMap<String, PullState>,
    /// Containers that failed to start are not tried again before this.
    retry_after: HashMap<String, Instant>,
    waiting: BTreeMap<String, Waiting>,
    tokens: TokenCache,
    volumes: Option<Mounted>,
    volumes_at: Instant,
    volume_failures: u32,
    size_at: Instant,
    sandbox_failures: u32,
    sandbox_at: Instant,
    pub(crate) messages: BTreeMap<String, String>,
    started: Timestamp,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) terminal: bool,
    admitted: bool,
    told_dns: bool,
    cleaned: bool,
}

impl Worker {
    pub fn new(
        k: Arc<Kubelet>,
        uid: String,
        rx: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        ending: CancellationToken,
    ) -> Self {
        let pod = rx.borrow().pod.clone();
        let writer = StatusWriter::start(k.clone(), &pod);
        Worker {
            k,
            uid,
            rx,
            wake,
            ending,
            writer,
            probes: ProbeSet::default(),
            restarts: HashMap::new(),
            pulls: HashMap::new(),
            retry_after: HashMap::new(),
            waiting: BTreeMap::new(),
            tokens: TokenCache::default(),
            volumes: None,
            volumes_at: Instant::now(),
            volume_failures: 0,
            size_at: Instant::now(),
            sandbox_failures: 0,
            sandbox_at: Instant::now(),
            messages: BTreeMap::new(),
            started: Timestamp::now(),
            verdict: None,
            terminal: false,
            admitted: false,
            told_dns: false,
            cleaned: false,
        }
    }

    /// Works until nothing of the pod is left here and in the API.
    pub async fn run(mut self) {
        loop {
            let desired = self.rx.borrow_and_update().clone();
            let next = match self.sync(&desired).await {
                Ok(Next::Done) => {
                    debug!(uid = self.uid, "the pod is gone");
                    return;
                }
                Ok(Next::At(at)) => at,
                Err(error) => {
                    warn!(pod = desired.pod.metadata.name, uid = self.uid, %error, "trying again");
                    Instant::now() + Duration::from_secs(1)
                }
            };
            tokio::select! {
                // Labels may stand in a volume.
                _ = self.rx.changed() => self.volumes_at = Instant::now(),
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    async fn sync(&mut self, desired: &Desired) -> Result<Next, CriError> {
        let pod = desired.pod.clone();
        if desired.ending() {
            self.terminate(desired).await?;
            return Ok(Next::Done);
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or("");
        if matches!(phase, "Succeeded" | "Failed") {
            self.terminal = true;
        }
        if !self.terminal && !self.admitted {
            self.admit(&pod);
        }
        if !self.terminal {
            self.deadline(&pod);
        }
        let mut snap = snapshot::take(&self.k.cri, &self.uid).await?;
        if !self.terminal {
            self.size_limit(&pod);
        }
        if self.terminal || self.verdict.is_some() {
            self.terminal = true;
            return self.finish(&pod, snap).await;
        }
        for _ in 0..64 {
            self.probes
                .reconcile(&self.k, &pod, &snap.runtime, &self.wake);
            self.publish(&snap);
            let no_spec = PodSpec::default();
            let spec = pod.spec.as_ref().unwrap_or(&no_spec);
            let acted = match plan(spec, &snap.runtime, &self.probes.view(), spec_hash) {
                Plan::Finish => {
                    self.terminal = true;
                    return self.finish(&pod, snap).await;
                }
                Plan::NewSandbox { .. } if Instant::now() < self.sandbox_at => false,
                Plan::NewSandbox { attempt } => self.new_sandbox(&pod, &snap, attempt).await?,
                Plan::Containers { kill, start } => {
                    self.containers(&pod, spec, &snap, kill, start).await
                }
            };
            if self.ending.is_cancelled() {
                // The loop in `run` sees the end at once.
                return Ok(Next::At(Instant::now()));
            }
            if !acted {
                break;
            }
            snap = snapshot::take(&self.k.cri, &self.uid).await?;
        }
        self.refresh_volumes(&pod).await;
        self.probes
            .reconcile(&self.k, &pod, &snap.runtime, &self.wake);
        self.publish(&snap);
        self.remove_old(&snap).await;
        Ok(Next::At(self.next(&pod)))
    }

    /// Refuses a pod that asks for what this kubelet doesn't do.
    fn admit(&mut self, pod: &Pod) {
        self.admitted = true;
        let spec = serde_json::to_value(pod.spec.as_ref()).unwrap_or(Value::Null);
        let unsupported = supported::unsupported(&spec);
        if !unsupported.is_empty() {
            let message = format!(
                "Pod fields that this node does not support: {}",
                unsupported.join(", ")
            );
            self.fail(pod, "UnsupportedField", message);
        } else if let Some(why) = pod.spec.as_ref().and_then(security::forbidden_sysctl) {
            self.fail(pod, "SysctlForbidden", why);
        }
    }

    fn fail(&mut self, pod: &Pod, reason: &str, message: String) {
        self.k
            .events
            .pod(pod, None, WARNING, reason, message.clone());
        self.verdict = Some(Verdict {
            reason: reason.into(),
            message,
        });
    }

    fn deadline(&mut self, pod: &Pod) {
        if let Some(at) = deadline_of(pod, self.started)
            && Timestamp::now().as_second() >= at
        {
            let message =
                "Pod was active on the node longer than the specified deadline".to_string();
            self.fail(pod, "DeadlineExceeded", message);
        }
    }

    fn size_limit(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else { return };
        if Instant::now() < self.size_at {
            return;
        }
        self.size_at = Instant::now() + SIZE_CHECK;
        if let Some((name, limit)) = volumes::over_limit(&self.k.config.pod_dir(&self.uid), spec) {
            let message =
                format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
            self.fail(pod, "Evicted", message);
        }
    }

    /// Reads messages of containers that ended, and writes the status if it changed.
    pub(crate) fn publish(&mut self, snap: &Snapshot) {
        // What others wrote while this worker was busy counts too: a readiness gate, an ended phase.
        let pod = self.rx.borrow().pod.clone();
        for r in snap
            .runtime
            .containers
            .iter()
            .filter(|r| r.state == RunState::Exited)
        {
            if !self.messages.contains_key(&r.id)
                && let Some(detail) = snap.details.get(&r.id)
                && let Some(message) = snapshot::termination_message(r, detail)
            {
                self.messages.insert(r.id.clone(), message);
            }
        }
        let status = pod_status(&StatusInputs {
            pod: &pod,
            runtime: &snap.runtime,
            probes: &self.probes.view(),
            waiting: &self.waiting,
            verdict: self.verdict.as_ref(),
            terminal: self.terminal,
            host_ips: &self.k.node.host_ips,
            start_time: self.started,
            now: Timestamp::now(),
            messages: &self.messages,
        });
        self.writer.send(&pod, status);
    }

    /// Makes the sandbox, and at the same time the volumes.
    async fn new_sandbox(
        &mut self,
        pod: &Arc<Pod>,
        snap: &Snapshot,
        attempt: u32,
    ) -> Result<bool, CriError> {
        for old in &snap.runtime.sandboxes {
            if attempt > 0 && old.ready {
                continue;
            }
            self.k.cri.stop_sandbox(&old.id).await?;
        }
        if attempt > 0 && self.sandbox_failures == 0 {
            self.k.events.pod(
                pod,
                None,
                NORMAL,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
        }
        let no_spec = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let (config, fell_back) = sandbox::config(&self.k, pod, attempt);
        if fell_back && !self.told_dns {
            self.told_dns = true;
            let (namespace, name, uid) = meta(pod);
            self.k.events.pod(
                pod,
                None,
                WARNING,
                "MissingClusterDNS",
                format!(
                    "pod: \"{name}_{namespace}({uid})\". kubelet does not have ClusterDNS IP configured and cannot \
                     create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy."
                ),
            );
        }
        let created = async {
            self.k
                .cgroups
                .ensure_pod(&self.uid, qos(spec), pod_limits(spec))
                .map_err(|e| e.to_string())?;
            self.k
                .cri
                .run_sandbox(config)
                .await
                .map_err(|e| e.message().to_string())
        };
        let k = self.k.clone();
        let tokens = &mut self.tokens;
        let both = async { tokio::join!(created, volumes::set_up(&k, pod, tokens)) };
        let (created, set_up) = tokio::select! {
            r = both => r,
            () = self.ending.cancelled() => return Ok(false),
        };
        match set_up {
            Ok(mounted) => {
                self.volumes = Some(mounted);
                self.volume_failures = 0;
                self.volumes_at = Instant::now() + VOLUME_REFRESH;
            }
            Err(error) => {
                self.k
                    .events
                    .pod(pod, None, WARNING, "FailedMount", error.to_string());
                self.volumes = None;
                self.volumes_at = Instant::now() + self.mount_retry();
            }
        }
        match created {
            Ok(id) => {
                info!(
                    pod = pod.metadata.name,
                    namespace = pod.metadata.namespace,
                    id,
                    attempt,
                    "made the sandbox"
                );
                self.sandbox_failures = 0;
                Ok(true)
            }
            Err(why) => {
                self.sandbox_failures += 1;
                self.sandbox_at =
                    Instant::now() + Duration::from_secs(1 << self.sandbox_failures.min(4));
                self.k.events.pod(
                    pod,
                    None,
                    WARNING,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {why}"),
                );
                Ok(false)
            }
        }
    }

    /// Stops and starts containers; whether anything happened.
    async fn containers(
        &mut self,
        pod: &Arc<Pod>,
        spec: &PodSpec,
        snap: &Snapshot,
        kill: Vec<Kill>,
        start: Vec<Start>,
    ) -> bool {
        let mut acted = false;
        for k in kill {
            let (role, c) = find(spec, &k.name);
            self.announce_kill(pod, role, &k);
            let grace = grace_after(pod, c, &k.why);
            let k8s = self.k.clone();
            let stop = Stop {
                pod,
                container: c,
                id: &k.id,
                pod_ip: snap
                    .runtime
                    .current()
                    .and_then(|s| s.ips.first())
                    .map(String::as_str),
                field: field_path(role, &k.name),
                grace,
                run_hook: true,
            };
            tokio::select! {
                r = hooks::stop(&k8s, &stop) => match r {
                    Ok(()) => acted = true,
                    Err(error) => warn!(%error, container = k.name, "cannot stop the container"),
                },
                () = self.ending.cancelled() => return false,
            }
        }
        if start.is_empty() {
            return acted;
        }
        if !self.ready_volumes(pod).await {
            return acted;
        }
        for s in start {
            let added = spec.ephemeral_containers.as_deref().unwrap_or_default();
            let added = added.get(s.index).filter(|_| s.role == Role::Ephemeral);
            let c = match s.role {
                Role::Init => spec
                    .init_containers
                    .iter()
                    .flatten()
                    .nth(s.index)
                    .map(Cow::Borrowed),
                Role::Regular => spec.containers.get(s.index).map(Cow::Borrowed),
                Role::Ephemeral => added.map(|e| Cow::Owned(ephemeral::container(e))),
            };
            let Some(c) = c else { continue };
            if self.backed_off(pod, &c, &s) {
                continue;
            }
            acted |= self.start(pod, snap, &c, added, &s).await;
            if self.ending.is_cancelled() {
                return acted;
            }
        }
        acted
    }

    fn announce_kill(&self, pod: &Pod, role: Role, k: &Kill) {
        let name = &k.name;
        let message = match k.why {
            KillWhy::Probe(ProbeKind::Startup) => {
                format!("Container {name} failed startup probe, will be restarted")
            }
            KillWhy::Probe(_) => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            KillWhy::SpecChanged => {
                format!("Container {name} definition changed, will be restarted")
            }
            KillWhy::OldSandbox => format!("Stopping container {name}"),
        };
        self.k
            .events
            .pod(pod, field_path(role, name), NORMAL, "Killing", message);
    }

    /// Whether the container has to wait, for its restart back-off or after a failure.
    fn backed_off(&mut self, pod: &Pod, c: &Container, s: &Start) -> bool {
        if self
            .retry_after
            .get(&c.name)
            .is_some_and(|at| Instant::now() < *at)
        {
            return true;
        }
        let Some(ended) = s.after else { return false };
        let ended_ms = ended / 1_000_000;
        let now_ms = Timestamp::now().as_millisecond();
        let backoff = self.restarts.entry(c.name.clone()).or_default();
        let left = backoff.remaining(ended_ms, now_ms);
        if left <= 0 {
            backoff.advance(ended_ms, now_ms);
            return false;
        }
        let (namespace, name, uid) = meta(pod);
        let full = format!("{name}_{namespace}({uid})");
        let seconds = Duration::from_millis(backoff.wait_ms().max(0) as u64);
        let shown = if seconds.as_secs() >= 60 {
            format!("{}m{}s", seconds.as_secs() / 60, seconds.as_secs() % 60)
        } else {
            format!("{}s", seconds.as_secs())
        };
        let message = format!(
            "back-off {shown} restarting failed container={} pod={full}",
            c.name
        );
        let before = self.waiting.insert(
            c.name.clone(),
            Waiting {
                reason: "CrashLoopBackOff".into(),
                message,
            },
        );
        if before.is_none_or(|w| w.reason != "CrashLoopBackOff") {
            let text = format!(
                "Back-off restarting failed container {} in pod {full}",
                c.name
            );
            self.k
                .events
                .pod(pod, field_path(s.role, &c.name), WARNING, "BackOff", text);
        }
        self.retry_after.insert(
            c.name.clone(),
            Instant::now() + Duration::from_millis(left as u64),
        );
        true
    }

    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        snap: &Snapshot,
        c: &Container,
        ephemeral: Option<&EphemeralContainer>,
        s: &Start,
    ) -> bool {
        let Some(sandbox) = snap.runtime.current() else {
            return false;
        };
        let Some(mounted) = &self.volumes else {
            return false;
        };
        let request = StartRequest {
            pod,
            container: c,
            role: s.role,
            ephemeral,
            runtime: &snap.runtime,
            attempt: s.attempt,
            sandbox_id: &sandbox.id,
            sandbox_attempt: sandbox.attempt,
            pod_ips: &sandbox.ips,
            volumes: mounted,
        };
        let pulls = self
            .pulls
            .entry(c.image.clone().unwrap_or_default())
            .or_default();
        let started = tokio::select! {
            r = container::start(&self.k, &request, pulls) => r,
            () = self.ending.cancelled() => return false,
        };
        match started {
            Ok(_) => {
                self.waiting.remove(&c.name);
                self.retry_after.remove(&c.name);
                true
            }
            Err(why) => {
                // ErrImagePull is followed by ImagePullBackOff, as one sees it in Kubernetes.
                let wait = match why.reason.as_str() {
                    "ErrImagePull" => Duration::from_secs(2),
                    "ImagePullBackOff" => {
                        let left = pulls.remaining(Timestamp::now().as_millisecond());
                        Duration::from_millis(left.max(0) as u64 + 1)
                    }
                    _ => RETRY,
                };
                info!(
                    pod = pod.metadata.name,
                    container = c.name,
                    reason = why.reason,
                    message = why.message,
                    "not started"
                );
                let made_one = matches!(
                    why.reason.as_str(),
                    "RunContainerError" | "PostStartHookError"
                );
                self.waiting.insert(c.name.clone(), why);
                self.retry_after
                    .insert(c.name.clone(), Instant::now() + wait);
                made_one
            }
        }
    }

    /// Sets volumes up if they aren't (after the kubelet was restarted, or after a failure).
    async fn ready_volumes(&mut self, pod: &Arc<Pod>) -> bool {
        if self.volumes.is_some() {
            return true;
        }
        if Instant::now() < self.volumes_at {
            return false;
        }
        match volumes::set_up(&self.k, pod, &mut self.tokens).await {
            Ok(mounted) => {
                self.volumes = Some(mounted);
                self.volume_failures = 0;
                self.volumes_at = Instant::now() + VOLUME_REFRESH;
                true
            }
            Err(error) => {
                self.k
                    .events
                    .pod(pod, None, WARNING, "FailedMount", error.to_string());
                self.volumes_at = Instant::now() + self.mount_retry();
                false
            }
        }
    }

    /// From half a second, doubling to ten.
    fn mount_retry(&mut self) -> Duration {
        self.volume_failures += 1;
        Duration::from_millis(250 << self.volume_failures.min(6)).min(Duration::from_secs(10))
    }

    /// Brings configMap, secret, downward and token volumes up to date.
    async fn refresh_volumes(&mut self, pod: &Arc<Pod>) {
        let live = has_live_volumes(pod);
        if !live || Instant::now() < self.volumes_at {
            return;
        }
        if self.volumes.is_none() && self.volume_failures > 0 {
            self.ready_volumes(pod).await;
            return;
        }
        // A failure leaves the old content, and is reported.
        match volumes::set_up(&self.k, pod, &mut self.tokens).await {
            Ok(mounted) => self.volumes = Some(mounted),
            Err(error) => self
                .k
                .events
                .pod(pod, None, WARNING, "FailedMount", error.to_string()),
        }
        self.volumes_at = Instant::now() + VOLUME_REFRESH;
    }

    /// Of ended containers the newest two of each name stay, for status and `logs --previous`.
    async fn remove_old(&self, snap: &Snapshot) {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for r in &snap.runtime.containers {
            let n = seen.entry(&r.name).or_default();
            *n += 1;
            if *n > 2 && r.state == RunState::Exited {
                if let Err(error) = self.k.cri.remove_container(&r.id).await {
                    debug!(%error, id = r.id, "cannot remove an old container");
                }
                if let Some(d) = snap.details.get(&r.id) {
                    let _ = std::fs::remove_file(&d.log_path);
                }
            }
        }
        for old in snap.runtime.sandboxes.iter().skip(1).filter(|s| !s.ready) {
            let used = snap
                .runtime
                .containers
                .iter()
                .any(|c| c.sandbox_id == old.id);
            if !used && let Err(error) = self.k.cri.remove_sandbox(&old.id).await {
                debug!(%error, id = old.id, "cannot remove an old sandbox");
            }
        }
    }

    /// The pod is over: stop what still runs, give its network back, keep containers for their logs.
    async fn finish(&mut self, pod: &Arc<Pod>, mut snap: Snapshot) -> Result<Next, CriError> {
        let running = snap
            .runtime
            .containers
            .iter()
            .any(|c| c.state == RunState::Running);
        let ready = snap.runtime.sandboxes.iter().any(|s| s.ready);
        let ended = matches!(
            pod.status.as_ref().and_then(|s| s.phase.as_deref()),
            Some("Succeeded" | "Failed")
        );
        if running {
            let own = pod
                .spec
                .as_ref()
                .and_then(|s| s.termination_grace_period_seconds);
            let grace = stop_seconds(own);
            let deadline = Instant::now() + Duration::from_secs(grace as u64);
            let k = self.k.clone();
            tokio::select! {
                r = crate::terminate::stop_containers(&k, pod, &snap, deadline, true) => r?,
                () = self.ending.cancelled() => return Ok(Next::At(Instant::now())),
            }
            snap = snapshot::take(&self.k.cri, &self.uid).await?;
        }
        self.probes = ProbeSet::default();
        if ready {
            for s in &snap.runtime.sandboxes {
                self.k.cri.stop_sandbox(&s.id).await?;
            }
        }
        if !ended {
            // The snapshot still has the addresses; they outlive the sandbox in the status.
            for s in &mut snap.runtime.sandboxes {
                s.ready = false;
            }
            self.publish(&snap);
        }
        if !self.cleaned {
            match self.clean_up() {
                Ok(()) => self.cleaned = true,
                Err(why) => {
                    debug!(uid = self.uid, why, "clean-up will be tried again");
                    return Ok(Next::At(Instant::now() + RETRY));
                }
            }
        }
        Ok(Next::At(Instant::now() + RESYNC))
    }

    /// Volumes and cgroups.
    pub(crate) fn clean_up(&self) -> Result<(), String> {
        let dir = self.k.config.pod_dir(&self.uid);
        volumes::tear_down(&dir).map_err(|e| format!("removing {}: {e}", dir.display()))?;
        self.k
            .cgroups
            .remove_pod(&self.uid)
            .map_err(|e| e.to_string())
    }

    fn next(&self, pod: &Pod) -> Instant {
        let now = Instant::now();
        let mut next = now + RESYNC;
        for at in self.retry_after.values().filter(|at| **at > now) {
            next = next.min(*at);
        }
        if has_live_volumes(pod) || (self.volumes.is_none() && self.volumes_at > now) {
            next = next.min(self.volumes_at.max(now + Duration::from_millis(100)));
        }
        let limited = pod
            .spec
            .iter()
            .flat_map(|s| s.volumes.iter().flatten())
            .any(|v| v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some()));
        if limited {
            next = next.min(self.size_at.max(now + Duration::from_millis(100)));
        }
        if let Some(at) = deadline_of(pod, self.started) {
            let left = at.saturating_sub(Timestamp::now().as_second()).max(0) as u64;
            let left = Duration::from_secs(left).min(RESYNC);
            next = next.min(now + left + Duration::from_millis(50));
        }
        if self.sandbox_failures > 0 {
            next = next.min(self.sandbox_at.max(now));
        }
        next
    }
}

fn has_live_volumes(pod: &Pod) -> bool {
    pod.spec
        .iter()
        .flat_map(|s| s.volumes.iter().flatten())
        .any(volumes::is_live)
}

/// When the pod's activeDeadlineSeconds end, in seconds since the epoch.
fn deadline_of(pod: &Pod, started: Timestamp) -> Option<i64> {
    let limit = pod.spec.as_ref()?.active_deadline_seconds?;
    let from = pod
        .status
        .as_ref()
        .and_then(|s| s.start_time.as_ref())
        .map_or(started, |t| t.0);
    Some(from.as_second().saturating_add(limit))
}

/// A container of the pod by its name. Ephemeral ones have nothing that anybody asks it for.
pub fn find<'a>(spec: &'a PodSpec, name: &str) -> (Role, Option<&'a Container>) {
    if ephemeral::find(spec, name).is_some() {
        return (Role::Ephemeral, None);
    }
    match spec.containers.iter().find(|c| c.name == name) {
        Some(c) => (Role::Regular, Some(c)),
        None => (
            Role::Init,
            spec.init_containers
                .iter()
                .flatten()
                .find(|c| c.name == name),
        ),
    }
}

/// Seconds to stop in: a probe may have its own.
fn grace_after(pod: &Pod, c: Option<&Container>, why: &KillWhy) -> i64 {
    let probe = c.and_then(|c| match why {
        KillWhy::Probe(ProbeKind::Startup) => c.startup_probe.as_ref(),
        KillWhy::Probe(_) => c.liveness_probe.as_ref(),
        _ => None,
    });
    probe
        .and_then(|p| p.termination_grace_period_seconds)
        .or_else(|| {
            pod.spec
                .as_ref()
                .and_then(|s| s.termination_grace_period_seconds)
        })
        .unwrap_or(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_grace_period_fits_the_clock() {
        let grace = |deletion: Option<i64>, own: Option<i64>| {
            let mut pod = Pod::default();
            pod.metadata.deletion_grace_period_seconds = deletion;
            pod.spec = Some(PodSpec {
                termination_grace_period_seconds: own,
                ..Default::default()
            });
            let desired = Desired {
                pod: Arc::new(pod),
                gone: false,
            };
            desired.grace()
        };
        assert_eq!(grace(None, None), 30);
        assert_eq!(grace(None, Some(5)), 5);
        assert_eq!(grace(Some(0), Some(5)), 1);
        assert_eq!(grace(Some(i64::MIN), None), 1);
        for long in [grace(Some(i64::MAX), Some(5)), grace(None, Some(i64::MAX))] {
            assert_eq!(long, i64::from(i32::MAX));
            let _ = Instant::now() + Duration::from_secs(long as u64);
        }
    }
}
