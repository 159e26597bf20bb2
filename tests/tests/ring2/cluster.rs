//! Hosts on a wire: the control plane, nodes with their agents, and a client outside.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rhumb_cni::node::Paths;
use rhumb_harness::{cgroup, link, netns::Netns, run::Run, wait::wait_for};
use serde_json::{Value, json};

const UPLINK: &str = "eth0";
const PATIENCE: Duration = Duration::from_secs(60);

/// A child that ends with its owner.
pub struct Process(Child);

impl Process {
    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

pub struct Node {
    pub name: String,
    pub netns: Netns,
    pub ips: [IpAddr; 2],
    pub dir: PathBuf,
    pub cgroup: String,
    agent: Mutex<Option<Process>>,
}

impl Node {
    /// What agent and plugin share.
    pub fn paths(&self) -> Paths {
        Paths {
            state_dir: self.dir.join("state"),
            run_dir: self.dir.join("run"),
            bpf_dir: self.dir.join("bpf/rhumb"),
        }
    }
}

pub struct Pod {
    pub name: String,
    pub netns: Netns,
    /// IPv4 and IPv6.
    pub ips: [IpAddr; 2],
    node: usize,
    servers: Mutex<Vec<Process>>,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub outside: Netns,
    pub control: Netns,
    server: Mutex<Option<Process>>,
    _wire: Netns,
    bin: PathBuf,
    dir: PathBuf,
    // Last: cleans up after the processes have ended.
    run: Run,
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

pub fn ip4(host: u8) -> IpAddr {
    [172, 30, 0, host].into()
}

pub fn ip6(host: u8) -> IpAddr {
    [0xfd00, 0x172, 0x30, 0, 0, 0, 0, u16::from(host)].into()
}

const OUTSIDE: u8 = 9;

/// Addresses of the client outside.
pub fn outside_ips() -> [IpAddr; 2] {
    [ip4(OUTSIDE), ip6(OUTSIDE)]
}

impl Cluster {
    pub fn new(nodes: usize) -> anyhow::Result<Cluster> {
        let run = Run::new("ring2")?;
        let dir = run.dir().to_owned();
        let bin = target_dir().join("tmp").join(run.prefix());
        take_binaries(&bin)?;
        let wire = run.netns("wire")?;
        link::bridge(&wire, "wire0")?;
        address(&wire, "wire0", 1)?;
        let control = host(&run, &wire, "control", 2)?;
        let outside = host(&run, &wire, "outside", OUTSIDE)?;
        let server = start_server(&control, &bin, &dir)?;
        let mut cluster = Cluster {
            nodes: Vec::new(),
            outside,
            control,
            server: Mutex::new(Some(server)),
            _wire: wire,
            bin,
            dir,
            run,
        };
        let kubeconfig = cluster.dir.join("control/admin.kubeconfig");
        wait_for("the control plane's certificates", PATIENCE, || {
            Ok(kubeconfig.exists().then_some(()))
        })?;
        cluster.kubeconfig("kubernetes-admin", "system:masters", "test.kubeconfig")?;
        wait_for("the API", PATIENCE, || {
            cluster
                .get("/api/v1/namespaces/default/serviceaccounts/default")
                .map(Some)
        })?;
        for i in 0..nodes {
            cluster.add_node(i)?;
        }
        for node in 0..nodes {
            cluster.start_agent(node)?;
        }
        for node in 0..nodes {
            cluster.wait_agent(node)?;
        }
        cluster.route_outside()?;
        Ok(cluster)
    }

    fn kubeconfig(&self, user: &str, group: &str, file: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(file);
        let output = Command::new(self.bin.join("rhumb-control"))
            .args(["kubeconfig", "--data-dir"])
            .arg(self.dir.join("control"))
            .args(["--user", user, "--group", group])
            .args(["--server", &format!("https://{}:6443", ip4(2)), "--output"])
            .arg(&path)
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(path)
    }

