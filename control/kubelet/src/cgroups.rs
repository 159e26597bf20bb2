//! Pod cgroups in every hierarchy, v1 and v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::pure::resources::{CPU_PERIOD, Limits, Qos, weight};

/// A cgroup step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", .path.display())]
pub struct CgroupError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug, Clone)]
struct Hierarchy {
    mount: PathBuf,
    /// v1 controllers; empty for a named hierarchy and for v2.
    controllers: Vec<String>,
    v2: bool,
}

/// The machine's cgroup hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: String,
}

/// Hierarchies named in `/proc/self/mountinfo` (see proc(5)).
fn parse_mounts(mountinfo: &str) -> Vec<Hierarchy> {
    let mut out: Vec<Hierarchy> = vec![];
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(mount), Some(kind)) = (left.get(4), right.first()) else {
            continue;
        };
        // A subtree that is mounted somewhere is not the hierarchy.
        if left.get(3) != Some(&"/") || !matches!(*kind, "cgroup" | "cgroup2") {
            continue;
        }
        let known = [
            "cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer", "hugetlb",
        ];
        let controllers = right
            .get(2)
            .into_iter()
            .flat_map(|o| o.split(','))
            .filter(|o| known.contains(o))
            .map(str::to_string)
            .collect();
        let h = Hierarchy {
            mount: mount.into(),
            controllers,
            v2: *kind == "cgroup2",
        };
        if !out.iter().any(|o| o.mount == h.mount) {
            out.push(h);
        }
    }
    out
}

impl Cgroups {
    /// Finds the hierarchies. `parent` is the path of the pods' parent cgroup.
    pub fn detect(parent: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| anyhow::anyhow!("reading /proc/self/mountinfo: {e}"))?;
        let hierarchies = parse_mounts(&text);
        if hierarchies.is_empty() {
            anyhow::bail!("no cgroup file system is mounted: mount cgroup2 at /sys/fs/cgroup");
        }
        Ok(Cgroups {
            hierarchies,
            parent: parent.to_string(),
        })
    }

    /// The pod's cgroup, as CRI's `cgroup_parent`.
    pub fn pod_path(&self, uid: &str, qos: Qos) -> String {
        match qos {
            Qos::Guaranteed => format!("{}/pod{uid}", self.parent),
            Qos::Burstable => format!("{}/burstable/pod{uid}", self.parent),
            Qos::BestEffort => format!("{}/besteffort/pod{uid}", self.parent),
        }
    }

    fn dir(h: &Hierarchy, path: &str) -> PathBuf {
        h.mount.join(path.trim_start_matches('/'))
    }

    /// Makes the pod's cgroup and sets its limits.
    pub fn ensure_pod(&self, uid: &str, qos: Qos, limits: Limits) -> Result<(), CgroupError> {
        let path = self.pod_path(uid, qos);
        for h in &self.hierarchies {
            let dir = Self::dir(h, &path);
            let write = |file: &str, value: i64| {
                let path = dir.join(file);
                fs::write(&path, value.to_string()).map_err(|source| CgroupError {
                    what: "writing",
                    path,
                    source,
                })
            };
            let make = || {
                fs::create_dir_all(&dir).map_err(|source| CgroupError {
                    what: "making the cgroup",
                    path: dir.clone(),
                    source,
                })
            };
            if h.v2 {
                make()?;
                // In a hybrid system v2 has no controllers; then v1 has them.
                self.delegate(h, &path);
                if dir.join("cpu.weight").exists() {
                    write("cpu.weight", weight(limits.shares))?;
                    if limits.quota > 0 {
                        let file = dir.join("cpu.max");
                        fs::write(&file, format!("{} {CPU_PERIOD}", limits.quota)).map_err(
                            |source| CgroupError {
                                what: "writing",
                                path: file,
                                source,
                            },
                        )?;
                    }
                }
                if limits.memory > 0 && dir.join("memory.max").exists() {
                    write("memory.max", limits.memory)?;
                }
                continue;
            }
            if h.controllers.iter().any(|c| c == "cpu") {
                make()?;
                write("cpu.shares", limits.shares)?;
                if limits.quota > 0 {
                    write("cpu.cfs_period_us", CPU_PERIOD)?;
                    write("cpu.cfs_quota_us", limits.quota)?;
                }
            }
            if h.controllers.iter().any(|c| c == "memory") && limits.memory > 0 {
                make()?;
                write("memory.limit_in_bytes", limits.memory)?;
            }
        }
        Ok(())
    }

    /// Turns controllers on from the root down to the pod's parent (cgroup v2).
    fn delegate(&self, h: &Hierarchy, path: &str) {
        let Ok(available) = fs::read_to_string(h.mount.join("cgroup.controllers")) else {
            return;
        };
        let on: Vec<String> = available
            .split_whitespace()
            .filter(|c| ["cpu", "memory", "pids", "cpuset", "io"].contains(c))
            .map(|c| format!("+{c}"))
            .collect();
        if on.is_empty() {
            return;
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut dir = h.mount.clone();
        for part in &parts {
            // A controller that can't be delegated shows later as a missing file.
            let _ = fs::write(dir.join("cgroup.subtree_control"), on.join(" "));
            dir.push(part);
        }
    }

    /// Removes the pod's cgroups in every hierarchy. Fails while processes are in them.
    pub fn remove_pod(&self, uid: &str) -> Result<(), CgroupError> {
        for h in &self.hierarchies {
            for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
                remove_tree(&Self::dir(h, &self.pod_path(uid, qos)))?;
            }
        }
        Ok(())
    }

    /// Uids of all pods that have a cgroup.
    pub fn pods(&self) -> Vec<String> {
        let mut out = vec![];
        for h in &self.hierarchies {
            for level in ["", "/burstable", "/besteffort"] {
                let dir = Self::dir(h, &format!("{}{level}", self.parent));
                let Ok(entries) = fs::read_dir(dir) else {
                    continue;
                };
                out.extend(entries.flatten().filter_map(|e| {
                    e.file_name()
                        .to_str()?
                        .strip_prefix("pod")
                        .map(str::to_string)
                }));
            }
        }
        out.sort();
        out.dedup();
        out
    }
}

/// Removes cgroup directories, children first. What isn't there is removed already.
fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(CgroupError {
                what: "reading the cgroup",
                path: dir.into(),
                source,
            });
        }
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => {
            debug!(dir = %dir.display(), "removed a cgroup");
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CgroupError {
            what: "removing the cgroup",
            path: dir.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified() {
        let text = "\
25 20 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
28 25 0:25 /sub /mnt/x rw - cgroup cgroup rw,memory\n\
29 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n";
        let h = parse_mounts(text);
        assert_eq!(h.len(), 3);
        assert!(h[0].v2);
        assert_eq!(h[1].controllers, ["cpu", "cpuacct"]);
        assert!(h[2].controllers.is_empty());
    }

    #[test]
    fn paths_by_class() {
        let c = Cgroups {
            hierarchies: vec![],
            parent: "/n1/pods".into(),
        };
        assert_eq!(c.pod_path("u", Qos::Guaranteed), "/n1/pods/podu");
        assert_eq!(c.pod_path("u", Qos::BestEffort), "/n1/pods/besteffort/podu");
    }

    #[test]
    fn removing_what_is_absent_is_success() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remove_tree(&dir.path().join("none")).is_ok());
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        remove_tree(&dir.path().join("a")).unwrap();
        assert!(!dir.path().join("a").exists());
    }
}
