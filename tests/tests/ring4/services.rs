//! Pods reach pods and Services, on both nodes, in both families.

use crate::support::{Suite, client, is_ready, servers, target};
use anyhow::{Context, ensure};
use rhumb_harness::cluster::Cluster;
use serde_json::Value;
use std::collections::BTreeSet;

pub fn six_pods(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("six")?;
    space.apply(&servers("web", 6))?;
    let pods = space.ready("app=web", 6)?;
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.node.as_str()).collect();
    ensure!(nodes.len() == 2, "six pods are on {nodes:?} only");

    // Every pod reaches every other, itself among them.
    for from in &pods {
        let mut script = String::from("set -e\n");
        for to in &pods {
            for v6 in [false, true] {
                let ip = to.ip(v6)?;
                for (protocol, port) in [("tcp", 9090), ("udp", 9091)] {
                    let target = target(ip, port);
                    script.push_str(&format!("netprobe connect {protocol} {target}\n"));
                }
            }
        }
        let output = space
            .exec(&from.pod, &["sh", "-c", &script])
            .with_context(|| format!("{} on {} asks the others", from.pod, from.node))?;
        let own: BTreeSet<_> = from.ips.iter().cloned().collect();
        for line in output.lines() {
            let answer: Value = serde_json::from_str(line)?;
            let seen = answer["answer"]["client"].as_str().unwrap_or_default();
            let seen: std::net::SocketAddr = seen.parse().context(line.to_owned())?;
            // No address was translated on the way between pods.
            ensure!(own.contains(&seen.ip().to_string()), "{}: {line}", from.pod);
        }
    }

    // And the Service; all six answer.
    let names: BTreeSet<_> = pods.iter().map(|pod| pod.pod.clone()).collect();
    for ip in space.service_ips("web")? {
        for (protocol, port) in [("http", 80), ("tcp", 90), ("udp", 91)] {
            let target = target(&ip, port);
            space.probe_until(&pods[0].pod, protocol, &target, None)?;
            for from in [&pods[0], &pods[5]] {
                let answer = space.probe(&from.pod, protocol, &target, &["--count", "120"])?;
                ensure!(answer["failed"] == 0, "{protocol} {target}: {answer}");
                ensure!(hosts(&answer) == names, "{protocol} {target}: {answer}");
            }
        }
    }

    // Scaling changes who answers.
    space.kubectl(&["scale", "deployment", "web", "--replicas=2"])?;
    let left = space.ready("app=web", 2)?;
    let names: BTreeSet<_> = left.iter().map(|pod| pod.pod.clone()).collect();
    only(suite, &space, &left[0].pod, &names)?;
    space.kubectl(&["scale", "deployment", "web", "--replicas=4"])?;
    let more = space.ready("app=web", 4)?;
    let names: BTreeSet<_> = more.iter().map(|pod| pod.pod.clone()).collect();
    only(suite, &space, &left[0].pod, &names)
}

/// Waits until exactly these pods answer for the Service, and none fails meanwhile.
fn only(
    _: &Suite,
    space: &crate::support::Space<'_>,
    from: &str,
    names: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let ip = space.service_ips("web")?.swap_remove(0);
    space.wait("exactly the pods there are answer", 15, || {
        let answer = space.probe(from, "tcp", &target(&ip, 90), &["--count", "80"])?;
        ensure!(
            hosts(&answer) == *names && answer["failed"] == 0,
            "{answer}"
        );
        Ok(Some(()))
    })
}

fn hosts(answer: &Value) -> BTreeSet<String> {
    let hosts = answer["hosts"].as_object();
    hosts
        .into_iter()
        .flatten()
        .map(|(host, _)| host.clone())
        .collect()
}

pub fn no_endpoints(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("empty")?;
    space.apply(&servers("nobody", 0))?;
    space.apply(&client("client", "app: client", None))?;
    space.ready("app=client", 1)?;
    for ip in space.service_ips("nobody")? {
        space.probe_until("client", "tcp", &target(&ip, 90), Some("refused"))?;
        let answer = space.probe("client", "tcp", &target(&ip, 90), &["--count", "5"])?;
        let slowest = answer["slowest_micros"].as_u64().unwrap_or(u64::MAX);
        ensure!(slowest < 300_000, "refused, but slowly: {answer}");
    }
    Ok(())
}

