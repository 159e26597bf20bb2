//! Addresses of pods: who has which, and what a runtime has forgotten.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use rhumb_harness::netns::Netns;
use serde_json::Value;

use crate::support::{Suite, client, target};

/// A sandbox that no runtime knows, as a crash leaves it.
fn leak(suite: &Suite, netns: &Netns) -> anyhow::Result<Value> {
    let node = &suite.cluster.nodes[0];
    let list = std::fs::read(node.cni_conf_dir().join("10-rhumb.conflist"))?;
    let list: Value = serde_json::from_slice(&list)?;
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config["name"] = list["name"].clone();
    let env = BTreeMap::from([
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", "forgotten".to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_NETNS", netns.path().display().to_string()),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=forgotten".to_owned(),
        ),
    ]);
    let mut plugin = Netns::open(&node.netns)?
        .command(node.cni_bin_dir().join("rhumb-cni"))?
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = plugin.stdin.take().context("no pipe")?;
    stdin.write_all(config.to_string().as_bytes())?;
    drop(stdin);
    let output = plugin.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What `rhumb ipam` says.
fn table(suite: &Suite) -> anyhow::Result<String> {
    let socket = suite.cluster.nodes[0].agent_run_dir().join("agent.sock");
    let output = Command::new(suite.cluster.layout.bin_dir().join("rhumb"))
        .arg("--socket")
        .arg(socket)
        .arg("ipam")
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

pub fn leaks(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("addresses")?;
    let node = &suite.cluster.nodes[0];
    space.apply(&client("stays", "app: stays", Some(&node.name)))?;
    let stays = space.ready("app=stays", 1)?;
    let netns = Netns::create("rhumb-ring4-forgotten")?;
    let result = leak(suite, &netns)?;
    let address = result["ips"][0]["address"].as_str().context("no address")?;
    let address = address.split('/').next().unwrap_or_default();
    let before = table(suite)?;
    ensure!(
        before.contains(address) && before.contains("forgotten"),
        "{before}"
    );
    ensure!(before.contains(stays[0].ip(false)?), "{before}");
    space.wait("the forgotten sandbox to be taken down", 60, || {
        let now = table(suite)?;
        ensure!(
            now.contains(stays[0].ip(false)?),
            "a pod that runs has lost its address: {now}"
        );
        Ok((!now.contains("forgotten")).then_some(()))
    })?;
    // Its interface went too, and a pod that runs was left alone.
    let links = rhumb_harness::link::list(&netns)?;
    ensure!(links.iter().all(|l| l.name == "lo"), "{links:?}");
    space.exec("stays", &["true"]).map(drop)
}

/// The journal is gone, all of it: who has which address only the kernel and containerd know.
pub fn lost_journal(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("journal")?;
    let node = &suite.cluster.nodes[0];
    for (name, labels) in [
        ("asks", "app: asks"),
        ("open", "app: open"),
        ("shut", "app: shut"),
    ] {
        let pod = client(name, labels, Some(&node.name));
        let mut server = "command: [netprobe, serve, --tcp, \"9090\", --udp, \"9091\"]".to_owned();
        if name == "open" {
            server += "
      ports:
        - {containerPort: 9090, hostPort: 18092}
        - {containerPort: 9091, hostPort: 18093, protocol: UDP}";
        }
        space.apply(&pod.replace("command: [sleep, \"1000000\"]", &server))?;
    }
    space.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut}
spec: {podSelector: {matchLabels: {app: shut}}, policyTypes: [Ingress]}
",
    )?;
    let place = |name: &str| -> anyhow::Result<String> {
        let places = space.ready(&format!("app={name}"), 1)?;
        Ok(target(places[0].ip(false)?, 9090))
    };
    let (open, shut) = (place("open")?, place("shut")?);
    let as_it_was = || -> anyhow::Result<()> {
        space.probe_until("asks", "tcp", &open, None)?;
        for (protocol, port) in [("tcp", 18092), ("udp", 18093)] {
            let of_node = target(&node.ip4.to_string(), port);
            space.probe_until("asks", protocol, &of_node, None)?;
        }
        space.probe_until("asks", "tcp", &shut, Some("timeout"))
    };
    as_it_was()?;
    let before = table(suite)?;
    let journal = node.state_dir().join("ipam/journal");
    let zeros = journal.with_extension("zeros");
    for how in ["zeros", "removed"] {
        match how {
            "zeros" => {
                std::fs::write(&zeros, [0; 10_000])?;
                std::fs::rename(&zeros, &journal)?;
            }
            _ => std::fs::remove_file(&journal)?,
        }
        space.wait(&format!("the journal, {how}, to be made anew"), 30, || {
            let now = table(suite)?;
            let kept = addresses(&now);
            ensure!(
                addresses(&before).iter().all(|a| kept.contains(a)),
                "{now}\nnot\n{before}"
            );
            Ok(Some(()))
        })?;
        let text = std::fs::read(&journal)?;
        let text = String::from_utf8_lossy(&text);
        ensure!(text.contains("18092") && text.contains("18093"), "{text}");
        as_it_was()?;
        let late = format!("late-{how}");
        space.apply(&client(&late, &format!("app: {late}"), Some(&node.name)))?;
        let late_ip = space.ready(&format!("app={late}"), 1)?[0]
            .ip(false)?
            .to_owned();
        ensure!(
            !before.contains(&format!("{late_ip} ")),
            "{late_ip} is held twice"
        );
        space.kubectl(&["delete", "pod", &late, "--wait"])?;
    }
    // The pods end as pods do.
    space.kubectl(&["delete", "pod", "--all", "--wait"])?;
    space.wait("the addresses to be free", 30, || {
        let now = table(suite)?;
        Ok((!now.contains("/asks") && !now.contains("/shut")).then_some(()))
    })
}

/// Who has which address.
fn addresses(table: &str) -> Vec<Vec<&str>> {
    let attached = table.lines().filter(|line| line.ends_with("attached"));
    attached
        .map(|line| line.split_whitespace().collect())
        .collect()
}
