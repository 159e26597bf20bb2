//! The API server: what its verbs take, a loader's 10 000 Services, watches, memory, and durable
//! writes beside etcd's.

mod client;
mod etcd;
mod writes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::client::{Client, Server};
use crate::memory;
use crate::micros;
use crate::stats::Latency;

const SERVICES: usize = 10_000;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHERS: usize = 1_000;
/// Streams of one connection.
const STREAMS: usize = 100;

pub fn measure(binary: &Path) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        verbs(binary).await.context("measuring verbs")?;
        load(binary).await.context("measuring a loader")?;
        fan_out(binary).await.context("measuring watches")?;
        writes::measure(binary).await.context("measuring writes")
    })
}

/// MiB resident, and of that what is no page of a file, after things have come to rest.
async fn settled(pid: u32) -> Result<String> {
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let all = mib(memory::resident_kib(pid)?);
    let anonymous = mib(memory::anonymous_kib(pid)?);
    Ok(format!("{all:.1} ({anonymous:.1})"))
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

async fn timed(what: impl Future<Output = Result<Bytes>>) -> Result<Duration> {
    let start = Instant::now();
    what.await?;
    Ok(start.elapsed())
}

fn row(name: &str, sample: Vec<Duration>, base: Option<Duration>) -> Duration {
    let runs = sample.len();
    let latency = Latency::of(sample);
    let ratio = base.map_or("1.00".into(), |base| {
        format!("{:.2}", latency.p50.as_secs_f64() / base.as_secs_f64())
    });
    println!(
        "| {name} | {runs} | {:.0} | {:.0} | {ratio} |",
        micros(latency.p50),
        micros(latency.p99)
    );
    latency.p50
}

/// Appends and syncs, as the least that a durable write takes on this disk.
fn disk(dir: &Path, runs: usize) -> Result<Vec<Duration>> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("disk"))?;
    let mut sample = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        sample.push(start.elapsed());
    }
    Ok(sample)
}

async fn verbs(binary: &Path) -> Result<()> {
    const RUNS: usize = 300;
    let dir = tempfile::tempdir()?;
    let server = Server::start(binary, dir.path()).await?;
    let mut client = server.connect().await?;
    let mut samples: Vec<(&str, Vec<Duration>)> = [
        "append of 512 bytes and fdatasync",
        "create",
        "get",
        "update",
        "patch (merge)",
        "patch (strategic merge)",
        "patch (server-side apply)",
        "delete",
    ]
    .map(|name| (name, Vec::new()))
    .to_vec();
    // Interleaved, so that whatever else the machine does meets all of them.
    for i in 0..RUNS {
        let name = format!("m{i}");
        let path = format!("{MAPS}/{name}");
        samples[0].1.extend(disk(dir.path(), 1)?);
        let object = map(&name, "v");
        samples[1].1.push(timed(client.post(MAPS, &object)).await?);
        samples[2]
            .1
            .push(timed(client.call(Method::GET, &path, "", "")).await?);
        let json = "application/json";
        let put = client.call(Method::PUT, &path, json, map(&name, "w").to_string());
        samples[3].1.push(timed(put).await?);
        for (at, kind, value) in [
            (4, "application/merge-patch+json", "x"),
            (5, "application/strategic-merge-patch+json", "y"),
        ] {
            let patch = json!({"data": {"k": value}}).to_string();
            let patch = client.call(Method::PATCH, &path, kind, patch);
            samples[at].1.push(timed(patch).await?);
        }
        let apply = format!("{path}?fieldManager=bench&force=true");
        let kind = "application/apply-patch+yaml";
        let apply = client.call(Method::PATCH, &apply, kind, map(&name, "z").to_string());
        samples[6].1.push(timed(apply).await?);
        samples[7]
            .1
            .push(timed(client.call(Method::DELETE, &path, "", "")).await?);
    }
    println!(
        "\n## API server: one client, one request after the other (ConfigMaps, HTTP/2 over TLS)\n"
    );
    println!("| request | runs | p50 µs | p99 µs | p50 ÷ disk |");
    println!("|---|---|---|---|---|");
    let mut base = None;
    for (name, sample) in samples {
        let p50 = row(name, sample, base);
        base.get_or_insert(p50);
    }
    Ok(())
}

fn service(i: usize) -> [(String, Value); 2] {
    let namespace = format!("ns{}", i % 100);
    let name = format!("service-{i}");
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        // Whoever brings the slices has no selector.
        "spec": {"ports": ports},
    });
    let endpoint = |n: usize| {
        let (a, b) = (n / 250 % 250, n % 250 + 1);
        json!({
            "addresses": [format!("10.{}.{a}.{b}", 200 + n / 62_500)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", n % 100),
        })
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-a"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": [endpoint(2 * i), endpoint(2 * i + 1)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    [
        (format!("/api/v1/namespaces/{namespace}/services"), service),
        (
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
            slice,
        ),
    ]
}

/// Writes the Services and their slices over one connection, so many at a time.
async fn fill(client: &Client, services: usize, at_once: usize) -> Result<Duration> {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut loaders = JoinSet::new();
    for _ in 0..at_once {
        let (mut client, next) = (client.clone(), next.clone());
        loaders.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= services {
                    return anyhow::Ok(());
                }
                for (path, object) in service(i) {
                    client.post(&path, &object).await?;
                }
            }
        });
    }
    while let Some(done) = loaders.join_next().await {
        done??;
    }
    Ok(start.elapsed())
}

async fn namespaces(client: &mut Client) -> Result<()> {
    for i in 0..100 {
        let namespace = json!({"metadata": {"name": format!("ns{i}")}});
        client.post("/api/v1/namespaces", &namespace).await?;
    }
    Ok(())
}

