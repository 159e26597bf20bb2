//! Real sockets over veth: what BPF_PROG_TEST_RUN can't show, partial checksums above all.

use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use rhumb_common::event::Reason;

use super::wire::{
    FAR, NODE, OUTSIDE, POD_A, POD_B, POD_C, PORT, VIP, Wire, at, bind, connect, listen, tcp, udp,
};

#[test]
fn pods_nodes_and_services() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        let vip = at(VIP[i], 80);
        w.service(VIP[i], 80, &[(POD_B[i], PORT)]);
        let on_b = at(POD_B[i], PORT);
        let (b_tcp, b_udp) = (listen(&w.b, on_b)?, bind(&w.b, on_b)?);

        // Same node, with and without a Service.
        for to in [on_b, vip] {
            let peer = tcp(&w.a, to, &b_tcp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == at(POD_A[i], 0).ip(), "{peer}");
            let peer = udp(&w.a, to, &b_udp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == at(POD_A[i], 0).ip(), "{peer}");
        }
        // Hairpin: the backend is the client.
        let peer = tcp(&w.b, vip, &b_tcp).context("hairpin")?;
        ensure!(peer.ip() == vip.ip(), "{peer}");
        udp(&w.b, vip, &b_udp).context("hairpin")?;

        // Node to its pod, pod to its node.
        tcp(&w.node, on_b, &b_tcp).context("node to its pod")?;
        udp(&w.node, on_b, &b_udp).context("node to its pod")?;
        let on_node = at(NODE[i], PORT);
        let (n_tcp, n_udp) = (listen(&w.node, on_node)?, bind(&w.node, on_node)?);
        tcp(&w.a, on_node, &n_tcp).context("pod to its node")?;
        udp(&w.a, on_node, &n_udp).context("pod to its node")?;
        // A backend in the node's own network.
        w.service(VIP[i], 81, &[(NODE[i], PORT)]);
        tcp(&w.a, at(VIP[i], 81), &n_tcp).context("Service of the node")?;
        udp(&w.a, at(VIP[i], 81), &n_udp).context("Service of the node")?;

        // Another node's pod, both ways, and by a Service.
        let on_c = at(POD_C[i], PORT);
        let (c_tcp, c_udp) = (listen(&w.far, on_c)?, bind(&w.far, on_c)?);
        w.service(VIP[i], 82, &[(POD_C[i], PORT)]);
        for to in [on_c, at(VIP[i], 82)] {
            let peer = tcp(&w.a, to, &c_tcp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == at(POD_A[i], 0).ip(), "{peer}");
            let peer = udp(&w.a, to, &c_udp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == at(POD_A[i], 0).ip(), "{peer}");
        }
        tcp(&w.far, on_b, &b_tcp).context("other node to pod")?;
        udp(&w.far, on_b, &b_udp).context("other node to pod")?;

        // Outside: masqueraded there, reversed back; by a Service too.
        let outside = at(OUTSIDE[i], PORT);
        let (o_tcp, o_udp) = (listen(&w.far, outside)?, bind(&w.far, outside)?);
        w.service(VIP[i], 83, &[(OUTSIDE[i], PORT)]);
        for to in [outside, at(VIP[i], 83)] {
            let peer = tcp(&w.a, to, &o_tcp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == on_node.ip(), "{peer}");
            ensure!((50_000..60_000).contains(&peer.port()), "{peer}");
            let peer = udp(&w.a, to, &o_udp).with_context(|| format!("pod to {to}"))?;
            ensure!(peer.ip() == on_node.ip(), "{peer}");
        }

        // No endpoints: refused at once.
        w.service(VIP[i], 84, &[]);
        let refused = connect(&w.a, at(VIP[i], 84)).err().context("connected")?;
        ensure!(
            refused.kind() == ErrorKind::ConnectionRefused,
            "{refused:?}"
        );
        let client = bind(&w.a, at(["0.0.0.0", "::"][i], 0))?;
        client.connect(at(VIP[i], 84))?;
        client.send(b"anyone?")?;
        let refused = client.recv(&mut [0; 8]).err().context("answered")?;
        ensure!(
            refused.kind() == ErrorKind::ConnectionRefused,
            "{refused:?}"
        );

        // "Port unreachable" of a pod finds its way back through the Service.
        w.service(VIP[i], 85, &[(POD_B[i], 9)]);
        let client = bind(&w.a, at(["0.0.0.0", "::"][i], 0))?;
        client.connect(at(VIP[i], 85))?;
        client.send(b"anyone?")?;
        let refused = client.recv(&mut [0; 8]).err().context("answered")?;
        ensure!(
            refused.kind() == ErrorKind::ConnectionRefused,
            "{refused:?}"
        );
        // … and of an outside host through masquerade.
        let client = bind(&w.a, at(["0.0.0.0", "::"][i], 0))?;
        client.connect(at(OUTSIDE[i], 9))?;
        client.send(b"anyone?")?;
        let refused = client.recv(&mut [0; 8]).err().context("answered")?;
        ensure!(
            refused.kind() == ErrorKind::ConnectionRefused,
            "{refused:?}"
        );
        let _ = FAR;
    }
    for reason in Reason::ALL {
        let expected = match reason {
            Reason::Forwarded => continue,
            // Once by TCP, once by UDP, of each family.
            Reason::NoBackend => 4,
            _ => 0,
        };
        ensure!(
            w.programs.counted(*reason) == expected,
            "{}: {}",
            reason.text(),
            w.programs.counted(*reason)
        );
    }
    Ok(())
}
