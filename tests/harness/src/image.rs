//! Images without a registry: OCI image layouts made from files of this machine.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>

use crate::cluster::Built;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sandbox image of dev nodes.
pub const PAUSE: &str = "localhost/pause:dev";
/// The image of test pods: busybox and netprobe.
pub const TESTBOX: &str = "localhost/testbox:dev";

/// An image of one layer.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    command: Vec<String>,
    layer: tar::Builder<Vec<u8>>,
}

impl Image {
    /// An empty image.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            layer: tar::Builder::new(Vec::new()),
        }
    }

    /// What a container runs that names nothing else.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The default arguments.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    fn entry(
        &mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        data: &[u8],
    ) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        // The same input makes the same digest.
        header.set_mtime(0);
        self.layer
            .append_data(&mut header, path, data)
            .with_context(|| format!("adding {path} to {}", self.name))
    }

    /// Adds a directory.
    pub fn dir(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        self.entry(path, tar::EntryType::Directory, mode, &[])
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, data)
    }

    /// Adds a copy of a file of this machine.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> anyhow::Result<()> {
        let data = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, mode, &data)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        header.set_mtime(0);
        self.layer
            .append_link(&mut header, path, to)
            .with_context(|| format!("adding {path} to {}", self.name))
    }
}

/// Writes images as one layout into a directory, which is emptied first.
pub fn write_layout(dir: &Path, images: Vec<Image>) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(dir);
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
    let mut manifests = Vec::new();
    for image in images {
        manifests.push(write_image(&blobs, image)?);
    }
    write(
        &dir.join("oci-layout"),
        &json!({"imageLayoutVersion": "1.0.0"}),
    )?;
    write(
        &dir.join("index.json"),
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }),
    )
}

fn write(file: &Path, value: &Value) -> anyhow::Result<()> {
    fs::write(file, value.to_string()).with_context(|| format!("writing {}", file.display()))
}

fn write_image(blobs: &Path, image: Image) -> anyhow::Result<Value> {
    let name = image.name;
    let layer = image
        .layer
        .into_inner()
        .with_context(|| format!("finishing the layer of {name}"))?;
    let layer = blob(blobs, &layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
        },
        // Not compressed, so the layer's digest is that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(
        blobs,
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(
        blobs,
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    )?;
    manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
    manifest["annotations"] = json!({
        // The first is for containerd's import, the second is the specification's.
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    });
    Ok(manifest)
}

/// Writes a blob and gives its descriptor.
fn blob(blobs: &Path, data: &[u8], media_type: &str) -> anyhow::Result<Value> {
    let hash: String = Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let file = blobs.join(&hash);
    fs::write(&file, data).with_context(|| format!("writing {}", file.display()))?;
    Ok(json!({
        "mediaType": media_type,
        "digest": format!("sha256:{hash}"),
        "size": data.len(),
    }))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packs a layout's directory into one tar file, for `ctr images import`.
pub fn pack(dir: &Path, file: &Path) -> anyhow::Result<()> {
    let out = File::create(file).with_context(|| format!("creating {}", file.display()))?;
    let mut tar = tar::Builder::new(out);
    tar.append_dir_all(".", dir)
        .and_then(|()| tar.finish())
        .with_context(|| format!("packing {} into {}", dir.display(), file.display()))
}

/// Where the parts of the images come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Our static `pause`.
    pub pause: PathBuf,
    /// Our static `netprobe`.
    pub netprobe: PathBuf,
}

/// The sandbox image.
pub fn pause(sources: &Sources) -> anyhow::Result<Image> {
    let mut image = Image::new(PAUSE).entrypoint(&["/pause"]);
    image.copy("pause", 0o755, &sources.pause)?;
    Ok(image)
}

/// The agent with its plugin, which it installs on its node, and the tool to look into it.
pub fn agent(name: &str, built: &Built) -> anyhow::Result<Image> {
    let mut image = Image::new(name)
        .entrypoint(&["/bin/rhumb-agent"])
        .command(&["run"]);
    image.dir("bin", 0o755)?;
    for program in ["rhumb-agent", "rhumb-cni", "rhumb"] {
        image.copy(&format!("bin/{program}"), 0o755, &built.fixed(program))?;
    }
    Ok(image)
}

/// The image of test pods under a name: Debian's static busybox with its applets linked, netprobe,
/// and what a shell expects of `/`. `mark` is written into `/etc/mark`, so that images differ.
pub fn testbox(name: &str, mark: &str, sources: &Sources) -> anyhow::Result<Image> {
    let busybox = busybox()?;
    let applets = Command::new(&busybox)
        .arg("--list")
        .output()
        .with_context(|| format!("asking {} for its applets", busybox.display()))?;
    let applets = String::from_utf8(applets.stdout).context("busybox's applets")?;
    let mut image = Image::new(name).command(&["/bin/sh"]);
    for dir in ["bin", "etc", "home", "root", "var", "proc", "sys", "dev"] {
        image.dir(dir, 0o755)?;
    }
    image.dir("tmp", 0o1777)?;
    image.copy("bin/busybox", 0o755, &busybox)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        image.link(&format!("bin/{applet}"), "busybox")?;
    }
    image.copy("bin/netprobe", 0o755, &sources.netprobe)?;
    image.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    )?;
    image.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    image.file("etc/mark", 0o644, mark.as_bytes())?;
    Ok(image)
}

/// Debian's static busybox.
fn busybox() -> anyhow::Result<PathBuf> {
    for path in ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox-static"] {
        if Path::new(path).exists() {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("no busybox: install the package busybox-static (`cargo xtask setup` does)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_names_its_blobs_by_digest() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Image::new("localhost/x:1").entrypoint(&["/x"]);
        image.file("x", 0o755, b"content").unwrap();
        write_layout(dir.path(), vec![image]).unwrap();
        let read =
            |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let index = read(dir.path().join("index.json"));
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let hash = digest.strip_prefix("sha256:").unwrap();
            dir.path().join("blobs/sha256").join(hash)
        };
        let manifest = read(blob(&index["manifests"][0]));
        let config = read(blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"][0], "/x");
        let layer = &manifest["layers"][0];
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        let data = fs::read(blob(layer)).unwrap();
        assert_eq!(layer["size"], data.len());
        let mut tar = tar::Archive::new(&data[..]);
        let names: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["x"]);
    }
}
