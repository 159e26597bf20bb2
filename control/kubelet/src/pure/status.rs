//! A pod's status from what the runtime holds: container statuses, phase, conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ephemeral;
use super::model::{ContainerRecord, PodRuntime, Probes, RunState};
use super::resources::{is_sidecar, qos};

/// Why a container doesn't run, for the `waiting` state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// A status that doesn't come from containers, such as an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

/// Everything that a status is made from.
#[derive(Debug)]
pub struct StatusInputs<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a PodRuntime,
    pub probes: &'a Probes,
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The pod failed as a whole.
    pub verdict: Option<&'a Verdict>,
    /// No container will run any more.
    pub terminal: bool,
    pub host_ips: &'a [String],
    pub start_time: Timestamp,
    pub now: Timestamp,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
}

fn time(nanos: i64) -> Option<Time> {
    if nanos <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(nanos.into()).ok().map(Time)
}

fn terminated(r: &ContainerRecord, messages: &BTreeMap<String, String>) -> ContainerState {
    let reason = match r.reason.as_str() {
        "" if r.exit_code == 0 => "Completed",
        "" => "Error",
        other => other,
    };
    let message = messages
        .get(&r.id)
        .cloned()
        .or_else(|| (!r.message.is_empty()).then(|| r.message.clone()));
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(&r.id)),
            exit_code: r.exit_code,
            finished_at: time(r.finished_at),
            started_at: time(r.started_at),
            reason: Some(reason.to_string()),
            message,
            signal: None,
        }),
        ..Default::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_string()),
            message,
        }),
        ..Default::default()
    }
}

fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// The status of one container.
fn container_status(
    i: &StatusInputs<'_>,
    c: &Container,
    init: bool,
    has_init: bool,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let record = i.runtime.latest(&c.name);
    let mut s = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        started: Some(false),
        ..Default::default()
    };
    let default_reason = if init || has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    match record {
        None => {
            // The runtime has lost or never had it: keep what the API remembers.
            if let Some(old) = old {
                s.restart_count = old.restart_count;
                s.last_state = old.last_state.clone();
                s.image_id = old.image_id.clone();
                s.container_id = old.container_id.clone();
                let old_state = old.state.clone().unwrap_or_default();
                if old_state.terminated.is_some() {
                    s.state = Some(old_state);
                } else if old_state.running.is_some() {
                    let lost = ContainerState {
                        terminated: Some(ContainerStateTerminated {
                            container_id: old.container_id.clone(),
                            exit_code: 137,
                            reason: Some("ContainerStatusUnknown".into()),
                            message: Some(
                                "The container could not be located when the pod was terminated"
                                    .into(),
                            ),
                            ..Default::default()
                        }),
                        ..Default::default()
                    };
                    if i.terminal {
                        s.state = Some(lost);
                    } else {
                        s.last_state = Some(lost);
                    }
                }
            }
            if s.state.is_none() {
                s.state = Some(waiting(default_reason, None));
            }
        }
        Some(r) => {
            s.restart_count = r.attempt as i32;
            s.container_id = Some(container_id(&r.id));
            s.image_id = r.image_ref.clone();
            if !r.image.is_empty() && !r.image.starts_with("sha256:") {
                s.image = r.image.clone();
            }
            s.state = Some(match r.state {
                RunState::Running => ContainerState {
                    running: Some(ContainerStateRunning {
                        started_at: time(r.started_at),
                    }),
                    ..Default::default()
                },
                RunState::Exited => terminated(r, i.messages),
                RunState::Created | RunState::Unknown => waiting(default_reason, None),
            });
            if r.attempt > 0 {
                s.last_state = i
                    .runtime
                    .previous(&c.name, &r.id)
                    .filter(|p| p.state == RunState::Exited)
                    .map(|p| terminated(p, i.messages))
                    .or_else(|| {
                        old.filter(|o| o.restart_count == r.attempt as i32)
                            .and_then(|o| o.last_state.clone())
                    });
            }
            if r.state == RunState::Running {
                let probe = i.probes.get(&r.id).cloned().unwrap_or_default();
                s.started = Some(probe.started);
                s.ready = probe.ready && probe.started;
            } else if init && !is_sidecar(c) && r.state == RunState::Exited && r.exit_code == 0 {
                s.ready = true;
            }
        }
    }
    // A container that waits for its restart shows why, and its end as the last state.
    let running = s.state.as_ref().is_some_and(|st| st.running.is_some());
    if !running
        && !i.terminal
        && let Some(w) = i.waiting.get(&c.name)
    {
        if let Some(st) = s.state.take().filter(|st| st.terminated.is_some()) {
            s.last_state = Some(st);
        }
        s.state = Some(waiting(
            &w.reason,
            (!w.message.is_empty()).then(|| w.message.clone()),
        ));
        s.ready = false;
    }
    s
}

