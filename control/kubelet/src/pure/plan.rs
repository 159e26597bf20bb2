//! What to do next for a pod: the kubelet's central decision.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::ephemeral;
use super::model::{ContainerRecord, PodRuntime, ProbeKind, Probes, RunState};
use super::resources::is_sidecar;

/// Containers of a pod are init containers (sidecars among them), regular ones, or were added later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    Regular,
    Ephemeral,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub role: Role,
    /// Index into the pod's containers of that role.
    pub index: usize,
    /// Kubernetes' restart count of the new container.
    pub attempt: u32,
    /// When the one before ended (nanoseconds), if it did: its back-off counts from there.
    pub after: Option<i64>,
}

/// A container to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub why: KillWhy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillWhy {
    Probe(ProbeKind),
    SpecChanged,
    OldSandbox,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Every container is done, or the pod failed: stop what still runs.
    Finish,
    /// Make a new sandbox; the old ones are stopped first. Then plan again.
    NewSandbox { attempt: u32 },
    /// Stop and start containers; both may be empty.
    Containers { kill: Vec<Kill>, start: Vec<Start> },
}

fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// Whether a regular container that isn't running is to be started.
fn should_start(policy: &str, record: Option<&ContainerRecord>) -> bool {
    match record {
        None => true,
        Some(r) => match r.state {
            RunState::Running => false,
            RunState::Created | RunState::Unknown => true,
            RunState::Exited => match policy {
                "Never" => false,
                "OnFailure" => r.exit_code != 0,
                _ => true,
            },
        },
    }
}

fn start(role: Role, index: usize, record: Option<&ContainerRecord>) -> Start {
    Start {
        role,
        index,
        attempt: record.map_or(0, |r| r.attempt + 1),
        after: record
            .filter(|r| r.state == RunState::Exited)
            .map(|r| r.finished_at),
    }
}

