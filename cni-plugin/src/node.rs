//! Where things are on a node, and `node.json`: what the agent tells the plugin of it.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// The three directories that the agent and the plugin share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub bpf_dir: PathBuf,
}

impl Paths {
    pub fn node_json(&self) -> PathBuf {
        self.state_dir.join("node.json")
    }

    pub fn ipam_dir(&self) -> PathBuf {
        self.state_dir.join("ipam")
    }

    pub fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.bpf_dir.join("maps").join(name)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bpf_dir.join("progs").join(name)
    }

    pub fn links_dir(&self) -> PathBuf {
        self.bpf_dir.join("links")
    }
}

/// `<stateDir>/node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    pub node_name: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNetwork>,
    /// MTU of pod interfaces, bytes.
    pub mtu: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("{} is not there yet: rhumb-agent writes it once the node has its pod CIDRs; start the agent, or look at its log", .0.display())]
    Missing(PathBuf),
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not what rhumb-agent writes there ({source}); remove it and restart the agent", path.display())]
    Decode {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: {what}", path.display())]
    Invalid { path: PathBuf, what: String },
}

impl NodeConfig {
    pub fn read(path: &Path) -> Result<NodeConfig, NodeError> {
        let text = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NodeError::Missing(path.into()),
            _ => NodeError::Read {
                path: path.into(),
                source,
            },
        })?;
        let node: NodeConfig =
            serde_json::from_slice(&text).map_err(|source| NodeError::Decode {
                path: path.into(),
                source,
            })?;
        let invalid = |what: &str| NodeError::Invalid {
            path: path.into(),
            what: what.into(),
        };
        if node.pod_cidrs.is_empty() {
            return Err(invalid(
                "podCIDRs is empty; the node has been given no pod CIDR",
            ));
        }
        // 1280 is the least that IPv6 runs over (RFC 8200, 5); 65535 the largest veth takes.
        if !(1280..=65535).contains(&node.mtu) {
            return Err(invalid("mtu has to be within 1280 and 65535"));
        }
        Ok(node)
    }

    /// Replaces `path` atomically: a reader sees the old content or the new, also after a crash.
    pub fn write(&self, path: &Path) -> Result<(), NodeError> {
        let write = || {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir)?;
            let new = path.with_extension("json.new");
            let mut file = fs::File::create(&new)?;
            let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|source| NodeError::Write {
            path: path.into(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_names_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/node.json");
        assert!(matches!(
            NodeConfig::read(&path),
            Err(NodeError::Missing(_))
        ));
        let node = NodeConfig {
            node_name: "n1".into(),
            pod_cidrs: vec![
                "10.244.1.0/24".parse().unwrap(),
                "fd00:10:244:1::/64".parse().unwrap(),
            ],
            mtu: 1500,
        };
        node.write(&path).unwrap();
        assert_eq!(NodeConfig::read(&path).unwrap(), node);
        assert!(fs::read_to_string(&path).unwrap().contains("\"podCIDRs\""));
        for (text, want) in [
            ("{", "remove it"),
            (
                r#"{"nodeName":"n","podCIDRs":["10.1.0.0/99"],"mtu":1500}"#,
                "remove it",
            ),
            (r#"{"nodeName":"n","podCIDRs":[],"mtu":1500}"#, "podCIDRs"),
            (
                r#"{"nodeName":"n","podCIDRs":["10.1.0.0/24"],"mtu":0}"#,
                "mtu",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let e = NodeConfig::read(&path).unwrap_err().to_string();
            assert!(e.contains(want) && e.contains("node.json"), "{e}");
        }
    }
}