    fn add_node(&mut self, i: usize) -> anyhow::Result<()> {
        let name = format!("node{}", i + 1);
        let number = 11 + i as u8;
        let netns = host(&self.run, &self._wire, &name, number)?;
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let dir = self.dir.join(&name);
        std::fs::create_dir_all(dir.join("run"))?;
        self.run.bpffs(&format!("{name}/bpf"))?;
        let cgroup = self.run.cgroup(&name)?;
        let user = format!("system:rhumb-agent:{name}");
        self.kubeconfig(&user, "system:rhumb-agents", &format!("{name}/kubeconfig"))?;
        let ips = [ip4(number), ip6(number)];
        // What the kubelet says of itself.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.post("/api/v1/nodes", node)?;
        let status = json!({"status": {
            "addresses": ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        self.patch(&format!("/api/v1/nodes/{name}/status"), &status)?;
        self.nodes.push(Node {
            name,
            netns,
            ips,
            dir,
            cgroup,
            agent: Mutex::new(None),
        });
        Ok(())
    }

    /// `kill -9` of the control plane.
    pub fn stop_server(&self) {
        lock(&self.server).take();
    }

    pub fn start_server(&self) -> anyhow::Result<()> {
        *lock(&self.server) = Some(start_server(&self.control, &self.bin, &self.dir)?);
        Ok(())
    }

    /// `rhumb-agent run` on a node, as it is to be started.
    pub fn agent_command(&self, node: usize) -> anyhow::Result<Command> {
        let node = &self.nodes[node];
        let cgroup_root = cgroup::v2_root()?.join(node.cgroup.trim_start_matches('/'));
        let mut command = node.netns.command(self.bin.join("rhumb-agent"))?;
        command
            .args(["run", "--node-name", &node.name, "--uplink", UPLINK])
            .arg("--kubeconfig")
            .arg(node.dir.join("kubeconfig"))
            .arg("--cgroup-root")
            .arg(cgroup_root)
            // There is no runtime but the test.
            .args(["--cri-endpoint", "none"]);
        dirs(&mut command, node);
        Ok(command)
    }

    /// `rhumb-agent uninstall` on a node.
    pub fn uninstall(&self, node: usize) -> anyhow::Result<()> {
        let node = &self.nodes[node];
        let mut command = node.netns.command(self.bin.join("rhumb-agent"))?;
        command.arg("uninstall");
        dirs(&mut command, node);
        let output = command.output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// From the agent's HTTP server: status and body.
    pub fn http(&self, node: usize, path: &str) -> anyhow::Result<(u16, String)> {
        let text = self.nodes[node].netns.run(|| -> anyhow::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9470")?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok((status, body.to_owned()))
    }

    /// A metric by its whole name, labels included.
    pub fn metric(&self, node: usize, name: &str) -> anyhow::Result<f64> {
        let (_, text) = self.http(node, "/metrics")?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name} in\n{text}"))?;
        Ok(line.parse()?)
    }

    pub fn start_agent(&self, node: usize) -> anyhow::Result<()> {
        let mut command = self.agent_command(node)?;
        let node = &self.nodes[node];
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.dir.join("agent.log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the agent")?;
        *lock(&node.agent) = Some(Process(child));
        Ok(())
    }

    /// Waits until the agent has written the conflist, which it does when pods may start.
    pub fn wait_agent(&self, node: usize) -> anyhow::Result<()> {
        let node = &self.nodes[node];
        let waited = wait_for(&format!("{}'s agent", node.name), PATIENCE, || {
            let there = node.dir.join("cni/net.d/10-rhumb.conflist").exists();
            Ok((there && node.dir.join("run/cni.sock").exists()).then_some(()))
        });
        waited.with_context(|| self.log(node))
    }

    fn log(&self, node: &Node) -> String {
        let text = std::fs::read_to_string(node.dir.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!(
            "the log of {}'s agent ends:\n{}",
            node.name,
            last.join("\n")
        )
    }

    /// `kill -9`.
    pub fn kill_agent(&self, node: usize) -> anyhow::Result<()> {
        let mut agent = lock(&self.nodes[node].agent);
        agent.take().context("no agent runs")?.kill()
    }

    /// The outside client knows the ways to the pods, as a router would.
    fn route_outside(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let object = self.get(&format!("/api/v1/nodes/{}", node.name))?;
            let cidrs = object["spec"]["podCIDRs"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            ensure!(cidrs.len() == 2, "{object}");
            for (cidr, via) in cidrs.iter().zip(node.ips) {
                let cidr: ipnetwork::IpNetwork = cidr.as_str().unwrap_or_default().parse()?;
                link::route(&self.outside, (cidr.ip(), cidr.prefix()), Some(via), UPLINK)?;
            }
        }
        Ok(())
    }

    // The API, from inside the control plane's namespace.

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let kubeconfig = self.dir.join("test.kubeconfig");
        let content = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.control.block_on(|| async move {
            let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
            let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
            let client = kube::Client::try_from(config)?;
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", content)
                .body(body.into_bytes())?;
            anyhow::Ok(client.request::<Value>(request).await?)
        })?;
        answer.with_context(|| format!("{method} {path}"))
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call("POST", path, Some(&body))
    }

    pub fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("PATCH", path, Some(body))
    }

    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call("DELETE", path, None)
    }

    // Pods.

    /// Makes the Pod object and its sandbox, as kubelet and runtime do, and starts its servers.
    pub fn pod(&self, node: usize, name: &str, labels: Value) -> anyhow::Result<Pod> {
        self.pod_with(node, name, labels, json!({}))
    }

    /// As [`pod`](Self::pod), with the runtime's `runtimeConfig`.
    pub fn pod_with(
        &self,
        node: usize,
        name: &str,
        labels: Value,
        runtime: Value,
    ) -> anyhow::Result<Pod> {
        self.pod_object(node, name, labels)?;
        let pod = self.sandbox(node, name, runtime)?;
        self.patch(
            &format!("/api/v1/namespaces/default/pods/{name}/status"),
            &json!({"status": {
                "phase": "Running",
                "hostIP": self.nodes[node].ips[0],
                "podIP": pod.ips[0],
                "podIPs": pod.ips.map(|ip| json!({"ip": ip})),
                "conditions": [{"type": "Ready", "status": "True"}],
            }}),
        )?;
        let server = self.serve(&pod.netns, name)?;
        lock(&pod.servers).push(server);
        Ok(pod)
    }

    /// The Pod alone.
    pub fn pod_object(&self, node: usize, name: &str, labels: Value) -> anyhow::Result<Value> {
        let node_name = &self.nodes[node].name;
        self.post(
            "/api/v1/namespaces/default/pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": {"nodeName": node_name, "containers": [{"name": "c", "image": "i",
                    "ports": [{"containerPort": 80, "name": "web"}]}]},
            }),
        )
    }

