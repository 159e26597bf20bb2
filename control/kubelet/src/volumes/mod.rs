//! A pod's volumes on the host.

pub mod atomic;
pub mod content;
pub mod mounts;
pub mod subpath;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};

use crate::kubelet::Kubelet;
use crate::pure::quantity;
use content::TokenCache;

/// Why a volume isn't there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
    SetUp { volume: String, message: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {what} {}: {source}", .path.display())]
    Io {
        volume: String,
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    fn setup(volume: &str, message: impl Into<String>) -> Self {
        VolumeError::SetUp {
            volume: volume.into(),
            message: message.into(),
        }
    }
}

fn io_err<'a>(
    volume: &'a str,
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> VolumeError + 'a {
    move |source| VolumeError::Io {
        volume: volume.into(),
        what,
        path: path.into(),
        source,
    }
}

/// Host paths by volume name.
pub type Mounted = BTreeMap<String, PathBuf>;

fn plugin(v: &Volume) -> &'static str {
    if v.config_map.is_some() {
        "configmap"
    } else if v.secret.is_some() {
        "secret"
    } else if v.downward_api.is_some() {
        "downward-api"
    } else if v.projected.is_some() {
        "projected"
    } else {
        "empty-dir"
    }
}

/// `<pod>/volumes/kubernetes.io~<plugin>/<name>`.
pub fn volume_dir(pod_dir: &Path, v: &Volume) -> PathBuf {
    pod_dir
        .join("volumes")
        .join(format!("kubernetes.io~{}", plugin(v)))
        .join(&v.name)
}

/// Whether the volume's content comes from the API and can change while the pod runs.
pub fn is_live(v: &Volume) -> bool {
    v.config_map.is_some()
        || v.secret.is_some()
        || v.downward_api.is_some()
        || v.projected.is_some()
}

/// Sets up all volumes; those that are there already are brought up to date.
pub async fn set_up(
    k: &Kubelet,
    pod: &Pod,
    tokens: &mut TokenCache,
) -> Result<Mounted, VolumeError> {
    let no_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let pod_dir = k.config.pod_dir(uid);
    let mut out = Mounted::new();
    for v in spec.volumes.iter().flatten() {
        let path = if let Some(h) = &v.host_path {
            host_path(&v.name, &h.path, h.type_.as_deref().unwrap_or(""))?;
            PathBuf::from(&h.path)
        } else if let Some(e) = &v.empty_dir {
            let dir = volume_dir(&pod_dir, v);
            let memory = e.medium.as_deref() == Some("Memory");
            let size = e
                .size_limit
                .as_ref()
                .and_then(|q| quantity::whole(&q.0))
                .filter(|n| *n > 0);
            empty_dir(&v.name, &dir, memory, size, fs_group(spec))?;
            dir
        } else if is_live(v) {
            let dir = volume_dir(&pod_dir, v);
            update_live(k, pod, v, &dir, tokens).await?;
            dir
        } else {
            return Err(VolumeError::setup(
                &v.name,
                "no volume source that is supported",
            ));
        };
        out.insert(v.name.clone(), path);
    }
    Ok(out)
}

/// Fetches the content of one live volume and writes it if it changed.
pub async fn update_live(
    k: &Kubelet,
    pod: &Pod,
    v: &Volume,
    dir: &Path,
    tokens: &mut TokenCache,
) -> Result<(), VolumeError> {
    let payload = content::fetch(k, pod, v, tokens).await?;
    // Secrets and tokens live in memory only, as Kubernetes has it.
    if v.secret.is_some() || v.projected.is_some() {
        fs::create_dir_all(dir).map_err(io_err(&v.name, "making", dir))?;
        mounts::ensure_tmpfs(dir, None).map_err(io_err(&v.name, "mounting a tmpfs at", dir))?;
    }
    let group = pod.spec.as_ref().and_then(fs_group);
    let owner = pod.spec.as_ref().and_then(|s| {
        if v.projected.is_some() {
            common_user(s)
        } else {
            None
        }
    });
    let own = |p: &Path| own(p, owner, group);
    let version = jiff::Timestamp::now().as_millisecond().max(0) as u64;
    atomic::write(dir, &payload, version, own).map_err(io_err(&v.name, "writing", dir))?;
    Ok(())
}

fn fs_group(spec: &PodSpec) -> Option<u32> {
    spec.security_context
        .as_ref()?
        .fs_group
        .and_then(|g| u32::try_from(g).ok())
}

/// The user that every container runs as, if it is one and there is no fsGroup.
fn common_user(spec: &PodSpec) -> Option<u32> {
    if fs_group(spec).is_some() {
        return None;
    }
    let mut all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| {
            let own = c.security_context.as_ref().and_then(|s| s.run_as_user);
            own.or(spec.security_context.as_ref().and_then(|s| s.run_as_user))
        });
    let first = all.next()??;
    if all.all(|u| u == Some(first)) {
        u32::try_from(first).ok()
    } else {
        None
    }
}

