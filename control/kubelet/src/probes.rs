//! Liveness, readiness and startup probes: a task a container, as long as it runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::container::field_path;
use crate::events::WARNING;
use crate::http_get;
use crate::kubelet::{Kubelet, lock};
use crate::pure::model::{PodRuntime, ProbeKind, ProbeView, Probes, RunState};
use crate::pure::plan::Role;
use crate::pure::probe_count::ProbeCount;

/// The outcome of one try.
enum Outcome {
    Success,
    Failure(String),
    /// The probe itself could not be made; nothing is counted.
    Unknown(String),
}

struct Task {
    id: String,
    view: Arc<Mutex<ProbeView>>,
    stop: Option<DropGuard>,
}

/// The probes of one pod.
#[derive(Default)]
pub struct ProbeSet {
    tasks: HashMap<String, Task>,
}

/// What a probe task works with.
struct Subject {
    k: Arc<Kubelet>,
    pod: Arc<Pod>,
    container: Container,
    role: Role,
    id: String,
    ip: Option<String>,
    started_at: Timestamp,
    view: Arc<Mutex<ProbeView>>,
    wake: Arc<Notify>,
}

impl ProbeSet {
    /// Starts tasks for containers that run now, and stops those of others.
    pub fn reconcile(
        &mut self,
        k: &Arc<Kubelet>,
        pod: &Arc<Pod>,
        runtime: &PodRuntime,
        wake: &Arc<Notify>,
    ) {
        let no_spec = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let inits = spec
            .init_containers
            .iter()
            .flatten()
            .map(|c| (Role::Init, c));
        let all = inits.chain(spec.containers.iter().map(|c| (Role::Regular, c)));
        let mut keep = vec![];
        for (role, c) in all {
            let Some(r) = runtime
                .latest(&c.name)
                .filter(|r| r.state == RunState::Running)
            else {
                continue;
            };
            keep.push(c.name.clone());
            if self.tasks.get(&c.name).is_some_and(|t| t.id == r.id) {
                continue;
            }
            let view = Arc::new(Mutex::new(initial(pod, c, &r.id)));
            let token = CancellationToken::new();
            let ip = if spec.host_network == Some(true) {
                k.node.host_ips.first().cloned()
            } else {
                runtime.current().and_then(|s| s.ips.first().cloned())
            };
            let subject = Subject {
                k: k.clone(),
                pod: pod.clone(),
                container: c.clone(),
                role,
                id: r.id.clone(),
                ip,
                started_at: Timestamp::from_nanosecond(r.started_at.into())
                    .unwrap_or_else(|_| Timestamp::now()),
                view: view.clone(),
                wake: wake.clone(),
            };
            let stop = token.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watch(subject) => {}
                }
            });
            self.tasks.insert(
                c.name.clone(),
                Task {
                    id: r.id.clone(),
                    view,
                    stop: Some(token.drop_guard()),
                },
            );
        }
        self.tasks.retain(|name, _| keep.contains(name));
    }

    /// Probes no more; the last results stay.
    pub fn stop(&mut self) {
        for t in self.tasks.values_mut() {
            t.stop = None;
        }
    }

    /// The present results by container id.
    pub fn view(&self) -> Probes {
        self.tasks
            .values()
            .map(|t| (t.id.clone(), lock(&t.view).clone()))
            .collect()
    }
}

/// Results before the first try. For a container that the API knows already (the kubelet was
/// restarted) its results stand until a probe says otherwise.
fn initial(pod: &Pod, c: &Container, id: &str) -> ProbeView {
    let full = format!("containerd://{id}");
    let status = pod.status.as_ref();
    let known = status.and_then(|s| {
        s.container_statuses
            .iter()
            .flatten()
            .chain(s.init_container_statuses.iter().flatten())
            .find(|s| s.container_id.as_deref() == Some(&full))
    });
    ProbeView {
        started: c.startup_probe.is_none() || known.is_some_and(|s| s.started == Some(true)),
        ready: c.readiness_probe.is_none() || known.is_some_and(|s| s.ready),
        restart: None,
    }
}

async fn watch(s: Subject) {
    if let Some(p) = s.container.startup_probe.clone()
        && !lock(&s.view).started
    {
        run(&s, ProbeKind::Startup, &p).await;
    }
    let liveness = s.container.liveness_probe.clone();
    let readiness = s.container.readiness_probe.clone();
    tokio::join!(
        async {
            if let Some(p) = &liveness {
                run(&s, ProbeKind::Liveness, p).await;
            }
        },
        async {
            if let Some(p) = &readiness {
                run(&s, ProbeKind::Readiness, p).await;
            }
        }
    );
}

