//! The manifests of `deploy/` apply as they are, in both ways of kubectl, and go again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use rhumb_harness::cluster::{self, layout::Node};
use rhumb_harness::{cgroup, image};
use serde_json::Value;

use crate::support::{Suite, client, servers, target};

/// The nodes' agents are not the DaemonSet's.
const EXTERNAL: &str = "rhumb.io/agent=external";

const LIMIT: Duration = Duration::from_secs(20);

/// Takes the label away again.
struct Labelled<'a>(&'a Suite);

impl Drop for Labelled<'_> {
    fn drop(&mut self) {
        let arguments = ["label", "nodes", "--all", "rhumb.io/agent-"];
        if let Err(error) = self.0.cluster.kubectl_run(&arguments) {
            eprintln!("{error:#}");
        }
    }
}

/// Deletes what a test that failed has left, which no other test may find.
struct Applied<'a>(&'a Suite, &'a [&'a str]);

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--timeout=60s"];
        let arguments = [&delete[..], self.1].concat();
        if let Err(error) = self.0.cluster.kubectl_run(&arguments) {
            eprintln!("{error:#}");
        }
    }
}

pub fn manifests(suite: &Suite) -> anyhow::Result<()> {
    let kubectl = |arguments: &[&str]| suite.cluster.kubectl_run(arguments);
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    kubectl(&["label", "nodes", "--all", EXTERNAL])?;
    let _labelled = Labelled(suite);
    // The examples in the order of their use: the first has the namespace of all.
    let examples = [
        "examples/web.yaml",
        "examples/clients.yaml",
        "examples/policy.yaml",
    ];
    for files in [&["agent.yaml"][..], &examples] {
        let paths: Vec<_> = files.iter().map(|file| deploy.join(file)).collect();
        let mut named = Vec::new();
        for path in &paths {
            named.extend(["-f", path.to_str().context("a path that is no text")?]);
        }
        let _applied = Applied(suite, &named);
        for mode in [&[][..], &["--server-side"]] {
            let with = |arguments: &[&str]| kubectl(&[arguments, &named, mode].concat());
            // Every field is known: strict validation is kubectl's default, and warns of none.
            with(&["apply", "--dry-run=server"]).or_else(|error| namespace_first(error, mode))?;
            with(&["apply"])?;
            let again = with(&["apply"])?;
            let told = match mode.is_empty() {
                true => " unchanged",
                false => " serverside-applied",
            };
            for line in again.lines() {
                ensure!(line.ends_with(told), "{files:?} {mode:?}: {line}");
            }
            // Controllers may be at work between the two looks that a diff takes.
            let mut shown = String::new();
            let diff = [&["diff"][..], &named, mode].concat();
            let same = rhumb_harness::wait_for("no difference is left", LIMIT, || {
                let output = suite.cluster.kubectl_output(&diff)?;
                shown = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(output.status.success().then_some(()))
            });
            same.with_context(|| format!("{files:?} {mode:?}: {shown}"))?;
            if files.len() == 1 {
                let sets = ["-n", "kube-system", "get", "daemonset", "rhumb-agent"];
                let wanted =
                    "-o=jsonpath={.status.observedGeneration} {.status.desiredNumberScheduled}";
                let seen = || kubectl(&[&sets[..], &[wanted]].concat());
                rhumb_harness::wait_for("the DaemonSet leaves the nodes alone", LIMIT, || {
                    Ok((seen()? == "1 0").then_some(()))
                })?;
            }
            kubectl(&[&["delete", "--timeout=60s"][..], &named].concat())?;
        }
    }
    Ok(())
}

/// A dry run makes no namespace, so what is in one of the manifest's own is refused. That alone.
fn namespace_first(error: anyhow::Error, mode: &[&str]) -> anyhow::Result<String> {
    let text = format!("{error:#}");
    ensure!(
        text.contains("namespaces \"demo\" not found"),
        "{mode:?}: {text}"
    );
    Ok(text)
}

/// The image of the manifest, and its name here.
const IMAGE: [&str; 2] = [
    "registry.example.com/rhumb-agent:0.1.0",
    "localhost/rhumb-agent:ring4",
];

/// Starts the node's own agent again.
struct Stopped<'a>(&'a Suite, String);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let started = self.0.cluster.plan().and_then(|plan| plan.start(&self.1));
        if let Err(error) = started {
            eprintln!("{error:#}");
        }
    }
}

