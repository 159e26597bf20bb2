//! `kubectl debug`: ephemeral containers in pods that run, copies of pods.

use crate::support::{Space, Suite, client};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

const IMAGE: &str = "--image=localhost/testbox:dev";

fn pod(space: &Space<'_>, name: &str) -> anyhow::Result<Value> {
    let text = space.kubectl(&["get", "pod", name, "-o", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

fn state(space: &Space<'_>, name: &str) -> anyhow::Result<Value> {
    let pod = pod(space, "shell")?;
    let statuses = pod["status"]["ephemeralContainerStatuses"]
        .as_array()
        .cloned();
    let found = statuses.into_iter().flatten().find(|s| s["name"] == *name);
    found
        .map(|s| s["state"].clone())
        .with_context(|| format!("no status of {name}"))
}

/// `kubectl debug -i` with a line that is typed; gives what came back. The input stays open: at
/// its end containerd leaves a container alone whose input may be opened again.
fn typed(space: &Space<'_>, name: &str, more: &[&str], script: &str) -> anyhow::Result<String> {
    let mut kubectl = space
        .suite
        .cluster
        .kubectl()
        .args(["-n", &space.name, "debug", "-i", "shell", IMAGE, "-c", name])
        .args(more)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kubectl")?;
    let mut input = kubectl.stdin.take().context("no input")?;
    input.write_all(b"typed\n")?;
    let output = kubectl.wait_with_output()?;
    drop(input);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn debug(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("debug")?;
    space.apply(&client("shell", "app: shell", None))?;
    space.ready("app=shell", 1)?;

    // Attached, with an input; the target's processes are seen, and its sandbox is shared.
    let script = "read line; hostname; ps | grep -c 'sleep 100000[0]'; echo got $line; exit 3";
    let said = typed(&space, "first", &["--target=shell"], script)?;
    ensure!(said.contains("shell\n1\ngot typed\n"), "{said}");
    space.wait("its end is in the status", 10, || {
        let state = state(&space, "first")?;
        Ok((state["terminated"]["exitCode"] == 3).then_some(()))
    })?;
    let logs = space.kubectl(&["logs", "shell", "-c", "first"])?;
    ensure!(logs.contains("got typed"), "{logs}");
    // Without a target it sees its own processes alone.
    let said = typed(
        &space,
        "apart",
        &[],
        "read line; ps | grep -c 'sleep 100000[0]'",
    )?;
    ensure!(said.contains("0\n"), "{said}");

    // Left alone it runs on; exec and attach reach it.
    space.kubectl(&[
        "debug",
        "shell",
        IMAGE,
        "-c",
        "second",
        "--attach=false",
        "--",
        "sleep",
        "1000000",
    ])?;
    space.wait("it runs", 20, || {
        let running = state(&space, "second")?;
        Ok(running.get("running").map(|_| ()))
    })?;
    let output = space.kubectl(&["exec", "shell", "-c", "second", "--", "echo", "inside"])?;
    ensure!(output == "inside\n", "{output}");
    // A field that this node doesn't do is the container's own trouble.
    let patch = r#"{"spec":{"ephemeralContainers":[{"name":"odd","image":"localhost/testbox:dev",
        "imagePullPolicy":"IfNotPresent","securityContext":{"seccompProfile":
        {"type":"Localhost","localhostProfile":"x"}}}]}}"#;
    space.kubectl(&[
        "patch",
        "pod",
        "shell",
        "--subresource=ephemeralcontainers",
        "-p",
        patch,
    ])?;
    space.wait("it says why it doesn't start", 20, || {
        let state = state(&space, "odd")?;
        let message = state["waiting"]["message"].as_str().unwrap_or("");
        Ok(message
            .contains("seccompProfile.type: Localhost")
            .then_some(()))
    })?;
    let object = pod(&space, "shell")?;
    ensure!(
        object["status"]["phase"] == "Running",
        "{}",
        object["status"]
    );
    space.ready("app=shell", 1)?;
    let statuses = &object["status"]["ephemeralContainerStatuses"];
    for status in statuses.as_array().context("no statuses")? {
        ensure!(
            status["restartCount"] == 0 && status["ready"] == false,
            "{status}"
        );
    }
    // A kubelet that comes anew starts none again.
    let ended = state(&space, "first")?;
    for node in &suite.cluster.nodes {
        crate::restarts::kill_daemon(suite, &node.daemon("kubelet"))?;
    }
    space.kubectl(&[
        "debug",
        "shell",
        IMAGE,
        "-c",
        "third",
        "--attach=false",
        "--",
        "true",
    ])?;
    space.wait("the new one has run", 30, || {
        let ended = state(&space, "third")?;
        Ok((ended["terminated"]["exitCode"] == 0).then_some(()))
    })?;
    ensure!(state(&space, "first")? == ended, "it ran again");

    // A copy with another command.
    space.kubectl(&[
        "debug",
        "shell",
        "--copy-to=copy",
        "--container=shell",
        "--share-processes",
        "--attach=false",
        "--",
        "sleep",
        "1000001",
    ])?;
    space.wait("the copy runs", 30, || {
        let copy = pod(&space, "copy")?;
        Ok((copy["status"]["phase"] == "Running").then_some(()))
    })?;
    let output = space.kubectl(&["exec", "copy", "--", "ps"])?;
    ensure!(
        output.contains("sleep 1000001") && output.contains("pause"),
        "{output}"
    );
    // They go with their pods.
    space.kubectl(&["delete", "pod", "shell", "copy", "--timeout=30s"])?;
    Ok(())
}