/// Gives a file or directory to the volume's user or group.
fn own(path: &Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    if let Some(user) = user
        && meta.is_file()
    {
        std::os::unix::fs::chown(path, Some(user), None)?;
    }
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))?;
        let mut mode = meta.permissions().mode();
        // Read-only for the group, as the volume is for containers.
        mode |= if meta.is_dir() { 0o2550 } else { 0o440 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn empty_dir(
    name: &str,
    dir: &Path,
    memory: bool,
    size: Option<i64>,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).map_err(io_err(name, "making", dir))?;
    if memory {
        mounts::ensure_tmpfs(dir, size).map_err(io_err(name, "mounting a tmpfs at", dir))?;
    }
    if fresh || memory {
        let mut mode = 0o777;
        if let Some(g) = group {
            std::os::unix::fs::chown(dir, None, Some(g)).map_err(io_err(
                name,
                "changing the group of",
                dir,
            ))?;
            mode |= 0o2000;
        }
        let at = fs::metadata(dir).map_err(io_err(name, "looking at", dir))?;
        if at.mode() & 0o7777 != mode {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(io_err(
                name,
                "setting the mode of",
                dir,
            ))?;
        }
    }
    Ok(())
}

fn host_path(name: &str, path: &str, kind: &str) -> Result<(), VolumeError> {
    let p = Path::new(path);
    let fail = |want: &str| {
        Err(VolumeError::setup(
            name,
            format!("hostPath type check failed: {path} is not {want}"),
        ))
    };
    match kind {
        "DirectoryOrCreate" if !p.exists() => {
            fs::create_dir_all(p).map_err(io_err(name, "making", p))?
        }
        "FileOrCreate" if !p.exists() => {
            // Kubernetes doesn't make the parent directories of a file.
            fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .open(p)
                .map_err(io_err(name, "making", p))?;
        }
        _ => {}
    }
    let kind_of = fs::metadata(p).map(|m| m.file_type()).ok();
    match kind {
        // The runtime makes a directory if there is nothing.
        "" => Ok(()),
        "Directory" | "DirectoryOrCreate" if !kind_of.is_some_and(|t| t.is_dir()) => {
            fail("a directory")
        }
        "File" | "FileOrCreate" if !kind_of.is_some_and(|t| t.is_file()) => fail("a file"),
        "Socket" if !kind_of.is_some_and(|t| t.is_socket()) => fail("a socket file"),
        "CharDevice" if !kind_of.is_some_and(|t| t.is_char_device()) => fail("a character device"),
        "BlockDevice" if !kind_of.is_some_and(|t| t.is_block_device()) => fail("a block device"),
        _ => Ok(()),
    }
}

/// The first disk-backed emptyDir over its size limit: name and limit.
pub fn over_limit(pod_dir: &Path, spec: &PodSpec) -> Option<(String, String)> {
    spec.volumes.iter().flatten().find_map(|v| {
        let limit = v.empty_dir.as_ref()?.size_limit.as_ref()?;
        let bytes = quantity::whole(&limit.0).filter(|n| *n > 0)? as u64;
        (used(&volume_dir(pod_dir, v)) > bytes).then(|| (v.name.clone(), limit.0.clone()))
    })
}

/// Bytes on disk below a directory.
fn used(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => used(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Unmounts whatever is mounted below the pod's directory and removes the directory.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    mounts::unmount_below(pod_dir)?;
    match fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: &str| dir.path().join(n).to_str().unwrap().to_string();
        assert!(host_path("v", &path("none"), "Directory").is_err());
        host_path("v", &path("d"), "DirectoryOrCreate").unwrap();
        host_path("v", &path("d"), "Directory").unwrap();
        assert!(
            host_path("v", &path("d"), "File")
                .unwrap_err()
                .to_string()
                .contains("is not a file")
        );
        host_path("v", &path("f"), "FileOrCreate").unwrap();
        assert!(host_path("v", &path("f"), "Socket").is_err());
        host_path("v", &path("anything"), "").unwrap();
        host_path("v", "/dev/null", "CharDevice").unwrap();
    }

    #[test]
    fn the_common_user() {
        let spec = |v: serde_json::Value| -> PodSpec { serde_json::from_value(v).unwrap() };
        let both = json!({"securityContext": {"runAsUser": 5}, "containers": [{"name": "a"},
            {"name": "b", "securityContext": {"runAsUser": 5}}]});
        assert_eq!(common_user(&spec(both)), Some(5));
        let differ = json!({"securityContext": {"runAsUser": 5}, "containers": [{"name": "a"},
            {"name": "b", "securityContext": {"runAsUser": 6}}]});
        assert_eq!(common_user(&spec(differ)), None);
        assert_eq!(
            common_user(&spec(json!({"containers": [{"name": "a"}]}))),
            None
        );
    }

    #[test]
    fn size_limits() {
        let dir = tempfile::tempdir().unwrap();
        let spec: PodSpec = serde_json::from_value(json!({"containers": [],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "64Ki"}}]}))
        .unwrap();
        let at = volume_dir(dir.path(), &spec.volumes.as_ref().unwrap()[0]);
        fs::create_dir_all(&at).unwrap();
        assert_eq!(over_limit(dir.path(), &spec), None);
        fs::write(at.join("x"), vec![1u8; 256 << 10]).unwrap();
        assert_eq!(
            over_limit(dir.path(), &spec),
            Some(("v".into(), "64Ki".into()))
        );
    }
}
