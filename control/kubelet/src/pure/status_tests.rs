use super::*;
use crate::pure::model::{ProbeView, Sandbox};
use serde_json::json;

fn pod(policy: &str, inits: &[&str], names: &[&str]) -> Pod {
    let list = |l: &[&str]| {
        l.iter()
            .map(|n| json!({"name": n, "image": "img"}))
            .collect::<Vec<_>>()
    };
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": list(inits), "containers": list(names)},
        "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}),
    )
    .unwrap()
}

fn rec(name: &str, attempt: u32, state: RunState, exit_code: i32) -> ContainerRecord {
    ContainerRecord {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox_id: "s".into(),
        attempt,
        state,
        exit_code,
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        image_ref: "sha256:1".into(),
        ..Default::default()
    }
}

struct Case {
    terminal: bool,
    ready: bool,
    waiting: Option<(&'static str, &'static str)>,
}

fn status(pod: &Pod, containers: Vec<ContainerRecord>, case: Case) -> PodStatus {
    let runtime = PodRuntime {
        sandboxes: vec![Sandbox {
            id: "s".into(),
            ready: true,
            ips: vec!["10.0.0.2".into()],
            ..Default::default()
        }],
        containers,
    };
    let probes: Probes = runtime
        .containers
        .iter()
        .map(|c| {
            (
                c.id.clone(),
                ProbeView {
                    started: true,
                    ready: case.ready,
                    restart: None,
                },
            )
        })
        .collect();
    let waiting = case
        .waiting
        .map(|(n, r)| {
            (
                n.to_string(),
                Waiting {
                    reason: r.into(),
                    message: "m".into(),
                },
            )
        })
        .into_iter()
        .collect();
    pod_status(&StatusInputs {
        pod,
        runtime: &runtime,
        probes: &probes,
        waiting: &waiting,
        verdict: None,
        terminal: case.terminal,
        host_ips: &["172.30.0.11".into()],
        start_time: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH,
        messages: &BTreeMap::new(),
    })
}

fn live() -> Case {
    Case {
        terminal: false,
        ready: true,
        waiting: None,
    }
}

fn condition(s: &PodStatus, kind: &str) -> (String, String) {
    let c = s
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind)
        .unwrap();
    (c.status.clone(), c.reason.clone().unwrap_or_default())
}

#[test]
fn phases() {
    use RunState::{Exited, Running};
    let cases: Vec<(&str, Vec<ContainerRecord>, bool, &str)> = vec![
        ("Always", vec![], false, "Pending"),
        ("Always", vec![rec("a", 0, Running, 0)], false, "Pending"),
        (
            "Always",
            vec![rec("a", 0, Running, 0), rec("b", 0, Running, 0)],
            false,
            "Running",
        ),
        (
            "Always",
            vec![rec("a", 0, Running, 0), rec("b", 0, Exited, 1)],
            false,
            "Running",
        ),
        (
            "Always",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 0)],
            false,
            "Running",
        ),
        (
            "Never",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 0)],
            false,
            "Succeeded",
        ),
        (
            "Never",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 2)],
            false,
            "Failed",
        ),
        (
            "OnFailure",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 2)],
            false,
            "Running",
        ),
        (
            "OnFailure",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 0)],
            false,
            "Succeeded",
        ),
        (
            "Always",
            vec![rec("a", 0, Exited, 0), rec("b", 0, Exited, 0)],
            true,
            "Succeeded",
        ),
        (
            "Always",
            vec![rec("a", 0, Exited, 137), rec("b", 0, Exited, 0)],
            true,
            "Failed",
        ),
        ("Always", vec![], true, "Failed"),
    ];
    for (policy, containers, terminal, want) in cases {
        let p = pod(policy, &[], &["a", "b"]);
        let text = format!("{policy} {containers:?} {terminal}");
        let s = status(
            &p,
            containers,
            Case {
                terminal,
                ready: true,
                waiting: None,
            },
        );
        assert_eq!(s.phase.as_deref(), Some(want), "{text}");
    }
}

