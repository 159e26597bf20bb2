//! One run of a test: a prefix that everything it makes carries, and the clean-up by that prefix.

use crate::netns::Netns;
use crate::{cgroup, mount, netns};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A run. Dropping it removes its namespaces, cgroups, mounts and files.
#[derive(Debug)]
pub struct Run {
    prefix: String,
    dir: PathBuf,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Run {
    /// Starts a run; `name` says what for. What earlier runs of the same name left behind after a
    /// crash is swept away first.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        sweep(name);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{name}-{}-{count}", std::process::id());
        let dir = PathBuf::from("/run").join(format!("rhumb-{prefix}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { prefix, dir })
    }

    /// The prefix of every name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A directory of the run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a namespace `<prefix>-<name>`.
    pub fn netns(&self, name: &str) -> anyhow::Result<Netns> {
        Netns::create(&format!("{}-{name}", self.prefix))
    }

    /// Makes a bpffs at `<dir>/<name>`.
    pub fn bpffs(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        mount::bpffs(&dir)?;
        Ok(dir)
    }

    /// Makes a cgroup `/<prefix>-<name>` in every hierarchy and gives its path.
    pub fn cgroup(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("/{}-{name}", self.prefix);
        cgroup::create(&path)?;
        Ok(path)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        clean(&self.prefix, &self.dir);
    }
}

/// Removes everything that carries a prefix, and says what could not be removed.
fn clean(prefix: &str, dir: &Path) {
    let with_dash = format!("{prefix}-");
    for name in cgroup::named(&with_dash) {
        report(cgroup::destroy(&name));
    }
    report(mount::remove(dir));
    for name in netns::named(&with_dash) {
        report(netns::delete(&name));
    }
}

fn report(result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("cleaning up: {error:#}");
    }
}

/// Cleans up after runs of this name whose process is gone.
pub fn sweep(name: &str) {
    let Ok(entries) = std::fs::read_dir("/run") else {
        return;
    };
    let start = format!("rhumb-{name}-");
    for entry in entries.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = file.strip_prefix(&start) else {
            continue;
        };
        let Some((pid, count)) = rest.split_once('-') else {
            continue;
        };
        let dead = pid.parse::<u32>().is_ok()
            && count.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists();
        if dead {
            clean(&format!("{name}-{rest}"), &entry.path());
        }
    }
}
