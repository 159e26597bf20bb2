//! Ports of the node that lead to pods.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use serde_json::{Value, json};

use super::cluster::{Cluster, nothing_lost, outside_ips};

fn ports(tcp: u16, udp: u16) -> Value {
    json!({"portMappings": [
        {"hostPort": tcp, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": udp, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"},
    ]})
}

fn loopback(family: usize) -> IpAddr {
    [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("::1")][family]
}

#[test]
fn ports_of_the_node_lead_to_its_pod() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let web = cluster.pod_with(0, "web", json!({"app": "web"}), ports(8080, 5353))?;
    let near = cluster.pod(0, "near", json!({}))?;
    let far = cluster.pod(1, "far", json!({}))?;
    let node = &cluster.nodes[0];
    for family in 0..2 {
        for (protocol, port) in [("tcp", 8080), ("udp", 5353)] {
            let to = SocketAddr::new(node.ips[family], port);
            for (who, from) in [
                ("outside", &cluster.outside),
                ("a pod of the node", &near.netns),
                ("a pod elsewhere", &far.netns),
                ("another node", &cluster.nodes[1].netns),
                ("the pod itself", &web.netns),
            ] {
                let what = format!("{who}, {protocol}");
                let answer = cluster.reaches(&what, from, protocol, to)?;
                ensure!(answer["host"] == "web", "{what}: {answer}");
                if who == "outside" {
                    // The pod sees who asks.
                    let client = outside_ips()[family].to_string();
                    ensure!(answer.to_string().contains(&client), "{what}: {answer}");
                }
            }
            // By their sockets; what the node itself sends is seen by no other program.
            let own = SocketAddr::new(loopback(family), port);
            for (who, from, to) in [
                ("a pod's socket", &near.netns, to),
                ("the node's socket", &node.netns, to),
                ("the node's socket, by loopback", &node.netns, own),
            ] {
                let answer = cluster.ask_by_socket(0, from, protocol, to)?;
                let host = answer.map(|a| a["host"].clone());
                ensure!(host == Ok("web".into()), "{who}, {protocol}: {host:?}");
            }
            // A pod's loopback is its own.
            let other = cluster.ask_by_socket(0, &near.netns, protocol, own)?;
            let led = other.as_ref().is_ok_and(|a| a["host"] == "web");
            ensure!(!led, "a pod's loopback led to {other:?}");
        }
    }
    // Nobody else's ports.
    let to = SocketAddr::new(cluster.nodes[1].ips[0], 8080);
    ensure!(cluster.ask(&cluster.outside, "tcp", to)?.is_err());
    // Policy is that of the pod, for who asks.
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let block = format!("{}/32", outside_ips()[0]);
    cluster.post(
        path,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "web"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": block}}]}]},
        }),
    )?;
    let to = SocketAddr::new(node.ips[0], 8080);
    cluster.is_cut("the policy", &far.netns, "tcp", to)?;
    cluster.reaches("who is let in", &cluster.outside, "tcp", to)?;
    let to = SocketAddr::new(node.ips[1], 8080);
    cluster.is_cut("the policy, by IPv6", &cluster.outside, "tcp", to)
}

#[test]
fn a_port_outlives_the_agent_and_passes_on() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let first = cluster.pod_with(0, "first", json!({}), ports(8080, 5353))?;
    let second = cluster.pod_with(0, "second", json!({}), ports(8080, 5353))?;
    let to = SocketAddr::new(cluster.nodes[0].ips[0], 8080);
    let udp = SocketAddr::new(cluster.nodes[0].ips[0], 5353);
    let holder = |expected: &str| -> anyhow::Result<()> {
        for (protocol, to) in [("tcp", to), ("udp", udp)] {
            rhumb_harness::wait::wait_for(
                &format!("{protocol} to lead to {expected}"),
                std::time::Duration::from_secs(15),
                || {
                    let answer = cluster.reaches("the port", &cluster.outside, protocol, to)?;
                    Ok((answer["host"] == expected).then_some(()))
                },
            )?;
        }
        Ok(())
    };
    // The older of two has it.
    holder("first")?;
    let stream = cluster.stream(&cluster.outside, "tcp", to, 8)?;
    for _ in 0..2 {
        cluster.kill_agent(0)?;
        cluster.reaches("without an agent", &cluster.outside, "tcp", to)?;
        std::fs::remove_file(cluster.nodes[0].dir.join("cni/net.d/10-rhumb.conflist"))?;
        cluster.start_agent(0)?;
        cluster.wait_agent(0)?;
    }
    nothing_lost(&stream.wait_with_output()?)?;
    holder("first")?;
    cluster.remove(first)?;
    holder("second")?;
    cluster.remove(second)?;
    ensure!(cluster.ask(&cluster.outside, "tcp", to)?.is_err());
    Ok(())
}
