//! Files that the plugin and the runtime read: node.json, the plugin's binary, the conflist.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rhumb_cni::node::{NodeConfig, NodeError};
use rhumb_core::model::Node;
use serde_json::json;

use crate::config::Dirs;

pub const PLUGIN: &str = "rhumb-cni";
pub const CONFLIST: &str = "10-rhumb.conflist";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the plugin's binary is not beside the agent's, at {}: install both in one directory",
        .0.display()
    )]
    NoPlugin(PathBuf),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

/// Replaces `path` at one stroke, if the content differs.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<bool, Error> {
    if fs::read(path).is_ok_and(|now| now == content) {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory of", path))?;
    }
    // A dot in front: runtimes read *.conf, *.conflist and *.json in the directory of networks.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let write = || {
        fs::write(&new, content)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(failed("write", path))?;
    Ok(true)
}

/// `rhumb-cni` from beside this binary.
pub fn plugin(dirs: &Dirs) -> Result<bool, Error> {
    let own = std::env::current_exe().map_err(failed("find", Path::new("this program")))?;
    let source = own.with_file_name(PLUGIN);
    let target = dirs.cni_bin_dir.join(PLUGIN);
    let content = match fs::read(&source) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoPlugin(source)),
        Err(e) => return Err(failed("read", &source)(e)),
    };
    replace(&target, &content, 0o755)
}

/// `None` as long as the node has no pod CIDRs.
pub fn node_config(node: &Node, mtu: u32) -> Option<NodeConfig> {
    (!node.pod_cidrs.is_empty()).then(|| NodeConfig {
        node_name: node.name.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        mtu,
    })
}

pub fn node_json(dirs: &Dirs, config: &NodeConfig) -> Result<bool, Error> {
    let path = dirs.state_dir.join("node.json");
    if NodeConfig::read(&path).is_ok_and(|now| now == *config) {
        return Ok(false);
    }
    config.write(&path)?;
    Ok(true)
}

/// The network's name in the conflist.
pub const NETWORK: &str = "rhumb";

/// The last step: from here on the runtime calls the plugin.
pub fn conflist(dirs: &Dirs) -> Result<bool, Error> {
    let content = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": NETWORK,
        "plugins": [{
            "type": PLUGIN,
            "capabilities": {"ips": true, "mac": true, "portMappings": true},
            "stateDir": dirs.state_dir,
            "runDir": dirs.run_dir,
            "bpfDir": dirs.bpf_dir,
        }],
    });
    let mut text = format!("{content:#}").into_bytes();
    text.push(b'\n');
    replace(&dirs.cni_conf_dir.join(CONFLIST), &text, 0o644)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}

/// So that the runtime no longer calls the plugin; first of all that is taken away.
pub fn remove_conflist(dirs: &Dirs) -> Result<(), Error> {
    remove(&dirs.cni_conf_dir.join(CONFLIST))
}

/// Plugin, state and sockets.
pub fn remove_files(dirs: &Dirs) -> Result<(), Error> {
    remove(&dirs.cni_bin_dir.join(PLUGIN))?;
    remove(&dirs.run_dir.join("cni.sock"))?;
    remove(&dirs.run_dir.join("agent.sock"))?;
    remove(&dirs.state_dir.join("node.json"))?;
    remove(&dirs.state_dir.join("policy-ids.json"))?;
    remove(&dirs.state_dir.join("agent.lock"))?;
    let ipam = dirs.state_dir.join("ipam");
    match fs::remove_dir_all(&ipam) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &ipam)(e)),
        _ => {}
    }
    // Directories that others use too stay.
    let _ = fs::remove_dir(&dirs.state_dir);
    let _ = fs::remove_dir(&dirs.run_dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(root: &Path) -> Dirs {
        Dirs {
            bpf_dir: root.join("bpf"),
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            cni_bin_dir: root.join("bin"),
            cni_conf_dir: root.join("conf"),
        }
    }

    #[test]
    fn the_conflist_appears_whole_once_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        assert!(conflist(&dirs).unwrap());
        assert!(!conflist(&dirs).unwrap(), "unchanged is not written again");
        let path = dirs.cni_conf_dir.join(CONFLIST);
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(value["cniVersion"], "1.0.0");
        assert_eq!(value["plugins"][0]["type"], "rhumb-cni");
        assert_eq!(
            fs::read_dir(&dirs.cni_conf_dir).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        remove_conflist(&dirs).unwrap();
        remove_conflist(&dirs).unwrap();
        remove_files(&dirs).unwrap();
        assert!(!path.exists());
    }
}