/// Decides the next step. `hash` is the identity of a container's spec.
pub fn plan(
    spec: &PodSpec,
    runtime: &PodRuntime,
    probes: &Probes,
    hash: impl Fn(&Container) -> String,
) -> Plan {
    let policy = restart_policy(spec);
    let no_init = vec![];
    let inits = spec.init_containers.as_ref().unwrap_or(&no_init);

    let Some(sandbox) = runtime.current().filter(|s| s.ready) else {
        let attempt = runtime.current().map_or(0, |s| s.attempt + 1);
        if attempt > 0 && policy == "Never" && !runtime.containers.is_empty() {
            return Plan::Finish;
        }
        let left = spec
            .containers
            .iter()
            .any(|c| match runtime.latest(&c.name) {
                // It died with its sandbox.
                Some(r) if r.state == RunState::Running => policy != "Never",
                r => should_start(policy, r),
            });
        return if left {
            Plan::NewSandbox { attempt }
        } else {
            Plan::Finish
        };
    };

    let mut kill = vec![];
    // They may be there to see why initialization doesn't get on.
    let mut starts = ephemeral::starts(spec, runtime);
    let probe_kill = |r: &ContainerRecord, kill: &mut Vec<Kill>| -> bool {
        match probes.get(&r.id).and_then(|p| p.restart) {
            Some(kind) => {
                kill.push(Kill {
                    id: r.id.clone(),
                    name: r.name.clone(),
                    why: KillWhy::Probe(kind),
                });
                true
            }
            None => false,
        }
    };

    let regular_began = spec
        .containers
        .iter()
        .any(|c| runtime.latest_in(&c.name, &sandbox.id).is_some());
    let mut initialized = true;
    for (index, c) in inits.iter().enumerate() {
        // Restarts count over all sandboxes, progress only in this one.
        let record = runtime.latest_in(&c.name, &sandbox.id);
        let next = start(Role::Init, index, runtime.latest(&c.name));
        if is_sidecar(c) {
            match record {
                Some(r) if r.state == RunState::Running => {
                    if probe_kill(r, &mut kill) {
                        if !regular_began {
                            initialized = false;
                            break;
                        }
                    } else if !regular_began && !probes.get(&r.id).is_some_and(|p| p.started) {
                        initialized = false;
                        break;
                    }
                }
                _ => {
                    starts.push(next);
                    if !regular_began {
                        initialized = false;
                        break;
                    }
                }
            }
            continue;
        }
        if regular_began {
            continue;
        }
        match record.map(|r| (r.state, r.exit_code)) {
            Some((RunState::Exited, 0)) => continue,
            Some((RunState::Exited, _)) if policy == "Never" => return Plan::Finish,
            Some((RunState::Running, _)) => {}
            _ => starts.push(next),
        }
        initialized = false;
        break;
    }
    if !initialized {
        return Plan::Containers {
            kill,
            start: starts,
        };
    }

    let mut alive = false;
    for (index, c) in spec.containers.iter().enumerate() {
        let record = runtime.latest(&c.name);
        match record {
            Some(r) if r.state == RunState::Running => {
                alive = true;
                let again = Start {
                    after: None,
                    ..start(Role::Regular, index, Some(r))
                };
                if r.sandbox_id != sandbox.id {
                    kill.push(Kill {
                        id: r.id.clone(),
                        name: c.name.clone(),
                        why: KillWhy::OldSandbox,
                    });
                    starts.push(again);
                } else if r.hash != hash(c) {
                    kill.push(Kill {
                        id: r.id.clone(),
                        name: c.name.clone(),
                        why: KillWhy::SpecChanged,
                    });
                    starts.push(again);
                } else {
                    // After a probe's kill the restart policy decides, by the exit status.
                    probe_kill(r, &mut kill);
                }
            }
            _ if should_start(policy, record) => {
                alive = true;
                starts.push(start(Role::Regular, index, record));
            }
            _ => {}
        }
    }
    if alive {
        Plan::Containers {
            kill,
            start: starts,
        }
    } else {
        Plan::Finish
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::model::{ProbeView, Sandbox};
    use serde_json::json;

    fn spec(policy: &str, inits: &[(&str, bool)], names: &[&str]) -> PodSpec {
        serde_json::from_value(json!({
            "restartPolicy": policy,
            "initContainers": inits.iter().map(|(n, side)| if *side {
                json!({"name": n, "restartPolicy": "Always"})
            } else {
                json!({"name": n})
            }).collect::<Vec<_>>(),
            "containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}))
        .unwrap()
    }

    fn sandbox(ready: bool) -> Sandbox {
        Sandbox {
            id: "s0".into(),
            ready,
            ..Default::default()
        }
    }

    fn record(name: &str, state: RunState, exit_code: i32) -> ContainerRecord {
        ContainerRecord {
            id: format!("id-{name}"),
            name: name.into(),
            sandbox_id: "s0".into(),
            state,
            exit_code,
            finished_at: 7,
            ..Default::default()
        }
    }

    fn run(s: &PodSpec, rt: PodRuntime) -> Plan {
        run_probes(s, rt, &Probes::new())
    }

    fn run_probes(s: &PodSpec, rt: PodRuntime, probes: &Probes) -> Plan {
        plan(s, &rt, probes, |_| String::new())
    }

    fn with(containers: Vec<ContainerRecord>) -> PodRuntime {
        PodRuntime {
            sandboxes: vec![sandbox(true)],
            containers,
        }
    }

    fn starts(p: Plan) -> Vec<(Role, usize)> {
        match p {
            Plan::Containers { kill, start } if kill.is_empty() => {
                start.iter().map(|s| (s.role, s.index)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_then_containers() {
        let s = spec("Always", &[], &["a", "b"]);
        assert_eq!(
            run(&s, PodRuntime::default()),
            Plan::NewSandbox { attempt: 0 }
        );
        assert_eq!(
            starts(run(&s, with(vec![]))),
            [(Role::Regular, 0), (Role::Regular, 1)]
        );
        let up = vec![
            record("a", RunState::Running, 0),
            record("b", RunState::Running, 0),
        ];
        assert_eq!(starts(run(&s, with(up))), []);
    }

    #[test]
    fn init_containers_run_one_after_another() {
        let s = spec("OnFailure", &[("i", false), ("j", false)], &["a"]);
        assert_eq!(starts(run(&s, with(vec![]))), [(Role::Init, 0)]);
        assert_eq!(
            starts(run(&s, with(vec![record("i", RunState::Running, 0)]))),
            []
        );
        let i = record("i", RunState::Exited, 0);
        assert_eq!(starts(run(&s, with(vec![i.clone()]))), [(Role::Init, 1)]);
        assert_eq!(
            starts(run(
                &s,
                with(vec![record("j", RunState::Exited, 1), i.clone()])
            )),
            [(Role::Init, 1)]
        );
        assert_eq!(
            starts(run(
                &s,
                with(vec![record("j", RunState::Exited, 0), i.clone()])
            )),
            [(Role::Regular, 0)]
        );
        let never = spec("Never", &[("i", false)], &["a"]);
        assert_eq!(
            run(&never, with(vec![record("i", RunState::Exited, 3)])),
            Plan::Finish
        );
        // Removed after the pod began: not run again.
        assert_eq!(
            starts(run(&s, with(vec![record("a", RunState::Running, 0)]))),
            []
        );
    }

    #[test]
    fn ephemeral_containers_start_beside_and_hold_nothing_up() {
        let mut s = spec("OnFailure", &[("i", false)], &["a"]);
        s.ephemeral_containers = Some(serde_json::from_value(json!([{"name": "d"}])).unwrap());
        let i = record("i", RunState::Running, 0);
        assert_eq!(starts(run(&s, with(vec![i]))), [(Role::Ephemeral, 0)]);
        let d = record("d", RunState::Running, 0);
        let a = record("a", RunState::Exited, 0);
        assert_eq!(run(&s, with(vec![a, d])), Plan::Finish);
        // In a new sandbox they aren't run again.
        let mut d = record("d", RunState::Exited, 1);
        d.sandbox_id = "old".into();
        let i = record("i", RunState::Exited, 0);
        let a = record("a", RunState::Running, 0);
        assert_eq!(starts(run(&s, with(vec![a, i, d]))), []);
    }

    #[test]
    fn init_containers_run_again_in_a_new_sandbox() {
        let s = spec("Always", &[("i", false)], &["a"]);
        let mut i = record("i", RunState::Exited, 0);
        i.sandbox_id = "old".into();
        let mut a = record("a", RunState::Exited, 137);
        a.sandbox_id = "old".into();
        match run(&s, with(vec![a, i])) {
            Plan::Containers { start, .. } => {
                assert_eq!(start.len(), 1);
                assert_eq!((start[0].role, start[0].attempt), (Role::Init, 1));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sidecars_start_first_and_stay() {
        let s = spec("Never", &[("side", true), ("i", false)], &["a"]);
        assert_eq!(starts(run(&s, with(vec![]))), [(Role::Init, 0)]);
        let side = record("side", RunState::Running, 0);
        assert_eq!(
            starts(run(&s, with(vec![side.clone()]))),
            [],
            "not started yet"
        );
        let probes = Probes::from([(
            "id-side".into(),
            ProbeView {
                started: true,
                ready: true,
                restart: None,
            },
        )]);
        assert_eq!(
            starts(run_probes(&s, with(vec![side.clone()]), &probes)),
            [(Role::Init, 1)]
        );
        let exited = record("side", RunState::Exited, 1);
        let a = record("a", RunState::Running, 0);
        assert_eq!(starts(run(&s, with(vec![exited, a]))), [(Role::Init, 0)]);
        let done = record("a", RunState::Exited, 0);
        assert_eq!(run(&s, with(vec![side, done])), Plan::Finish);
    }

    #[test]
    fn restart_policies() {
        for (policy, code, want) in [
            ("Always", 0, Some(())),
            ("Always", 1, Some(())),
            ("OnFailure", 0, None),
            ("OnFailure", 1, Some(())),
            ("Never", 0, None),
            ("Never", 1, None),
        ] {
            let s = spec(policy, &[], &["a"]);
            let got = run(&s, with(vec![record("a", RunState::Exited, code)]));
            match want {
                None => assert_eq!(got, Plan::Finish, "{policy} {code}"),
                Some(()) => match got {
                    Plan::Containers { start, .. } => {
                        assert_eq!(
                            (start[0].attempt, start[0].after),
                            (1, Some(7)),
                            "{policy} {code}"
                        )
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
    }

    #[test]
    fn a_dead_sandbox_is_replaced_unless_the_pod_is_done() {
        let dead = |c: Vec<ContainerRecord>| PodRuntime {
            sandboxes: vec![sandbox(false)],
            containers: c,
        };
        let s = spec("Always", &[], &["a"]);
        assert_eq!(
            run(&s, dead(vec![record("a", RunState::Exited, 137)])),
            Plan::NewSandbox { attempt: 1 }
        );
        let s = spec("OnFailure", &[], &["a"]);
        assert_eq!(
            run(&s, dead(vec![record("a", RunState::Exited, 0)])),
            Plan::Finish
        );
        assert_eq!(
            run(&s, dead(vec![record("a", RunState::Exited, 1)])),
            Plan::NewSandbox { attempt: 1 }
        );
        let s = spec("Never", &[], &["a"]);
        assert_eq!(
            run(&s, dead(vec![record("a", RunState::Exited, 137)])),
            Plan::Finish
        );
        assert_eq!(run(&s, dead(vec![])), Plan::NewSandbox { attempt: 1 });
    }

    #[test]
    fn probes_kill_and_the_policy_restarts() {
        let s = spec("Always", &[], &["a"]);
        let restart = Some(ProbeKind::Liveness);
        let probes = Probes::from([(
            "id-a".into(),
            ProbeView {
                started: true,
                ready: false,
                restart,
            },
        )]);
        let p = run_probes(&s, with(vec![record("a", RunState::Running, 0)]), &probes);
        let Plan::Containers { kill, start } = p else {
            panic!("{p:?}")
        };
        assert_eq!(kill[0].why, KillWhy::Probe(ProbeKind::Liveness));
        assert!(start.is_empty());
    }

    #[test]
    fn a_new_image_restarts_the_container() {
        let s = spec("Never", &[], &["a"]);
        let p = plan(
            &s,
            &with(vec![record("a", RunState::Running, 0)]),
            &Probes::new(),
            |_| "new".into(),
        );
        let Plan::Containers { kill, start } = p else {
            panic!("{p:?}")
        };
        assert_eq!(kill[0].why, KillWhy::SpecChanged);
        assert_eq!(start.len(), 1);
    }
}
