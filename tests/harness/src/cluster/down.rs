//! Taking a cluster away, after a crash of whatever part too.

use super::layout::Layout;
use crate::{cgroup, mount, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Removes processes, cgroups, mounts, namespaces and files of a cluster. Goes on after a failure
/// and gives all of them; that there is no such cluster is success.
pub fn down(layout: &Layout) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let mut note = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{error:#}"));
        }
    };
    note(stop_supervisor(layout));
    for name in cgroup::named(&layout.prefix()) {
        note(cgroup::destroy(&name));
    }
    // Mounts first: a namespace lives as long as one of its pods' is mounted.
    note(mount::remove(&layout.run_dir()));
    for name in netns::named(&layout.prefix()) {
        note(netns::delete(&name));
    }
    note(mount::remove(&layout.dir));
    note(remove_file(&layout.kubeconfig()));
    if failures.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "taking cluster {} down:\n  {}",
        layout.name,
        failures.join("\n  ")
    )
}

fn remove_file(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(format!("removing {}", file.display())))
        }
        _ => Ok(()),
    }
}

/// The supervisor's pid, if it runs and is this cluster's: pids are given out again.
pub fn supervisor(layout: &Layout) -> Option<i32> {
    let text = fs::read_to_string(layout.supervisor_pid()).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    let plan = Path::new("dev").join(&layout.name).join("plan.json");
    String::from_utf8_lossy(&line)
        .split('\0')
        .any(|word| Path::new(word).ends_with(&plan))
        .then_some(pid)
}

fn stop_supervisor(layout: &Layout) -> anyhow::Result<()> {
    let Some(pid) = supervisor(layout) else {
        return Ok(());
    };
    let gone = |seconds| {
        crate::wait_for(
            &format!("the supervisor (pid {pid}) has ended"),
            Duration::from_secs(seconds),
            || {
                // A child of ours that has ended stays until it is waited for.
                let _ = nix::sys::wait::waitpid(
                    Pid::from_raw(pid),
                    Some(nix::sys::wait::WaitPidFlag::WNOHANG),
                );
                Ok(supervisor(layout).is_none().then_some(()))
            },
        )
    };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    gone(20).or_else(|_| {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        gone(5)
    })
}
