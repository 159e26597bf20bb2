//! `cargo xtask build`: the eBPF programs, then every binary.
//!
//! The plugin runs in whatever root file system the node has, and the agent, the probe and the pause
//! program in images without any library, so these are linked statically, in a target directory of
//! their own: other compiler flags in the same directory would rebuild everything each time.

use crate::shell::{cargo, output, run, target_dir};
use anyhow::Context;
use rhumb_harness::cluster::Profile;
use std::process::Command;

/// Builds everything with a profile.
pub fn build(profile: Profile) -> anyhow::Result<()> {
    build_static(profile)?;
    run(cargo().args(["build", "--profile", profile.name()]).args([
        "-p",
        "rhumb-control",
        "-p",
        "rhumb-agent",
        "-p",
        "rhumb-cli",
        "-p",
        "rhumb-harness",
        "--bins",
    ]))
}

/// Builds what has to be without libraries.
pub fn build_static(profile: Profile) -> anyhow::Result<()> {
    crate::build_ebpf::run()?;
    let host = host_triple()?;
    run(cargo()
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
        .args(["build", "--profile", profile.name()])
        // `--target` keeps build scripts and procedural macros dynamic: those can't be static.
        .args(["--target", &host, "--target-dir"])
        .arg(target_dir().join("static"))
        .args([
            "-p",
            "rhumb-cni",
            "-p",
            "netprobe",
            "-p",
            "rhumb-agent",
            "-p",
            "rhumb-cli",
        ])
        .arg("--bins"))?;
    // One fixed place, whatever the host is called.
    let built = target_dir().join("static").join(&host).join(profile.dir());
    let link = target_dir().join(profile.static_dir());
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&built, &link)
        .with_context(|| format!("linking {} to {}", link.display(), built.display()))
}

fn host_triple() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("-vV"))?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host")
}
