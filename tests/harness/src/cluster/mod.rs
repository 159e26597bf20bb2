//! Whole clusters on one machine: a wire, nodes with everything that a node has, and a control
//! plane. `cargo xtask up` and ring 4 both come here.

mod containerd;
mod daemons;
mod down;
pub mod layout;
mod wire;

pub use containerd::{ctr, import};
pub use daemons::{CONTROL_DAEMON, api_address};
pub use wire::UPLINK;

use crate::image::{self, Sources};
use crate::supervise::{self, Plan};
use crate::{Netns, cgroup, link, mount, netns, wait_for};
use anyhow::{Context, bail, ensure};
use layout::{API_PORT, Layout, Node, OUTSIDE};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The image that only the registry has.
pub const PULLED: &str = "registry.test:5000/pulled:v1";

/// Cargo's profiles that clusters run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build: development and tests.
    #[default]
    Dev,
    /// What users run: benchmarks.
    Release,
}

impl Profile {
    /// Name of Cargo's directory for it.
    pub fn dir(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }

    /// Name for `cargo build --profile`.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Dev => "dev",
            Profile::Release => "release",
        }
    }

    /// The directory below Cargo's target directory where static binaries are found, whatever the
    /// host is called.
    pub fn static_dir(self) -> &'static str {
        match self {
            Profile::Dev => "static/bin",
            Profile::Release => "static/release-bin",
        }
    }
}

/// Where built things are.
#[derive(Clone, Debug)]
pub struct Built {
    /// Cargo's target directory.
    pub target: PathBuf,
    /// What they were built with.
    pub profile: Profile,
}

impl Built {
    /// Below Cargo's target directory, which must exist.
    pub fn new(target: &Path) -> anyhow::Result<Self> {
        // What the kernel lists of mounts has no links in it.
        let target = target
            .canonicalize()
            .with_context(|| format!("finding {}", target.display()))?;
        Ok(Self {
            target,
            profile: Profile::default(),
        })
    }

    /// The same, built with another profile.
    pub fn with(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    fn dynamic(&self, name: &str) -> PathBuf {
        self.target.join(self.profile.dir()).join(name)
    }

    /// A program that is linked statically.
    pub fn fixed(&self, name: &str) -> PathBuf {
        self.target.join(self.profile.static_dir()).join(name)
    }

    /// kubectl of the minor that we claim.
    pub fn kubectl(&self) -> PathBuf {
        self.target.join("tools/bin/kubectl")
    }

    /// What the images are made of.
    pub fn sources(&self) -> Sources {
        Sources {
            pause: self.fixed("pause"),
            netprobe: self.fixed("netprobe"),
        }
    }
}

/// What was chosen when a cluster was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    nodes: usize,
    /// The API's address on the host's loopback.
    host: SocketAddr,
}

/// A cluster that was started. Dropping this leaves it running.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its places.
    pub layout: Layout,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The API's address on the host's loopback.
    pub host: SocketAddr,
    /// What it runs.
    pub built: Built,
}