    /// What the runtime does for a pod: the kubelet has said nothing of it yet.
    pub fn sandbox(&self, node: usize, name: &str, runtime: Value) -> anyhow::Result<Pod> {
        let netns = self.run.netns(name)?;
        let result = self.plugin(node, "ADD", name, &netns, runtime)?;
        let ip = |i: usize| -> anyhow::Result<IpAddr> {
            let text = result["ips"][i]["address"].as_str().unwrap_or_default();
            Ok(text.split('/').next().unwrap_or_default().parse()?)
        };
        Ok(Pod {
            name: name.to_owned(),
            netns,
            ips: [ip(0)?, ip(1)?],
            node,
            servers: Mutex::new(Vec::new()),
        })
    }

    /// Echo servers: TCP and HTTP on 80 and 8080, UDP on 53.
    pub fn serve(&self, netns: &Netns, name: &str) -> anyhow::Result<Process> {
        let mut child = netns
            .command(self.bin.join("netprobe"))?
            .args([
                "serve", "--tcp", "80", "--tcp", "8080", "--udp", "53", "--name", name,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no pipe")?;
        let process = Process(child);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        ensure!(line.contains("serving"), "netprobe serve said {line:?}");
        Ok(process)
    }

    pub fn plugin(
        &self,
        node: usize,
        command: &str,
        id: &str,
        netns: &Netns,
        runtime: Value,
    ) -> anyhow::Result<Value> {
        let node = &self.nodes[node];
        let env = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", id.to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_NETNS", netns.path().display().to_string()),
            (
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={id}"),
            ),
        ]);
        // What the agent has installed, as a runtime would use it.
        let text = std::fs::read(node.dir.join("cni/net.d/10-rhumb.conflist"))?;
        let list: Value = serde_json::from_slice(&text)?;
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        // What the plugin does not declare, a runtime does not ask for.
        for capability in runtime
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            ensure!(
                config["capabilities"][capability] == true,
                "no {capability}"
            );
        }
        config["runtimeConfig"] = runtime;
        let mut child = node
            .netns
            .command(node.dir.join("cni/bin/rhumb-cni"))?
            .env_clear()
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        stdin.write_all(config.to_string().as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{command} of {id}: {output:?}\n{}",
            self.log(node)
        );
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    pub fn remove(&self, pod: Pod) -> anyhow::Result<()> {
        self.delete_object(&pod)?;
        self.plugin(pod.node, "DEL", &pod.name, &pod.netns, json!({}))?;
        Ok(())
    }