/// `deploy/agent.yaml` with a node's directories in place of a machine's.
fn manifest_for(node: &Node, cgroup_root: &Path) -> anyhow::Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent.yaml");
    let mut text = std::fs::read_to_string(file)?;
    let containerd = node.containerd();
    let run = containerd.parent().context("no directory")?.to_path_buf();
    let shown = |path: &Path| path.display().to_string();
    for (from, to) in [
        (IMAGE[0], IMAGE[1].to_owned()),
        ("/sys/fs/bpf", shown(&node.bpffs())),
        ("/var/lib/rhumb", shown(&node.state_dir())),
        ("/run/rhumb", shown(&node.agent_run_dir())),
        ("/opt/cni/bin", shown(&node.cni_bin_dir())),
        ("/etc/cni/net.d", shown(&node.cni_conf_dir())),
        ("path: /run/containerd", format!("path: {}", shown(&run))),
        (
            "mountPath: /run/containerd",
            format!("mountPath: {}", shown(&run)),
        ),
    ] {
        ensure!(text.contains(from), "{from} is not in the manifest");
        text = text.replace(from, &to);
    }
    let api = cluster::api_address();
    let options = [
        ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
        ("RHUMB_BPF_DIR", shown(&node.bpf_dir())),
        ("RHUMB_STATE_DIR", shown(&node.state_dir())),
        ("RHUMB_RUN_DIR", shown(&node.agent_run_dir())),
        ("RHUMB_CNI_BIN_DIR", shown(&node.cni_bin_dir())),
        ("RHUMB_CNI_CONF_DIR", shown(&node.cni_conf_dir())),
        ("RHUMB_CGROUP_ROOT", shown(cgroup_root)),
        ("RHUMB_CRI_ENDPOINT", shown(&containerd)),
    ];
    let options = options.map(|(key, value)| format!("\n  {key}: \"{value}\""));
    Ok(text.replace(
        "RHUMB_LOG: info",
        &format!("RHUMB_LOG: info{}", options.concat()),
    ))
}

/// The image runs as the manifest says, takes the node over from another agent, and gives it back.
pub fn daemonset(suite: &Suite) -> anyhow::Result<()> {
    let kubectl = |arguments: &[&str]| suite.cluster.kubectl_run(arguments);
    let (other, node) = (&suite.cluster.nodes[0], &suite.cluster.nodes[1]);
    let dir = tempfile::tempdir()?;
    let tar = dir.path().join("agent.tar");
    let layout = dir.path().join("layout");
    image::write_layout(&layout, vec![image::agent(IMAGE[1], &suite.cluster.built)?])?;
    image::pack(&layout, &tar)?;
    cluster::import(node, &tar)?;

    let space = suite.space("daemonset")?;
    space.apply(&client("near", "app: near", Some(&other.name)))?;
    space.apply(&servers("web", 1).replace(
        "    spec:\n",
        &format!("    spec:\n      nodeName: {}\n", node.name),
    ))?;
    space.ready("app=near", 1)?;
    let web = target(space.ready("app=web", 1)?[0].ip(false)?, 9090);
    let stream = ["stream", "tcp", &web, "--for", "20", "--interval", "5"];
    let stream = suite
        .cluster
        .kubectl()
        .args(["-n", &space.name, "exec", "near", "--", "netprobe"])
        .args(stream)
        .stdout(Stdio::piped())
        .spawn()?;

    kubectl(&["label", "node", &other.name, EXTERNAL])?;
    let _labelled = Labelled(suite);
    let daemon = node.daemon("agent");
    let stopped = Stopped(suite, daemon.clone());
    suite.cluster.plan()?.stop(&daemon, Signal::SIGTERM)?;
    let cgroup_root = cgroup::v2_root()?.join(node.cgroup.trim_start_matches('/'));
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, manifest_for(node, &cgroup_root)?)?;
    let named = ["-f", file.to_str().context("a path that is no text")?];
    let applied = Applied(suite, &named);
    kubectl(&["apply", named[0], named[1]])?;
    let rollout = [
        "rollout",
        "status",
        "daemonset/rhumb-agent",
        "-n=kube-system",
        "--timeout=60s",
    ];
    let rolled = kubectl(&rollout);
    let logs = || {
        kubectl(&[
            "logs",
            "-n=kube-system",
            "-l=app.kubernetes.io/name=rhumb-agent",
        ])
    };
    let describe = || {
        kubectl(&[
            "describe",
            "pods",
            "-n=kube-system",
            "-l=app.kubernetes.io/name=rhumb-agent",
        ])
    };
    rolled.with_context(|| format!("{:?}\n{:?}", logs(), describe()))?;

    // It serves ADD, policy and the sockets of the node.
    space.apply(&client("late", "app: late", Some(&node.name)))?;
    space.ready("app=late", 1)?;
    space.probe_until("late", "tcp", &web, None)?;
    for ip in space.service_ips("web")? {
        space.probe_until("late", "tcp", &target(&ip, 90), None)?;
    }
    space.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: late}
spec: {podSelector: {matchLabels: {app: late}}, policyTypes: [Egress]}
",
    )?;
    space.probe_until("late", "tcp", &web, Some("timeout"))?;
    let text = logs()?;
    ensure!(text.contains("ready for pods"), "{text}");

    // The pod goes, the datapath stays; then the node's own agent is back.
    drop(applied);
    space.probe_until("late", "tcp", &web, Some("timeout"))?;
    space.probe_until("near", "tcp", &web, None)?;
    drop(stopped);
    suite.cluster.wait("the node's own agent", 30, || {
        Ok(node.agent_run_dir().join("cni.sock").exists().then_some(()))
    })?;
    space.kubectl(&["delete", "networkpolicy", "late"])?;
    space.probe_until("late", "tcp", &web, None)?;
    let output = stream.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(answer["lost"] == 0, "{answer}");
    Ok(())
}
