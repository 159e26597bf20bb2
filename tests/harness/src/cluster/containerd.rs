//! A node's containerd: its configuration, and images into it.

use super::layout::{BRIDGE, Node, REGISTRY, ip4};
use crate::image;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Writes the configuration and gives its path.
/// <https://github.com/containerd/containerd/blob/release/1.6/docs/cri/config.md>
pub fn configure(node: &Node) -> anyhow::Result<PathBuf> {
    let dir = node.dir.join("containerd");
    let certs = dir.join("certs.d");
    let registry = certs.join(REGISTRY);
    for dir in [&dir, &registry] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let server = format!("http://{}:5000", ip4(BRIDGE));
    let hosts = format!(
        "server = \"{server}\"\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    write(&registry.join("hosts.toml"), &hosts)?;
    let snapshotter = if crate::mount::overlay_works(&dir) {
        "overlayfs"
    } else {
        "native"
    };
    let text = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
# Nothing of the machine's own containerd is touched.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[ttrpc]
  address = "{socket}.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering a score below one's own takes CAP_SYS_RESOURCE, which containers of CI lack.
  restrict_oom_score_adj = true
  # Pods' namespaces go away with the node's directory.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{runc}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{certs}"
"#,
        root = dir.join("root").display(),
        state = node.run_dir.join("containerd").display(),
        socket = node.containerd().display(),
        pause = image::PAUSE,
        cni_bin = node.cni_bin_dir().display(),
        cni_conf = node.cni_conf_dir().display(),
        runc = node.run_dir.join("runc").display(),
        certs = certs.display(),
    );
    let file = dir.join("config.toml");
    write(&file, &text)?;
    Ok(file)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Up to version 2.0 containerd sets a sandbox's loopback up by a plugin of this name.
pub fn loopback_plugin(node: &Node) -> anyhow::Result<()> {
    let places = ["/usr/lib/cni/loopback", "/opt/cni/bin/loopback"];
    let Some(plugin) = places.iter().find(|place| Path::new(place).exists()) else {
        bail!(
            "no CNI plugin `loopback` in {}: install containernetworking-plugins \
             (`cargo xtask setup` does)",
            places.join(", ")
        );
    };
    let link = node.cni_bin_dir().join("loopback");
    std::os::unix::fs::symlink(plugin, &link)
        .with_context(|| format!("linking {} to {plugin}", link.display()))
}

/// A `ctr` command for the pods' images and containers of a node.
pub fn ctr(node: &Node) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(node.containerd())
        .args(["--namespace", "k8s.io"]);
    command
}

/// Imports a packed layout, once containerd answers.
pub fn import(node: &Node, tar: &Path) -> anyhow::Result<()> {
    crate::wait_for(
        &format!("{}'s containerd takes {}", node.name, tar.display()),
        Duration::from_secs(60),
        || {
            let output = ctr(node)
                .args(["images", "import"])
                .arg(tar)
                .output()
                .context("starting ctr, which containerd's package has")?;
            if output.status.success() {
                return Ok(Some(()));
            }
            bail!(
                "ctr images import: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        },
    )
}
