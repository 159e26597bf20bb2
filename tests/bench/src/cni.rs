//! CNI ADD as a runtime calls it: fork, exec, configuration on standard input, result on standard
//! output; alone, and many at once.
//!
//! Each container is a pod of the API (one that is never scheduled, so that no kubelet runs it), so
//! that ADD of rhumb-cni is what a kubelet waits for: with the agent's answer that policy is in force.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use rhumb_harness::cluster::Cluster;
use rhumb_harness::{Netns, Run, link};
use serde_json::json;

use crate::cluster::{self, NAMESPACE};
use crate::net::enter_netns;
use crate::stats::{Latency, median_interval};

const ALONE: usize = 100;
/// How many at once, and how often.
const AT_ONCE: [(usize, usize); 2] = [(32, 5), (100, 3)];

/// A plugin and its configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub name: &'static str,
    /// The executable.
    pub binary: PathBuf,
    /// CNI_PATH: where a delegating plugin finds its IPAM.
    pub path: PathBuf,
    /// Network configuration, JSON.
    pub conf: String,
}

/// One container's namespace, by path, and its id.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub netns: PathBuf,
    /// CNI_ARGS: whose it is, as kubelet and runtime say.
    pub args: String,
}

impl Plugin {
    fn call(&self, command: &str, c: &Container) -> Result<()> {
        let mut child = Command::new(&self.binary)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &c.id)
            .env("CNI_NETNS", &c.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env("CNI_ARGS", &c.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("executing {}", self.binary.display()))?;
        // A plugin that fails before reading its configuration closes the pipe: its answer counts.
        let _ = child
            .stdin
            .take()
            .context("no stdin")?
            .write_all(self.conf.as_bytes());
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!(
                "{} {command} {}: {} {}",
                self.name,
                c.id,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(())
    }

    /// ADD, timed; then DEL, not timed. Runs in the node's namespace.
    pub fn add_alone(&self, node: &Path, c: &Container) -> Result<Duration> {
        self.on_thread(node, c, |p, c| {
            let t = Instant::now();
            p.call("ADD", c)?;
            let took = t.elapsed();
            p.call("DEL", c)?;
            Ok(took)
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the caller thread panicked"))?
    }

    /// All containers at once: latency of each ADD, and from the first start to the last end.
    pub fn add_at_once(&self, node: &Path, all: &[Container]) -> Result<(Vec<Duration>, Duration)> {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(all.len() + 1));
        let threads: Vec<_> = all
            .iter()
            .map(|c| {
                let barrier = barrier.clone();
                self.on_thread(node, c, move |p, c| {
                    barrier.wait();
                    let t = Instant::now();
                    p.call("ADD", c)?;
                    Ok(t.elapsed())
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let each: Result<Vec<_>> = threads
            .into_iter()
            .map(|t| {
                t.join()
                    .map_err(|_| anyhow::anyhow!("a caller thread panicked"))?
            })
            .collect();
        let makespan = start.elapsed();
        let deletions: Vec<_> = all
            .iter()
            .map(|c| self.on_thread(node, c, |p, c| p.call("DEL", c)))
            .collect();
        for deletion in deletions {
            deletion
                .join()
                .map_err(|_| anyhow::anyhow!("a caller thread panicked"))??;
        }
        Ok((each?, makespan))
    }

    fn on_thread<T: Send + 'static>(
        &self,
        node: &Path,
        c: &Container,
        work: impl FnOnce(&Plugin, &Container) -> Result<T> + Send + 'static,
    ) -> std::thread::JoinHandle<Result<T>> {
        let (plugin, node, c) = (self.clone(), node.to_owned(), c.clone());
        std::thread::spawn(move || {
            // A failure to enter must not leave the others waiting at the barrier: it cannot
            // happen but for a namespace that is gone, which `work` would meet as well.
            let entered = enter_netns(&node);
            let out = work(&plugin, &c);
            entered.and(out)
        })
    }
}

/// Pods of the API that nobody runs: their names and uids, as `CNI_ARGS`.
fn pods(cluster: &Cluster, count: usize) -> Result<Vec<String>> {
    let manifest: String = (0..count)
        .map(|i| {
            format!(
                r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: cni{i}, namespace: {NAMESPACE}, labels: {{app: cni}}}}
spec: {{schedulerName: none, containers: [{{name: c, image: none}}]}}
"#
            )
        })
        .collect();
    cluster::apply(cluster, &manifest)?;
    let list = cluster.kubectl_json(&["get", "pods", "-n", NAMESPACE, "-l", "app=cni"])?;
    let items = list["items"].as_array().context("no items")?;
    anyhow::ensure!(items.len() == count, "{} pods of {count}", items.len());
    let args = |pod: &serde_json::Value| {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_UID={uid}"
        )
    };
    Ok(items.iter().map(args).collect())
}

fn candidates(cluster: &Cluster, run: &Run, noop: &Path) -> Result<[Plugin; 3]> {
    let node = &cluster.nodes[0];
    let (binary, conf) = cluster::plugin(node)?;
    let debian = PathBuf::from("/usr/lib/cni");
    let bridge_conf = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": BRIDGE, "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": run.dir().join("host-local"),
            "ranges": [[{"subnet": "10.199.0.0/24"}], [{"subnet": "fd00:10:199::/64"}]],
        },
    });
    Ok([
        Plugin {
            name: "rhumb-cni",
            path: node.cni_bin_dir(),
            binary,
            conf,
        },
        Plugin {
            name: "bridge + host-local",
            binary: debian.join("bridge"),
            path: debian,
            conf: bridge_conf.to_string(),
        },
        Plugin {
            name: "no-op static plugin",
            binary: noop.to_owned(),
            path: PathBuf::from("/"),
            conf: r#"{"cniVersion":"1.0.0","name":"noop","type":"noop"}"#.to_owned(),
        },
    ])
}

