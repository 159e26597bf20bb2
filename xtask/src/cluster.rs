//! `cargo xtask up`, `down` and `status`.

use crate::shell::{is_root, target_dir};
use anyhow::{Context, bail};
use rhumb_harness::cluster::{Built, Cluster, Profile};
use std::time::Instant;

/// `cargo xtask up`.
pub fn up(name: &str, nodes: usize, demo: bool) -> anyhow::Result<()> {
    // First of all: it says what to install, where it can't do so itself.
    crate::setup::run()?;
    if !is_root() {
        bail!("`up` makes network namespaces and mounts, which takes root: run it as root");
    }
    let built = built()?;
    Cluster::absent(&built, name)?;
    crate::binaries::build(Profile::Dev)?;
    let start = Instant::now();
    eprintln!("up: starting cluster {name} with {nodes} nodes");
    let cluster = Cluster::up(&built, name, nodes)
        .with_context(|| format!("`cargo xtask down --name {name}` takes away what was made"))?;
    eprintln!("up: {nodes} nodes are Ready after {:.1?}", start.elapsed());
    if demo {
        crate::demo::run(&cluster)?;
    }
    println!();
    describe(&cluster)
}

/// `cargo xtask down`.
pub fn down(name: &str, all: bool) -> anyhow::Result<()> {
    if !is_root() {
        bail!("`down` removes network namespaces and mounts, which takes root: run it as root");
    }
    let built = built()?;
    let names = if all {
        Cluster::names(&built)
    } else {
        vec![name.to_owned()]
    };
    for name in names {
        Cluster::down(&built, &name)?;
        println!("cluster {name} is gone");
    }
    Ok(())
}

/// `cargo xtask status`.
pub fn status(name: Option<&str>) -> anyhow::Result<()> {
    let built = built()?;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => Cluster::names(&built),
    };
    if names.is_empty() {
        println!("no cluster is up; `cargo xtask up` starts one");
    }
    for name in names {
        describe(&Cluster::open(&built, &name)?)?;
    }
    Ok(())
}

pub fn built() -> anyhow::Result<Built> {
    let target = target_dir();
    std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    Built::new(&target)
}

/// Everything that someone who looks around wants to know.
fn describe(cluster: &Cluster) -> anyhow::Result<()> {
    let layout = &cluster.layout;
    println!("cluster {}", layout.name);
    println!(
        "  API          https://{} (from this machine)",
        cluster.host
    );
    println!("  logs         {}", layout.log_dir().display());
    println!("  kubeconfig   {}", layout.kubeconfig().display());
    let (out4, out6) = Cluster::outside_addresses();
    println!(
        "  outside      {out4} {out6}   nsenter --net=/run/netns/{} bash",
        layout.netns("outside")
    );
    for node in &cluster.nodes {
        println!(
            "  {:<12} {} {}   nsenter --net=/run/netns/{} bash",
            node.name, node.ip4, node.ip6, node.netns
        );
    }
    let plan = cluster.plan()?;
    let supervised = cluster.supervised();
    println!(
        "  supervisor   {}",
        if supervised { "runs" } else { "DOES NOT RUN" }
    );
    let mut down = Vec::new();
    for daemon in &plan.daemons {
        if plan.pid(&daemon.name).is_none() {
            down.push(daemon.name.clone());
        }
    }
    if down.is_empty() {
        println!("  daemons      all {} run", plan.daemons.len());
    } else {
        println!("  daemons      DOWN: {}", down.join(", "));
    }
    let nodes = match cluster.kubectl_run(&["get", "nodes", "-o", "wide"]) {
        Ok(nodes) => nodes,
        Err(error) => format!("the API does not answer: {error:#}\n"),
    };
    for line in nodes.lines() {
        println!("  {line}");
    }
    let tools = target_dir().join("tools/bin");
    println!(
        "\ntry next:\n  export PATH={}:$PATH KUBECONFIG={}\n  \
         kubectl get pods -A -o wide\n  \
         kubectl create deployment hello --image=localhost/testbox:dev --replicas=6 -- netprobe serve --http 80\n  \
         kubectl expose deployment hello --port 80\n  \
         kubectl exec deploy/hello -- netprobe connect http $(kubectl get svc hello -o jsonpath='{{.spec.clusterIP}}'):80 --count 5\n  \
         cargo xtask down{}",
        tools.display(),
        layout.kubeconfig().display(),
        if layout.name == "dev" {
            String::new()
        } else {
            format!(" --name {}", layout.name)
        }
    );
    if !supervised || !down.is_empty() {
        bail!("cluster {} is not whole", layout.name);
    }
    Ok(())
}