    fn delete_object(&self, pod: &Pod) -> anyhow::Result<()> {
        let path = format!(
            "/api/v1/namespaces/default/pods/{}?gracePeriodSeconds=0",
            pod.name
        );
        self.delete(&path).map(drop)
    }

    // Probes.

    pub fn netprobe(&self, from: &Netns, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = from.command(self.bin.join("netprobe"))?;
        command
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        Ok(command)
    }

    /// One try; the answer, or the kind of failure.
    pub fn ask(
        &self,
        from: &Netns,
        protocol: &str,
        to: SocketAddr,
    ) -> anyhow::Result<Result<Value, String>> {
        let to = to.to_string();
        let words = ["connect", protocol, &to, "--timeout", "1000"];
        let output = self.netprobe(from, &words)?.output()?;
        let line: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("netprobe said {output:?}"))?;
        Ok(match line["ok"] == true {
            true => Ok(line["answer"].clone()),
            false => Err(line["error"].as_str().unwrap_or("?").to_owned()),
        })
    }

    /// One try from a process in a node's cgroup, where the socket hooks are.
    pub fn ask_by_socket(
        &self,
        node: usize,
        from: &Netns,
        protocol: &str,
        to: SocketAddr,
    ) -> anyhow::Result<Result<Value, String>> {
        let to = to.to_string();
        // It waits for a line, so that it is in the cgroup before it connects.
        let path = cgroup::v2_root()?.join(self.nodes[node].cgroup.trim_start_matches('/'));
        let probe = self.netprobe(from, &["connect", protocol, &to])?;
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", path.display());
        let output = from
            .command("sh")?
            .args(["-c", &script, "sh"])
            .arg(probe.get_program())
            .args(probe.get_args())
            .output()?;
        let line: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        Ok(match line["ok"] == true {
            true => Ok(line["answer"].clone()),
            false => Err(line["error"].as_str().unwrap_or("?").to_owned()),
        })
    }

    /// Waits until a try succeeds, for what converges.
    pub fn reaches(
        &self,
        what: &str,
        from: &Netns,
        protocol: &str,
        to: SocketAddr,
    ) -> anyhow::Result<Value> {
        wait_for(what, Duration::from_secs(15), || {
            match self.ask(from, protocol, to)? {
                Ok(answer) => Ok(Some(answer)),
                Err(kind) => bail!("{protocol} to {to}: {kind}"),
            }
        })
        .with_context(|| self.report())
    }