const BRIDGE: &str = "bench0";

/// Measures the plugins in turns, and prints the tables.
pub fn measure(cluster: &Cluster, noop: &Path) -> Result<()> {
    let most = AT_ONCE.iter().map(|(n, _)| *n).max().unwrap_or(1);
    let netns = Netns::open(&cluster.nodes[0].netns)?;
    let run = Run::new("bench")?;
    let args = pods(cluster, most)?;
    let namespaces: Vec<_> = (0..most)
        .map(|i| run.netns(&format!("c{i}")))
        .collect::<Result<_>>()?;
    let containers: Vec<Container> = namespaces
        .iter()
        .zip(args)
        .map(|(ns, args)| Container {
            id: ns.name().to_owned(),
            netns: ns.path(),
            args,
        })
        .collect();
    let plugins = candidates(cluster, &run, noop)?;
    let measured = alone(&plugins, &netns.path(), &containers).and_then(|()| {
        AT_ONCE.iter().try_for_each(|(count, rounds)| {
            at_once(&plugins, &netns.path(), &containers[..*count], *rounds)
        })
    });
    // The bridge outlives its containers.
    let _ = link::delete(&netns, BRIDGE);
    measured
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn ratio(a: &[Duration], b: &[Duration]) -> crate::stats::Interval {
    let pairs = a.iter().zip(b);
    median_interval(
        pairs
            .map(|(a, b)| a.as_secs_f64() / b.as_secs_f64())
            .collect(),
    )
}

fn alone(plugins: &[Plugin], node: &Path, containers: &[Container]) -> Result<()> {
    let mut took = vec![Vec::new(); plugins.len()];
    // The first of each warms caches, makes the bridge, and has the agent read the pod.
    for round in 0..=ALONE {
        for i in 0..plugins.len() {
            let i = (i + round) % plugins.len();
            let one = plugins[i].add_alone(node, &containers[round % containers.len()])?;
            if round > 0 {
                took[i].push(one);
            }
        }
    }
    println!("\n## CNI ADD alone, as a runtime calls it, {ALONE} interleaved rounds\n");
    println!("| plugin | p50 ms | p99 ms | p50 ÷ bridge |");
    println!("|---|---|---|---|");
    for (i, plugin) in plugins.iter().enumerate() {
        let l = Latency::of(took[i].clone());
        let against = ratio(&took[i], &took[1]);
        println!(
            "| {} | {:.1} | {:.1} | {against} |",
            plugin.name,
            ms(l.p50),
            ms(l.p99)
        );
    }
    Ok(())
}

fn at_once(plugins: &[Plugin], node: &Path, all: &[Container], rounds: usize) -> Result<()> {
    let mut each = vec![Vec::new(); plugins.len()];
    let mut makespans = vec![Vec::new(); plugins.len()];
    for _ in 0..rounds {
        for (i, plugin) in plugins.iter().enumerate() {
            let (took, makespan) = plugin.add_at_once(node, all)?;
            each[i].extend(took);
            makespans[i].push(makespan);
        }
    }
    println!("\n## CNI ADD, {} at once, {rounds} rounds\n", all.len());
    println!(
        "| plugin | p50 ms | p99 ms | all done after ms, p50 | that ÷ bridge | that ÷ no-op |"
    );
    println!("|---|---|---|---|---|---|");
    for (i, plugin) in plugins.iter().enumerate() {
        let l = Latency::of(each[i].clone());
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} |",
            plugin.name,
            ms(l.p50),
            ms(l.p99),
            ms(Latency::of(makespans[i].clone()).p50),
            ratio(&makespans[i], &makespans[1]).mid,
            ratio(&makespans[i], &makespans[2]).mid,
        );
    }
    Ok(())
}
