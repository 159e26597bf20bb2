//! A node as the plugin finds it: a network namespace, a bpffs with the agent's maps and programs,
//! the shared directories; and pods that are namespaces of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, ensure};
use rhumb_agent::dataplane::bpf::{Dataplane, Options};
use rhumb_cni::{
    attachment::{Attachment, Key},
    attachments::Attachments,
    kernel::{
        attach::{Endpoints, Programs},
        netlink::Netlink,
    },
    node::{NodeConfig, Paths},
};
use rhumb_common::maps::Config;
use rhumb_harness::{link, netns::Netns, run::Run};
use serde_json::{Value, json};

pub struct Node {
    pub netns: Netns,
    pub paths: Paths,
    pub run: Run,
}

pub struct Pod {
    pub netns: Netns,
    pub id: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: i32,
    /// Standard output as JSON; null if empty.
    pub json: Value,
    pub stderr: String,
}

impl Answer {
    pub fn ok(self) -> anyhow::Result<Value> {
        ensure!(self.status == 0, "the plugin failed: {self:?}");
        Ok(self.json)
    }

    /// Checks a failure's code and that its message names `word`.
    pub fn refused(&self, code: u64, word: &str) -> anyhow::Result<()> {
        ensure!(self.status != 0, "status 0: {self:?}");
        ensure!(self.json["code"] == code, "not code {code}: {self:?}");
        let text = format!("{} {}", self.json["msg"], self.json["details"]);
        ensure!(text.contains(word), "{word:?} is not named: {self:?}");
        ensure!(self.json["cniVersion"].is_string(), "no version: {self:?}");
        Ok(())
    }
}

fn plugin() -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let path = target.join("static/bin/rhumb-cni");
    ensure!(
        path.exists(),
        "{} is not there: run cargo xtask build",
        path.display()
    );
    Ok(path)
}

impl Node {
    pub fn new(cidrs: &[&str]) -> anyhow::Result<Node> {
        let node = Node::without_agent(cidrs)?;
        node.load()?;
        Ok(node)
    }

    /// A node on which the agent has never run.
    pub fn without_agent(cidrs: &[&str]) -> anyhow::Result<Node> {
        let run = Run::new("ring3")?;
        let netns = run.netns("node")?;
        let paths = Paths {
            state_dir: run.dir().join("state"),
            run_dir: run.dir().join("run"),
            bpf_dir: run.bpffs("bpf")?.join("rhumb"),
        };
        std::fs::create_dir_all(&paths.run_dir)?;
        let node = Node { netns, paths, run };
        node.set_cidrs(cidrs)?;
        Ok(node)
    }

    /// What the agent does to the kernel when it starts.
    pub fn load(&self) -> anyhow::Result<()> {
        let bpf_dir = self.paths.bpf_dir.clone();
        Dataplane::open(&Options { bpf_dir }).context("loading the programs")?;
        Ok(())
    }

    pub fn configure(&self, change: impl FnOnce(&mut Config)) -> anyhow::Result<()> {
        let bpf_dir = self.paths.bpf_dir.clone();
        Dataplane::open(&Options { bpf_dir })?.configure(change)?;
        Ok(())
    }

    pub fn set_cidrs(&self, cidrs: &[&str]) -> anyhow::Result<()> {
        let node = NodeConfig {
            node_name: "node".into(),
            pod_cidrs: cidrs.iter().map(|c| c.parse()).collect::<Result<_, _>>()?,
            mtu: 1400,
        };
        Ok(node.write(&self.paths.node_json())?)
    }

    pub fn pod(&self, id: &str) -> anyhow::Result<Pod> {
        Ok(Pod {
            netns: self.run.netns(id)?,
            id: id.to_owned(),
        })
    }

