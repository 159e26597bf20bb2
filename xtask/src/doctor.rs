//! `cargo xtask doctor`: what this machine has, what is missing, and how to get it.

use crate::setup;
use crate::shell::{is_root, which};
use anyhow::bail;
use std::fs;
use std::path::Path;

/// One thing looked at.
struct Finding {
    what: String,
    /// `None`: as it should be.
    advice: Option<String>,
}

fn ok(what: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        advice: None,
    }
}

fn bad(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        advice: Some(advice.into()),
    }
}

/// Prints what was found and fails if something is missing.
pub fn run() -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut findings = vec![
        kernel(),
        root(),
        btf(),
        mounted(
            &mounts,
            "bpf",
            "/sys/fs/bpf",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        mounted(
            &mounts,
            "cgroup2",
            "/sys/fs/cgroup",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup (systemd does so at boot)",
        ),
        jit(),
        default_route(),
    ];
    findings.extend(packages());
    findings.push(match setup::kubectl_version() {
        Some(version) => ok(format!("kubectl {version}")),
        None => bad("no kubectl of v1.36", "cargo xtask setup"),
    });
    let mut missing = 0;
    for finding in &findings {
        match &finding.advice {
            None => println!("  ok       {}", finding.what),
            Some(advice) => {
                missing += 1;
                println!("  MISSING  {}\n           -> {advice}", finding.what);
            }
        }
    }
    if missing > 0 {
        bail!("{missing} of {} things are missing", findings.len());
    }
    Ok(())
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(v) if v >= (6, 1) => ok(format!("Linux {release}")),
        _ => bad(format!("Linux {release} is too old"), "Linux 6.1 or newer"),
    }
}

/// Major and minor of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn root() -> Finding {
    if is_root() {
        ok("root")
    } else {
        bad(
            "not root",
            "namespaces, mounts and eBPF take root: run `cargo xtask up` and `cargo xtask test` as root",
        )
    }
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        ok("the kernel's type information (/sys/kernel/btf/vmlinux)")
    } else {
        bad(
            "no /sys/kernel/btf/vmlinux",
            "a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution's is)",
        )
    }
}

fn mounted(mounts: &str, kind: &str, usual: &str, how: &str) -> Finding {
    let place = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, place, fs) = (words.next()?, words.next()?, words.next()?);
            (fs == kind).then(|| place.to_owned())
        })
        .next();
    match place {
        Some(place) => ok(format!("{kind} at {place}")),
        // The dev nodes mount a bpffs of their own; that the kernel knows it is enough.
        None if kind == "bpf" && kernel_knows(kind) => ok(format!(
            "{kind} is known to the kernel (not mounted at {usual}: no need here)"
        )),
        None => bad(format!("no {kind} mounted"), how),
    }
}

fn kernel_knows(filesystem: &str) -> bool {
    fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split_whitespace().last() == Some(filesystem))
}

fn jit() -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) if value.trim() == "0" => bad(
            "the eBPF compiler is off (programs are interpreted)",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        // Absent where the kernel always compiles.
        _ => ok("the eBPF compiler is on"),
    }
}

/// Not needed, but worth knowing: tests never dial a cluster address from here.
fn default_route() -> Finding {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let out = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (link, destination) = (words.next()?, words.next()?);
            (destination == "00000000").then(|| link.to_owned())
        })
        .next();
    match out {
        Some(link) => ok(format!(
            "default route by {link}; clusters live in namespaces without one"
        )),
        None => ok("no default route"),
    }
}

fn packages() -> Vec<Finding> {
    let missing = setup::missing();
    let mut findings: Vec<_> = missing
        .iter()
        .map(|need| {
            bad(
                format!("{} ({})", need.package, need.why),
                if setup::is_debian_12() {
                    "cargo xtask setup".to_owned()
                } else {
                    format!(
                        "install what has `{}` on {}",
                        need.sign,
                        setup::distribution()
                    )
                },
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(ok(format!("{} packages", setup::NEEDS.len())));
    }
    if which("rustup").is_none() {
        findings.push(ok(
            "no rustup (the stable toolchain that runs this is enough)",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn kernel_releases() {
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("6.6-rc1"), Some((6, 6)));
        assert_eq!(version("unknown"), None);
    }
}
