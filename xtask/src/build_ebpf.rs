//! `cargo xtask build-ebpf`: the kernel programs, `ebpf/` → `target/bpf/rhumb.bpf.o`.
//!
//! The target has no prebuilt standard library, so this needs a toolchain with the library's
//! source, and bpf-linker built for the LLVM of that toolchain.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

const BPF_LINKER_VERSION: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";
/// Where [`build`] puts the object, below the workspace's root.
pub const OBJECT: &str = "target/bpf/rhumb.bpf.o";

/// A toolchain that can build the programs.
#[derive(Debug)]
struct Toolchain {
    what: String,
    cargo: PathBuf,
    rustc: PathBuf,
    nightly: bool,
    /// Major version of the LLVM that rustc writes bitcode for.
    llvm: u32,
    version: String,
}

/// [`build`] in this workspace.
pub fn run() -> Result<()> {
    build(&crate::shell::root()).map(drop)
}

/// Builds the programs unless the object is up to date, and returns its path.
pub fn build(root: &Path) -> Result<PathBuf> {
    let out = root.join(OBJECT);
    let dir = root.join("target/bpf");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    // Tests and `up` may build at the same time.
    let lock = File::create(dir.join("lock")).context("open target/bpf/lock")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .context("lock target/bpf/lock")?;

    let toolchain = find_toolchain()?;
    let stamp_file = dir.join("rhumb.bpf.o.stamp");
    let stamp = stamp(root, &toolchain)?;
    if out.exists() && fs::read_to_string(&stamp_file).is_ok_and(|s| s == stamp) {
        eprintln!("build-ebpf: {} is up to date", out.display());
        return Ok(out);
    }
    eprintln!(
        "build-ebpf: {} ({}, LLVM {})",
        toolchain.what, toolchain.version, toolchain.llvm
    );
    let linker = linker(root, toolchain.llvm)?;
    eprintln!("build-ebpf: linker {}", linker.display());

    let target_dir = root.join("target/bpf-build");
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        // ALU32 and JMP32: fewer instructions, in every kernel from 5.1.
        "-Ctarget-cpu=v3".into(),
        // Paths in the debug information would make objects differ from machine to machine.
        format!("--remap-path-prefix={}=", root.display()),
    ];
    let mut cmd = clean_command(&toolchain.cargo);
    cmd.current_dir(root.join("ebpf"))
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--release", "--locked", "-Zbuild-std=core"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    if !toolchain.nightly {
        // build-std is nightly-only in name; the compiler is the same.
        cmd.env("RUSTC_BOOTSTRAP", "1");
    }
    let status = cmd
        .status()
        .with_context(|| format!("run {}", toolchain.cargo.display()))?;
    if !status.success() {
        bail!("building ebpf/ with {} failed ({status})", toolchain.what);
    }
    let built = target_dir.join(TARGET).join("release/rhumb");
    let temporary = dir.join("rhumb.bpf.o.new");
    fs::copy(&built, &temporary).with_context(|| format!("copy {}", built.display()))?;
    fs::rename(&temporary, &out).with_context(|| format!("write {}", out.display()))?;
    fs::write(&stamp_file, stamp).with_context(|| format!("write {}", stamp_file.display()))?;
    eprintln!("build-ebpf: {}", out.display());
    Ok(out)
}

/// A command without what an outer `cargo run` set for its own toolchain.
fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut cmd = Command::new(program);
    for (key, _) in std::env::vars_os() {
        let k = key.to_string_lossy();
        if k.starts_with("CARGO_PKG_")
            || k.starts_with("CARGO_PROFILE_")
            || k.starts_with("CARGO_BUILD_")
            || [
                "CARGO",
                "CARGO_MANIFEST_DIR",
                "CARGO_MANIFEST_PATH",
                "CARGO_TARGET_DIR",
                "CARGO_ENCODED_RUSTFLAGS",
                "RUSTC",
                "RUSTC_WRAPPER",
                "RUSTC_WORKSPACE_WRAPPER",
                "RUSTDOC",
                "RUSTFLAGS",
                "RUSTUP_TOOLCHAIN",
                "RUST_RECURSION_COUNT",
                "LD_LIBRARY_PATH",
            ]
            .contains(&k.as_ref())
        {
            cmd.env_remove(&key);
        }
    }
    cmd
}

