//! Restarts are the normal case: of agents, kubelets, runtimes and the control plane.

use crate::support::{Suite, client, servers, target};
use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rhumb_harness::cluster::CONTROL_DAEMON;
use serde_json::Value;
use std::process::Stdio;

/// Kills a daemon without a warning and waits until another process has taken its place.
pub fn kill_daemon(suite: &Suite, daemon: &str) -> anyhow::Result<()> {
    let plan = suite.cluster.plan()?;
    let old = plan
        .pid(daemon)
        .with_context(|| format!("{daemon} does not run"))?;
    kill(Pid::from_raw(old), Signal::SIGKILL).with_context(|| format!("killing {daemon}"))?;
    suite.cluster.wait(&format!("{daemon} runs again"), 30, || {
        Ok(plan.pid(daemon).filter(|new| *new != old).map(drop))
    })
}

pub fn agent_during_stream(suite: &Suite) -> anyhow::Result<()> {
    const SECONDS: &str = "15";
    let space = suite.space("stream")?;
    space.apply(&servers("web", 2))?;
    space.apply(&client("one", "app: client", Some("node1")))?;
    space.apply(&client("two", "app: client", Some("node2")))?;
    space.ready("app=web", 2)?;
    space.ready("app=client", 2)?;
    let ips = space.service_ips("web")?;
    // Old connections that live on, and new ones all the time, from both nodes, in both families.
    let mut running = Vec::new();
    for pod in ["one", "two"] {
        for ip in &ips {
            space.probe_until(pod, "tcp", &target(ip, 90), None)?;
            let (tcp, udp) = (target(ip, 90), target(ip, 91));
            for command in [
                vec!["stream", "tcp", &tcp, "--for", SECONDS, "--interval", "5"],
                vec!["stream", "udp", &udp, "--for", SECONDS, "--interval", "5"],
                vec![
                    "connect",
                    "tcp",
                    &tcp,
                    "--for",
                    SECONDS,
                    "--interval",
                    "5",
                    "--summary",
                ],
            ] {
                let what = format!("{pod}: netprobe {}", command.join(" "));
                let child = suite
                    .cluster
                    .kubectl()
                    .args(["-n", &space.name, "exec", pod, "--", "netprobe"])
                    .args(&command)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .context("starting kubectl exec")?;
                running.push((what, child));
            }
        }
    }
    let mut kills = 0;
    while running[0].1.try_wait()?.is_none() {
        for node in &suite.cluster.nodes {
            kill_daemon(suite, &node.daemon("agent"))?;
            kills += 1;
        }
        // Time for the new agents to find the kernel's state and go to work on it.
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    ensure!(kills >= 4, "only {kills} kills while the streams ran");
    let mut failures = Vec::new();
    for (what, child) in running {
        let output = child.wait_with_output()?;
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let Ok(answer) = serde_json::from_str::<Value>(line.trim()) else {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{what} printed `{line}`: {error}");
        };
        let lost = answer["lost"].as_u64().or(answer["failed"].as_u64());
        let done = answer["received"].as_u64().or(answer["ok"].as_u64());
        if lost != Some(0) || done.unwrap_or(0) < 100 {
            failures.push(format!("{what}: {answer}"));
        }
    }
    ensure!(
        failures.is_empty(),
        "{kills} kills lost something:\n{}",
        failures.join("\n")
    );
    Ok(())
}

pub fn agent_during_creation(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("creation")?;
    space.apply(&client("client", "app: client", None))?;
    space.ready("app=client", 1)?;
    space.apply(&servers("web", 8))?;
    for _ in 0..3 {
        for node in &suite.cluster.nodes {
            kill_daemon(suite, &node.daemon("agent"))?;
        }
    }
    let pods = space.ready("app=web", 8)?;
    for pod in &pods {
        for ip in &pod.ips {
            space.probe_until("client", "tcp", &target(ip, 9090), None)?;
        }
    }
    // Pods come and go while no agent runs at all.
    let plan = suite.cluster.plan()?;
    for node in &suite.cluster.nodes {
        plan.stop(&node.daemon("agent"), Signal::SIGKILL)?;
    }
    let down = (|| {
        space.kubectl(&["scale", "deployment", "web", "--replicas=2"])?;
        space.apply(&client("late", "app: late", None))?;
        space.ready("app=web", 2)?;
        space.ready("app=late", 1)
    })();
    for node in &suite.cluster.nodes {
        plan.start(&node.daemon("agent"))?;
    }
    down?;
    let pods = space.ready("app=web", 2)?;
    for pod in &pods {
        space.probe_until("late", "tcp", &target(pod.ip(false)?, 9090), None)?;
        space.probe_until("late", "tcp", &target(pod.ip(true)?, 9090), None)?;
    }
    let ip = space.service_ips("web")?.swap_remove(0);
    space.wait("only the two pods left answer for the Service", 20, || {
        let answer = space.probe("late", "tcp", &target(&ip, 90), &["--count", "40"])?;
        let hosts = answer["hosts"].as_object().map_or(0, serde_json::Map::len);
        ensure!(answer["failed"] == 0 && hosts == 2, "{answer}");
        Ok(Some(()))
    })
}

pub fn kubelet_and_containerd(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("runtime")?;
    space.apply(&servers("web", 4))?;
    let before = space.ready("app=web", 4)?;
    for node in &suite.cluster.nodes {
        kill_daemon(suite, &node.daemon("kubelet"))?;
        kill_daemon(suite, &node.daemon("containerd"))?;
    }
    // The same pods, not restarted, still answer and still take commands.
    let after = space.ready("app=web", 4)?;
    for pod in &before {
        ensure!(
            after
                .iter()
                .any(|other| other.pod == pod.pod && other.ips == pod.ips),
            "{} is gone or has other addresses: {after:?}",
            pod.pod
        );
        space.wait(&format!("{} takes commands", pod.pod), 30, || {
            space.exec(&pod.pod, &["true"]).map(Some)
        })?;
        let object = space.pod(&pod.pod)?;
        let statuses = object.status.and_then(|status| status.container_statuses);
        for status in statuses.into_iter().flatten() {
            ensure!(status.restart_count == 0, "{} was restarted", pod.pod);
        }
    }
    // A pod deleted while its kubelet is down goes as soon as it is back.
    let plan = suite.cluster.plan()?;
    let victim = &before[0];
    let daemon = format!("{}-kubelet", victim.node);
    plan.stop(&daemon, Signal::SIGKILL)?;
    let deleted = space.kubectl(&["delete", "pod", &victim.pod, "--wait=false"]);
    plan.start(&daemon)?;
    deleted?;
    space.wait("the deleted pod is gone", 30, || {
        let left = space.pods("app=web")?;
        let gone = left
            .iter()
            .all(|pod| pod.metadata.name.as_ref() != Some(&victim.pod));
        Ok(gone.then_some(()))
    })?;
    space.ready("app=web", 4).map(drop)
}

pub fn control_plane(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("control")?;
    space.apply(&servers("web", 2))?;
    space.apply(&client("client", "app: client", None))?;
    space.ready("app=web", 2)?;
    space.ready("app=client", 1)?;
    for _ in 0..2 {
        kill_daemon(suite, CONTROL_DAEMON)?;
        // The loopback socket outlives the server, so this waits and does not fail.
        space.wait("the API answers again", 30, || {
            space.kubectl(&["get", "pods"]).map(Some)
        })?;
    }
    // What was written is still there, and controllers, kubelets and agents have found back.
    space.kubectl(&["scale", "deployment", "web", "--replicas=3"])?;
    let pods = space.ready("app=web", 3)?;
    let ip = space.service_ips("web")?.swap_remove(0);
    space.wait("all three answer for the Service", 20, || {
        let answer = space.probe("client", "tcp", &target(&ip, 90), &["--count", "60"])?;
        let hosts = answer["hosts"].as_object().map_or(0, serde_json::Map::len);
        ensure!(answer["failed"] == 0 && hosts == pods.len(), "{answer}");
        Ok(Some(()))
    })
}