#[test]
fn init_phases_and_conditions() {
    let p = pod("Always", &["i"], &["a"]);
    let s = status(&p, vec![rec("i", 0, RunState::Running, 0)], live());
    assert_eq!(s.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&s, "Initialized"),
        ("False".into(), "ContainersNotInitialized".into())
    );
    let a = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        a.state
            .as_ref()
            .unwrap()
            .waiting
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("PodInitializing")
    );
    let s = status(
        &p,
        vec![
            rec("a", 0, RunState::Running, 0),
            rec("i", 0, RunState::Exited, 0),
        ],
        live(),
    );
    assert_eq!(s.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&s, "Initialized").0, "True");
    assert_eq!(condition(&s, "Ready").0, "True");
    assert_eq!(
        condition(&s, "PodScheduled").0,
        "True",
        "other writers' conditions stay"
    );
    let never = pod("Never", &["i"], &["a"]);
    let s = status(&never, vec![rec("i", 0, RunState::Exited, 1)], live());
    assert_eq!(s.phase.as_deref(), Some("Failed"));
}

#[test]
fn crash_loop_keeps_the_last_state() {
    let p = pod("Always", &[], &["a"]);
    let case = Case {
        terminal: false,
        ready: true,
        waiting: Some(("a", "CrashLoopBackOff")),
    };
    let s = status(
        &p,
        vec![
            rec("a", 3, RunState::Exited, 5),
            rec("a", 2, RunState::Exited, 4),
        ],
        case,
    );
    let a = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!(a.restart_count, 3);
    assert_eq!(
        a.state
            .as_ref()
            .unwrap()
            .waiting
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("CrashLoopBackOff")
    );
    assert_eq!(last_exit(a), Some(5));
    assert_eq!(s.phase.as_deref(), Some("Running"));
    assert_eq!(
        condition(&s, "ContainersReady"),
        ("False".into(), "ContainersNotReady".into())
    );
    let s = status(
        &p,
        vec![
            rec("a", 3, RunState::Running, 0),
            rec("a", 2, RunState::Exited, 4),
        ],
        live(),
    );
    let a = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!(last_exit(a), Some(4));
    assert!(a.ready);
    assert_eq!(a.container_id.as_deref(), Some("containerd://a3"));
}

#[test]
fn addresses_are_there_with_the_sandbox() {
    let p = pod("Always", &[], &["a"]);
    let s = status(&p, vec![], live());
    assert_eq!(s.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(s.host_ip.as_deref(), Some("172.30.0.11"));
    assert_eq!(condition(&s, "PodReadyToStartContainers").0, "True");
    assert_eq!(s.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn readiness_gates_hold_ready_back() {
    let mut p = pod("Always", &[], &["a"]);
    p.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "x/y"}])).unwrap();
    let s = status(&p, vec![rec("a", 0, RunState::Running, 0)], live());
    assert_eq!(condition(&s, "ContainersReady").0, "True");
    assert_eq!(
        condition(&s, "Ready"),
        ("False".into(), "ReadinessGatesNotReady".into())
    );
}

#[test]
fn a_phase_that_ended_stays() {
    let mut p = pod("Always", &[], &["a"]);
    p.status.as_mut().unwrap().phase = Some("Failed".into());
    let s = status(&p, vec![rec("a", 0, RunState::Running, 0)], live());
    assert_eq!(s.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_lost_container_keeps_its_count() {
    let mut p = pod("Always", &[], &["a"]);
    p.status.as_mut().unwrap().container_statuses = serde_json::from_value(json!([{"name": "a", "image": "img",
        "imageID": "", "ready": true, "restartCount": 4, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]))
    .unwrap();
    let s = status(&p, vec![], live());
    let a = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!(a.restart_count, 4);
    assert_eq!(last_exit(a), Some(137));
    assert!(!a.ready);
}

#[test]
fn ephemeral_containers_count_for_nothing_but_themselves() {
    let mut p = pod("Always", &[], &["a"]);
    let added = json!([{"name": "d", "image": "img"}, {"name": "e", "image": "img"}]);
    p.spec.as_mut().unwrap().ephemeral_containers = Some(serde_json::from_value(added).unwrap());
    let containers = vec![
        rec("a", 0, RunState::Running, 0),
        rec("d", 0, RunState::Exited, 3),
    ];
    let case = Case {
        terminal: false,
        ready: true,
        waiting: Some(("e", "ErrImagePull")),
    };
    let s = status(&p, containers, case);
    assert_eq!(s.phase.as_deref(), Some("Running"));
    let ready = s.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    assert_eq!(ready.unwrap().status, "True");
    assert_eq!(s.container_statuses.unwrap().len(), 1);
    let added = serde_json::to_value(s.ephemeral_container_statuses).unwrap();
    assert_eq!(added[0]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(added[0]["ready"], false);
    assert_eq!(added[0].get("started"), None);
    assert_eq!(added[1]["state"]["waiting"]["reason"], "ErrImagePull");
}
