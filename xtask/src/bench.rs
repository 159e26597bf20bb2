//! `cargo xtask bench`: everything built for release, a cluster of its own, and the measuring
//! program (`tests/bench`) run beside it.

use crate::shell::{cargo, is_root, run as execute, target_dir};
use anyhow::{Context as _, bail};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rhumb_harness::cluster::{Cluster, Profile};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

const CLUSTER: &str = "bench";

/// What a packet costs in each kernel program: needs no cluster.
const DATAPATH: &str = "datapath";
/// The API server by itself: needs none either.
const API: &str = "api";

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
    if parts == [API] {
        outlive_signals()?;
        return measure(&parts, pairs);
    }
    let built = crate::cluster::built()?.with(Profile::Release);
    outlive_signals()?;
    Cluster::down(&built, CLUSTER)?;
    let measured = Cluster::up(&built, CLUSTER, 2).and_then(|_| measure(&parts, pairs));
    // Killed, it could not do it itself.
    rhumb_harness::run::sweep(CLUSTER);
    let down = Cluster::down(&built, CLUSTER);
    measured.and(down)
}

static STOPPED: AtomicBool = AtomicBool::new(false);
/// The measuring program's process.
static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signal: libc::c_int) {
    STOPPED.store(true, Ordering::SeqCst);
    let child = CHILD.load(Ordering::SeqCst);
    if child > 0 {
        // SAFETY: kill(2) is async-signal-safe. The child is not reaped while its pid is set.
        unsafe { libc::kill(child, signal) };
    }
}

/// Interrupted or terminated, we end the measuring and still take everything down.
fn outlive_signals() -> anyhow::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(pass_on),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but atomics and kill(2).
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
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
    let mut child = Command::new(built.join("rhumb-bench"))
        .args(["--cluster", CLUSTER, "--pairs", &pairs.to_string()])
        .arg("--target")
        .arg(target_dir())
        .arg("--noop")
        .arg(built.join("cni-noop"))
        .arg("--control")
        .arg(built.join("rhumb-control"))
        .args(parts)
        .spawn()
        .context("starting the measuring program")?;
    CHILD.store(child.id() as i32, Ordering::SeqCst);
    if STOPPED.load(Ordering::SeqCst) {
        child.kill()?;
    }
    // It is waited for, and only then reaped: the pid stays its own for the handler.
    wait_for_end(child.id());
    CHILD.store(0, Ordering::SeqCst);
    let status = child.wait()?;
    if STOPPED.load(Ordering::SeqCst) {
        bail!("stopped by a signal");
    }
    anyhow::ensure!(status.success(), "the measuring program failed: {status}");
    Ok(())
}

fn wait_for_end(pid: u32) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(nix::unistd::Pid::from_raw(pid as i32)), options) {
            Err(nix::errno::Errno::EINTR) => {}
            _ => return,
        }
    }
}
