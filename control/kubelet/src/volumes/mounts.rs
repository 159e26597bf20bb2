//! tmpfs and bind mounts below a pod's directory.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mount points in `/proc/self/mountinfo` (octal escapes undone).
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(unescape)
        .collect())
}

fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = vec![];
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'\\')
            .then(|| bytes.get(i + 1..i + 4))
            .flatten()
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(c) => {
                out.push(c);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    // The path may go through symlinks; the kernel shows it without.
    let real = fs::canonicalize(path)?;
    Ok(mount_points()?.contains(&real))
}

/// Mounts a tmpfs unless something is mounted there already.
pub fn ensure_tmpfs(path: &Path, size: Option<i64>) -> io::Result<()> {
    if is_mounted(path)? {
        return Ok(());
    }
    let options = size.map(|s| format!("size={s}"));
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        options.as_deref(),
    )?;
    Ok(())
}

/// Binds an open file or directory onto `target`, unless `target` is mounted already.
pub fn ensure_bind(fd: &impl AsRawFd, target: &Path) -> io::Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    mount(
        Some(source.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )?;
    Ok(())
}

/// Unmounts everything below `dir`, the innermost first.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let real = match fs::canonicalize(dir) {
        Ok(r) => r,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for point in mount_points()?
        .into_iter()
        .rev()
        .filter(|p| p.starts_with(&real))
    {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(e) => {
                return Err(io::Error::other(format!(
                    "unmounting {}: {e}",
                    point.display()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"/a\040b\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain"), PathBuf::from("/plain"));
        assert_eq!(unescape(r"/x\9"), PathBuf::from(r"/x\9"));
    }
}