impl Cluster {
    /// Starts a cluster and waits until its nodes are Ready.
    pub fn up(built: &Built, name: &str, nodes: usize) -> anyhow::Result<Self> {
        ensure!(
            (1..=layout::MOST_NODES).contains(&nodes),
            "a cluster has 1 to {} nodes, not {nodes}",
            layout::MOST_NODES
        );
        ensure!(
            nix::unistd::geteuid().is_root(),
            "making namespaces and mounts takes root: run this as root"
        );
        let layout = Layout::new(&built.target, name)?;
        Self::absent(built, name)?;
        let cluster = Self {
            nodes: (1..=nodes).map(|number| layout.node(number)).collect(),
            host: free_host_port()?,
            layout,
            built: built.clone(),
        };
        cluster.make()?;
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Fails if a cluster of this name is there, or what a crash left of it.
    pub fn absent(built: &Built, name: &str) -> anyhow::Result<()> {
        let layout = Layout::new(&built.target, name)?;
        ensure!(
            !layout.state().exists() && netns::named(&layout.prefix()).is_empty(),
            "cluster {name} is there already (`cargo xtask status --name {name}`), or its remains \
             after a crash; `cargo xtask down --name {name}` takes it away"
        );
        Ok(())
    }

    /// A cluster that was started earlier.
    pub fn open(built: &Built, name: &str) -> anyhow::Result<Self> {
        let layout = Layout::new(&built.target, name)?;
        let file = layout.state();
        let text = fs::read(&file).with_context(|| {
            format!(
                "no cluster {name} ({} does not exist): `cargo xtask up --name {name}` starts it",
                file.display()
            )
        })?;
        let state: State = serde_json::from_slice(&text)
            .with_context(|| format!("understanding {}", file.display()))?;
        Ok(Self {
            nodes: (1..=state.nodes)
                .map(|number| layout.node(number))
                .collect(),
            host: state.host,
            layout,
            built: built.clone(),
        })
    }

    /// Takes a cluster away, whatever is left of it.
    pub fn down(built: &Built, name: &str) -> anyhow::Result<()> {
        down::down(&Layout::new(&built.target, name)?)
    }

    /// Names of the clusters whose files are there.
    pub fn names(built: &Built) -> Vec<String> {
        let Ok(entries) = fs::read_dir(built.target.join("dev")) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn make(&self) -> anyhow::Result<()> {
        let layout = &self.layout;
        create_dir(&layout.dir)?;
        create_dir(&layout.run_dir())?;
        write_json(
            &layout.state(),
            &State {
                nodes: self.nodes.len(),
                host: self.host,
            },
        )?;
        self.link_binaries()?;
        wire::make(layout, self.nodes.len()).context("making the wire")?;
        for node in &self.nodes {
            for dir in [
                &node.dir,
                &node.run_dir,
                &node.cni_bin_dir(),
                &node.cni_conf_dir(),
                &node.state_dir(),
                &node.agent_run_dir(),
                &node.kubelet_dir(),
                &node.pod_log_dir(),
            ] {
                create_dir(dir)?;
            }
            containerd::loopback_plugin(node)?;
            mount::bpffs(&node.bpffs())?;
            for child in ["system", "pods"] {
                cgroup::create(&format!("{}/{child}", node.cgroup))?;
            }
        }
        self.write_images()?;
        let plan = daemons::plan(layout, &self.nodes, self.host)?;
        create_dir(&plan.run_dir)?;
        create_dir(&plan.log_dir)?;
        write_json(&layout.plan(), &plan)?;
        let pid = supervise::spawn(
            &layout.bin_dir().join("rhumb-supervise"),
            &layout.plan(),
            &layout.log_dir().join("supervisor.log"),
        )?;
        let file = layout.supervisor_pid();
        fs::write(&file, pid.to_string()).with_context(|| format!("writing {}", file.display()))?;
        self.write_kubeconfigs()?;
        std::thread::scope(|scope| {
            let imports: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(|| containerd::import(node, &self.images_tar())))
                .collect();
            imports
                .into_iter()
                .try_for_each(|import| match import.join() {
                    Ok(result) => result,
                    Err(_) => bail!("importing images panicked"),
                })
        })
    }

    fn link_binaries(&self) -> anyhow::Result<()> {
        let dir = self.layout.bin_dir();
        create_dir(&dir)?;
        let dynamic = ["rhumb-control", "rhumb-agent", "rhumb", "rhumb-supervise"];
        let fixed = ["rhumb-cni", "netprobe"];
        let sources = dynamic
            .map(|name| (name, self.built.dynamic(name)))
            .into_iter()
            .chain(fixed.map(|name| (name, self.built.fixed(name))));
        for (name, from) in sources {
            // A build replaces files and does not write into them, so a link is a copy.
            let to = dir.join(name);
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .with_context(|| {
                    format!("taking {}: `cargo xtask build` makes it", from.display())
                })?;
        }
        Ok(())
    }

    fn images_tar(&self) -> PathBuf {
        self.layout.dir.join("images.tar")
    }

    fn write_images(&self) -> anyhow::Result<()> {
        let sources = self.built.sources();
        let images = vec![
            image::pause(&sources)?,
            image::testbox(image::TESTBOX, "testbox", &sources)?,
        ];
        let dir = self.layout.dir.join("images");
        image::write_layout(&dir, images)?;
        image::pack(&dir, &self.images_tar())?;
        // The registry knows an image by the name after its host, and has one that no node has.
        let (_, name) = PULLED.split_once('/').unwrap_or(("", PULLED));
        let pulled = image::testbox(name, "pulled", &sources)?;
        image::write_layout(&self.layout.registry_dir(), vec![pulled])
    }

    fn write_kubeconfigs(&self) -> anyhow::Result<()> {
        let admin = self.layout.control_dir().join("admin.kubeconfig");
        self.wait("the control plane has made its certificates", 60, || {
            Ok(admin.exists().then_some(()))
        })?;
        let on_host = format!("https://{}", self.host);
        let on_wire = format!("https://{}", daemons::api_address());
        self.kubeconfig(
            &["--user", "kubernetes-admin", "--group", "system:masters"],
            &on_host,
            &self.layout.kubeconfig(),
        )?;
        for node in &self.nodes {
            let (ip4, ip6) = (node.ip4.to_string(), node.ip6.to_string());
            self.kubeconfig(
                &[
                    "--user",
                    &format!("system:node:{}", node.name),
                    "--group",
                    "system:nodes",
                    "--san",
                    &node.name,
                    "--san",
                    &ip4,
                    "--san",
                    &ip6,
                ],
                &on_wire,
                &node.dir.join("kubelet.kubeconfig"),
            )?;
            self.kubeconfig(
                &[
                    "--user",
                    &format!("system:rhumb-agent:{}", node.name),
                    "--group",
                    "system:rhumb-agents",
                ],
                &on_wire,
                &node.dir.join("agent.kubeconfig"),
            )?;
        }
        Ok(())
    }

    /// Makes a kubeconfig with a client certificate of the cluster.
    pub fn kubeconfig(&self, who: &[&str], server: &str, file: &Path) -> anyhow::Result<()> {
        let output = Command::new(self.layout.bin_dir().join("rhumb-control"))
            .args(["kubeconfig", "--data-dir"])
            .arg(self.layout.control_dir())
            .args(who)
            .args(["--server", server, "--output"])
            .arg(file)
            .output()
            .context("starting rhumb-control kubeconfig")?;
        ensure!(
            output.status.success(),
            "making {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Waits until every node is Ready, and lets the outside client know the ways to the pods.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        self.wait("every node is Ready", 120, || {
            let nodes = self.kubectl_json(&["get", "nodes"])?;
            let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
            for node in &self.nodes {
                let found = nodes.iter().find(|n| n["metadata"]["name"] == *node.name);
                let Some(found) = found else {
                    bail!("node {} has not registered", node.name);
                };
                let conditions = found["status"]["conditions"].as_array();
                let ready = conditions
                    .into_iter()
                    .flatten()
                    .find(|condition| condition["type"] == "Ready");
                match ready {
                    Some(condition) if condition["status"] == "True" => {}
                    Some(condition) => {
                        bail!("node {} is not ready: {}", node.name, condition["message"])
                    }
                    None => bail!("node {} has no condition Ready", node.name),
                }
            }
            self.route_to_pods(&nodes)?;
            Ok(Some(()))
        })
    }

