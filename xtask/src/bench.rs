//! `cargo xtask bench`: everything built for release, a cluster of its own, and the measuring
//! program (`tests/bench`) run beside it.

use crate::shell::{cargo, is_root, run as execute, target_dir};
use anyhow::bail;
use rhumb_harness::cluster::{Cluster, Profile};
use std::process::Command;

const CLUSTER: &str = "bench";

/// The part that needs no cluster: what a packet costs in each kernel program.
const DATAPATH: &str = "datapath";

/// Measures and prints tables; the cluster is gone afterwards, whatever happened.
pub fn run(parts: &[String], pairs: usize) -> anyhow::Result<()> {
    if !is_root() {
        bail!("`bench` makes network namespaces and mounts, which takes root: run it as root");
    }
    crate::setup::run()?;
    let asked = !parts.is_empty();
    if parts.is_empty() || parts.iter().any(|p| p == DATAPATH) {
        datapath()?;
    }
    let parts: Vec<String> = parts.iter().filter(|p| *p != DATAPATH).cloned().collect();
    if parts.is_empty() && asked {
        return Ok(());
    }
    crate::binaries::build(Profile::Release)?;
    build_measuring()?;
    let built = crate::cluster::built()?.with(Profile::Release);
    Cluster::down(&built, CLUSTER)?;
    let measured = Cluster::up(&built, CLUSTER, 2).and_then(|_| measure(&parts, pairs));
    let down = Cluster::down(&built, CLUSTER);
    measured.and(down)
}

/// The kernel does the measuring (BPF_PROG_TEST_RUN): our own profile doesn't matter.
fn datapath() -> anyhow::Result<()> {
    crate::build_ebpf::run()?;
    execute(cargo().args(["run", "-p", "rhumb-tests", "--bin", "packet-cost"]))
}

fn build_measuring() -> anyhow::Result<()> {
    execute(cargo().args([
        "build",
        "--profile",
        Profile::Release.name(),
        "-p",
        "rhumb-bench",
    ]))
}

fn measure(parts: &[String], pairs: usize) -> anyhow::Result<()> {
    let built = target_dir().join(Profile::Release.dir());
    execute(
        Command::new(built.join("rhumb-bench"))
            .args(["--cluster", CLUSTER, "--pairs", &pairs.to_string()])
            .arg("--target")
            .arg(target_dir())
            .arg("--noop")
            .arg(built.join("cni-noop"))
            .args(parts),
    )
}