    pub fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "rhumb",
            "type": "rhumb-cni",
            "stateDir": self.paths.state_dir,
            "runDir": self.paths.run_dir,
            "bpfDir": self.paths.bpf_dir,
        })
    }

    /// The environment in which a runtime calls the plugin for a pod.
    pub fn env(&self, command: &str, pod: &Pod) -> BTreeMap<&'static str, String> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=u-{}",
            pod.id, pod.id, pod.id
        );
        BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", pod.id.clone()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_NETNS", pod.netns.path().display().to_string()),
            ("CNI_ARGS", args),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
        ])
    }

    pub fn start(&self, env: &BTreeMap<&str, String>, stdin: &[u8]) -> anyhow::Result<Child> {
        let mut command = self.netns.command(plugin()?)?;
        command.env_clear().envs(env);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("executing the plugin")?;
        let mut pipe = child.stdin.take().context("no pipe")?;
        match pipe.write_all(stdin) {
            // Refused before it read on.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
            r => r?,
        }
        Ok(child)
    }

    pub fn call(&self, env: &BTreeMap<&str, String>, stdin: &[u8]) -> anyhow::Result<Answer> {
        let output = self.start(env, stdin)?.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(Answer {
            status: output.status.code().unwrap_or(-1),
            json: match text.is_empty() {
                true => Value::Null,
                false => serde_json::from_str(&text).with_context(|| format!("stdout {text:?}"))?,
            },
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub fn run(&self, command: &str, pod: &Pod) -> anyhow::Result<Answer> {
        self.call(
            &self.env(command, pod),
            self.config("1.0.0").to_string().as_bytes(),
        )
    }

    pub fn add(&self, pod: &Pod) -> anyhow::Result<Value> {
        self.run("ADD", pod)?.ok()
    }

    pub fn del(&self, pod: &Pod) -> anyhow::Result<()> {
        self.run("DEL", pod)?.ok().map(drop)
    }

    pub fn check(&self, pod: &Pod, result: &Value) -> anyhow::Result<Answer> {
        let mut config = self.config(result["cniVersion"].as_str().unwrap_or("1.0.0"));
        config["prevResult"] = result.clone();
        self.call(&self.env("CHECK", pod), config.to_string().as_bytes())
    }

    pub fn attachments(&self) -> anyhow::Result<Attachments> {
        Ok(Attachments::open(&self.paths)?)
    }

    /// What the journal holds, of every phase.
    pub fn journal(&self) -> anyhow::Result<Vec<Attachment>> {
        let state = self.attachments()?.store().snapshot()?;
        Ok(state.attachments.into_values().collect())
    }

    pub fn attachment(&self, pod: &Pod) -> anyhow::Result<Attachment> {
        let key = Key::new(&*pod.id, "eth0");
        let all = self.journal()?;
        all.into_iter()
            .find(|a| a.key() == key)
            .with_context(|| format!("the journal has no {key}"))
    }

    pub fn endpoints(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let all = Endpoints::open(&self.paths)?.all()?;
        Ok(all.into_iter().map(|(ip, _)| ip).collect())
    }

    fn host_links(&self) -> anyhow::Result<BTreeSet<String>> {
        let links = link::list(&self.netns)?;
        Ok(links
            .into_iter()
            .map(|l| l.name)
            .filter(|n| n != "lo")
            .collect())
    }

    /// What is wrong with the programs of an attachment.
    pub fn program_differences(&self, a: &Attachment) -> anyhow::Result<Vec<String>> {
        self.netns.run(|| {
            let mut netlink = Netlink::open()?;
            Ok(Programs::open(&self.paths)?.differences(&mut netlink, a)?)
        })?
    }

    /// Journal, links, their programs and ENDPOINTS all speak of the same attachments.
    pub fn consistent(&self) -> anyhow::Result<usize> {
        let journal = self.journal()?;
        let links = journal.iter().map(|a| a.host_ifname.clone()).collect();
        let ips: Vec<IpAddr> = journal.iter().flat_map(|a| a.ips.clone()).collect();
        let distinct: BTreeSet<IpAddr> = ips.iter().copied().collect();
        ensure!(
            distinct.len() == ips.len(),
            "doubled addresses: {journal:?}"
        );
        ensure!(
            self.host_links()? == links,
            "links {:?}, journal {journal:?}",
            self.host_links()?
        );
        for a in &journal {
            let wrong = self.program_differences(a)?;
            ensure!(wrong.is_empty(), "{wrong:?}, journal {journal:?}");
        }
        ensure!(
            self.endpoints()? == distinct,
            "ENDPOINTS {:?}, journal {journal:?}",
            self.endpoints()?
        );
        Ok(journal.len())
    }

    /// Nothing of any pod is left.
    pub fn clean(&self) -> anyhow::Result<()> {
        let left = self.consistent()?;
        ensure!(left == 0, "{left} attachments are left");
        for v6 in [false, true] {
            let routes = link::routes(&self.netns, v6)?;
            let ours = routes.iter().filter(|r| u8::from(r.header.protocol) == 82);
            ensure!(ours.count() == 0, "routes are left: {routes:?}");
        }
        Ok(())
    }
}

pub fn address(result: &Value, index: usize) -> IpAddr {
    let text = result["ips"][index]["address"].as_str().unwrap_or_default();
    let ip = text.split('/').next().unwrap_or_default();
    ip.parse()
        .unwrap_or_else(|_| panic!("no address in {result}"))
}