fn seconds(v: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        v.and_then(|v| u64::try_from(v).ok())
            .filter(|v| *v > 0)
            .unwrap_or(default),
    )
}

/// Probes until startup succeeded, or liveness or startup failed; readiness goes on for ever.
async fn run(s: &Subject, kind: ProbeKind, p: &Probe) {
    let delay = i64::from(p.initial_delay_seconds.unwrap_or(0)) * 1000
        - (Timestamp::now().as_millisecond() - s.started_at.as_millisecond());
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay as u64)).await;
    }
    let success_threshold = p.success_threshold.unwrap_or(1).max(1) as u32;
    let failure_threshold = p.failure_threshold.unwrap_or(3).max(1) as u32;
    let mut ticks = tokio::time::interval(seconds(p.period_seconds, 10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = ProbeCount::default();
    let label = match kind {
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Startup => "Startup",
    };
    let event = |reason: &str, message: String| {
        s.k.events.pod(
            &s.pod,
            field_path(s.role, &s.container.name),
            WARNING,
            reason,
            message,
        );
    };
    loop {
        ticks.tick().await;
        let success = match once(s, p).await {
            Outcome::Success => true,
            Outcome::Failure(why) => {
                event("Unhealthy", format!("{label} probe failed: {why}"));
                false
            }
            Outcome::Unknown(why) => {
                event(
                    "Unhealthy",
                    format!("{label} probe errored and resulted in unknown state: {why}"),
                );
                continue;
            }
        };
        let Some(result) = count.count(success, success_threshold, failure_threshold) else {
            continue;
        };
        let (changed, done) = {
            let mut view = lock(&s.view);
            let before = view.clone();
            match (kind, result) {
                (ProbeKind::Startup, true) => view.started = true,
                (ProbeKind::Startup | ProbeKind::Liveness, false) => view.restart = Some(kind),
                (ProbeKind::Readiness, ok) => view.ready = ok,
                (ProbeKind::Liveness, true) => {}
            }
            (
                before != *view,
                view.restart.is_some() || (kind == ProbeKind::Startup && result),
            )
        };
        if changed {
            s.wake.notify_one();
        }
        if done {
            return;
        }
    }
}

async fn once(s: &Subject, p: &Probe) -> Outcome {
    let limit = seconds(p.timeout_seconds, 1);
    if let Some(exec) = &p.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match s.k.cri.exec_sync(&s.id, &command, limit).await {
            Ok(r) if r.exit_code == 0 => Outcome::Success,
            Ok(r) => {
                let mut text = r.stdout;
                text.extend_from_slice(&r.stderr);
                Outcome::Failure(String::from_utf8_lossy(&text).trim_end().to_string())
            }
            Err(e)
                if e.status.code() == tonic::Code::DeadlineExceeded
                    || e.message().contains("timeout") =>
            {
                Outcome::Failure(format!(
                    "command timed out: {:?} timed out after {}s",
                    command.join(" "),
                    limit.as_secs()
                ))
            }
            Err(e) => Outcome::Unknown(e.to_string()),
        };
    }
    if let Some(action) = &p.http_get {
        return match tokio::time::timeout(
            limit,
            http_get::get(&s.container, action, s.ip.as_deref()),
        )
        .await
        {
            Ok(Ok(a)) if (200..400).contains(&a.code) => Outcome::Success,
            Ok(Ok(a)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", a.code)),
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!("no answer within {}s", limit.as_secs())),
        };
    }
    if let Some(action) = &p.tcp_socket {
        let host = action
            .host
            .clone()
            .filter(|h| !h.is_empty())
            .or_else(|| s.ip.clone())
            .unwrap_or_default();
        let port = match http_get::port(&s.container, &action.port) {
            Ok(p) => p,
            Err(why) => return Outcome::Unknown(why),
        };
        let target = http_get::authority(&host, port);
        return match tokio::time::timeout(limit, TcpStream::connect(&target)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(e)) => Outcome::Failure(format!("dial tcp {target}: {e}")),
            Err(_) => Outcome::Failure(format!("dial tcp {target}: i/o timeout")),
        };
    }
    Outcome::Unknown("the probe has no handler".into())
}
