//! The benchmarks: figures as ratios against something else in the same run, since machines are
//! shared and noisy. `cargo xtask bench` builds everything for release and starts this.

mod api;
mod cluster;
mod cni;
mod memory;
mod net;
mod stats;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use rhumb_harness::cluster::{Built, Cluster};
use rhumb_harness::{Run, link};

use cluster::{NAMESPACE, Pod};
use net::{Client, Place, Server};
use stats::{Latency, median_interval};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// RR and CRR: bare veth pair, pod to pod, through a ClusterIP
    Net,
    /// CNI ADD alone and many at once
    Cni,
    /// `kubectl apply` until the pod answers through its Service
    Apply,
    /// Resident memory of each process and bytes of the maps
    Memory,
    /// The API server by itself: verbs, a loader, lists, watches, memory, writes beside etcd's
    Api,
}

#[derive(Parser)]
struct Args {
    /// Parts to run; all of them if none is named
    parts: Vec<Part>,
    /// A running cluster of two nodes
    #[arg(long, default_value = "bench")]
    cluster: String,
    /// Cargo's target directory
    #[arg(long, default_value = "target")]
    target: PathBuf,
    /// The control plane's program
    #[arg(long, default_value = "target/release/rhumb-control")]
    control: PathBuf,
    /// The no-op plugin
    #[arg(long, default_value = "target/release/cni-noop")]
    noop: PathBuf,
    /// Pairs of thing and baseline
    #[arg(long, default_value_t = 31)]
    pairs: usize,
    /// Requests a sample
    #[arg(long, default_value_t = 1000)]
    requests: usize,
}

const PORT: u16 = 7000;

fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    if wanted(Part::Api) {
        api::measure(&args.control).context("measuring the API server")?;
    }
    if args.parts == [Part::Api] {
        return Ok(());
    }
    let cluster = Cluster::open(&Built::new(&args.target)?, &args.cluster)?;
    let _ = cluster.kubectl_output(&["create", "namespace", NAMESPACE])?;
    if wanted(Part::Net) {
        network(&args, &cluster).context("measuring the pod network")?;
    }
    if wanted(Part::Cni) {
        cni::measure(&cluster, &args.noop).context("measuring CNI ADD")?;
    }
    if wanted(Part::Apply) {
        apply_to_reachable(&args, &cluster).context("measuring apply")?;
    }
    if wanted(Part::Memory) {
        resident(&cluster).context("measuring memory")?;
    }
    Ok(())
}

/// One path: where the client is, and the address that it asks.
struct Path {
    name: String,
    client: Client,
    addr: SocketAddr,
}

