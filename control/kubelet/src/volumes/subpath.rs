//! subPath mounts: a part of a volume, resolved so that no symlink in it can lead outside.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::mounts;

/// Opens `sub` below `root` without leaving it (openat2(2), RESOLVE_BENEATH).
fn open_beneath(root: &impl AsRawFd, sub: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(sub.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: open_how is plain data, and all-zero is a valid value of it.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the path and the struct outlive the call, and the size is the struct's.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &how,
            std::mem::size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes missing directories of `sub` one by one below `root`.
fn make_beneath(root: &fs::File, sub: &Path) -> io::Result<OwnedFd> {
    let mut at = PathBuf::new();
    for part in sub.components() {
        let parent: OwnedFd = if at.as_os_str().is_empty() {
            root.try_clone()?.into()
        } else {
            open_beneath(root, &at)?
        };
        at.push(part);
        match open_beneath(root, &at) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let name = CString::new(part.as_os_str().as_bytes()).map_err(io::Error::other)?;
                // SAFETY: the name outlives the call.
                let r = unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o750) };
                if r < 0 {
                    let e = io::Error::last_os_error();
                    if e.kind() != io::ErrorKind::AlreadyExists {
                        return Err(e);
                    }
                }
                // As open to the container as the volume itself; chmod undoes the umask.
                let made = open_beneath(root, &at)?;
                let mode = root.metadata()?.permissions().mode() & 0o7777;
                fs::set_permissions(
                    format!("/proc/self/fd/{}", made.as_raw_fd()),
                    fs::Permissions::from_mode(mode),
                )?;
            }
            Err(e) => return Err(e),
        }
    }
    open_beneath(root, sub)
}

/// Binds `<volume>/<sub>` to `target` and returns `target`, which the runtime then mounts.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> io::Result<PathBuf> {
    let sub = Path::new(sub);
    if sub.is_absolute()
        || sub
            .components()
            .any(|c| matches!(c, std::path::Component::ParentDir))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "subPath must be relative and must not contain \"..\"",
        ));
    }
    let root = fs::File::open(volume)?;
    let found = match open_beneath(&root, sub) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => make_beneath(&root, sub)?,
        other => other?,
    };
    let is_dir = fs::metadata(format!("/proc/self/fd/{}", found.as_raw_fd()))?.is_dir();
    if is_dir {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if !target.exists() {
            fs::File::create(target)?;
        }
    }
    mounts::ensure_bind(&found, target)?;
    Ok(target.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/abs")).unwrap();
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        let f = fs::File::open(&root).unwrap();
        assert!(open_beneath(&f, Path::new("a")).is_ok());
        assert!(open_beneath(&f, Path::new("in")).is_ok());
        assert!(open_beneath(&f, Path::new("out")).is_err());
        assert!(open_beneath(&f, Path::new("a/abs/etc")).is_err());
        assert!(make_beneath(&f, Path::new("a/new/deep")).is_ok());
        assert!(root.join("a/new/deep").is_dir());
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o2777)).unwrap();
        make_beneath(&f, Path::new("shared")).unwrap();
        assert_eq!(mode(&root.join("shared")), 0o2777);
        assert!(make_beneath(&f, Path::new("a/abs/tmp/evil")).is_err());
        assert!(bind(&root, "../secret", &dir.path().join("t")).is_err());
    }
}
