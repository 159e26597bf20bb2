use anyhow::ensure;
use netlink_packet_route::link::LinkAttribute;
use rhumb_cni::kernel::{
    filter::{self, Direction},
    netlink::Netlink,
};
use rhumb_harness::{link, netns::Netns};
use serde_json::{Value, json};

use super::node::{Node, Pod, address};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

#[test]
fn each_version_adds_checks_and_deletes() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = node.pod(&format!("pod-{}", version.replace('.', "-")))?;
        let config = node.config(version);
        let added = node
            .call(&node.env("ADD", &pod), config.to_string().as_bytes())?
            .ok()?;
        ensure!(added["cniVersion"] == version, "{added}");
        let old = version < "1.0.0";
        ensure!(added["ips"][0].get("version").is_some() == old, "{added}");
        ensure!(added["ips"][1]["gateway"] == "fe80::1", "{added}");
        ensure!(added["interfaces"][1]["name"] == "eth0", "{added}");
        ensure!(
            added["interfaces"][1]["sandbox"] == pod.netns.path().display().to_string(),
            "{added}"
        );
        let is = |side: &str, name: &str| -> anyhow::Result<()> {
            let side = &added["interfaces"][if side == "host" { 0 } else { 1 }];
            ensure!(side["name"] == name, "{added}");
            Ok(())
        };
        is("pod", "eth0")?;
        let addresses = link::addresses(&pod.netns, "eth0")?;
        for i in 0..2 {
            let ip = address(&added, i);
            ensure!(addresses.iter().any(|(a, _)| *a == ip), "{addresses:?}");
        }
        if version >= "0.4.0" {
            node.check(&pod, &added)?.ok()?;
        } else {
            node.check(&pod, &added)?.refused(1, "CHECK")?;
        }
        node.consistent()?;
        node.call(&node.env("DEL", &pod), config.to_string().as_bytes())?
            .ok()?;
        node.clean()?;
    }
    Ok(())
}

/// The capabilities `ips`, `mac` and `portMappings`.
#[test]
fn what_a_runtime_asks_for_is_given() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let add = |pod: &Pod, runtime: Value| {
        let mut config = node.config("1.1.0");
        config["runtimeConfig"] = runtime;
        node.call(&node.env("ADD", pod), config.to_string().as_bytes())
    };
    let pod = node.pod("asks")?;
    let asked = json!({
        "ips": ["10.244.1.77/24"], "mac": "c2:11:22:33:44:55",
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
    });
    let added = add(&pod, asked.clone())?.ok()?;
    ensure!(address(&added, 0).to_string() == "10.244.1.77", "{added}");
    ensure!(
        added["interfaces"][1]["mac"] == "c2:11:22:33:44:55",
        "{added}"
    );
    let held = node.attachment(&pod)?;
    ensure!(
        held.ports.len() == 1 && held.ports[0].host_port == 8080,
        "{held:?}"
    );
    node.check(&pod, &added)?.ok()?;
    // The same again is answered from the journal; something else is made anew.
    ensure!(add(&pod, asked.clone())?.ok()? == added);
    let index = held.ifindex;
    ensure!(node.attachment(&pod)?.ifindex == index);
    let moved = add(&pod, json!({"ips": ["10.244.1.78"]}))?.ok()?;
    ensure!(address(&moved, 0).to_string() == "10.244.1.78", "{moved}");
    node.consistent()?;
    let other = node.pod("other")?;
    add(&other, json!({"ips": ["10.244.1.78"]}))?.refused(101, "is held by asks/eth0")?;
    add(&other, json!({"ips": ["10.9.9.9"]}))?.refused(7, "10.244.1.0/24")?;
    add(&other, json!({"mac": "ff:ff:ff:ff:ff:ff"}))?.refused(7, "mac")?;
    add(
        &other,
        json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "sctp"}]}),
    )?
    .refused(2, "sctp")?;
    ensure!(node.consistent()? == 1, "a refused ADD left something");
    node.del(&pod)?;
    node.clean()
}

#[test]
fn versions_are_told_and_the_newest_is_default() -> anyhow::Result<()> {
    let node = Node::without_agent(&DUAL)?;
    let env = [("CNI_COMMAND", "VERSION".to_owned())].into();
    for (stdin, version) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let told = node.call(&env, stdin.as_bytes())?.ok()?;
        ensure!(told["cniVersion"] == version, "{told}");
        let all = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        ensure!(told["supportedVersions"] == all, "{told}");
    }
    Ok(())
}

