//! Policy on real connections.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_common::event::Reason;
use rhumb_common::maps::{
    Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, name, policy_prefix, verdict,
};
use rhumb_harness::wait_for;

use super::wire::{
    FAR, NODE, OUTSIDE, POD_A, POD_B, POD_C, PORT, VIP, Wire, at, bind, connect, connect_within,
    ip, listen, tcp, udp, whole,
};

/// Longer than a SYN takes, shorter than its retransmission.
const SOON: Duration = Duration::from_millis(300);
const SET: u32 = 7;
const FRIEND: u32 = 21;

fn allow(w: &mut Wire, identity: u32, protocol: u8, port: u16, prefix: u32) {
    let row = PolicyVal {
        rule: 1,
        verdict: verdict::ALLOW,
    };
    let key = PolicyKey::new(SET, identity, protocol, port.to_be());
    w.tables.policy_insert(prefix, &key, row);
}

fn isolate(w: &mut Wire, pod: &str, ingress_set: u32, egress_set: u32) {
    let sets = EndpointPolicy {
        ingress_set,
        egress_set,
        netns_cookie: 0,
    };
    w.tables.endpoint_policy.insert(ip(pod), sets);
}

/// Writes the tables under the next epoch.
fn apply(w: &mut Wire) {
    w.tables.config.policy_epoch += 1;
    let tables = w.tables.clone();
    w.programs.write(&tables);
}

fn is_cut(w: &Wire, to: SocketAddr) -> Result<()> {
    match connect_within(&w.a, to, SOON) {
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => Ok(()),
        other => anyhow::bail!("{to} is not cut off: {other:?}"),
    }
}

#[test]
fn ingress_by_identity_and_port() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        let (b, other_port) = (at(POD_B[i], PORT), at(POD_B[i], PORT + 1));
        let (server, other) = (listen(&w.b, b)?, listen(&w.b, other_port)?);
        tcp(&w.a, b, &server).context("before any policy")?;

        // Default deny: from pods, from other nodes, from outside; never from the node itself.
        isolate(&mut w, POD_B[i], SET, 0);
        apply(&mut w);
        is_cut(&w, b)?;
        for source in [FAR[i], POD_C[i], OUTSIDE[i]] {
            let client = bind(&w.far, at(source, 0))?;
            let datagrams = bind(&w.b, b)?;
            datagrams.set_nonblocking(true)?;
            client.send_to(b"x", b)?;
            ensure!(datagrams.recv(&mut [0; 4]).is_err(), "from {source}");
        }
        tcp(&w.node, b, &server).context("the node reaches its pod")?;
        let udp_server = bind(&w.b, b)?;
        udp(&w.node, b, &udp_server).context("the node reaches its pod")?;
        // What the pod itself opens is answered.
        let a = listen(&w.a, at(POD_A[i], PORT))?;
        tcp(&w.b, at(POD_A[i], PORT), &a).context("replies")?;

        // One identity, one port.
        let length = whole(&ip(POD_A[i]));
        ensure!(length == 128);
        let friend = Peer {
            identity: FRIEND,
            _pad: 0,
        };
        w.tables.peers.insert(ip(POD_A[i]), friend);
        allow(&mut w, FRIEND, 6, PORT, policy_prefix::PORT);
        apply(&mut w);
        tcp(&w.a, b, &server).context("allowed")?;
        is_cut(&w, other_port)?;
        // A range of ports as one row: 8080..=8083.
        allow(&mut w, FRIEND, 6, PORT, policy_prefix::PORT - 2);
        apply(&mut w);
        tcp(&w.a, other_port, &other).context("allowed by a range")?;
        // By CIDR, all ports and protocols.
        allow(&mut w, FRIEND, 0, 0, policy_prefix::ANY_PROTOCOL);
        let net = ip(OUTSIDE[i]);
        w.tables
            .peer_cidrs
            .insert(length - 4, &net.octets(), friend);
        apply(&mut w);
        let client = bind(&w.far, at(OUTSIDE[i], 0))?;
        client.send_to(b"x", b)?;
        udp_server.recv(&mut [0; 4]).context("allowed by a CIDR")?;
        // Rows can't be taken back by writing.
        w.tables.policy = Default::default();
        w.tables.endpoint_policy.clear();
        w.tables.peers.clear();
        w.tables.peer_cidrs = Default::default();
        w.start_anew()?;
    }
    Ok(())
}

#[test]
fn egress_judges_the_backend() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        let b = at(POD_B[i], PORT);
        let server = listen(&w.b, b)?;
        let vip = VIP[i];
        w.service(vip, 80, &[(POD_B[i], PORT)]);
        isolate(&mut w, POD_A[i], 0, SET);
        apply(&mut w);
        is_cut(&w, b)?;
        is_cut(&w, at(vip, 80))?;
        is_cut(&w, at(OUTSIDE[i], PORT))?;
        // The own node is always in reach.
        let node = listen(&w.node, at(NODE[i], PORT))?;
        tcp(&w.a, at(NODE[i], PORT), &node)?;
        let friend = Peer {
            identity: FRIEND + i as u32,
            _pad: 0,
        };
        w.tables.peers.insert(ip(POD_B[i]), friend);
        // The rule names the pod's port, not the Service's.
        allow(&mut w, friend.identity, 6, PORT, policy_prefix::PORT);
        apply(&mut w);
        tcp(&w.a, b, &server).context("allowed")?;
        tcp(&w.a, at(vip, 80), &server).context("allowed behind the Service")?;
        ensure!(w.programs.counted(Reason::PolicyEgress) > 0);
    }
    Ok(())
}

#[test]
fn a_change_of_policy_reaches_established_connections() -> Result<()> {
    let mut w = Wire::new()?;
    for pod_b in POD_B {
        let b = at(pod_b, PORT);
        let server = listen(&w.b, b)?;
        let mut client = connect(&w.a, b)?;
        let (mut served, _) = server.accept()?;
        served.set_read_timeout(Some(SOON))?;
        client.write_all(b"1")?;
        served.read_exact(&mut [0; 1])?;

        isolate(&mut w, pod_b, SET, 0);
        apply(&mut w);
        let denied = w.programs.counted(Reason::PolicyIngress);
        client.write_all(b"2")?;
        ensure!(
            served.read_exact(&mut [0; 1]).is_err(),
            "the connection went on"
        );
        ensure!(w.programs.counted(Reason::PolicyIngress) > denied);

        isolate(&mut w, pod_b, 0, 0);
        apply(&mut w);
        wait_for("the retransmission", Duration::from_secs(10), || {
            Ok(served.read_exact(&mut [0; 1]).ok())
        })?;
    }
    Ok(())
}

#[test]
fn a_pod_without_policy_yet_is_closed_except_to_its_node() -> Result<()> {
    let mut w = Wire::new()?;
    for pod_b in POD_B {
        let b = at(pod_b, PORT);
        let server = listen(&w.b, b)?;
        let entry = w.tables.endpoints[&ip(pod_b)];
        let closed = Endpoint { flags: 0, ..entry };
        w.tables.endpoints.insert(ip(pod_b), closed);
        apply(&mut w);
        is_cut(&w, b)?;
        tcp(&w.node, b, &server).context("the node reaches its pod")?;
        isolate(&mut w, pod_b, 0, 0);
        apply(&mut w);
        tcp(&w.a, b, &server).context("open by policy")?;
        ensure!(w.programs.counted(Reason::PolicyPending) > 0);
    }
    ensure!(
        w.programs
            .hash::<rhumb_common::addr::Ip, Endpoint>(name::ENDPOINTS)
            .iter()
            .count()
            == 4
    );
    Ok(())
}
