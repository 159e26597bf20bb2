//! Who reaches whom: ARCHITECTURE.md's table of paths, over both families.

use std::net::SocketAddr;

use anyhow::ensure;
use serde_json::json;

use super::cluster::{Cluster, outside_ips};

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