    /// Routes of the outside client and of the control plane (for `pods/proxy`) to the pods of each
    /// node, as a router of the site has them.
    fn route_to_pods(&self, nodes: &[serde_json::Value]) -> anyhow::Result<()> {
        let hosts = [self.outside()?, Netns::open(&self.layout.netns("control"))?];
        for node in &self.nodes {
            let object = nodes.iter().find(|n| n["metadata"]["name"] == *node.name);
            let cidrs = object.and_then(|n| n["spec"]["podCIDRs"].as_array());
            for cidr in cidrs.into_iter().flatten() {
                let cidr = cidr.as_str().unwrap_or_default();
                let (address, prefix) = cidr
                    .split_once('/')
                    .with_context(|| format!("pod CIDR `{cidr}`"))?;
                let address: IpAddr = address.parse()?;
                let gateway = if address.is_ipv4() {
                    node.ip4
                } else {
                    node.ip6
                };
                for host in &hosts {
                    link::route(host, (address, prefix.parse()?), Some(gateway), UPLINK)?;
                }
            }
        }
        Ok(())
    }

    /// Waits as [`wait_for`]; a failure shows the ends of the logs.
    pub fn wait<T>(
        &self,
        what: &str,
        seconds: u64,
        condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        wait_for(what, Duration::from_secs(seconds), condition)
            .map_err(|error| error.context(self.log_tails()))
    }

