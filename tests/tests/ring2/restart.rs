//! Agents that are killed: no packet is lost, and pods come and go meanwhile.

use std::{fs::File, net::SocketAddr, os::unix::fs::FileExt as _, path::Path, time::Duration};

use anyhow::ensure;
use rhumb_cni::{
    attachments::Attachments,
    kernel::{
        attach::{Endpoints, Programs},
        netlink::Netlink,
    },
    node::NodeConfig,
};
use rhumb_harness::wait::wait_for;
use serde_json::json;

use super::cluster::{Cluster, nothing_lost, outside_ips};

#[test]
fn kill_9_under_traffic_loses_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    let _outside = cluster.serve(&cluster.outside, "outside")?;
    let mut targets = vec![];
    for family in 0..2 {
        for ip in [b.ips[family], c.ips[family], outside_ips()[family]] {
            targets.push(("tcp", SocketAddr::new(ip, 80)));
            targets.push(("udp", SocketAddr::new(ip, 53)));
        }
    }
    for (protocol, to) in &targets {
        cluster.reaches("before the kills", &a.netns, protocol, *to)?;
    }
    let mut streams = targets
        .iter()
        .map(|(protocol, to)| Ok((to, cluster.stream(&a.netns, protocol, *to, 20)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut kills = 0;
    while streams[0].1.try_wait()?.is_none() {
        let node = kills % 2;
        cluster.kill_agent(node)?;
        kills += 1;
        if kills == 3 {
            // Without its agent too, a pod starts and is reachable from its node's pods.
            let late = cluster.pod(0, "late", json!({}))?;
            let to = SocketAddr::new(late.ips[0], 80);
            cluster.reaches("a pod made without an agent", &a.netns, "tcp", to)?;
            cluster.remove(late)?;
        }
        // The agent writes it once all that it watches has synced and is in the kernel.
        std::fs::remove_file(cluster.nodes[node].dir.join("cni/net.d/10-rhumb.conflist"))?;
        cluster.start_agent(node)?;
        cluster.wait_agent(node)?;
    }
    println!("{kills} kills");
    ensure!(kills >= 6, "only {kills} kills in 20 s of traffic");
    for (to, stream) in streams {
        let output = stream.wait_with_output()?;
        let line = nothing_lost(&output).map_err(|e| e.context(format!("to {to}")))?;
        println!("{to}: {line}");
    }
    Ok(())
}

#[test]
fn what_changes_while_the_agent_is_down_is_in_force_when_it_is_back() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let to = SocketAddr::new(b.ips[0], 80);
    cluster.reaches("before", &a.netns, "tcp", to)?;
    cluster.kill_agent(0)?;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    cluster.post(
        path,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }),
    )?;
    // Static, as it was: what runs goes on.
    cluster.reaches("while the agent is down", &a.netns, "tcp", to)?;
    let gone = cluster.pod(0, "gone", json!({}))?;
    let gone_ip = gone.ips[0];
    cluster.remove(gone)?;
    cluster.start_agent(0)?;
    cluster.is_cut("the policy after the agent's return", &a.netns, "tcp", to)?;
    cluster.delete(&format!("{path}/deny"))?;
    cluster.reaches("the policy is gone", &a.netns, "tcp", to)?;
    let map = Endpoints::open(&cluster.nodes[0].paths())?;
    wait_for(
        "the deleted pod to be gone",
        Duration::from_secs(10),
        || Ok(map.get(gone_ip)?.is_none().then_some(())),
    )
}

