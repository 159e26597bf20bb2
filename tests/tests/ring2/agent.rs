//! The agent as a daemon: starts that can't be, an API that is away, what it leaves behind.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use rhumb_harness::{link, wait::wait_for};
use serde_json::{Value, json};

use super::cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

fn refused(command: &mut Command, words: &[&str]) -> anyhow::Result<()> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it started: {text}");
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    ensure!(!text.contains("panicked"), "{text}");
    Ok(())
}

#[test]
fn bad_starts_say_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    // One runs already.
    refused(
        &mut cluster.agent_command(0)?,
        &["another rhumb-agent", "agent.lock"],
    )?;
    ensure!(
        cluster.http(0, "/readyz")?.0 == 200,
        "the first one goes on"
    );
    cluster.kill_agent(0)?;
    let with = |args: &[&str], words: &[&str]| -> anyhow::Result<()> {
        refused(cluster.agent_command(0)?.args(args), words)
    };
    with(
        &["--bpf-dir", "/proc/rhumb"],
        &["not on a bpf file system", "mount -t bpf bpf"],
    )?;
    with(
        &["--cgroup-root", "/proc"],
        &["/proc is not in a cgroup2", "--cgroup-root"],
    )?;
    with(
        &["--kubeconfig", "/nowhere"],
        &["reading the kubeconfig /nowhere"],
    )?;
    with(&["--masquerade", "perhaps"], &["--masquerade"])?;
    with(
        &["--non-masquerade-cidrs", "10.0.0.0/99"],
        &["--non-masquerade-cidrs"],
    )?;
    // Not root. The binary lies where only root may look.
    let command = cluster.agent_command(0)?;
    let copy = std::env::temp_dir().join(format!("ring2-{}-agent", std::process::id()));
    std::fs::copy(command.get_program(), &copy)?;
    let mut unprivileged = Command::new(&copy);
    unprivileged.args(command.get_args()).uid(65534);
    let said = refused(&mut unprivileged, &["not root", "start it as root"]);
    std::fs::remove_file(&copy)?;
    said
}

#[test]
fn without_the_api_everything_stays() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let to = SocketAddr::new(b.ips[0], 80);
    cluster.reaches("before", &a.netns, "tcp", to)?;
    let (_, before) = cluster.http(0, "/dump/all")?;

    cluster.stop_server();
    cluster.kill_agent(0)?;
    cluster.start_agent(0)?;
    wait_for("it says that it is not ready", PATIENCE, || {
        let (status, text) = cluster.http(0, "/readyz")?;
        Ok((status == 503 && text.contains("not synced")).then_some(()))
    })?;
    let (_, now) = cluster.http(0, "/dump/all")?;
    ensure!(now == before, "before:\n{before}\nnow:\n{now}");
    cluster.reaches("without the API", &a.netns, "tcp", to)?;

    // Back: nothing is written, since nothing has changed.
    cluster.start_server()?;
    wait_for("it is ready again", PATIENCE, || {
        Ok((cluster.http(0, "/readyz")?.0 == 200).then_some(()))
    })?;
    let steps = cluster.metric(0, "rhumb_apply_steps_total")?;
    ensure!(steps == 0.0, "{steps} entries were written");
    cluster
        .reaches("with the API", &a.netns, "tcp", to)
        .map(drop)
}

#[test]
fn a_new_deny_cuts_a_connection_under_way_and_is_named() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let tables =
        |c: &Cluster| anyhow::Ok(c.http(0, "/dump/all")?.1 + &c.http(0, "/dump/endpoints")?.1);
    let before = tables(&cluster)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let to = SocketAddr::new(b.ips[0], 8080).to_string();
    let words = [
        "stream",
        "tcp",
        &to,
        "--for",
        "20",
        "--interval",
        "20",
        "--timeout",
        "1500",
    ];
    let mut command = cluster.netprobe(&a.netns, &words)?;
    let stream = command.stdout(Stdio::piped()).spawn()?;
    wait_for("the stream is under way", PATIENCE, || {
        let n = cluster.metric(0, "rhumb_packets_total{reason=\"forwarded\"}")?;
        Ok((n > 50.0).then_some(()))
    })?;
    cluster.post(
        POLICIES,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }),
    )?;
    let output = stream.wait_with_output()?;
    let line: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(line["received"].as_u64() > Some(0), "it never ran: {line}");
    ensure!(
        line["lost"].as_u64() > Some(0) && line["seconds"].as_f64() < Some(15.0),
        "it went on: {line}"
    );
    let named =
        "rhumb_policy_drops_total{direction=\"ingress\",by=\"default deny of default/deny\"}";
    wait_for("the drop is counted under its policy", PATIENCE, || {
        Ok((cluster.metric(0, named)? > 0.0).then_some(()))
    })?;

    // Everything gone: the tables are what they were.
    cluster.delete(&format!("{POLICIES}/deny"))?;
    cluster.remove(a)?;
    cluster.remove(b)?;
    wait_for("the tables are what they were", PATIENCE, || {
        let now = tables(&cluster)?;
        ensure!(now == before, "before:\n{before}\nnow:\n{now}");
        Ok(Some(()))
    })
}

/// After a write that failed, what the kernel holds is read again: nothing that was planned and not
/// written is taken for written.
#[test]
fn a_failed_write_is_made_good() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let to = SocketAddr::new(b.ips[0], 80);
    cluster.reaches("before", &a.netns, "tcp", to)?;
    // Ids are kept on disk before they are written to the kernel: here they can't be.
    let in_the_way = cluster.nodes[0].dir.join("state/policy-ids.new");
    std::fs::create_dir(&in_the_way)?;
    cluster.post(
        POLICIES,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }),
    )?;
    wait_for("a write that fails", PATIENCE, || {
        let failed = cluster.metric(0, "rhumb_apply_errors_total")?;
        Ok((failed > 0.0).then_some(()))
    })?;
    cluster.reaches("nothing is written", &a.netns, "tcp", to)?;
    std::fs::remove_dir(&in_the_way)?;
    cluster.is_cut("the policy, once it can be written", &a.netns, "tcp", to)?;
    cluster.delete(&format!("{POLICIES}/deny"))?;
    cluster
        .reaches("the policy is gone", &a.netns, "tcp", to)
        .map(drop)
}

#[test]
fn uninstall_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    let to = SocketAddr::new(c.ips[1], 80);
    cluster.reaches("before", &a.netns, "tcp", to)?;
    cluster.kill_agent(0)?;
    cluster.reaches("without its agent", &a.netns, "tcp", to)?;

    cluster.uninstall(0)?;
    let node = &cluster.nodes[0];
    for left in [
        "cni/net.d/10-rhumb.conflist",
        "cni/bin/rhumb-cni",
        "bpf/rhumb",
        "state",
        "run",
    ] {
        ensure!(!node.dir.join(left).exists(), "{left} is left");
    }
    for v6 in [false, true] {
        let routes = link::routes(&node.netns, v6)?;
        let ours = routes.iter().filter(|r| u8::from(r.header.protocol) == 82);
        ensure!(ours.count() == 0, "{routes:?}");
    }
    let links = link::list(&node.netns)?;
    ensure!(!links.iter().any(|l| l.name.starts_with("rh")), "{links:?}");
    // Taking away what is gone is success.
    cluster.uninstall(0)
}