    /// The last lines of the logs.
    pub fn log_tails(&self) -> String {
        let mut text = format!("logs are in {}", self.layout.log_dir().display());
        let Ok(entries) = fs::read_dir(self.layout.log_dir()) else {
            return text;
        };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        // containerd's says a lot about everything.
        files.retain(|file| !file.to_string_lossy().ends_with("-containerd.log"));
        for file in files {
            let log = fs::read(&file).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            text.push_str(&format!("\n--- {name}"));
            for line in &lines[lines.len().saturating_sub(6)..] {
                let line: String = line.chars().take(300).collect();
                text.push_str(&format!("\n{line}"));
            }
        }
        text.push('\n');
        text
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.built.kubectl());
        command.env("KUBECONFIG", self.layout.kubeconfig());
        // Clusters come and go at the same address: what kubectl remembers of one is wrong of the
        // next.
        command.env("KUBECACHEDIR", self.layout.dir.join("kubectl-cache"));
        command
    }

    /// Runs kubectl and gives what it printed; fails if it does.
    pub fn kubectl_run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl_output(arguments)?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs kubectl, whatever comes of it.
    pub fn kubectl_output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.kubectl().args(arguments).output().with_context(|| {
            format!(
                "starting {}: `cargo xtask setup` fetches it",
                self.built.kubectl().display()
            )
        })
    }

    /// Runs kubectl with `-o json`.
    pub fn kubectl_json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.kubectl_run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("what kubectl {} printed", arguments.join(" ")))
    }

    /// The supervisor's plan: it knows pids, logs, and how to stop and start a daemon.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        Plan::read(&self.layout.plan())
    }

    /// Whether the supervisor runs.
    pub fn supervised(&self) -> bool {
        down::supervisor(&self.layout).is_some()
    }

    /// The outside client's namespace.
    pub fn outside(&self) -> anyhow::Result<Netns> {
        Netns::open(&self.layout.netns("outside"))
    }

    /// The outside client's addresses.
    pub fn outside_addresses() -> (IpAddr, IpAddr) {
        (layout::ip4(OUTSIDE), layout::ip6(OUTSIDE))
    }

    /// The static netprobe, to be run in any namespace.
    pub fn netprobe(&self) -> PathBuf {
        self.layout.bin_dir().join("netprobe")
    }
}

/// A port of the host's loopback for the API: the usual one if it is free.
fn free_host_port() -> anyhow::Result<SocketAddr> {
    (0..100)
        .map(|offset| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), API_PORT + offset))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no free port from 6443 to 6542 on loopback")
}

fn create_dir(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

fn write_json<T: Serialize>(file: &Path, value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(value).context("writing JSON")?;
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