/// As by somebody's `tc qdisc del`: the programs go with the qdisc, and policy with them.
#[test]
fn lost_programs_come_back() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    cluster.post(
        path,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }),
    )?;
    let to = SocketAddr::new(b.ips[0], 80);
    cluster.is_cut("the policy", &a.netns, "tcp", to)?;
    let node = &cluster.nodes[0];
    let (_, pods) = Attachments::open(&node.paths())?.list()?;
    for round in 1..=3 {
        for pod in &pods {
            let mut tc = node.netns.command("tc")?;
            tc.args(["qdisc", "del", "dev", &pod.host_ifname, "clsact"]);
            ensure!(tc.status()?.success(), "tc failed");
        }
        wait_for("the programs to be back", Duration::from_secs(10), || {
            let missing = node.netns.run(|| -> anyhow::Result<usize> {
                let programs = Programs::open(&node.paths())?;
                let mut netlink = Netlink::open()?;
                let differences = pods.iter().map(|p| programs.differences(&mut netlink, p));
                let differences: Result<Vec<_>, _> = differences.collect();
                Ok(differences?.iter().flatten().count())
            })??;
            Ok((missing == 0).then_some(()))
        })?;
        cluster.is_cut("the policy, again", &a.netns, "tcp", to)?;
        let restored = cluster.metric(0, "rhumb_programs_restored_total")?;
        ensure!(
            restored >= f64::from(2 * round),
            "{restored} in round {round}"
        );
    }
    // A pod that goes takes its own along, which is no loss.
    let before = cluster.metric(0, "rhumb_programs_restored_total")?;
    cluster.remove(b)?;
    ensure!(
        cluster.metric(0, "rhumb_programs_restored_total")? == before,
        "a deletion was taken for a loss"
    );
    Ok(())
}

/// Without its agent a pod is judged by its namespace, and not by the policy of the pod that had
/// its address before.
#[test]
fn a_pod_does_not_inherit_the_policy_of_its_address() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let first = cluster.pod(0, "first", json!({}))?;
    let ips = first.ips;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    cluster.post(
        path,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "guard"},
            "spec": {"podSelector": {"matchLabels": {"app": "guarded"}}, "policyTypes": ["Ingress"]},
        }),
    )?;
    // In the kernel, once a pod that it selects is cut off.
    let other = cluster.pod(0, "other", json!({"app": "guarded"}))?;
    cluster.is_cut(
        "the policy",
        &a.netns,
        "tcp",
        SocketAddr::new(other.ips[0], 80),
    )?;
    for ip in ips {
        let what = "a pod that no policy selects";
        cluster.reaches(what, &a.netns, "tcp", SocketAddr::new(ip, 80))?;
    }

    cluster.kill_agent(0)?;
    cluster.remove(first)?;
    // Only these addresses are left to choose.
    let file = cluster.nodes[0].paths().node_json();
    let mut config = NodeConfig::read(&file)?;
    config.pod_cidrs = ips.map(Into::into).to_vec();
    config.write(&file)?;
    let second = cluster.pod(0, "second", json!({"app": "guarded"}))?;
    ensure!(second.ips == ips, "{:?}", second.ips);
    let cut = |what: &str| {
        ips.iter()
            .flat_map(|ip| {
                [("tcp", 80), ("udp", 53)].map(|(p, port)| (p, SocketAddr::new(*ip, port)))
            })
            .try_for_each(|(protocol, to)| cluster.is_cut(what, &a.netns, protocol, to))
    };
    cut("without its agent")?;
    cluster.start_agent(0)?;
    cut("by its own policy")?;
    cluster.delete(&format!("{path}/guard"))?;
    for ip in ips {
        let what = "the policy is gone";
        cluster.reaches(what, &a.netns, "tcp", SocketAddr::new(ip, 80))?;
    }
    Ok(())
}

