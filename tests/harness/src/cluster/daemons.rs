//! The daemons of a cluster, with their flags.

use super::containerd;
use super::layout::{
    API_PORT, BRIDGE, CLUSTER_CIDRS, CONTROL, Layout, Node, SERVICE_CIDRS, ip4, ip6,
};
use super::wire::UPLINK;
use crate::cgroup;
use crate::supervise::{Daemon, Plan};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::Path;

/// The control plane's daemon.
pub const CONTROL_DAEMON: &str = "control";

/// The plan of a cluster; `host` is where the API listens in the root namespace.
pub fn plan(layout: &Layout, nodes: &[Node], host: SocketAddr) -> anyhow::Result<Plan> {
    let mut daemons = vec![control(layout, host), registry(layout)];
    for node in nodes {
        daemons.push(containerd_daemon(node)?);
        daemons.push(kubelet(layout, node));
        daemons.push(agent(layout, node)?);
    }
    Ok(Plan {
        run_dir: layout.dir.join("run"),
        log_dir: layout.log_dir(),
        daemons,
    })
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn program(layout: &Layout, name: &str) -> String {
    text(&layout.bin_dir().join(name))
}

/// The API server's address on the wire.
pub fn api_address() -> SocketAddr {
    SocketAddr::new(ip4(CONTROL), API_PORT)
}

fn control(layout: &Layout, host: SocketAddr) -> Daemon {
    let mut argv = vec![program(layout, "rhumb-control")];
    argv.extend(words(["server", "--data-dir"]));
    argv.push(text(&layout.control_dir()));
    for address in [ip4(CONTROL), ip6(CONTROL)] {
        argv.push("--listen".to_owned());
        argv.push(SocketAddr::new(address, API_PORT).to_string());
    }
    argv.extend(words(["--advertise-address", &ip4(CONTROL).to_string()]));
    argv.extend(words(["--service-cidr", SERVICE_CIDRS]));
    argv.extend(words(["--cluster-cidr", CLUSTER_CIDRS]));
    for name in [
        ip4(CONTROL).to_string(),
        ip6(CONTROL).to_string(),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
    ] {
        argv.extend(["--tls-san".to_owned(), name]);
    }
    Daemon {
        name: CONTROL_DAEMON.to_owned(),
        argv,
        netns: Some(layout.netns("control")),
        listen: vec![host],
        ..Daemon::default()
    }
}

fn registry(layout: &Layout) -> Daemon {
    Daemon {
        name: "registry".to_owned(),
        argv: vec![
            program(layout, "netprobe"),
            "registry".to_owned(),
            text(&layout.registry_dir()),
            "--listen".to_owned(),
            SocketAddr::new(ip4(BRIDGE), 5000).to_string(),
        ],
        netns: Some(layout.netns("wire")),
        ..Daemon::default()
    }
}

/// A daemon of a node: in its namespace and in its `system` cgroup.
fn on_node(node: &Node, role: &str, argv: Vec<String>) -> Daemon {
    Daemon {
        name: node.daemon(role),
        argv,
        netns: Some(node.netns.clone()),
        cgroup: Some(format!("{}/system", node.cgroup)),
        ..Daemon::default()
    }
}

fn containerd_daemon(node: &Node) -> anyhow::Result<Daemon> {
    let config = containerd::configure(node)
        .with_context(|| format!("configuring {}'s containerd", node.name))?;
    let argv = vec![
        "containerd".to_owned(),
        "--config".to_owned(),
        text(&config),
    ];
    Ok(on_node(node, "containerd", argv))
}

fn kubelet(layout: &Layout, node: &Node) -> Daemon {
    let kubeconfig = node.dir.join("kubelet.kubeconfig");
    let mut argv = vec![program(layout, "rhumb-control")];
    argv.extend(words(["kubelet", "--node-name", &node.name]));
    argv.extend(words(["--kubeconfig", &text(&kubeconfig)]));
    argv.extend(words(["--node-ip", &format!("{},{}", node.ip4, node.ip6)]));
    let socket = format!("unix://{}", node.containerd().display());
    argv.extend(words(["--containerd", &socket]));
    argv.extend(words(["--root-dir", &text(&node.kubelet_dir())]));
    argv.extend(words(["--pod-log-dir", &text(&node.pod_log_dir())]));
    argv.extend(words(["--cgroup-parent", &format!("{}/pods", node.cgroup)]));
    argv.extend(words(["--port", "10250"]));
    // The nodes share the machine's disk, which is nobody's business here until it is really full.
    argv.extend(words(["--min-disk-free", "1"]));
    Daemon {
        needs: vec![kubeconfig],
        ..on_node(node, "kubelet", argv)
    }
}

fn agent(layout: &Layout, node: &Node) -> anyhow::Result<Daemon> {
    let kubeconfig = node.dir.join("agent.kubeconfig");
    let cgroup = cgroup::v2_root()?.join(node.cgroup.trim_start_matches('/'));
    let mut argv = vec![program(layout, "rhumb-agent")];
    argv.extend(words(["run", "--node-name", &node.name]));
    argv.extend(words(["--kubeconfig", &text(&kubeconfig)]));
    argv.extend(words(["--bpf-dir", &text(&node.bpf_dir())]));
    argv.extend(words(["--cgroup-root", &text(&cgroup)]));
    argv.extend(words(["--uplink", UPLINK]));
    argv.extend(words(["--state-dir", &text(&node.state_dir())]));
    argv.extend(words(["--run-dir", &text(&node.agent_run_dir())]));
    argv.extend(words(["--cni-bin-dir", &text(&node.cni_bin_dir())]));
    argv.extend(words(["--cni-conf-dir", &text(&node.cni_conf_dir())]));
    argv.extend(words(["--masquerade", "true"]));
    let socket = format!("unix://{}", node.containerd().display());
    argv.extend(words([
        "--cri-endpoint",
        &socket,
        "--reconcile-interval",
        "5",
    ]));
    argv.extend(words(["--listen", "127.0.0.1:9470"]));
    Ok(Daemon {
        needs: vec![kubeconfig],
        ..on_node(node, "agent", argv)
    })
}
