//! Writes a volume's files so that readers see all of one version or all of another:
//! `name -> ..data/name`, `..data -> ..<version>/`, as Kubernetes' atomic writer does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// Whether `path` stays inside a volume and doesn't clash with the writer's own names.
pub fn valid_path(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    let first_ok = matches!(parts.next(), Some(Component::Normal(p)) if !p.to_string_lossy().starts_with(".."));
    first_ok && parts.all(|p| matches!(p, Component::Normal(_))) && path.len() <= 4096
}

fn current(dir: &Path) -> Option<PathBuf> {
    fs::read_link(dir.join("..data"))
        .ok()
        .map(|name| dir.join(name))
}

fn same(version: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    for (path, file) in payload {
        let full = version.join(path);
        let Ok(meta) = fs::metadata(&full) else {
            return false;
        };
        if meta.permissions().mode() & 0o777 != file.mode & 0o777
            || fs::read(&full).ok().as_deref() != Some(&file.data[..])
        {
            return false;
        }
        count += 1;
    }
    count == count_files(version)
}

fn count_files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| {
            if e.file_type().is_ok_and(|t| t.is_dir()) {
                count_files(&e.path())
            } else {
                1
            }
        })
        .sum()
}

/// Makes `dir` show exactly `payload`; does nothing if it does already. `own` is called for each
/// new file and directory before anyone can see it.
pub fn write(
    dir: &Path,
    payload: &Payload,
    version: u64,
    own: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let old = current(dir);
    if let Some(old) = &old
        && same(old, payload)
    {
        return Ok(false);
    }
    let mut number = version;
    let new_name = loop {
        let name = format!("..{number:020}");
        match fs::create_dir(dir.join(&name)) {
            Ok(()) => break name,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    };
    let new = dir.join(&new_name);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let full = new.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, &file.data)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(file.mode & 0o777))?;
    }
    own_tree(&new, &own)?;
    // The switch: one rename.
    let temporary = dir.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&new_name, &temporary)?;
    fs::rename(&temporary, dir.join("..data"))?;
    // Names for what is new, after there is something behind them; then away with the others.
    let tops: std::collections::BTreeSet<&str> =
        payload.keys().filter_map(|p| p.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("..") {
            if name != "..data" && *name != *new_name {
                fs::remove_dir_all(entry.path())?;
            }
        } else if !tops.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(true)
}

fn own_tree(path: &Path, own: &impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    own(path)?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            own_tree(&entry.path(), own)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| {
                (
                    p.to_string(),
                    File {
                        data: d.as_bytes().to_vec(),
                        mode: 0o640,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn versions_switch_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let ok = |_: &Path| Ok(());
        assert!(write(d, &payload(&[("a", "1"), ("sub/b", "2")]), 1, ok).unwrap());
        assert_eq!(fs::read_to_string(d.join("sub/b")).unwrap(), "2");
        assert_eq!(
            fs::metadata(d.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(
            !write(d, &payload(&[("a", "1"), ("sub/b", "2")]), 2, ok).unwrap(),
            "nothing changed"
        );
        let before = fs::read_link(d.join("..data")).unwrap();
        assert!(write(d, &payload(&[("a", "9"), ("c", "3")]), 2, ok).unwrap());
        assert_ne!(before, fs::read_link(d.join("..data")).unwrap());
        assert_eq!(fs::read_to_string(d.join("a")).unwrap(), "9");
        assert_eq!(fs::read_to_string(d.join("c")).unwrap(), "3");
        assert!(fs::symlink_metadata(d.join("sub")).is_err());
        let versions = fs::read_dir(d)
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with("..0"))
            .count();
        assert_eq!(versions, 1);
        assert!(write(d, &payload(&[]), 3, ok).unwrap(), "all keys gone");
        assert!(fs::symlink_metadata(d.join("a")).is_err());
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b", "a..b", ".hidden", "a/..b"] {
            assert!(valid_path(good), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../b", "..data", "..x/y", "."] {
            assert!(!valid_path(bad), "{bad}");
        }
    }
}
