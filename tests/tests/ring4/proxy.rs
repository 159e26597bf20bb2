//! `pods/proxy`, `services/proxy` and `nodes/proxy` by kubectl.

use crate::support::{Suite, servers};
use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A running kubectl, ended with the test.
struct Kubectl(Child);

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn proxy(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("proxy")?;
    space.apply(&servers("web", 2))?;
    let pods = space.ready("app=web", 2)?;
    let base = format!("/api/v1/namespaces/{}", space.name);
    let raw = |path: &str| space.kubectl(&["get", "--raw", path]);
    // The pod's first port, and a port by number; what answers is that pod.
    for pod in &pods {
        for id in [pod.pod.clone(), format!("http:{}:8080", pod.pod)] {
            let said = raw(&format!("{base}/pods/{id}/proxy/any"))?;
            ensure!(
                said.contains(&pod.pod) && said.contains("/any"),
                "{id}: {said}"
            );
        }
    }
    let mut answered: Vec<bool> = vec![false; pods.len()];
    space.wait("both endpoints of the Service answer", 20, || {
        for id in ["web:http", "web:80"] {
            let said = raw(&format!("{base}/services/{id}/proxy/"))?;
            for (seen, pod) in answered.iter_mut().zip(&pods) {
                *seen |= said.contains(&pod.pod);
            }
        }
        Ok(answered.iter().all(|seen| *seen).then_some(()))
    })?;
    for (path, error) in [
        (
            format!("{base}/pods/{}:9/proxy/", pods[0].pod),
            "error trying to reach service: dial tcp",
        ),
        (
            format!("{base}/services/web:82/proxy/"),
            "no service port 82 found for service \"web\"",
        ),
        (
            format!("{base}/services/none/proxy/"),
            "services \"none\" not found",
        ),
    ] {
        let output = space.kubectl_output(&["get", "--raw", &path])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && said.contains(error),
            "{path}: {said}"
        );
    }
    for node in &suite.cluster.nodes {
        let base = format!("/api/v1/nodes/{}", node.name);
        ensure!(raw(&format!("{base}/proxy/healthz"))? == "ok");
        let metrics = raw(&format!("{base}:10250/proxy/metrics"))?;
        ensure!(metrics.contains("kubelet_active_pods"), "{metrics}");
    }
    let mut command = suite.cluster.kubectl();
    command
        .args(["proxy", "--port=0", "--address=127.0.0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut kubectl = Kubectl(command.spawn().context("starting kubectl proxy")?);
    let mut line = String::new();
    let output = kubectl.0.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    // "Starting to serve on 127.0.0.1:40001"
    let address = line.split_whitespace().last().context("no address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "POST {base}/services/web:http/proxy/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Content-Length: 4\r\nConnection: close\r\n\r\nbody"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(pods.iter().any(|p| answer.contains(&p.pod)), "{answer}");
    Ok(())
}