#[test]
fn a_repeated_add_gives_the_same_and_another_namespace_a_new_one() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pod = node.pod("again")?;
    let first = node.add(&pod)?;
    ensure!(node.add(&pod)? == first);
    ensure!(node.consistent()? == 1);
    // The runtime lost the sandbox without a DEL and made another under the same id.
    let other = Pod {
        netns: node.run.netns("other")?,
        id: pod.id.clone(),
    };
    let second = node.add(&other)?;
    ensure!(address(&second, 0) != address(&first, 0));
    ensure!(node.consistent()? == 1);
    ensure!(link::get(&pod.netns, "eth0").is_err());
    // Damaged, it is made anew too.
    link::delete(&other.netns, "eth0")?;
    let third = node.add(&other)?;
    node.check(&other, &third)?.ok()?;
    ensure!(node.consistent()? == 1);
    node.del(&other)?;
    node.clean()
}

#[test]
fn del_succeeds_with_whatever_is_left() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let stranger = node.pod("stranger")?;
    node.del(&stranger)?;

    let pod = node.pod("gone")?;
    node.add(&pod)?;
    // The namespace went first, and with it the pair; no CNI_NETNS, no prevResult.
    rhumb_harness::netns::delete(pod.netns.name())?;
    let mut env = node.env("DEL", &pod);
    env.remove("CNI_NETNS");
    let config = node.config("1.0.0").to_string();
    for _ in 0..2 {
        node.call(&env, config.as_bytes())?.ok()?;
        node.clean()?;
    }

    // The journal was lost, the kernel's part was not.
    let pod = node.pod("lost")?;
    node.add(&pod)?;
    std::fs::remove_file(node.paths.ipam_dir().join("journal"))?;
    node.del(&pod)?;
    node.clean()?;

    // The agent was uninstalled meanwhile.
    let pod = node.pod("uninstalled")?;
    node.add(&pod)?;
    std::fs::remove_dir_all(&node.paths.bpf_dir)?;
    node.del(&pod)?;
    ensure!(node.journal()?.is_empty());
    Ok(())
}

type Damage = fn(&Node, &Pod) -> anyhow::Result<()>;

/// CHECK has to see each kind of damage, and name it.
#[test]
fn check_sees_what_is_not_as_added() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let damages: [(&str, Damage); 10] = [
        ("no address", |_, pod| {
            in_pod(pod, &["addr", "flush", "dev", "eth0", "scope", "global"])
        }),
        ("no default route", |_, pod| {
            in_pod(pod, &["-6", "route", "del", "default"])
        }),
        ("no permanent neighbour 169.254.1.1", |_, pod| {
            in_pod(pod, &["neigh", "del", "169.254.1.1", "dev", "eth0"])
        }),
        ("MTU", |_, pod| {
            in_pod(pod, &["link", "set", "eth0", "mtu", "1300"])
        }),
        ("hardware address", |_, pod| {
            in_pod(
                pod,
                &["link", "set", "eth0", "address", "02:00:00:00:00:99"],
            )
        }),
        ("no interface", |_, pod| link::delete(&pod.netns, "eth0")),
        ("host has no route", |node, pod| {
            let a = node.attachment(pod)?;
            let to = format!("{}/32", a.ips[0]);
            ip(&node.netns, &["route", "del", &to])
        }),
        ("ENDPOINTS has no", |node, pod| {
            let a = node.attachment(pod)?;
            let locked = node.attachments()?.lock()?;
            let mut map = rhumb_cni::kernel::attach::Endpoints::open(&node.paths)?;
            Ok(map.remove(&locked, a.ips[1])?)
        }),
        ("to_pod is not attached", |node, pod| {
            let a = node.attachment(pod)?;
            Ok(node.netns.run(|| {
                let mut netlink = Netlink::open()?;
                filter::remove(&mut netlink, a.ifindex, Direction::Egress)
            })??)
        }),
        ("from_pod is not attached", |node, pod| {
            let a = node.attachment(pod)?;
            let name = a.host_ifname;
            ensure!(run(&node.netns, "tc", &["qdisc", "del", "dev", &name, "clsact"])?.is_empty());
            Ok(())
        }),
    ];
    for (i, (word, damage)) in damages.into_iter().enumerate() {
        let pod = node.pod(&format!("damaged{i}"))?;
        let result = node.add(&pod)?;
        node.check(&pod, &result)?.ok()?;
        damage(&node, &pod)?;
        node.check(&pod, &result)?.refused(100, word)?;
        node.del(&pod)?;
    }
    let pod = node.pod("sound")?;
    let mut result = node.add(&pod)?;
    result["ips"][0]["address"] = "10.244.1.99/32".into();
    node.check(&pod, &result)?.refused(100, "prevResult")?;
    node.del(&pod)?;
    node.check(&pod, &result)?.refused(3, "sound")?;
    node.clean()
}

