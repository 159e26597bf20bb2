//! CNI ADD as a runtime calls it: fork, exec, configuration on standard input, result on standard
//! output; alone, and many at once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::net::enter_netns;

/// A plugin and its configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub name: &'static str,
    /// The executable.
    pub binary: PathBuf,
    /// CNI_PATH: where a delegating plugin finds its IPAM.
    pub path: PathBuf,
    /// Network configuration, JSON.
    pub conf: String,
}

/// One container's namespace, by path, and its id.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub netns: PathBuf,
}

impl Plugin {
    fn call(&self, command: &str, c: &Container) -> Result<()> {
        let mut child = Command::new(&self.binary)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &c.id)
            .env("CNI_NETNS", &c.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env("CNI_ARGS", "IgnoreUnknown=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("executing {}", self.binary.display()))?;
        // A plugin that fails before reading its configuration closes the pipe: its answer counts.
        let _ = child
            .stdin
            .take()
            .context("no stdin")?
            .write_all(self.conf.as_bytes());
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!(
                "{} {command} {}: {} {}",
                self.name,
                c.id,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(())
    }

    /// ADD, timed; then DEL, not timed. Runs in the node's namespace.
    pub fn add_alone(&self, node: &Path, c: &Container) -> Result<Duration> {
        self.on_thread(node, c, |p, c| {
            let t = Instant::now();
            p.call("ADD", c)?;
            let took = t.elapsed();
            p.call("DEL", c)?;
            Ok(took)
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the caller thread panicked"))?
    }

    /// All containers at once: latency of each ADD, and from the first start to the last end.
    pub fn add_at_once(&self, node: &Path, all: &[Container]) -> Result<(Vec<Duration>, Duration)> {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(all.len() + 1));
        let threads: Vec<_> = all
            .iter()
            .map(|c| {
                let barrier = barrier.clone();
                self.on_thread(node, c, move |p, c| {
                    barrier.wait();
                    let t = Instant::now();
                    p.call("ADD", c)?;
                    Ok(t.elapsed())
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let each: Result<Vec<_>> = threads
            .into_iter()
            .map(|t| {
                t.join()
                    .map_err(|_| anyhow::anyhow!("a caller thread panicked"))?
            })
            .collect();
        let makespan = start.elapsed();
        for c in all {
            self.on_thread(node, c, |p, c| p.call("DEL", c))
                .join()
                .map_err(|_| anyhow::anyhow!("the caller thread panicked"))??;
        }
        Ok((each?, makespan))
    }

    fn on_thread<T: Send + 'static>(
        &self,
        node: &Path,
        c: &Container,
        work: impl FnOnce(&Plugin, &Container) -> Result<T> + Send + 'static,
    ) -> std::thread::JoinHandle<Result<T>> {
        let (plugin, node, c) = (self.clone(), node.to_owned(), c.clone());
        std::thread::spawn(move || {
            // A failure to enter must not leave the others waiting at the barrier: it cannot
            // happen but for a namespace that is gone, which `work` would meet as well.
            let entered = enter_netns(&node);
            let out = work(&plugin, &c);
            entered.and(out)
        })
    }
}
