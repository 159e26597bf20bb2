//! Cgroups in every hierarchy that the machine has: version 1's, version 2's, or both.

use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Whether it is version 2.
    pub v2: bool,
    /// Version 1: its controllers (or `name=…`).
    pub options: Vec<String>,
}

/// The hierarchies mounted on this machine.
pub fn hierarchies() -> anyhow::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    Ok(parse(&mounts))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(_), Some(root), Some(kind), Some(options)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let v2 = match kind {
            "cgroup2" => true,
            "cgroup" => false,
            _ => continue,
        };
        // The same hierarchy mounted twice counts once.
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        let same = |h: &Hierarchy| h.v2 && v2 || (!h.v2 && !v2 && h.options == options);
        if !found.iter().any(same) {
            found.push(Hierarchy {
                root: PathBuf::from(root),
                v2,
                options,
            });
        }
    }
    found
}

/// Where cgroup version 2 is mounted.
pub fn v2_root() -> anyhow::Result<PathBuf> {
    hierarchies()?
        .into_iter()
        .find(|h| h.v2)
        .map(|h| h.root)
        .context("no cgroup2 is mounted; `mount -t cgroup2 cgroup2 /sys/fs/cgroup`")
}

/// Makes a cgroup at the same path of every hierarchy.
pub fn create(path: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let mut dir = hierarchy.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if hierarchy.v2 {
                delegate(&dir);
            }
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making cgroup {}", dir.display()));
                }
            }
            // A new cpuset is empty, and nothing may enter an empty one.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.v2 || !dir.join(file).exists() {
                    continue;
                }
                let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
                fs::write(dir.join(file), value.trim())
                    .with_context(|| format!("setting {file} of {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// Hands every controller of a version 2 cgroup on to its children, as far as that is possible.
fn delegate(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // Refused where processes live in `dir` itself; runc then says what it lacks.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Moves a process into a cgroup, in every hierarchy.
pub fn enter(path: &str, pid: u32) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy
            .root
            .join(path.trim_start_matches('/'))
            .join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("writing {pid} to {}", file.display()))?;
    }
    Ok(())
}

/// The processes in a cgroup and below it, in any hierarchy.
pub fn processes(path: &str) -> anyhow::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for hierarchy in hierarchies()? {
        for dir in subtree(&hierarchy.root.join(path.trim_start_matches('/'))) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    // 0 stands for a process of another pid namespace.
    pids.retain(|pid| *pid > 0);
    Ok(pids)
}

/// A directory and those below it, deepest last.
fn subtree(dir: &Path) -> Vec<PathBuf> {
    if !dir.is_dir() {
        return Vec::new();
    }
    let mut all = vec![dir.to_path_buf()];
    let mut next = 0;
    while next < all.len() {
        if let Ok(entries) = fs::read_dir(&all[next]) {
            let dirs = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            all.extend(dirs.map(|entry| entry.path()).collect::<Vec<_>>());
        }
        next += 1;
    }
    all
}

/// Kills whatever lives in a cgroup and removes it, in every hierarchy. That it does not exist is
/// success.
pub fn destroy(path: &str) -> anyhow::Result<()> {
    let name = path.trim_matches('/');
    anyhow::ensure!(!name.is_empty(), "refusing to destroy the root cgroup");
    crate::wait_for(
        &format!("no process is left in cgroup {path}"),
        Duration::from_secs(20),
        || {
            let pids = processes(path)?;
            for pid in &pids {
                let pid = nix::unistd::Pid::from_raw(*pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            Ok(pids.is_empty().then_some(()))
        },
    )?;
    for hierarchy in hierarchies()? {
        let dirs = subtree(&hierarchy.root.join(name));
        for dir in dirs.iter().rev() {
            // A cgroup whose last process has just ended may be busy for a moment.
            crate::wait_for(
                &format!("cgroup {} is removed", dir.display()),
                Duration::from_secs(5),
                || match fs::remove_dir(dir) {
                    Ok(()) => Ok(Some(())),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(())),
                    Err(error) => Err(error.into()),
                },
            )?;
        }
    }
    Ok(())
}

/// Cgroups at the top of any hierarchy whose names begin with `prefix`.
pub fn named(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = hierarchies()
        .unwrap_or_default()
        .iter()
        .filter_map(|hierarchy| fs::read_dir(&hierarchy.root).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup2 /elsewhere cgroup2 rw 0 0\n";
        let found = parse(hybrid);
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].root, Path::new("/sys/fs/cgroup/unified"));
        assert!(found[2].v2 && !found[0].v2);

        let pure = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(parse(pure).len(), 1);
    }
}