pub fn outside(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("outside")?;
    space.apply(&servers("web", 2))?;
    let pods = space.ready("app=web", 2)?;
    let netns = suite.cluster.outside()?;
    let netprobe = suite.cluster.netprobe();
    // Outside clients reach pods by the site's routes, and are seen by their own addresses.
    let (out4, out6) = Cluster::outside_addresses();
    for pod in &pods {
        for (v6, own) in [(false, out4), (true, out6)] {
            let target = target(pod.ip(v6)?, 9090);
            let output = netns
                .command(&netprobe)?
                .args(["connect", "tcp", &target])
                .output()?;
            let line = String::from_utf8_lossy(&output.stdout).into_owned();
            let answer: Value = serde_json::from_str(line.trim()).context(line.clone())?;
            let seen = answer["answer"]["client"].as_str().unwrap_or_default();
            let seen: std::net::SocketAddr = seen.parse().context(line.clone())?;
            ensure!(seen.ip() == own, "outside asks {target}: {line}");
        }
    }
    // What pods send outside bears their node's address.
    let mut server = netns
        .command(&netprobe)?
        .args([
            "serve", "--tcp", "7070", "--udp", "7071", "--name", "outside",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let result = masquerade(suite, &space, &pods);
    let _ = server.kill();
    let _ = server.wait();
    result
}

/// A pod that has ports of its node.
fn with_host_ports(name: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: edge}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  containers:
    - name: server
      image: localhost/testbox:dev
      imagePullPolicy: IfNotPresent
      command: [netprobe, serve, --tcp, "9090", --udp, "9091", --name, {name}]
      ports:
        - {{containerPort: 9090, hostPort: 18090}}
        - {{containerPort: 9091, hostPort: 18091, protocol: UDP}}
      readinessProbe:
        tcpSocket: {{port: 9090}}
        periodSeconds: 1
"#
    )
}

pub fn host_ports(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("hostports")?;
    let node = &suite.cluster.nodes[0];
    space.apply(&with_host_ports("first", &node.name))?;
    for (name, node) in [("near", 0), ("far", 1)] {
        let node = &suite.cluster.nodes[node].name;
        space.apply(&client(name, "app: client", Some(node)))?;
    }
    space.ready("app=edge", 1)?;
    space.ready("app=client", 2)?;
    let netns = suite.cluster.outside()?;
    let netprobe = suite.cluster.netprobe();
    let (out4, out6) = Cluster::outside_addresses();
    let answers = |pod: &str| -> anyhow::Result<()> {
        for (ip, out) in [(node.ip4, out4), (node.ip6, out6)] {
            for (protocol, port) in [("tcp", 18090), ("udp", 18091)] {
                let target = target(&ip.to_string(), port);
                space.wait(&format!("{target} to lead to {pod}"), 15, || {
                    let output = netns
                        .command(&netprobe)?
                        .args(["connect", protocol, &target])
                        .output()?;
                    let line = String::from_utf8_lossy(&output.stdout).into_owned();
                    let answer: Value = serde_json::from_str(line.trim()).context(line.clone())?;
                    let answer = &answer["answer"];
                    let client = answer["client"].as_str().unwrap_or_default();
                    let seen: Option<std::net::SocketAddr> = client.parse().ok();
                    let right = answer["host"] == pod && seen.is_some_and(|s| s.ip() == out);
                    ensure!(right, "{line}");
                    Ok(Some(()))
                })?;
                for from in ["near", "far"] {
                    space.probe_until(from, protocol, &target, None)?;
                }
            }
        }
        Ok(())
    };
    answers("first")?;
    // Who wants the same waits for a node, and has the port when it is free.
    space.apply(&with_host_ports("second", &node.name))?;
    space.wait("the second pod to wait", 15, || {
        let pod = space.pod("second")?;
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        let waits = conditions.iter().any(|c| {
            let message = c.message.as_deref().unwrap_or_default();
            c.type_ == "PodScheduled" && message.contains("free ports")
        });
        Ok(waits.then_some(()))
    })?;
    space.kubectl(&["delete", "pod", "first"])?;
    space.wait("the second pod to run", 30, || {
        Ok(is_ready(&space.pod("second")?).then_some(()))
    })?;
    answers("second")
}

fn masquerade(
    suite: &Suite,
    space: &crate::support::Space<'_>,
    pods: &[crate::support::Place],
) -> anyhow::Result<()> {
    let (out4, out6) = Cluster::outside_addresses();
    for pod in pods {
        let node = suite
            .cluster
            .nodes
            .iter()
            .find(|node| node.name == pod.node);
        let node = node.with_context(|| format!("no node {}", pod.node))?;
        for (out, expected) in [(out4, node.ip4), (out6, node.ip6)] {
            for (protocol, port) in [("tcp", 7070), ("udp", 7071)] {
                let target = target(&out.to_string(), port);
                space.probe_until(&pod.pod, protocol, &target, None)?;
                let line = space.exec(&pod.pod, &["netprobe", "connect", protocol, &target])?;
                let answer: Value = serde_json::from_str(line.trim())?;
                let seen = answer["answer"]["client"].as_str().unwrap_or_default();
                let seen: std::net::SocketAddr = seen.parse().context(line.clone())?;
                ensure!(seen.ip() == expected, "{} asks {target}: {line}", pod.pod);
            }
        }
    }
    Ok(())
}
