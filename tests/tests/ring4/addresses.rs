//! Addresses of pods: who has which, and what a runtime has forgotten.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use rhumb_harness::netns::Netns;
use serde_json::Value;

use crate::support::{Suite, client};

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

pub fn leaks(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("addresses")?;
    let node = &suite.cluster.nodes[0];
    space.apply(&client("stays", "app: stays", Some(&node.name)))?;
    let stays = space.ready("app=stays", 1)?;
    let netns = Netns::create("rhumb-ring4-forgotten")?;
    let result = leak(suite, &netns)?;
    let address = result["ips"][0]["address"].as_str().context("no address")?;
    let address = address.split('/').next().unwrap_or_default();
    let table = || -> anyhow::Result<String> {
        let output = Command::new(suite.cluster.layout.bin_dir().join("rhumb"))
            .args([
                "--socket",
                &node
                    .agent_run_dir()
                    .join("agent.sock")
                    .display()
                    .to_string(),
                "ipam",
            ])
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let before = table()?;
    ensure!(
        before.contains(address) && before.contains("forgotten"),
        "{before}"
    );
    ensure!(before.contains(stays[0].ip(false)?), "{before}");
    space.wait("the forgotten sandbox to be taken down", 60, || {
        let now = table()?;
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
