//! With an agent on the socket, with none, and with one that dies.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use aya::maps::{HashMap, Map, MapData};
use rhumb_cni::{
    agent::{Op, Request},
    kernel::attach::Endpoints,
};
use rhumb_common::maps::{config_flag, endpoint_flag, name, namespace_hash};

use super::node::{Node, Pod, address};

const ONE: [&str; 1] = ["10.244.1.0/24"];

/// Answers each connection by `reply` and hands the requests on.
fn agent(
    node: &Node,
    reply: impl Fn(&Request) -> Vec<u8> + Send + 'static,
) -> mpsc::Receiver<Request> {
    let listener =
        UnixListener::bind(node.paths.agent_socket()).expect("binding the agent's socket");
    let (send, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream)
                .read_line(&mut line)
                .expect("a request");
            let request: Request = serde_json::from_str(&line).expect("the contract's JSON");
            let _ = stream.write_all(&reply(&request));
            if send.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

fn is_open(node: &Node, pod: &Pod) -> anyhow::Result<bool> {
    let a = node.attachment(pod)?;
    let e = Endpoints::open(&node.paths)?.get(a.ips[0])?;
    let e = e.ok_or_else(|| anyhow::anyhow!("no entry"))?;
    ensure!(e.revision == a.revision && a.open == (e.flags & endpoint_flag::OPEN != 0));
    Ok(a.open)
}

#[test]
fn an_agent_is_told_and_waited_for() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let requests = agent(&node, |request| match request.op {
        Op::Add => b"{\"ok\":true,\"policyRevision\":12}\n".to_vec(),
        Op::Del => b"{\"ok\":true}\n".to_vec(),
    });
    let pod = node.pod("told")?;
    let result = node.add(&pod)?;
    let request = requests.recv_timeout(Duration::from_secs(5))?;
    let a = node.attachment(&pod)?;
    ensure!(request == Request::new(Op::Add, &a), "{request:?}");
    ensure!(request.ips == [address(&result, 0)] && request.namespace == "shop");
    // The agent is there: what the pod may is its word, not the plugin's.
    ensure!(!is_open(&node, &pod)?);
    node.del(&pod)?;
    ensure!(requests.recv_timeout(Duration::from_secs(5))?.op == Op::Del);
    node.clean()
}

#[test]
fn a_refusal_fails_the_add_and_undoes_it() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let _requests = agent(&node, |_| {
        b"{\"ok\":false,\"error\":\"no such pod\"}\n".to_vec()
    });
    let pod = node.pod("refused")?;
    node.run("ADD", &pod)?.refused(11, "no such pod")?;
    node.clean()
}

#[test]
fn without_an_agent_only_policy_free_namespaces_open() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let pod = node.pod("alone")?;
    let started = |open: bool| -> anyhow::Result<()> {
        let answer = node.run("ADD", &pod)?;
        ensure!(
            answer.status == 0 && answer.stderr.contains("rhumb-agent"),
            "{answer:?}"
        );
        ensure!(is_open(&node, &pod)? == open, "{answer:?}");
        node.del(&pod)
    };
    // Never synced: what the maps say means nothing.
    started(false)?;
    node.configure(|c| c.flags |= config_flag::POLICY_SYNCED)?;
    started(true)?;
    let data = MapData::from_pin(node.paths.map(name::ISOLATED_NAMESPACES))?;
    let mut isolated: HashMap<_, u64, u32> = HashMap::try_from(Map::HashMap(data))?;
    isolated.insert(namespace_hash("shop"), 1, 0)?;
    started(false)?;
    isolated.remove(&namespace_hash("shop"))?;
    isolated.insert(namespace_hash("elsewhere"), 1, 0)?;
    started(true)?;

    // A socket that nobody listens on any more.
    drop(UnixListener::bind(node.paths.agent_socket())?);
    started(true)?;
    std::fs::remove_file(node.paths.agent_socket())?;
    // An agent that dies in the middle of its answer.
    let _requests = agent(&node, |_| b"{\"ok\":tr".to_vec());
    started(true)?;
    node.clean()
}

#[test]
fn an_agent_that_hangs_is_not_waited_for_for_ever() -> anyhow::Result<()> {
    let node = Node::new(&ONE)?;
    let _listener = UnixListener::bind(node.paths.agent_socket())?;
    let pod = node.pod("hung")?;
    let begin = Instant::now();
    node.add(&pod)?;
    ensure!(
        (4..20).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    node.del(&pod)?;
    ensure!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    node.clean()
}