fn is_done(s: &ContainerStatus) -> Option<i32> {
    s.state
        .as_ref()
        .and_then(|st| st.terminated.as_ref())
        .map(|t| t.exit_code)
}

fn last_exit(s: &ContainerStatus) -> Option<i32> {
    s.last_state
        .as_ref()
        .and_then(|st| st.terminated.as_ref())
        .map(|t| t.exit_code)
}

fn is_running(s: &ContainerStatus) -> bool {
    s.state.as_ref().is_some_and(|st| st.running.is_some())
}

/// The pod's phase, as Kubernetes' kubelet computes it.
pub fn phase(
    spec: &PodSpec,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    terminal: bool,
) -> &'static str {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let find = |list: &[ContainerStatus], name: &str| list.iter().position(|s| s.name == name);
    let mut pending_init = false;
    let mut failed_init = false;
    for c in spec.init_containers.iter().flatten() {
        let status = find(init, &c.name).map(|i| &init[i]);
        let Some(s) = status else {
            pending_init = true;
            continue;
        };
        if is_sidecar(c) {
            if is_running(s) {
                pending_init |= s.started != Some(true);
            } else if is_done(s).is_none() && last_exit(s).is_none() {
                pending_init = true;
            }
        } else if let Some(code) = is_done(s) {
            failed_init |= code != 0;
        } else if is_running(s) {
            pending_init = true;
        } else {
            match last_exit(s) {
                Some(0) | None => pending_init = true,
                Some(_) => {
                    failed_init = true;
                    pending_init = true;
                }
            }
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded, mut unknown) = (0, 0, 0, 0, 0);
    for c in &spec.containers {
        match find(regular, &c.name).map(|i| &regular[i]) {
            None => unknown += 1,
            Some(s) if is_running(s) => running += 1,
            Some(s) => match is_done(s) {
                Some(code) => {
                    stopped += 1;
                    succeeded += usize::from(code == 0);
                }
                None if last_exit(s).is_some() => stopped += 1,
                None => waiting += 1,
            },
        }
    }
    if failed_init && policy == "Never" {
        return "Failed";
    }
    // Sidecars that restart don't take a pod that runs back to Pending.
    let regular_began = running + stopped > 0;
    match () {
        () if pending_init && !regular_began => {
            if terminal {
                "Failed"
            } else {
                "Pending"
            }
        }
        () if terminal => {
            if running > 0 {
                "Running"
            } else if stopped == spec.containers.len() && succeeded == stopped {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        () if waiting > 0 => "Pending",
        () if running > 0 && unknown == 0 => "Running",
        () if running == 0 && stopped > 0 && unknown == 0 => match policy {
            "Always" => "Running",
            _ if stopped == succeeded => "Succeeded",
            "Never" => "Failed",
            _ => "Running",
        },
        () => "Pending",
    }
}

struct Condition {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn not_ready(names: &[String], what: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {what} status: [{}]", names.join(" ")))
}

/// Conditions that the kubelet owns; other writers' are kept.
fn conditions(
    i: &StatusInputs<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: &str,
) -> Vec<PodCondition> {
    let no_spec = PodSpec::default();
    let spec = i.pod.spec.as_ref().unwrap_or(&no_spec);
    let old: Vec<PodCondition> = i
        .pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();

    let mut incomplete = vec![];
    for c in spec.init_containers.iter().flatten() {
        let s = init.iter().find(|s| s.name == c.name);
        let complete = s.is_some_and(|s| {
            if is_sidecar(c) {
                s.started == Some(true) || last_exit(s).is_some()
            } else {
                is_done(s) == Some(0)
            }
        });
        if !complete {
            incomplete.push(c.name.clone());
        }
    }
    // Once a regular container ran, initialization is over, whatever became of the records.
    if regular
        .iter()
        .any(|s| is_running(s) || is_done(s).is_some() || last_exit(s).is_some())
    {
        incomplete.clear();
    }
    let succeeded = phase == "Succeeded";
    let initialized = Condition {
        kind: "Initialized",
        status: succeeded || incomplete.is_empty(),
        reason: if succeeded {
            Some("PodCompleted")
        } else {
            (!incomplete.is_empty()).then_some("ContainersNotInitialized")
        },
        message: if succeeded {
            None
        } else {
            not_ready(&incomplete, "incomplete")
        },
    };

    let mut unready: Vec<String> = vec![];
    for c in spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| is_sidecar(c))
    {
        if !init.iter().any(|s| s.name == c.name && s.ready) {
            unready.push(c.name.clone());
        }
    }
    for c in &spec.containers {
        if !regular.iter().any(|s| s.name == c.name && s.ready) {
            unready.push(c.name.clone());
        }
    }
    let containers_ready = match phase {
        "Succeeded" => Condition {
            kind: "ContainersReady",
            status: false,
            reason: Some("PodCompleted"),
            message: None,
        },
        "Failed" => Condition {
            kind: "ContainersReady",
            status: false,
            reason: Some("PodFailed"),
            message: None,
        },
        _ => Condition {
            kind: "ContainersReady",
            status: unready.is_empty(),
            reason: (!unready.is_empty()).then_some("ContainersNotReady"),
            message: not_ready(&unready, "unready"),
        },
    };
    let gates: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter(|g| {
            !old.iter()
                .any(|c| c.type_ == g.condition_type && c.status == "True")
        })
        .map(|g| {
            format!(
                "the status of pod readiness gate {:?} is not \"True\", but False",
                g.condition_type
            )
        })
        .collect();
    let ready = if containers_ready.status && !gates.is_empty() {
        Condition {
            kind: "Ready",
            status: false,
            reason: Some("ReadinessGatesNotReady"),
            message: Some(gates.join(", ")),
        }
    } else {
        Condition {
            kind: "Ready",
            status: containers_ready.status,
            reason: containers_ready.reason,
            message: containers_ready.message.clone(),
        }
    };
    let has_network = i
        .runtime
        .current()
        .is_some_and(|s| s.ready && (spec.host_network == Some(true) || !s.ips.is_empty()));
    let started = Condition {
        kind: "PodReadyToStartContainers",
        status: has_network,
        reason: None,
        message: None,
    };

    let mut out = vec![];
    for c in [started, initialized, ready, containers_ready] {
        let status = if c.status { "True" } else { "False" };
        let before = old.iter().find(|o| o.type_ == c.kind);
        let since = before
            .filter(|o| o.status == status)
            .and_then(|o| o.last_transition_time.clone());
        out.push(PodCondition {
            type_: c.kind.to_string(),
            status: status.to_string(),
            reason: c.reason.map(str::to_string),
            message: c.message,
            last_transition_time: Some(since.unwrap_or(Time(i.now))),
            last_probe_time: None,
            observed_generation: i.pod.metadata.generation,
        });
    }
    out.extend(old.into_iter().filter(|o| {
        ![
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
        ]
        .contains(&o.type_.as_str())
    }));
    out
}

/// The whole status.
pub fn pod_status(i: &StatusInputs<'_>) -> PodStatus {
    let no_spec = PodSpec::default();
    let spec = i.pod.spec.as_ref().unwrap_or(&no_spec);
    let old = i.pod.status.as_ref();
    let old_of = |list: Option<&Vec<ContainerStatus>>, name: &str| -> Option<ContainerStatus> {
        list.into_iter().flatten().find(|s| s.name == name).cloned()
    };
    let has_init = spec.init_containers.as_ref().is_some_and(|l| !l.is_empty());
    let init: Vec<ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| {
            let before = old_of(
                old.and_then(|o| o.init_container_statuses.as_ref()),
                &c.name,
            );
            container_status(i, c, true, has_init, before.as_ref())
        })
        .collect();
    let regular: Vec<ContainerStatus> = spec
        .containers
        .iter()
        .map(|c| {
            let before = old_of(old.and_then(|o| o.container_statuses.as_ref()), &c.name);
            container_status(i, c, false, has_init, before.as_ref())
        })
        .collect();
    let ephemeral: Vec<ContainerStatus> = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|e| {
            let known = old.and_then(|o| o.ephemeral_container_statuses.as_ref());
            let before = old_of(known, &e.name);
            let c = ephemeral::container(e);
            ContainerStatus {
                // Nothing says of them whether they are.
                ready: false,
                started: None,
                ..container_status(i, &c, false, has_init, before.as_ref())
            }
        })
        .collect();
    // A pod that was refused never had containers.
    let refused = i.verdict.is_some()
        && i.runtime.containers.is_empty()
        && old
            .and_then(|o| o.container_statuses.as_ref())
            .is_none_or(|l| l.iter().all(|s| s.container_id.is_none()));
    let mut phase = phase(spec, &init, &regular, i.terminal);
    if i.verdict.is_some() {
        phase = "Failed";
    }
    // A phase that ended stays.
    match old.and_then(|o| o.phase.as_deref()) {
        Some("Succeeded") => phase = "Succeeded",
        Some("Failed") => phase = "Failed",
        _ => {}
    }
    let ips: Vec<String> = if spec.host_network == Some(true) {
        if i.runtime.sandboxes.is_empty() {
            vec![]
        } else {
            i.host_ips.to_vec()
        }
    } else {
        let from_sandbox = i
            .runtime
            .sandboxes
            .iter()
            .find(|s| !s.ips.is_empty())
            .map(|s| s.ips.clone());
        from_sandbox.unwrap_or_else(|| {
            let old_ips = old.and_then(|o| o.pod_ips.clone()).unwrap_or_default();
            if i.terminal {
                old_ips.into_iter().map(|p| p.ip).collect()
            } else {
                vec![]
            }
        })
    };
    let conditions = conditions(i, &init, &regular, phase);
    let keep = |field: fn(&PodStatus) -> Option<String>| old.and_then(field);
    PodStatus {
        phase: Some(phase.to_string()),
        reason: i
            .verdict
            .map(|v| v.reason.clone())
            .or_else(|| keep(|o| o.reason.clone())),
        message: i
            .verdict
            .map(|v| v.message.clone())
            .or_else(|| keep(|o| o.message.clone())),
        conditions: Some(conditions),
        init_container_statuses: (has_init && !refused).then_some(init),
        container_statuses: (!refused).then_some(regular),
        ephemeral_container_statuses: (!ephemeral.is_empty() && !refused).then_some(ephemeral),
        host_ip: i.host_ips.first().cloned(),
        host_ips: (!i.host_ips.is_empty()).then(|| {
            i.host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect()
        }),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: Some(
            old.and_then(|o| o.qos_class.clone())
                .unwrap_or_else(|| qos(spec).as_str().to_string()),
        ),
        start_time: Some(
            old.and_then(|o| o.start_time.clone())
                .unwrap_or(Time(i.start_time)),
        ),
        observed_generation: i.pod.metadata.generation,
        nominated_node_name: None,
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
