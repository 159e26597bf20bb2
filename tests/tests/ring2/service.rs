use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rhumb_harness::wait::wait_for;
use serde_json::{Value, json};

use super::cluster::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn make(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let service = cluster.post(
        SERVICES,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "selector": {"app": name}, "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"name": "web", "port": 8000, "targetPort": "web"},
                          {"name": "dns", "port": 53, "protocol": "UDP"}],
            },
        }),
    )?;
    let ips = service["spec"]["clusterIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let ips: Vec<IpAddr> = ips
        .iter()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    ensure!(ips.len() == 2, "{service}");
    Ok(ips)
}

/// Asks until both backends have answered.
fn both_answer(
    mut ask: impl FnMut() -> anyhow::Result<Result<Value, String>>,
) -> anyhow::Result<()> {
    let mut hosts = BTreeSet::new();
    wait_for("both backends", Duration::from_secs(15), || {
        match ask()? {
            Ok(answer) => hosts.insert(answer["host"].to_string()),
            Err(kind) => bail!("{kind}; so far {hosts:?}"),
        };
        Ok((hosts.len() == 2).then_some(()))
    })
}

#[test]
fn a_cluster_ip_reaches_backends_on_both_nodes() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let ips = make(&cluster, "shop")?;
    let client = cluster.pod(0, "client", json!({}))?;
    let label = json!({"app": "shop"});
    let one = cluster.pod(0, "one", label.clone())?;
    let two = cluster.pod(1, "two", label)?;
    for ip in &ips {
        for (protocol, port) in [("tcp", 8000), ("udp", 53)] {
            let to = SocketAddr::new(*ip, port);
            both_answer(|| cluster.ask(&client.netns, protocol, to))
                .with_context(|| format!("{protocol} to {to}, per packet"))?;
            both_answer(|| cluster.ask_by_socket(0, &client.netns, protocol, to))
                .with_context(|| format!("{protocol} to {to}, by socket"))?;
            // A backend of the Service asks it, and may get itself.
            both_answer(|| cluster.ask(&one.netns, protocol, to))
                .with_context(|| format!("{protocol} to {to}, from a backend"))?;
        }
    }
    // One goes; the other has to answer all.
    cluster.remove(two)?;
    let to = SocketAddr::new(ips[0], 8000);
    let mut in_a_row = 0;
    wait_for("only one backend", Duration::from_secs(15), || {
        match cluster.ask(&client.netns, "tcp", to)? {
            Ok(answer) if answer["host"] == "one" => in_a_row += 1,
            _ => in_a_row = 0,
        }
        Ok((in_a_row == 20).then_some(()))
    })?;
    // What nobody serves is refused at once, not timed out: the Service without endpoints, its
    // address at another port, by packet and by socket, and the address of the pod that is gone.
    let gone = one.ips;
    cluster.remove(one)?;
    for (what, ip, port) in [
        ("without endpoints", ips[0], 8000),
        ("without endpoints", ips[1], 8000),
        ("no port of the Service", ips[0], 8001),
        ("no port of the Service", ips[1], 8001),
        ("a pod that is gone", gone[0], 80),
        ("a pod that is gone", gone[1], 80),
    ] {
        let to = SocketAddr::new(ip, port);
        for protocol in ["tcp", "udp"] {
            wait_for(what, Duration::from_secs(15), || {
                match cluster.ask(&client.netns, protocol, to)? {
                    Err(kind) if kind == "refused" => Ok(Some(())),
                    other => bail!("{protocol} to {to}: {other:?}"),
                }
            })?;
            let by_socket = cluster.ask_by_socket(0, &client.netns, protocol, to)?;
            ensure!(
                matches!(&by_socket, Err(kind) if kind == "refused"),
                "{what}, {protocol} to {to} by socket: {by_socket:?}"
            );
        }
    }
    Ok(())
}