async fn load(binary: &Path) -> Result<()> {
    println!(
        "\n## API server: {SERVICES} Services with an EndpointSlice of two endpoints each, from one loader over one connection\n"
    );
    println!(
        "| requests at once | Services | all accepted after s | objects/s | MiB resident (anonymous) before | after |"
    );
    println!("|---|---|---|---|---|---|");
    let mut lists = Vec::new();
    for (at_once, services) in [(1, SERVICES / 10), (8, SERVICES), (64, SERVICES)] {
        let dir = tempfile::tempdir()?;
        let server = Server::start(binary, dir.path()).await?;
        let mut client = server.connect().await?;
        let before = settled(server.pid()).await?;
        namespaces(&mut client).await?;
        let took = fill(&client, services, at_once).await?;
        let after = settled(server.pid()).await?;
        println!(
            "| {at_once} | {services} | {:.1} | {:.0} | {before} | {after} |",
            took.as_secs_f64(),
            2.0 * services as f64 / took.as_secs_f64()
        );
        if at_once == 64 {
            lists = list_all(&mut client).await?;
        }
    }
    println!("\n## API server: lists of {SERVICES} Services\n");
    println!("| list | runs | p50 ms | worst ms | MiB |");
    println!("|---|---|---|---|---|");
    for (name, sample, bytes) in lists {
        let runs = sample.len();
        let latency = Latency::of(sample);
        println!(
            "| {name} | {runs} | {:.1} | {:.1} | {:.1} |",
            micros(latency.p50) / 1e3,
            micros(latency.p99) / 1e3,
            bytes as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}

async fn list_all(client: &mut Client) -> Result<Vec<(&'static str, Vec<Duration>, usize)>> {
    let mut found = Vec::new();
    for (name, path) in [
        ("all at once", "/api/v1/services"),
        ("pages of 500", "/api/v1/services?limit=500"),
        (
            "by a label that none has",
            "/api/v1/services?labelSelector=x%3Dy",
        ),
        ("of one namespace", "/api/v1/namespaces/ns7/services"),
    ] {
        let mut sample = Vec::new();
        let mut bytes = 0;
        for _ in 0..20 {
            let start = Instant::now();
            bytes = 0;
            let mut next = String::new();
            loop {
                let page = match next.as_str() {
                    "" => path.to_string(),
                    token => format!("{path}&continue={token}"),
                };
                let body = client.call(Method::GET, &page, "", "").await?;
                bytes += body.len();
                next = token(&body);
                if next.is_empty() {
                    break;
                }
            }
            sample.push(start.elapsed());
        }
        found.push((name, sample, bytes));
    }
    Ok(found)
}

/// The continue token of a list, which stands near its beginning.
fn token(body: &[u8]) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(1000)]);
    let found = head.split("\"continue\":\"").nth(1);
    let found = found.and_then(|rest| rest.split('"').next());
    found.unwrap_or("").to_string()
}

async fn fan_out(binary: &Path) -> Result<()> {
    const CHANGES: usize = 50;
    const BURST: usize = 500;
    let dir = tempfile::tempdir()?;
    let server = Server::start(binary, dir.path()).await?;
    let mut client = server.connect().await?;
    client.post(MAPS, &map("m", "start")).await?;
    let before = settled(server.pid()).await?;
    // How many events all watchers together have seen.
    let seen = Arc::new(AtomicUsize::new(0));
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS / STREAMS {
        let connection = server.connect().await?;
        for _ in 0..STREAMS {
            let path = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dm");
            let response = connection.clone().open(Method::GET, &path, "", "").await?;
            let seen = seen.clone();
            watchers.spawn(async move {
                let mut body = response.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    if let Some(data) = frame.data_ref() {
                        let lines = data.iter().filter(|b| **b == b'\n').count();
                        seen.fetch_add(lines, Ordering::Relaxed);
                    }
                }
            });
        }
    }
    // Each begins with what is there.
    let mut expected = WATCHERS;
    wait_for(&seen, expected).await?;
    let with = settled(server.pid()).await?;
    let merge = "application/merge-patch+json";
    let path = format!("{MAPS}/m");
    let mut delays = Vec::new();
    for i in 0..CHANGES {
        let patch = json!({"data": {"k": format!("{i}")}}).to_string();
        client.call(Method::PATCH, &path, merge, patch).await?;
        let answered = Instant::now();
        expected += WATCHERS;
        wait_for(&seen, expected).await?;
        delays.push(answered.elapsed());
    }
    let start = Instant::now();
    for i in 0..BURST {
        let patch = json!({"data": {"k": format!("burst {i}")}}).to_string();
        client.call(Method::PATCH, &path, merge, patch).await?;
    }
    expected += BURST * WATCHERS;
    wait_for(&seen, expected).await?;
    let took = start.elapsed();
    let latency = Latency::of(delays);
    println!("\n## API server: {WATCHERS} watches of one object\n");
    println!(
        "| write answered → last of them told: p50 ms | p99 ms | events/s in a burst of {BURST} changes | MiB resident (anonymous) without watches | with |"
    );
    println!("|---|---|---|---|---|");
    println!(
        "| {:.1} | {:.1} | {:.0} | {before} | {with} |",
        micros(latency.p50) / 1e3,
        micros(latency.p99) / 1e3,
        (BURST * WATCHERS) as f64 / took.as_secs_f64()
    );
    watchers.abort_all();
    Ok(())
}

async fn wait_for(seen: &AtomicUsize, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.load(Ordering::Relaxed) < wanted {
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} of {wanted} events came in 60 s",
            seen.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    Ok(())
}
