//! Who reaches whom: ARCHITECTURE.md's table of paths, over both families.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use netlink_packet_route::route::{RouteMessage, RouteType};
use rhumb_harness::{link, netns::Netns, wait::wait_for};
use serde_json::json;

use super::cluster::{Cluster, Node, outside_ips};

#[test]
fn every_path_works_over_both_families() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    let _outside = cluster.serve(&cluster.outside, "outside")?;
    let _node1 = cluster.serve(&cluster.nodes[0].netns, "node1")?;
    let _node2 = cluster.serve(&cluster.nodes[1].netns, "node2")?;
    let (node1, node2) = (&cluster.nodes[0], &cluster.nodes[1]);
    for family in 0..2 {
        for (protocol, port) in [("tcp", 80), ("udp", 53)] {
            let to = |ip| SocketAddr::new(ip, port);
            // From, to, and whose address the server sees.
            let paths = [
                (
                    "a pod of the same node",
                    &a.netns,
                    "b",
                    b.ips[family],
                    a.ips[family],
                ),
                (
                    "a pod of another node",
                    &a.netns,
                    "c",
                    c.ips[family],
                    a.ips[family],
                ),
                (
                    "back from another node",
                    &c.netns,
                    "a",
                    a.ips[family],
                    c.ips[family],
                ),
                (
                    "a pod's own address",
                    &a.netns,
                    "a",
                    a.ips[family],
                    a.ips[family],
                ),
                (
                    "a pod's node",
                    &a.netns,
                    "node1",
                    node1.ips[family],
                    a.ips[family],
                ),
                (
                    "another node",
                    &a.netns,
                    "node2",
                    node2.ips[family],
                    a.ips[family],
                ),
                (
                    "a node's own pod",
                    &node1.netns,
                    "a",
                    a.ips[family],
                    node1.ips[family],
                ),
                (
                    "a pod from another node",
                    &node2.netns,
                    "a",
                    a.ips[family],
                    node2.ips[family],
                ),
                (
                    "the outside, masqueraded",
                    &c.netns,
                    "outside",
                    outside_ips()[family],
                    node2.ips[family],
                ),
                (
                    "from the outside",
                    &cluster.outside,
                    "b",
                    b.ips[family],
                    outside_ips()[family],
                ),
            ];
            for (what, from, host, ip, seen) in paths {
                let what = format!("{what}, {protocol} to {ip}");
                let answer = cluster.reaches(&what, from, protocol, to(ip))?;
                ensure!(answer["host"] == host, "{what}: {answer}");
                let client = answer["client"].as_str().unwrap_or_default();
                let client: Option<SocketAddr> = client.parse().ok();
                let client = client.map(|c| c.ip().to_canonical());
                ensure!(client == Some(seen), "{what}: {answer}, not from {seen}");
            }
        }
    }
    for pod in [a, b, c] {
        cluster.remove(pod)?;
    }
    Ok(())
}

#[test]
fn pings_pass_and_are_masqueraded() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    for family in 0..2 {
        for ip in [
            b.ips[family],
            c.ips[family],
            cluster.nodes[0].ips[family],
            outside_ips()[family],
        ] {
            rhumb_harness::wait::wait_for(
                &format!("a ping to {ip}"),
                std::time::Duration::from_secs(10),
                || {
                    let output = a
                        .netns
                        .command("busybox")?
                        .args([
                            if ip.is_ipv4() { "ping" } else { "ping6" },
                            "-c",
                            "2",
                            "-W",
                            "1",
                        ])
                        .arg(ip.to_string())
                        .output()?;
                    ensure!(output.status.success(), "{output:?}");
                    Ok(Some(()))
                },
            )?;
        }
    }
    Ok(())
}

/// Packets that a node's stack has sent on, by family.
fn forwarded(node: &Node, family: usize) -> anyhow::Result<u64> {
    let text = node.netns.run(|| {
        std::fs::read_to_string(match family {
            0 => "/proc/thread-self/net/snmp",
            _ => "/proc/thread-self/net/snmp6",
        })
    })??;
    let value = match family {
        0 => {
            let mut lines = text.lines().filter_map(|l| l.strip_prefix("Ip: "));
            let (names, values) = (lines.next(), lines.next());
            let at = names.and_then(|n| n.split(' ').position(|n| n == "ForwDatagrams"));
            at.zip(values)
                .and_then(|(at, values)| values.split(' ').nth(at))
        }
        _ => text
            .lines()
            .find_map(|l| l.strip_prefix("Ip6OutForwDatagrams")),
    };
    Ok(value.context("no such counter")?.trim().parse()?)
}

#[test]
fn an_address_that_no_pod_has_is_unreachable() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let gone = cluster.pod(0, "gone", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let nobody = gone.ips;
    for (family, ip) in nobody.into_iter().enumerate() {
        // The pod's own route wins.
        let to = SocketAddr::new(ip, 80);
        cluster.reaches(
            &format!("IPv{} of a pod", 4 + 2 * family),
            &c.netns,
            "tcp",
            to,
        )?;
    }
    cluster.remove(gone)?;
    let unreachable = |what: &str, from: &Netns, ip| -> anyhow::Result<()> {
        let to = SocketAddr::new(ip, 80).to_string();
        // The error may arrive while connect(2) still holds the socket, where the kernel only notes
        // it: the second SYN, after a second, brings it home.
        let words = ["connect", "tcp", &to, "--timeout", "3500"];
        let output = cluster.netprobe(from, &words)?.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(text.contains("\"unreachable\""), "{what}, {to}: {text}");
        Ok(())
    };
    for (family, ip) in nobody.into_iter().enumerate() {
        let before = forwarded(node, family)?;
        unreachable("from another node", &other.netns, ip)?;
        unreachable("from a pod of another node", &c.netns, ip)?;
        unreachable("from outside", &cluster.outside, ip)?;
        unreachable("from the node itself", &node.netns, ip)?;
        let now = forwarded(node, family)?;
        ensure!(now == before, "{} packets for {ip} went on", now - before);
    }
    // What keeps them is the route, which comes back when it is taken away; without it they leave
    // by the default route.
    let ours = |v6: bool| -> anyhow::Result<Vec<RouteMessage>> {
        let routes = link::routes(&node.netns, v6)?;
        let is = |r: &RouteMessage| {
            r.header.kind == RouteType::Unreachable && u8::from(r.header.protocol) == 82
        };
        Ok(routes.into_iter().filter(is).collect())
    };
    let delete = |v6: bool| -> anyhow::Result<()> {
        let [route] = <[RouteMessage; 1]>::try_from(ours(v6)?)
            .map_err(|routes| anyhow::anyhow!("not one route: {routes:?}"))?;
        link::netlink(&node.netns, move |handle| async move {
            Ok(handle.route().del(route).execute().await?)
        })
    };
    for (family, ip) in nobody.into_iter().enumerate() {
        let v6 = family == 1;
        delete(v6)?;
        wait_for("the route is back", Duration::from_secs(20), || {
            Ok((ours(v6)?.len() == 1).then_some(()))
        })?;
        unreachable("with the route again", &other.netns, ip)?;
    }
    cluster.kill_agent(0)?;
    for (family, ip) in nobody.into_iter().enumerate() {
        delete(family == 1)?;
        let before = forwarded(node, family)?;
        // Whatever becomes of it out there.
        let _ = cluster.ask(&other.netns, "tcp", SocketAddr::new(ip, 80))?;
        ensure!(
            forwarded(node, family)? > before,
            "the counter counts nothing"
        );
    }
    Ok(())
}