#[test]
fn a_lost_bpf_file_system_comes_back_with_the_agent() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let c = cluster.pod(1, "c", json!({}))?;
    let closed = cluster.pod(0, "closed", json!({"app": "closed"}))?;
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    cluster.post(
        policies,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"]},
        }),
    )?;
    let denied = SocketAddr::new(closed.ips[0], 80);
    cluster.is_cut("the policy", &a.netns, "tcp", denied)?;
    let bpf = cluster.nodes[0].dir.join("bpf");
    cluster.kill_agent(0)?;
    rhumb_harness::mount::unmount_below(&bpf)?;
    // Pods keep their programs, and with them maps and policy, also without a file system and an
    // agent. (The uplink's program is gone: what comes from there is judged at the pod.)
    for from in [&a, &c] {
        let what = "the policy without the bpf file system";
        cluster.is_cut(what, &from.netns, "tcp", denied)?;
    }
    let to = SocketAddr::new(b.ips[0], 80);
    for from in [&a, &c] {
        let what = "what is allowed, without the bpf file system";
        cluster.reaches(what, &from.netns, "tcp", to)?;
    }
    rhumb_harness::mount::bpffs(&bpf)?;
    std::fs::remove_file(cluster.nodes[0].dir.join("cni/net.d/10-rhumb.conflist"))?;
    cluster.start_agent(0)?;
    cluster.wait_agent(0)?;
    // Linux alone would forward too: what counts is that the programs are back.
    let paths = cluster.nodes[0].paths();
    let endpoints = Endpoints::open(&paths)?;
    for ip in a.ips.iter().chain(&b.ips) {
        ensure!(endpoints.get(*ip)?.is_some(), "ENDPOINTS has no {ip}");
    }
    for attachment in Attachments::open(&paths)?.list()?.1 {
        let differences = cluster.nodes[0].netns.run(|| {
            let mut netlink = Netlink::open()?;
            let programs = Programs::open(&paths)?;
            anyhow::Ok(programs.differences(&mut netlink, &attachment)?)
        })??;
        ensure!(differences.is_empty(), "{differences:?}");
    }
    for family in 0..2 {
        for (from, ip) in [
            (&a, b.ips[family]),
            (&a, c.ips[family]),
            (&c, a.ips[family]),
        ] {
            let what = "the pods that were there";
            cluster.reaches(what, &from.netns, "tcp", SocketAddr::new(ip, 80))?;
        }
    }
    cluster.is_cut("the policy again", &c.netns, "tcp", denied)?;
    let late = cluster.pod(0, "late", json!({}))?;
    cluster.reaches(
        "a new pod",
        &c.netns,
        "tcp",
        SocketAddr::new(late.ips[0], 80),
    )?;
    Ok(())
}

/// Flips a bit of the journal in its place.
fn damage(path: &Path, choose: impl FnOnce(&[u8]) -> usize) -> anyhow::Result<()> {
    let data = std::fs::read(path)?;
    let at = choose(&data);
    let file = File::options().write(true).open(path)?;
    Ok(file.write_all_at(&[data[at] ^ 0x10], at as u64)?)
}

#[test]
fn a_damaged_journal_is_made_anew_under_traffic() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let a = cluster.pod(0, "a", json!({}))?;
    let b = cluster.pod(0, "b", json!({}))?;
    let journal = cluster.nodes[0].paths().ipam_dir().join("journal");
    let made_anew = |times: f64| {
        wait_for("the journal", Duration::from_secs(15), || {
            let now = cluster.metric(0, "rhumb_journals_recovered_total")?;
            Ok((now == times).then_some(()))
        })
    };
    let to = SocketAddr::new(b.ips[0], 80);
    cluster.reaches("before", &a.netns, "tcp", to)?;
    let stream = cluster.stream(&a.netns, "tcp", to, 6)?;
    // What `a` was to get; that it got it stands further on.
    damage(&journal, |data| {
        let put = b"\"op\":\"put\"";
        let at = data.windows(put.len()).position(|w| w == put);
        at.unwrap_or_default()
    })?;
    made_anew(1.0)?;
    let c = cluster.pod(0, "c", json!({"app": "c"}))?;
    ensure!(
        c.ips
            .iter()
            .all(|ip| !a.ips.contains(ip) && !b.ips.contains(ip)),
        "{:?} was given out twice",
        c.ips
    );
    cluster.reaches("a new pod", &a.netns, "tcp", SocketAddr::new(c.ips[0], 80))?;

    // Without an agent nobody can tell; nothing is changed until there is one again. The last record says that
    // `c` has got what it was to get.
    cluster.kill_agent(0)?;
    damage(&journal, |data| data.len() - 20)?;
    let error = cluster.pod(0, "d", json!({})).err();
    let error = error.map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(error.contains("start the agent on this node"), "{error:?}");
    cluster.start_agent(0)?;
    made_anew(1.0)?;
    cluster.reaches("c still", &a.netns, "tcp", SocketAddr::new(c.ips[0], 80))?;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    cluster.post(
        path,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {"matchLabels": {"app": "c"}}, "policyTypes": ["Ingress"]},
        }),
    )?;
    cluster.is_cut(
        "c, by a policy",
        &a.netns,
        "tcp",
        SocketAddr::new(c.ips[0], 80),
    )?;
    nothing_lost(&stream.wait_with_output()?)?;
    Ok(())
}
