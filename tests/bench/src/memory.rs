//! Resident memory of processes, and bytes of pinned maps.

use std::path::Path;

use anyhow::{Context, Result};

/// Resident set of a process, KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// What of it is no page of a file.
pub fn anonymous_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "RssAnon:")
}

fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text
        .lines()
        .find(|l| l.starts_with(field))
        .with_context(|| format!("{path} has no {field}"))?;
    line.split_whitespace()
        .nth(1)
        .with_context(|| format!("{path}: {field} has no value"))?
        .parse()
        .with_context(|| format!("reading {field} of {path}"))
}

/// Processes whose command line has all of `words` in its arguments.
pub fn processes(words: &[&str]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // Processes come and go while we look.
        let Ok(cmd) = std::fs::read(Path::new("/proc").join(&name).join("cmdline")) else {
            continue;
        };
        let args: Vec<_> = cmd
            .split(|b| *b == 0)
            .map(String::from_utf8_lossy)
            .collect();
        if words.iter().all(|w| args.iter().any(|a| a.contains(w))) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Bytes that the kernel accounts to each pinned map of a directory, by name.
pub fn maps(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let map = aya::maps::MapData::from_pin(entry.path())
            .with_context(|| format!("opening {}", entry.path().display()))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(map.fd()));
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let bytes = info
            .lines()
            .find_map(|l| l.strip_prefix("memlock:"))
            .and_then(|v| v.trim().parse().ok())
            .context("fdinfo has no memlock")?;
        out.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    out.sort();
    Ok(out)
}
