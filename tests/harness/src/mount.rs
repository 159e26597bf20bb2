//! Mounts: a bpffs of one's own, and taking away what lies below a directory.

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// Mounts a bpffs on a directory, which is made. That one is mounted there already is success.
pub fn bpffs(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if below(dir)?.iter().any(|mounted| mounted == dir) {
        return Ok(());
    }
    mount(
        Some("bpf"),
        dir,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mounting a bpffs on {}", dir.display()))?;
    // As systemd mounts it: containers may then mount it with propagation.
    mount(
        None::<&str>,
        dir,
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )
    .with_context(|| format!("sharing the mount {}", dir.display()))
}

/// Whether overlayfs works on a directory's file system; on some (an overlay itself) it does not.
pub fn overlay_works(dir: &Path) -> bool {
    let Ok(trial) = tempfile::Builder::new().prefix("overlay").tempdir_in(dir) else {
        return false;
    };
    let part = |name: &str| trial.path().join(name);
    let parts = ["lower", "upper", "work", "merged"].map(part);
    if parts.iter().any(|dir| fs::create_dir(dir).is_err()) {
        return false;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        parts[0].display(),
        parts[1].display(),
        parts[2].display()
    );
    let mounted = mount(
        Some("overlay"),
        &parts[3],
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    let works = mounted.is_ok() && fs::write(parts[3].join("file"), "x").is_ok();
    if mounted.is_ok() {
        let _ = umount2(&parts[3], MntFlags::MNT_DETACH);
    }
    works
}

/// Mount points at or below a directory, deepest last.
pub fn below(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text =
        fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|place| PathBuf::from(unescape(place)))
        .filter(|place| place.starts_with(dir))
        .collect();
    found.sort();
    Ok(found)
}

/// Blanks and the like stand as octal numbers in mountinfo.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// Unmounts everything at or below a directory.
pub fn unmount_below(dir: &Path) -> anyhow::Result<()> {
    for place in below(dir)?.iter().rev() {
        umount2(place, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", place.display()))?;
    }
    Ok(())
}

/// Unmounts what is mounted below a directory and removes it. That it does not exist is success.
pub fn remove(dir: &Path) -> anyhow::Result<()> {
    unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("removing {}", dir.display())),
    }
}
