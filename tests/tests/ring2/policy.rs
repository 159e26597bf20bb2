use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rhumb_harness::wait::wait_for;
use serde_json::{Value, json};

use super::cluster::{Cluster, outside_ips};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

fn policy(cluster: &Cluster, name: &str, spec: Value) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    });
    cluster.post(POLICIES, object).map(drop)
}

#[test]
fn policies_cut_allow_and_let_go() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let web = cluster.pod(0, "web", json!({"app": "web"}))?;
    let near = cluster.pod(0, "near", json!({"role": "friend"}))?;
    let far = cluster.pod(1, "far", json!({"role": "friend"}))?;
    let other = cluster.pod(1, "other", json!({}))?;
    let node = &cluster.nodes[0].netns;
    let clients = [
        ("near", &near.netns),
        ("far", &far.netns),
        ("other", &other.netns),
        ("outside", &cluster.outside),
    ];
    let at = |family: usize, port: u16| SocketAddr::new(web.ips[family], port);
    for family in 0..2 {
        for (name, from) in clients {
            cluster.reaches(&format!("{name}, no policy"), from, "tcp", at(family, 80))?;
        }
    }

    policy(
        &cluster,
        "deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    )?;
    for family in 0..2 {
        for (name, from) in clients {
            cluster.is_cut(
                &format!("{name}, default deny"),
                from,
                "tcp",
                at(family, 80),
            )?;
            cluster.is_cut(
                &format!("{name}, default deny"),
                from,
                "udp",
                at(family, 53),
            )?;
        }
        cluster.reaches(
            "the pod's own node is always allowed",
            node,
            "tcp",
            at(family, 80),
        )?;
    }

    policy(
        &cluster,
        "friends",
        json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
                         "ports": [{"port": "web"}]}],
        }),
    )?;
    for family in 0..2 {
        cluster.reaches("a friend on the node", &near.netns, "tcp", at(family, 80))?;
        cluster.reaches(
            "a friend on another node",
            &far.netns,
            "tcp",
            at(family, 80),
        )?;
        cluster.is_cut(
            "a friend, another port",
            &near.netns,
            "tcp",
            at(family, 8080),
        )?;
        cluster.is_cut("a stranger", &other.netns, "tcp", at(family, 80))?;
        cluster.is_cut("the outside", &cluster.outside, "tcp", at(family, 80))?;
    }

    // A stranger becomes a friend by its label alone.
    let path = "/api/v1/namespaces/default/pods/other";
    cluster.patch(path, &json!({"metadata": {"labels": {"role": "friend"}}}))?;
    cluster.reaches("a new friend", &other.netns, "tcp", at(0, 80))?;

    // Egress, by CIDR.
    let _outside = cluster.serve(&cluster.outside, "outside")?;
    let to_outside = |family: usize| SocketAddr::new(outside_ips()[family], 80);
    cluster.reaches(
        "the outside, no egress policy",
        &near.netns,
        "tcp",
        to_outside(0),
    )?;
    policy(
        &cluster,
        "inside-only",
        json!({
            "podSelector": {"matchLabels": {"role": "friend"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}],
        }),
    )?;
    cluster.is_cut(
        "the outside, egress policy",
        &near.netns,
        "tcp",
        to_outside(0),
    )?;
    cluster.is_cut("the outside over IPv6", &near.netns, "tcp", to_outside(1))?;
    cluster.reaches(
        "inside, by the CIDR that covers the pod",
        &near.netns,
        "tcp",
        at(0, 80),
    )?;
    cluster.is_cut(
        "inside over IPv6, which the CIDR does not cover",
        &near.netns,
        "tcp",
        at(1, 80),
    )?;

    for name in ["deny", "friends", "inside-only"] {
        cluster.delete(&format!("{POLICIES}/{name}"))?;
    }
    for family in 0..2 {
        for (name, from) in clients {
            cluster.reaches(
                &format!("{name}, policies gone"),
                from,
                "tcp",
                at(family, 80),
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_new_pod_is_under_policy_from_its_first_packet() -> anyhow::Result<()> {
    let cluster = Cluster::new(1)?;
    let server = cluster.pod(0, "server", json!({"app": "server"}))?;
    policy(
        &cluster,
        "no-egress",
        json!({
            "podSelector": {"matchLabels": {"kind": "closed"}}, "policyTypes": ["Egress"],
        }),
    )?;
    let to = SocketAddr::new(server.ips[0], 80);
    // The policy is in force for pods that are there...
    let first = cluster.pod(0, "first", json!({"kind": "closed"}))?;
    cluster.is_cut("egress of a closed pod", &first.netns, "tcp", to)?;
    // ... and for each new one when its ADD returns: no try may ever get through.
    for i in 0..10 {
        let pod = cluster.pod(0, &format!("new{i}"), json!({"kind": "closed"}))?;
        let answer = cluster.ask(&pod.netns, "udp", SocketAddr::new(server.ips[0], 53))?;
        anyhow::ensure!(answer == Err("timeout".to_owned()), "new{i}: {answer:?}");
        cluster.remove(pod)?;
    }
    Ok(())
}

/// A pod is known to other nodes before its kubelet has said anything.
#[test]
fn a_new_pod_is_known_before_its_status() -> anyhow::Result<()> {
    let cluster = Cluster::new(2)?;
    let server = cluster.pod(1, "server", json!({"app": "server"}))?;
    let stranger = cluster.pod(0, "stranger", json!({"app": "stranger"}))?;
    let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]});
    policy(&cluster, "clients", spec)?;
    let to = SocketAddr::new(server.ips[0], 80);
    cluster.is_cut("the policy", &stranger.netns, "tcp", to)?;
    for i in 0..5 {
        let name = format!("client{i}");
        cluster.pod_object(0, &name, json!({"app": "client"}))?;
        let client = cluster.sandbox(0, &name, json!({}))?;
        let began = Instant::now();
        for ip in server.ips {
            let to = SocketAddr::new(ip, 80).to_string();
            wait_for("the new pod to be let in", Duration::from_secs(10), || {
                // Shorter than it takes TCP to try again.
                let words = ["connect", "tcp", &to, "--timeout", "20"];
                let tried = cluster.netprobe(&client.netns, &words)?.output()?;
                let line: Value = serde_json::from_slice(&tried.stdout)?;
                Ok((line["ok"] == true).then_some(()))
            })?;
        }
        println!("let in elsewhere {:?} after ADD", began.elapsed());
        let object = cluster.get(&format!("/api/v1/namespaces/default/pods/{name}"))?;
        ensure!(object["status"].get("podIP").is_none(), "{object}");
    }
    // What somebody writes on a pod takes no address that a status has.
    let thief = json!({"metadata": {"labels": {"app": "client"},
        "annotations": {"rhumb.io/addresses": stranger.ips[0].to_string()}}});
    cluster.pod_object(0, "thief", json!({"app": "client"}))?;
    cluster.patch("/api/v1/namespaces/default/pods/thief", &thief)?;
    // One more change, so that the thief's is known.
    let late = cluster.pod(0, "late", json!({"app": "client"}))?;
    cluster.reaches("a later pod", &late.netns, "tcp", to)?;
    cluster.is_cut("still", &stranger.netns, "tcp", to)
}