    /// Waits until a try fails by being dropped.
    pub fn is_cut(
        &self,
        what: &str,
        from: &Netns,
        protocol: &str,
        to: SocketAddr,
    ) -> anyhow::Result<()> {
        wait_for(what, Duration::from_secs(15), || {
            match self.ask(from, protocol, to)? {
                Ok(answer) => bail!("{protocol} to {to} was answered: {answer}"),
                Err(kind) if kind == "timeout" => Ok(Some(())),
                Err(kind) => bail!("{protocol} to {to}: {kind}, not dropped"),
            }
        })
        .with_context(|| self.report())
    }

    /// What to look at when something fails.
    fn report(&self) -> String {
        let logs: Vec<String> = self.nodes.iter().map(|n| self.log(n)).collect();
        logs.join("\n")
    }

    pub fn stream(
        &self,
        from: &Netns,
        protocol: &str,
        to: SocketAddr,
        seconds: u32,
    ) -> anyhow::Result<Child> {
        let (to, seconds) = (to.to_string(), seconds.to_string());
        let words = [
            "stream",
            protocol,
            &to,
            "--for",
            &seconds,
            "--interval",
            "5",
        ];
        Ok(self
            .netprobe(from, &words)?
            .stdout(Stdio::piped())
            .spawn()?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            lock(&node.agent).take();
        }
        let _ = std::fs::remove_dir_all(&self.bin);
    }
}

/// What a stream lost: nothing, or it fails.
pub fn nothing_lost(output: &Output) -> anyhow::Result<Value> {
    let line: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("netprobe stream said {output:?}"))?;
    ensure!(output.status.success() && line["lost"] == 0, "{line}");
    Ok(line)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn dirs(command: &mut Command, node: &Node) {
    for (flag, dir) in [
        ("--bpf-dir", "bpf/rhumb"),
        ("--state-dir", "state"),
        ("--run-dir", "run"),
        ("--cni-bin-dir", "cni/bin"),
        ("--cni-conf-dir", "cni/net.d"),
    ] {
        command.arg(flag).arg(node.dir.join(dir));
    }
}

fn take_binaries(bin: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(bin)?;
    let target = target_dir();
    for (from, name) in [
        ("debug", "rhumb-agent"),
        ("debug", "rhumb-control"),
        ("static/bin", "rhumb-cni"),
        ("static/bin", "netprobe"),
    ] {
        let from = target.join(from).join(name);
        // A build replaces files and does not write into them, so a link is a copy.
        std::fs::hard_link(&from, bin.join(name))
            .with_context(|| format!("taking {}: `cargo xtask build` makes it", from.display()))?;
    }
    Ok(())
}

fn address(netns: &Netns, name: &str, number: u8) -> anyhow::Result<()> {
    link::address(netns, name, ip4(number), 24)?;
    link::address(netns, name, ip6(number), 64)
}

fn host(run: &Run, wire: &Netns, role: &str, number: u8) -> anyhow::Result<Netns> {
    let netns = run.netns(role)?;
    link::veth(&netns, UPLINK, wire, role)?;
    link::attach(wire, role, "wire0")?;
    address(&netns, UPLINK, number)?;
    // As any host has one; it ends at the bridge, which forwards nothing.
    link::route(&netns, ([0, 0, 0, 0].into(), 0), Some(ip4(1)), UPLINK)?;
    link::route(&netns, ([0u16; 8].into(), 0), Some(ip6(1)), UPLINK)?;
    Ok(netns)
}

fn start_server(control: &Netns, bin: &Path, dir: &Path) -> anyhow::Result<Process> {
    let log = File::create(dir.join("control.log"))?;
    let child = control
        .command(bin.join("rhumb-control"))?
        .args(["server", "--data-dir"])
        .arg(dir.join("control"))
        .args(["--listen", &format!("{}:6443", ip4(2))])
        .args(["--advertise-address", &ip4(2).to_string()])
        .args(["--tls-san", &ip4(2).to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting the control plane")?;
    Ok(Process(child))
}
