//! Named network namespaces, as `ip netns` has them: a bind mount under `/run/netns`.

use anyhow::{Context, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `ip netns` keeps its names too.
pub const DIR: &str = "/run/netns";

/// A named network namespace. Deleted on drop unless [`Netns::keep`] was called or it was opened.
#[derive(Debug)]
pub struct Netns {
    name: String,
    owned: bool,
}

impl Netns {
    /// Makes a namespace with its loopback up. Fails if the name is taken.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(DIR).with_context(|| format!("making {DIR}"))?;
        let path = Path::new(DIR).join(name);
        File::create_new(&path)
            .with_context(|| format!("making network namespace {name}: {}", path.display()))?;
        // The new namespace belongs to a thread of its own; the bind mount outlives the thread.
        let made = on_a_thread(|| -> anyhow::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET): takes root")?;
            mount(
                Some(Path::new("/proc/thread-self/ns/net")),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("mounting on {}", path.display()))
        });
        if let Err(error) = made.and_then(|result| result) {
            let _ = fs::remove_file(&path);
            return Err(error.context(format!("making network namespace {name}")));
        }
        let netns = Self {
            name: name.to_owned(),
            owned: true,
        };
        crate::link::up(&netns, "lo")?;
        Ok(netns)
    }

    /// A namespace that exists and stays when this value is dropped.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(DIR).join(name);
        anyhow::ensure!(
            path.exists(),
            "no network namespace {name} ({} does not exist)",
            path.display()
        );
        Ok(Self {
            name: name.to_owned(),
            owned: false,
        })
    }

    /// Leaves the namespace in place when this value is dropped.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.owned = false;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it: what a CNI runtime passes as `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(&self.name)
    }

    /// Runs `f` inside, on a thread of its own.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        run_in(&self.path(), f)
    }

    /// Runs a future inside, on a thread with a runtime of its own.
    pub fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        f: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        block_on_in(&self.path(), f)
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let file = self.file()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe; the
        // file is open and owned by the closure.
        unsafe {
            command.pre_exec(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
        Ok(command)
    }

    /// Sets a value below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value))?
            .with_context(|| format!("setting {key} to {value} in {}", self.name))
    }

    /// The namespace's file, open.
    pub fn file(&self) -> anyhow::Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("opening {}", path.display()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = delete(&self.name)
        {
            eprintln!("{error:#}");
        }
    }
}

/// Runs `f` in the namespace that a file stands for, on a thread of its own.
pub fn run_in<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let file = File::open(netns).with_context(|| format!("opening {}", netns.display()))?;
    on_a_thread(|| -> anyhow::Result<T> {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering {}", netns.display()))?;
        Ok(f())
    })?
}

/// Runs a future in the namespace that a file stands for.
pub fn block_on_in<T: Send, F: Future<Output = T>>(
    netns: &Path,
    f: impl FnOnce() -> F + Send,
) -> anyhow::Result<T> {
    run_in(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?;
        Ok(runtime.block_on(f()))
    })?
}

fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(f).join()).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        anyhow!("panicked inside a network namespace: {text}")
    })
}

/// Deletes a named namespace; that it does not exist is success.
pub fn delete(name: &str) -> anyhow::Result<()> {
    let path = Path::new(DIR).join(name);
    if !path.exists() {
        return Ok(());
    }
    // A name may be mounted more than once, by whoever raced for it.
    while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

/// Names of the namespaces that begin with `prefix`.
pub fn named(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIR) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}