/// The first toolchain with the library's source and a linker at hand: rustup's nightly, any other
/// of rustup's, the distribution's.
fn find_toolchain() -> Result<Toolchain> {
    let mut rejected = Vec::new();
    for (what, sysroot) in candidates() {
        match inspect(&what, &sysroot) {
            Ok(t) => return Ok(t),
            Err(why) => rejected.push(format!("  {what}: {why}")),
        }
    }
    bail!(
        "no toolchain can build the kernel programs:\n{}\n\
         Debian has all of it: apt-get install rustc-web cargo-web rust-web-src llvm-22-dev \
         libpolly-22-dev libzstd-dev zlib1g-dev\n\
         or with rustup: rustup toolchain install nightly --component rust-src, \
         and the LLVM development files of the version that `rustc +nightly -vV` names",
        rejected.join("\n")
    );
}

/// Sysroots to look at, the preferred one first.
fn candidates() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let listed = clean_command("rustup")
        .args(["toolchain", "list"])
        .output()
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    let mut names: Vec<&str> = listed
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    names.sort_by_key(|n| !n.starts_with("nightly"));
    for name in names {
        let sysroot = clean_command("rustup")
            .args(["run", name, "rustc", "--print", "sysroot"])
            .output();
        if let Ok(o) = sysroot
            && o.status.success()
        {
            let path = String::from_utf8_lossy(&o.stdout).trim().to_owned();
            found.push((format!("rustup's {name}"), PathBuf::from(path)));
        }
    }
    found.push(("the distribution's /usr/bin/rustc".into(), "/usr".into()));
    found
}

fn inspect(what: &str, sysroot: &Path) -> Result<Toolchain> {
    let (rustc, cargo) = (sysroot.join("bin/rustc"), sysroot.join("bin/cargo"));
    if !rustc.exists() {
        bail!("{} is missing", rustc.display());
    }
    let source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !source.exists() {
        bail!("no source of the standard library (component rust-src, package rust-web-src)");
    }
    if !cargo.exists() {
        bail!("{} is missing", cargo.display());
    }
    let output = clean_command(&rustc).arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().unwrap_or_default().to_owned();
    let llvm = text
        .lines()
        .find_map(|l| l.strip_prefix("LLVM version: "))
        .and_then(|v| v.split('.').next())
        .and_then(|v| v.parse().ok())
        .with_context(|| format!("{} -vV names no LLVM version", rustc.display()))?;
    if llvm_prefix(llvm).is_none() {
        bail!(
            "the development files of LLVM {llvm}, its version, are missing (llvm-{llvm}-dev, libpolly-{llvm}-dev)"
        );
    }
    Ok(Toolchain {
        what: what.to_owned(),
        nightly: version.contains("nightly"),
        cargo,
        rustc,
        llvm,
        version,
    })
}

fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let from_env = std::env::var_os(format!("LLVM_SYS_{major}1_PREFIX")).map(PathBuf::from);
    [from_env, Some(format!("/usr/lib/llvm-{major}").into())]
        .into_iter()
        .flatten()
        .find(|p| p.join("bin/llvm-config").exists())
}

/// bpf-linker for that LLVM, installed below `target/tools` if it is not there yet.
fn linker(root: &Path, llvm: u32) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let path = tools.join("bin/bpf-linker");
    let stamp_file = tools.join("bpf-linker.stamp");
    let stamp = format!("{BPF_LINKER_VERSION} llvm-{llvm}\n");
    if path.exists() && fs::read_to_string(&stamp_file).is_ok_and(|s| s == stamp) {
        return Ok(path);
    }
    let prefix =
        llvm_prefix(llvm).with_context(|| format!("LLVM {llvm} has no development files"))?;
    eprintln!("build-ebpf: installing bpf-linker {BPF_LINKER_VERSION} for LLVM {llvm}");
    let status = clean_command("cargo")
        .env("LLVM_PREFIX", prefix)
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", BPF_LINKER_VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&tools)
        .status()
        .context("run cargo install bpf-linker")?;
    if !status.success() {
        bail!(
            "cargo install bpf-linker failed ({status}); it links LLVM {llvm}: are llvm-{llvm}-dev, \
             libpolly-{llvm}-dev, libzstd-dev and zlib1g-dev installed, and is crates.io in reach?"
        );
    }
    fs::write(&stamp_file, stamp).with_context(|| format!("write {}", stamp_file.display()))?;
    Ok(path)
}

/// Hash of everything that the object is made from.
fn stamp(root: &Path, toolchain: &Toolchain) -> Result<String> {
    let mut files = Vec::new();
    walk(&root.join("ebpf"), &mut files)?;
    files.push(root.join("xtask/src/build_ebpf.rs"));
    files.sort();
    let mut hash = Sha256::new();
    hash.update(format!("{toolchain:?} {BPF_LINKER_VERSION}"));
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
        hash.update([0]);
    }
    Ok(format!("{:x}\n", hash.finalize()))
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("read {}", dir.display())),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                walk(&path, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|e| e == "rs" || e == "toml" || e == "lock")
        {
            files.push(path);
        }
    }
    Ok(())
}
