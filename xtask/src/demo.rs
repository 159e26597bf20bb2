//! The demo of `cargo xtask up`: a Service over both nodes, a policy, and no rule of iptables.

use crate::shell::root;
use anyhow::{Context, bail, ensure};
use rhumb_harness::cluster::Cluster;
use serde_json::Value;
use std::collections::BTreeMap;

const NAMESPACE: &str = "demo";

/// Deploys `deploy/examples` and asks the Service.
pub fn run(cluster: &Cluster) -> anyhow::Result<()> {
    println!("\ndemo: deploying deploy/examples/*.yaml");
    for file in ["web.yaml", "clients.yaml"] {
        let file = root().join("deploy/examples").join(file);
        cluster.kubectl_run(&["apply", "-f", &file.display().to_string()])?;
    }
    let one_node = cluster.nodes.len() == 1;
    if one_node {
        // The examples put one Deployment on a second node, which is not there.
        cluster.kubectl_run(&["-n", NAMESPACE, "delete", "deployment", "web-node2"])?;
    }
    let backends = wait_for_pods(cluster, if one_node { 2 } else { 4 })?;
    for (pod, node) in &backends {
        println!("  {pod} runs on {node}");
    }

    let addresses = cluster.kubectl_run(&[
        "-n",
        NAMESPACE,
        "get",
        "service",
        "web",
        "-o",
        "jsonpath={.spec.clusterIPs[*]}",
    ])?;
    for address in addresses.split_whitespace() {
        ask_all(cluster, address, &backends)?;
    }

    println!("\ndemo: applying the policy: pods labelled may=ask, port http");
    let policy = root().join("deploy/examples/policy.yaml");
    cluster.kubectl_run(&["apply", "-f", &policy.display().to_string()])?;
    let address = addresses
        .split_whitespace()
        .next()
        .context("the Service web has no address")?;
    let (http, echo) = (target(address, 80), target(address, 90));
    cluster.wait("the policy is in force", 20, || {
        let refused = summary(cluster, "stranger", "http", &http, "1")?;
        Ok((refused["failed"] == 1).then_some(()))
    })?;
    for (client, protocol, port, target, allowed) in [
        ("client", "http", "http", &http, true),
        ("client", "tcp", "echo", &echo, false),
        ("stranger", "http", "http", &http, false),
        ("stranger", "tcp", "echo", &echo, false),
    ] {
        let answer = summary(cluster, client, protocol, target, "2")?;
        let outcome = if answer["failed"] == 0 {
            "answered".to_owned()
        } else {
            format!("no answer ({})", answer["errors"])
        };
        println!("  {client:<9} -> port {port:<5} {outcome}");
        let as_expected = if allowed {
            answer["failed"] == 0
        } else {
            answer["ok"] == 0
        };
        ensure!(
            as_expected,
            "the policy should have {} {client} on port {port}: {answer}",
            if allowed { "let in" } else { "refused" }
        );
    }
    no_rules(cluster)
}

/// The web pods, each with its node, once all of them and the clients are Ready.
fn wait_for_pods(cluster: &Cluster, web: usize) -> anyhow::Result<BTreeMap<String, String>> {
    cluster.wait("the demo's pods are Ready", 120, || {
        let pods = cluster.kubectl_json(&["-n", NAMESPACE, "get", "pods"])?;
        let mut backends = BTreeMap::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let ready = pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if !ready {
                bail!(
                    "pod {name} is not ready: {}",
                    pod["status"]["containerStatuses"]
                );
            }
            if pod["metadata"]["labels"]["app"] == "web" {
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                backends.insert(name.to_owned(), node.to_owned());
            }
        }
        Ok((backends.len() == web).then_some(backends))
    })
}

fn target(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Asks from a pod; the answers' summary.
fn summary(
    cluster: &Cluster,
    client: &str,
    protocol: &str,
    target: &str,
    count: &str,
) -> anyhow::Result<Value> {
    let output = cluster.kubectl_output(&[
        "-n",
        NAMESPACE,
        "exec",
        client,
        "--",
        "netprobe",
        "connect",
        protocol,
        target,
        "--count",
        count,
        "--timeout",
        "700",
        "--summary",
    ])?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A failed probe is an answer too; anything but a line of JSON is not.
    serde_json::from_str(text.trim()).with_context(|| {
        format!(
            "kubectl exec {client} -- netprobe connect {protocol} {target}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

/// Asks the Service until every backend has answered.
fn ask_all(
    cluster: &Cluster,
    address: &str,
    backends: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let target = target(address, 80);
    println!("\ndemo: asking http://{target} 40 times from the pod client");
    let answer = cluster.wait("every backend answers through the Service", 30, || {
        let answer = summary(cluster, "client", "http", &target, "40")?;
        let hosts = answer["hosts"].as_object().map_or(0, serde_json::Map::len);
        if answer["failed"] != 0 || hosts < backends.len() {
            bail!("of {} backends {hosts} answered: {answer}", backends.len());
        }
        Ok(Some(answer))
    })?;
    let mut by_node: BTreeMap<&str, u64> = BTreeMap::new();
    for (host, count) in answer["hosts"].as_object().into_iter().flatten() {
        let node = backends.get(host).map_or("?", String::as_str);
        println!("  {host} on {node}: {count} answers");
        *by_node.entry(node).or_default() += count.as_u64().unwrap_or(0);
    }
    for (node, count) in by_node {
        println!("  {node}: {count} of 40");
    }
    Ok(())
}

/// Shows that no rule of a packet filter was involved.
fn no_rules(cluster: &Cluster) -> anyhow::Result<()> {
    println!("\ndemo: rules of packet filters on the nodes");
    for node in &cluster.nodes {
        let netns = rhumb_harness::Netns::open(&node.netns)?;
        for (program, arguments) in [
            ("nft", &["list", "ruleset"][..]),
            ("iptables-save", &[]),
            ("ip6tables-save", &[]),
        ] {
            let path = crate::shell::which(program)
                .with_context(|| format!("no {program}: `cargo xtask setup` installs it"))?;
            let output = netns
                .command(path)?
                .args(arguments)
                .output()
                .with_context(|| format!("running {program} in {}", node.name))?;
            ensure!(
                output.status.success(),
                "{program} in {}: {}",
                node.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let rules = text.lines().filter(|line| is_rule(line)).count();
            println!("  {}: `{program}` lists {rules} rules", node.name);
            ensure!(rules == 0, "{} has rules:\n{text}", node.name);
        }
    }
    Ok(())
}

/// Tables and chains alone do nothing; a rule of iptables begins with `-A`, one of nft has a
/// statement.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '*', ':', '}']) || line == "COMMIT" {
        return false;
    }
    !(line.starts_with("table ") || line.starts_with("chain ") || line.starts_with("type "))
}

#[cfg(test)]
mod tests {
    use super::is_rule;

    #[test]
    fn rules_and_what_holds_them() {
        let empty = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n# Completed\n\
                     table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority 0;\n\t}\n}\n";
        assert!(!empty.lines().any(is_rule));
        assert!(is_rule("-A INPUT -j DROP"));
        assert!(is_rule("\t\tip daddr 10.96.0.1 dnat to 10.244.0.1"));
    }
}
