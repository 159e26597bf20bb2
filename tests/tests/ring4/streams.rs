//! Attach and port-forward by kubectl and kube-rs.

use crate::support::Suite;
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const IMAGE: &str = "--image=localhost/testbox:dev";

pub fn attach(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("attach")?;
    // The input's end reaches the process, whose output goes on after it.
    let data: String = (0..50_000).map(|i| format!("{i:07}\n")).collect();
    let run = |name: &str, script: &str| {
        let arguments = [
            "run",
            name,
            "-i",
            "--rm",
            "-q",
            "--restart=Never",
            IMAGE,
            "--",
            "sh",
            "-c",
            script,
        ];
        space.kubectl_stdin(&arguments, &data)
    };
    let output = run(
        "count",
        "wc -c; sleep 1; echo after; echo apart >&2; exit 7",
    )?;
    ensure!(
        String::from_utf8_lossy(&output.stdout).starts_with("400000\nafter\n"),
        "{output:?}"
    );
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("apart"),
        "{output:?}"
    );
    // kubectl takes the exit code from the pod's status.
    ensure!(output.status.code() == Some(7), "{output:?}");

    let script = "while read line; do echo \"got $line\"; done; sleep 1000000";
    let arguments = [
        "run",
        "echo",
        "--stdin",
        IMAGE,
        "--restart=Never",
        "--labels=app=echo",
        "--",
        "sh",
        "-c",
        script,
    ];
    // It waits for input: kubectl leaves with an input of one line.
    let overrides = ["--attach=false"];
    space.kubectl(&[&arguments[..6], &overrides, &arguments[6..]].concat())?;
    space.ready("app=echo", 1)?;
    let api: Api<Pod> = space.api();
    suite.block_on(async {
        let parameters = AttachParams::default()
            .stdin(true)
            .stdout(true)
            .stderr(false);
        let mut attached = api.attach("echo", &parameters).await?;
        let mut input = attached.stdin().context("no input")?;
        let mut output = attached.stdout().context("no output")?;
        for word in ["one\n", "two\n"] {
            input.write_all(word.as_bytes()).await?;
            input.flush().await?;
            let mut said = vec![0; 4 + word.len()];
            let read = output.read_exact(&mut said);
            tokio::time::timeout(Duration::from_secs(10), read).await??;
            ensure!(said == format!("got {word}").as_bytes(), "{said:?}");
        }
        attached.abort();
        anyhow::Ok(())
    })?;
    let output = space.kubectl_output(&["attach", "echo", "-c", "other"])?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && error.contains("container other is not valid for pod echo"),
        "{error}"
    );
    Ok(())
}

/// A running kubectl, ended with the test.
struct Kubectl(Child);

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn port_forward(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("port-forward")?;
    // One server listens on the pod's loopback only.
    let serve = "mkdir -p /tmp/www; echo web >/tmp/www/index.html; \
        httpd -p 127.0.0.1:8080 -h /tmp/www; exec nc -ll -p 9000 -e cat";
    space.kubectl(&[
        "run",
        "web",
        IMAGE,
        "--labels=app=web",
        "--",
        "sh",
        "-c",
        serve,
    ])?;
    space.ready("app=web", 1)?;
    let mut command = suite.cluster.kubectl();
    command
        .args(["-n", &space.name, "port-forward", "pod/web"])
        .args(["--address=127.0.0.1", ":8080", ":9000", ":9"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut kubectl = Kubectl(command.spawn().context("starting kubectl port-forward")?);
    let mut lines = BufReader::new(kubectl.0.stdout.take().context("no output")?).lines();
    // "Forwarding from 127.0.0.1:40001 -> 8080"
    let mut local = || -> anyhow::Result<SocketAddr> {
        let line = lines.next().context("kubectl ended")??;
        let port = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("127.0.0.1:"))
            .with_context(|| format!("no address in {line:?}"))?;
        Ok((Ipv4Addr::LOCALHOST, port.parse()?).into())
    };
    let (http, echo, nobody) = (local()?, local()?, local()?);
    for _ in 0..3 {
        let mut stream = dial(http)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.contains("200 OK") && answer.ends_with("web\n"),
            "{answer}"
        );
    }
    // Many connections at once, each with more than a window holds in both directions.
    let threads: Vec<_> = (0..8u8)
        .map(|i| std::thread::spawn(move || echoed(echo, i)))
        .collect();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    // Nobody listens: kubectl hears why.
    let mut refused = dial(nobody)?;
    ensure!(
        refused.read(&mut [0; 1]).unwrap_or(0) == 0,
        "an answer from nobody"
    );
    let mut error = BufReader::new(kubectl.0.stderr.take().context("no errors")?).lines();
    let line = error.next().context("kubectl said nothing")??;
    ensure!(
        line.contains("error forwarding port 9 to pod web") && line.contains("refused"),
        "{line}"
    );

    let api: Api<Pod> = space.api();
    suite.block_on(async {
        let mut forwarder = api.portforward("web", &[8080, 9]).await?;
        let mut stream = forwarder.take_stream(8080).context("no stream")?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = vec![0; 8];
        let read = stream.read_exact(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await??;
        ensure!(answer.starts_with(b"HTTP/1."), "{answer:?}");
        let why = forwarder.take_error(9).context("no error")?;
        let why = tokio::time::timeout(Duration::from_secs(10), why).await?;
        ensure!(why.is_some_and(|w| w.contains("refused")), "no reason");
        Ok(())
    })
}

fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn echoed(address: SocketAddr, seed: u8) -> anyhow::Result<()> {
    let stream = dial(address)?;
    let data: Vec<u8> = (0..1_000_000u32)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect();
    let (mut writer, sent) = (stream.try_clone()?, data.clone());
    let writing = std::thread::spawn(move || writer.write_all(&sent));
    let mut back = vec![0; data.len()];
    (&stream).read_exact(&mut back)?;
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(back == data, "connection {seed}: other bytes came back");
    Ok(())
}