fn network(args: &Args, cluster: &Cluster) -> Result<()> {
    let [one, two, ..] = cluster.nodes.as_slice() else {
        bail!("the cluster has one node only")
    };
    let manifest = [
        cluster::idle_pod("client", &one.name),
        cluster::idle_pod("near", &one.name),
        cluster::idle_pod("far", &two.name),
        cluster::service("near", "near", PORT),
        cluster::service("far", "far", PORT),
    ]
    .concat();
    cluster::apply(cluster, &manifest)?;
    let client = cluster::pod(cluster, one, "client")?;
    let near = cluster::pod(cluster, one, "near")?;
    let far = cluster::pod(cluster, two, "far")?;

    let run = Run::new("bench")?;
    let (a, b) = (run.netns("a")?, run.netns("b")?);
    link::veth(&a, "veth", &b, "veth")?;
    let bare: [(IpAddr, IpAddr, u8); 2] = [
        ("192.0.2.1".parse()?, "192.0.2.2".parse()?, 24),
        ("2001:db8::1".parse()?, "2001:db8::2".parse()?, 64),
    ];
    for (from, to, prefix) in bare {
        link::address(&a, "veth", from, prefix)?;
        link::address(&b, "veth", to, prefix)?;
    }
    for ns in [&a, &b] {
        link::up(ns, "veth")?;
    }

    println!(
        "\n## Request/response and connect + request, same CPU, {} pairs of {} requests\n",
        args.pairs, args.requests
    );
    println!(
        "| family | path | RR p50 µs | RR p99 µs | RR p50 ÷ bare | CRR p50 µs | CRR p99 µs | CRR p50 ÷ bare |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut services = Vec::new();
    for v4 in [true, false] {
        let at = |ip: IpAddr| SocketAddr::new(ip, PORT);
        let pod_addr = |pod: &Pod| Ok::<_, anyhow::Error>(at(cluster::family(&pod.ips, v4)?));
        let bare_addr = at(bare[usize::from(!v4)].1);
        let _servers = [
            Server::start(Place::netns(b.path()), bare_addr)?,
            Server::start(near.place.clone(), pod_addr(&near)?)?,
            Server::start(far.place.clone(), pod_addr(&far)?)?,
        ];
        let vip = |name| -> Result<SocketAddr> {
            let ips = cluster::cluster_ips(cluster, name, PORT)?;
            ips.into_iter()
                .find(|a| a.is_ipv4() == v4)
                .context("no ClusterIP of this family")
        };
        let path = |name: &str, place: &Place, addr| -> Result<Path> {
            let client = Client::start(place.clone())?;
            let path = Path {
                name: name.to_owned(),
                client,
                addr,
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            while let Err(e) = path.client.crr(addr, 1) {
                if Instant::now() > deadline {
                    return Err(e.context(format!("{name}: no answer")));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(path)
        };
        let paths = [
            path("bare veth pair", &Place::netns(a.path()), bare_addr)?,
            path("pod → pod, same node", &client.place, pod_addr(&near)?)?,
            path("pod → ClusterIP, same node", &client.place, vip("near")?)?,
            path("pod → pod, other node", &client.place, pod_addr(&far)?)?,
            path("pod → ClusterIP, other node", &client.place, vip("far")?)?,
        ];
        let rr = sample(args.pairs, &paths, |p| p.client.rr(p.addr, args.requests))?;
        let crr = sample(args.pairs, &paths, |p| {
            p.client.crr(p.addr, args.requests / 4)
        })?;
        let family = if v4 { "IPv4" } else { "IPv6" };
        for (i, p) in paths.iter().enumerate() {
            println!(
                "| {family} | {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} |",
                p.name,
                mid(&rr[i], |l| l.p50),
                mid(&rr[i], |l| l.p99),
                ratio(&rr[i], &rr[0], |l| l.p50),
                mid(&crr[i], |l| l.p50),
                mid(&crr[i], |l| l.p99),
                ratio(&crr[i], &crr[0], |l| l.p50),
            );
        }
        for (node, direct, vip) in [("same node", 1, 2), ("other node", 3, 4)] {
            services.push(format!(
                "| {family} | {node} | {} | {} | {} | {} |",
                ratio(&rr[vip], &rr[direct], |l| l.p50),
                ratio(&rr[vip], &rr[direct], |l| l.p99),
                added(&crr[vip], &crr[direct], |l| l.p50),
                added(&crr[vip], &crr[direct], |l| l.p99),
            ));
        }
    }
    println!("\n## What a Service costs against the pod's own address on the same path\n");
    println!(
        "| family | backend on | RR p50 ratio | RR p99 ratio | CRR p50 added µs | CRR p99 added µs |"
    );
    println!("|---|---|---|---|---|---|");
    services.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Interleaves the paths, each round in another order.
fn sample(
    rounds: usize,
    paths: &[Path],
    measure: impl Fn(&Path) -> Result<Vec<Duration>>,
) -> Result<Vec<Vec<Latency>>> {
    let mut out = vec![Vec::new(); paths.len()];
    for round in 0..rounds {
        for i in 0..paths.len() {
            let i = (i + round) % paths.len();
            let path = &paths[i];
            out[i].push(Latency::of(
                measure(path).with_context(|| path.name.clone())?,
            ));
        }
    }
    Ok(out)
}

type Of = fn(&Latency) -> Duration;

fn micros(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

fn mid(sample: &[Latency], of: Of) -> f64 {
    median_interval(sample.iter().map(|l| micros(of(l))).collect()).mid
}

fn ratio(thing: &[Latency], base: &[Latency], of: Of) -> stats::Interval {
    median_interval(
        thing
            .iter()
            .zip(base)
            .map(|(t, b)| micros(of(t)) / micros(of(b)))
            .collect(),
    )
}

fn added(thing: &[Latency], base: &[Latency], of: Of) -> stats::Interval {
    median_interval(
        thing
            .iter()
            .zip(base)
            .map(|(t, b)| micros(of(t)) - micros(of(b)))
            .collect(),
    )
}

/// Applies a pod and its Service, and asks the Service until it answers.
fn apply_to_reachable(args: &Args, cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    cluster::apply(cluster, &cluster::idle_pod("client", &node.name))?;
    let client = cluster::pod(cluster, node, "client")?;
    let client = Client::start(client.place)?;
    let mut times = Vec::new();
    let mut kubectl = Vec::new();
    let rounds = args.pairs.min(11);
    for round in 0..rounds {
        let name = format!("apply{round}");
        // The address is asked for, so that the client can ask before anybody told it.
        let vip: IpAddr = format!("10.96.200.{}", round + 1).parse()?;
        let manifest = format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{clusterIP: {vip}, selector: {{app: {name}}}, ports: [{{port: {PORT}}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: echo, image: "localhost/testbox:dev", imagePullPolicy: IfNotPresent, command: [netprobe, serve, --tcp, "{PORT}"]}}
"#
        );
        let start = Instant::now();
        cluster::apply(cluster, &manifest)?;
        kubectl.push(start.elapsed());
        let deadline = start + Duration::from_secs(60);
        while client.connects(SocketAddr::new(vip, PORT))?.is_none() {
            if Instant::now() > deadline {
                bail!(
                    "{name} did not become reachable in 60 s\n{}",
                    cluster.log_tails()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        times.push(start.elapsed());
        eprintln!(
            "apply: {} of {rounds} after {:.1} s",
            round + 1,
            start.elapsed().as_secs_f64()
        );
        cluster.kubectl_run(&[
            "delete",
            "-n",
            NAMESPACE,
            "deployment,service",
            &name,
            "--wait=false",
        ])?;
    }
    let (all, cli) = (Latency::of(times), Latency::of(kubectl));
    println!(
        "\n## `kubectl apply` of a Deployment and its Service → reachable through the ClusterIP, image present\n"
    );
    println!("| runs | p50 ms | worst ms | of that in kubectl, p50 ms |");
    println!("|---|---|---|---|");
    println!(
        "| {rounds} | {:.0} | {:.0} | {:.0} |",
        micros(all.p50) / 1e3,
        micros(all.p99) / 1e3,
        micros(cli.p50) / 1e3
    );
    Ok(())
}

fn resident(cluster: &Cluster) -> Result<()> {
    let dir = cluster.layout.dir.to_string_lossy().into_owned();
    println!("\n## Resident memory, and bytes of the maps\n");
    println!("| process | MiB |");
    println!("|---|---|");
    for (name, word) in [
        ("rhumb-agent", "run"),
        ("rhumb-control server", "server"),
        ("rhumb-control kubelet", "kubelet"),
    ] {
        let binary = name.split(' ').next().unwrap_or(name);
        for pid in memory::processes(&[binary, word, &dir])? {
            println!(
                "| {name} (pid {pid}) | {:.1} |",
                memory::resident_kib(pid)? as f64 / 1024.0
            );
        }
    }
    for node in &cluster.nodes {
        let maps = node.bpf_dir().join("maps");
        println!("\n| {}: map | MiB |\n|---|---|", node.name);
        let mut total = 0;
        for (name, bytes) in memory::maps(&maps)? {
            total += bytes;
            println!("| {name} | {:.2} |", bytes as f64 / f64::from(1 << 20));
        }
        println!("| all | {:.2} |", total as f64 / f64::from(1 << 20));
    }
    Ok(())
}
