//! Bad input: the right code, the name of what is wrong, and nothing left behind.

use anyhow::ensure;
use rhumb_harness::link;

use super::node::{Node, address};

const ONE: [&str; 1] = ["10.244.1.0/24"];

#[test]
fn a_bad_environment_is_code_4() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let pod = node.pod("env")?;
    let config = node.config("1.0.0").to_string();
    let good = node.env("ADD", &pod);
    for (name, value) in [
        ("CNI_COMMAND", ""),
        ("CNI_COMMAND", "EXPLODE"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "sixteencharacter"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "."),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS", "/etc/passwd"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
        ("CNI_NETNS", "/dev/null"),
        ("CNI_NETNS", "/tmp"),
        ("CNI_ARGS", "nonsense"),
        ("CNI_ARGS", "FOO=bar"),
    ] {
        let mut env = good.clone();
        env.insert(name, value.to_owned());
        let answer = node.call(&env, config.as_bytes())?;
        answer.refused(4, name)?;
        env.remove(name);
        if name != "CNI_ARGS" {
            node.call(&env, config.as_bytes())?.refused(4, name)?;
        }
    }
    let mut env = good;
    env.insert("CNI_NETNS", "/run/netns/no-such".to_owned());
    node.call(&env, config.as_bytes())?.refused(3, "no-such")?;
    node.clean()
}

#[test]
fn a_bad_configuration_has_its_code() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let pod = node.pod("conf")?;
    let env = node.env("ADD", &pod);
    let with = |key: &str, value: &str| {
        let mut config = node.config("1.0.0");
        config[key] = serde_json::from_str(value).expect("JSON");
        config.to_string()
    };
    for (config, code, word) in [
        (String::new(), 6, "standard input"),
        ("{\"cniVersion\":".to_owned(), 6, "standard input"),
        ("\u{0}\u{1}".to_owned(), 6, "standard input"),
        ("[1]".to_owned(), 6, "object"),
        (with("cniVersion", "null"), 1, "0.1.0"),
        (with("cniVersion", "\"9.0.0\""), 1, "9.0.0"),
        (with("cniVersion", "1"), 7, "cniVersion"),
        (with("name", "\"\""), 7, "name"),
        (with("stateDir", "\"relative\""), 7, "stateDir"),
        (with("prevResult", "7"), 7, "prevResult"),
        (with("ipam", r#"{"type":"host-local"}"#), 2, "host-local"),
        (with("bridge", "\"cni0\""), 2, "bridge"),
        (
            with("runtimeConfig", r#"{"bandwidth":{"ingressRate":1}}"#),
            2,
            "bandwidth",
        ),
        (
            with("stateDir", "\"/proc/nowhere\""),
            11,
            "/proc/nowhere/node.json",
        ),
        (with("bpfDir", "\"/nonexistent\""), 11, "/nonexistent"),
    ] {
        node.call(&env, config.as_bytes())?.refused(code, word)?;
    }
    node.clean()
}

#[test]
fn a_bad_node_json_has_its_code() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let pod = node.pod("told")?;
    let path = node.paths.node_json();
    for (text, code) in [
        ("", 6),
        ("{}", 6),
        (
            r#"{"nodeName":"n","podCIDRs":["10.0.0.0/64"],"mtu":1500}"#,
            6,
        ),
        (r#"{"nodeName":"n","podCIDRs":[],"mtu":1500}"#, 7),
        (
            r#"{"nodeName":"n","podCIDRs":["10.0.0.0/24"],"mtu":99999}"#,
            7,
        ),
    ] {
        std::fs::write(&path, text)?;
        node.run("ADD", &pod)?.refused(code, "node.json")?;
    }
    std::fs::remove_file(&path)?;
    node.run("ADD", &pod)?.refused(11, "node.json")?;
    node.clean()
}

#[test]
fn without_programs_the_agent_is_named() -> anyhow::Result<()> {
    let node = Node::without_agent(&ONE)?;
    let pod = node.pod("early")?;
    node.run("ADD", &pod)?.refused(11, "rhumb-agent")?;
    node.load()?;
    node.add(&pod)?;
    node.del(&pod)?;
    node.clean()
}

#[test]
fn a_taken_interface_name_leaves_nothing() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let pod = node.pod("taken")?;
    link::veth(&pod.netns, "eth0", &pod.netns, "other")?;
    node.run("ADD", &pod)?.refused(102, "eth0")?;
    node.clean()?;
    ensure!(
        link::get(&pod.netns, "eth0").is_ok(),
        "another's interface was deleted"
    );
    // A route that is in the way is found last, and everything before it undone.
    link::delete(&pod.netns, "eth0")?;
    link::veth(&pod.netns, "net1", &pod.netns, "net2")?;
    link::up(&pod.netns, "net1")?;
    let route = ["route", "add", "default", "dev", "net1"];
    ensure!(pod.netns.command("ip")?.args(route).status()?.success());
    node.run("ADD", &pod)?.refused(102, "169.254.1.1")?;
    ensure!(link::get(&pod.netns, "eth0").is_err());
    node.clean()
}

#[test]
fn an_exhausted_cidr_is_named_and_recovers() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.9.0/29"])?;
    let pods: Vec<_> = (0..5)
        .map(|i| node.pod(&format!("full{i}")))
        .collect::<Result<_, _>>()?;
    let mut last = None;
    for pod in &pods {
        last = Some(node.add(pod)?);
    }
    let more = node.pod("more")?;
    let answer = node.run("ADD", &more)?;
    answer.refused(101, "10.244.9.0/29 has 5 addresses")?;
    answer.refused(101, "5 in shop")?;
    ensure!(node.consistent()? == 5);
    node.del(&pods[2])?;
    node.add(&more)?;
    // A sandbox that went without DEL (the runtime crashed) doesn't hold its address for ever.
    rhumb_harness::netns::delete(pods[4].netns.name())?;
    let a = node.attachment(&pods[4])?;
    rhumb_harness::wait::wait_for("the pair to go", std::time::Duration::from_secs(10), || {
        Ok(link::get(&node.netns, &a.host_ifname)
            .is_err()
            .then_some(()))
    })?;
    let again = node.add(&pods[2])?;
    ensure!(last.is_some_and(|l| address(&l, 0) == address(&again, 0)));
    ensure!(node.consistent()? == 5);
    Ok(())
}
