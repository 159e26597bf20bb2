//! What the kernel and the machine must have; each lack has its own message.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::Error;

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// What the programs are written for; the uplink's tcx link (6.6) has a filter in its stead.
const KERNEL_MIN: (u32, u32) = (6, 1);

fn fs_magic(path: &Path) -> io::Result<i64> {
    let c = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path has a zero byte"))?;
    // SAFETY: statfs is plain data that the kernel fills.
    let mut st: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(c.as_ptr(), &mut st) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The field's type differs between C libraries; the magics fit 32 bits.
    Ok(i64::from(st.f_type as u32))
}

pub fn root() -> Result<(), Error> {
    // SAFETY: no arguments, never fails.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::NotRoot);
    }
    Ok(())
}

/// `"6.18.4-foo"` to `(6, 18)`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub fn kernel() -> Result<(), Error> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match parse_release(release) {
        Some(v) if v >= KERNEL_MIN => Ok(()),
        _ => Err(Error::Kernel {
            release: release.to_owned(),
        }),
    }
}

pub fn btf() -> Result<(), Error> {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Ok(())
    } else {
        Err(Error::NoBtf)
    }
}

/// That `dir`, or the nearest directory above it that exists, lies on a bpf file system.
pub fn bpffs(dir: &Path) -> Result<(), Error> {
    let existing = dir
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    match fs_magic(existing) {
        Ok(BPF_FS_MAGIC) => Ok(()),
        _ => Err(Error::NoBpffs {
            dir: dir.to_owned(),
            mount: if dir.starts_with("/sys/fs/bpf") {
                PathBuf::from("/sys/fs/bpf")
            } else {
                dir.parent().unwrap_or(dir).to_owned()
            },
        }),
    }
}

/// The given cgroup2 directory, or the first cgroup2 mount.
pub fn cgroup2(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(dir) = given {
        return match fs_magic(dir) {
            Ok(CGROUP2_SUPER_MAGIC) => Ok(dir.to_owned()),
            Ok(_) => Err(Error::NotCgroup2 {
                dir: dir.to_owned(),
            }),
            Err(source) => Err(Error::Open {
                path: dir.to_owned(),
                source,
            }),
        };
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|l| {
            let mut f = l.split(' ');
            Some((f.nth(1)?, f.next()?))
        })
        .find(|(_, kind)| *kind == "cgroup2")
        // Only blanks, tabs, newlines and backslashes are escaped there; none in a usual mount.
        .map(|(dir, _)| PathBuf::from(dir))
        .ok_or(Error::NoCgroup2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("6.6"), Some((6, 6)));
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release(""), None);
        assert_eq!(parse_release("six"), None);
    }

    #[test]
    fn a_directory_on_another_file_system_is_refused_with_the_mount_to_make() {
        let error = bpffs(Path::new("/proc/rhumb/x")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf /proc/rhumb"), "{error}");
        assert!(cgroup2(Some(Path::new("/proc"))).is_err());
        assert!(cgroup2(Some(Path::new("/nowhere/at/all"))).is_err());
    }
}