fn in_pod(pod: &Pod, words: &[&str]) -> anyhow::Result<()> {
    ip(&pod.netns, words)
}

fn ip(netns: &Netns, words: &[&str]) -> anyhow::Result<()> {
    run(netns, "ip", words).map(drop)
}

/// What a tool prints in a namespace.
pub fn run(netns: &Netns, tool: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = netns.command(tool)?.args(words).output()?;
    ensure!(output.status.success(), "{tool} {words:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn gc_takes_down_what_is_not_named() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pods: Vec<Pod> = (0..4)
        .map(|i| node.pod(&format!("gc{i}")))
        .collect::<Result<_, _>>()?;
    for pod in &pods {
        node.add(pod)?;
    }
    let gc = |valid: Value, name: &str| {
        let mut config = node.config("1.1.0");
        config["name"] = name.into();
        config["cni.dev/valid-attachments"] = valid;
        let env = [
            ("CNI_COMMAND", "GC".to_owned()),
            ("CNI_PATH", "/x".to_owned()),
        ]
        .into();
        node.call(&env, config.to_string().as_bytes())
    };
    // Attachments of another network are not ours to judge.
    gc(json!([]), "another")?.ok()?;
    ensure!(node.consistent()? == 4);
    let valid = json!([
        {"containerID": "gc1", "ifname": "eth0"},
        {"containerID": "gc2", "ifname": "eth1"},
        {"containerID": "gc3", "ifname": "eth0"},
    ]);
    gc(valid, "rhumb")?.ok()?;
    ensure!(node.consistent()? == 2);
    ensure!(node.attachment(&pods[1]).is_ok() && node.attachment(&pods[3]).is_ok());
    gc(json!([]), "rhumb")?.ok()?;
    node.clean()
}

#[test]
fn status_says_whether_add_would_work() -> anyhow::Result<()> {
    let node = Node::without_agent(&["10.244.1.0/30"])?;
    let env = [("CNI_COMMAND", "STATUS".to_owned())].into();
    let config = node.config("1.1.0").to_string();
    let status = || node.call(&env, config.as_bytes());
    status()?.refused(50, "rhumb-agent")?;
    node.load()?;
    status()?.ok()?;
    let pod = node.pod("only")?;
    node.add(&pod)?;
    status()?.refused(50, "10.244.1.0/30")?;
    std::fs::remove_file(node.paths.program("to_pod"))?;
    status()?.refused(51, "to_pod")?;
    node.load()?;
    node.del(&pod)?;
    std::fs::remove_file(node.paths.node_json())?;
    status()?.refused(50, "node.json")
}

#[test]
fn the_pair_is_as_the_contract_says() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pod = node.pod("wire")?;
    let result = node.add(&pod)?;
    let a = node.attachment(&pod)?;
    ensure!(a.host_ifname.len() == 14 && a.host_ifname.starts_with("rh"));
    ensure!((&*a.namespace, &*a.pod, &*a.uid) == ("shop", "wire", "u-wire"));
    let endpoints = rhumb_cni::kernel::attach::Endpoints::open(&node.paths)?;
    for ip in &a.ips {
        let e = endpoints
            .get(*ip)?
            .ok_or_else(|| anyhow::anyhow!("no {ip}"))?;
        ensure!(
            e.ifindex == a.ifindex && e.netns_cookie != 0 && e.revision == a.revision,
            "{e:?}"
        );
    }
    let get = |netns, name: &str| {
        let name = name.to_owned();
        link::netlink(netns, move |handle| async move {
            let mut links = handle.link().get().match_name(name).execute();
            let link = futures::TryStreamExt::try_next(&mut links).await?;
            link.ok_or_else(|| anyhow::anyhow!("no link"))
        })
    };
    let host = get(&node.netns, &a.host_ifname)?;
    let has = |a: LinkAttribute| host.attributes.contains(&a);
    ensure!(
        has(LinkAttribute::IfAlias("rhumb:wire:eth0".into())),
        "{host:?}"
    );
    ensure!(has(LinkAttribute::Mtu(1400)), "{host:?}");
    let inside = get(&pod.netns, "eth0")?;
    ensure!(
        inside.attributes.contains(&LinkAttribute::Mtu(1400)),
        "{inside:?}"
    );
    // No duplicate address detection, so nothing to wait for: usable at once.
    let addresses = pod.netns.command("ip")?.args(["-6", "addr"]).output()?;
    let addresses = String::from_utf8_lossy(&addresses.stdout).into_owned();
    ensure!(!addresses.contains("tentative"), "{addresses}");
    ensure!(result["interfaces"][0]["mac"] == a.host_mac.to_string());
    node.del(&pod)?;
    node.clean()
}
