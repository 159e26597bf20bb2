//! What the benchmarks need of a running cluster: pods to measure between, and manifests.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rhumb_cni::ipam::store::Store;
use rhumb_harness::cgroup;
use rhumb_harness::cluster::Cluster;
use rhumb_harness::cluster::layout::Node;
use serde_json::Value;

use crate::net::Place;

/// The namespace that everything of the benchmarks is in.
pub const NAMESPACE: &str = "bench";

/// `kubectl apply -f -`.
pub fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    let mut child = cluster
        .kubectl()
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kubectl")?;
    child
        .stdin
        .take()
        .context("kubectl has no stdin")?
        .write_all(manifest.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(
        out.status.success(),
        "kubectl apply: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}

/// A pod that sleeps, on a node of our choice; label `app` is its name.
pub fn idle_pod(name: &str, node: &str) -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: idle, image: "localhost/testbox:dev", imagePullPolicy: IfNotPresent, command: [sleep, "86400"]}}
"#
    )
}

/// A dual-stack Service over the pods labelled `app`.
pub fn service(name: &str, app: &str, port: u16) -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app: {app}}}
  ports: [{{port: {port}, protocol: TCP}}]
"#
    )
}

/// A pod's addresses and where its traffic starts.
#[derive(Debug)]
pub struct Pod {
    pub place: Place,
    pub ips: Vec<IpAddr>,
}

/// Waits until the pod is Ready, and finds its namespace in the plugin's journal.
pub fn pod(cluster: &Cluster, node: &Node, name: &str) -> Result<Pod> {
    cluster.kubectl_run(&[
        "wait",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=90s",
        &format!("pod/{name}"),
    ])?;
    let state = Store::open(node.state_dir().join("ipam"))?.snapshot()?;
    let found = state
        .attachments
        .values()
        .find(|a| a.namespace == NAMESPACE && a.pod == name)
        .with_context(|| format!("{}'s journal has no pod {name}", node.name))?;
    Ok(Pod {
        place: Place {
            netns: found.netns.clone(),
            cgroup: Some(
                cgroup::v2_root()?
                    .join(node.cgroup.trim_start_matches('/'))
                    .join("system"),
            ),
        },
        ips: found.ips.clone(),
    })
}

/// ClusterIPs of a Service with the port, once it has an endpoint.
pub fn cluster_ips(cluster: &Cluster, name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    cluster.wait(&format!("Service {name} has endpoints"), 30, || {
        let slices = cluster.kubectl_json(&[
            "get",
            "endpointslices",
            "-n",
            NAMESPACE,
            "-l",
            &format!("kubernetes.io/service-name={name}"),
        ])?;
        let ready = slices["items"].as_array().is_some_and(|items| {
            !items.is_empty()
                && items
                    .iter()
                    .all(|s| s["endpoints"].as_array().is_some_and(|e| !e.is_empty()))
        });
        Ok(ready.then_some(()))
    })?;
    let service: Value = cluster.kubectl_json(&["get", "service", "-n", NAMESPACE, name])?;
    let ips = service["spec"]["clusterIPs"]
        .as_array()
        .context("no clusterIPs")?;
    ips.iter()
        .map(|ip| {
            let ip: IpAddr = ip
                .as_str()
                .unwrap_or_default()
                .parse()
                .context("a clusterIP")?;
            Ok(SocketAddr::new(ip, port))
        })
        .collect()
}

/// The address of one family.
pub fn family(ips: &[IpAddr], v4: bool) -> Result<IpAddr> {
    match ips.iter().find(|ip| ip.is_ipv4() == v4) {
        Some(ip) => Ok(*ip),
        None => bail!(
            "the pod has no {} address",
            if v4 { "IPv4" } else { "IPv6" }
        ),
    }
}

/// Where the node's plugin binary and configuration are.
pub fn plugin(node: &Node) -> Result<(PathBuf, String)> {
    let conflist = node.cni_conf_dir().join("10-rhumb.conflist");
    let text =
        std::fs::read(&conflist).with_context(|| format!("reading {}", conflist.display()))?;
    let list: Value = serde_json::from_slice(&text)?;
    let mut conf = list["plugins"][0].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["name"] = list["name"].clone();
    Ok((node.cni_bin_dir().join("rhumb-cni"), conf.to_string()))
}
