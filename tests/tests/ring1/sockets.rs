//! Real sockets over veth: what BPF_PROG_TEST_RUN can't show, partial checksums above all.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_common::event::Reason;
use rhumb_harness::{Netns, wait_for};

use super::wire::{
    NODE, OUTSIDE, POD_A, POD_B, POD_C, PORT, VIP, Wire, at, bind, connect, listen, tcp, udp,
};

#[test]
fn with_offloads() -> Result<()> {
    pods_nodes_and_services(Wire::new()?)
}

/// Checksums are whole when the programs see them, and wrong ones would be dropped.
#[test]
fn without_offloads() -> Result<()> {
    let w = Wire::new()?;
    for netns in [&w.a, &w.b, &w.far] {
        offloads_off(netns)?;
    }
    pods_nodes_and_services(w)
}

fn offloads_off(netns: &Netns) -> Result<()> {
    // Of linux/ethtool.h.
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const ETHTOOL_GTXCSUM: u32 = 0x16;
    const ETHTOOL_SGRO: u32 = 0x2c;
    let off = |command: u32| -> std::io::Result<u32> {
        let mut value = [command, 0];
        // SAFETY: plain data.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        // SAFETY: the request and the value that it points to outlive the call.
        let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if rc != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(value[1])
    };
    let left = netns.run(|| -> std::io::Result<u32> {
        // Without checksums the kernel turns segmentation offload off as well.
        off(ETHTOOL_STXCSUM)?;
        off(ETHTOOL_SGRO)?;
        off(ETHTOOL_GTXCSUM)
    })?;
    ensure!(left? == 0, "checksum offload is still on");
    Ok(())
}

fn pods_nodes_and_services(mut w: Wire) -> Result<()> {
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

/// Two frontends over one backend, asked from the same port: each answers with its own address.
#[test]
fn two_services_over_one_backend() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        w.service(VIP[i], 80, &[(POD_B[i], PORT)]);
        w.service(VIP[i], 81, &[(POD_B[i], PORT)]);
        let server = bind(&w.b, at(POD_B[i], PORT))?;
        let client = bind(&w.a, at(POD_A[i], 40_000))?;
        let (first, second, direct) = (at(VIP[i], 80), at(VIP[i], 81), at(POD_B[i], PORT));
        let mut peers = Vec::new();
        for to in [first, second, direct, second, first] {
            client.send_to(b"x", to)?;
            let (_, peer) = server.recv_from(&mut [0; 4])?;
            server.send_to(b"y", peer)?;
            let (_, from) = client.recv_from(&mut [0; 4])?;
            ensure!(from == to, "asked {to}, answered by {from}");
            peers.push(peer.port());
        }
        let [a, b, c, again_b, again_a] = peers[..] else {
            unreachable!()
        };
        ensure!(a == 40_000 && a != b && b != c && a != c, "{peers:?}");
        ensure!(again_b == b && again_a == a, "{peers:?}");
    }
    Ok(())
}

/// A flow whose backend's id was given away chooses again.
#[test]
fn datagrams_leave_a_dead_backend() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        w.service(VIP[i], 80, &[(POD_B[i], PORT)]);
        let (old, new) = (
            bind(&w.b, at(POD_B[i], PORT))?,
            bind(&w.b, at(POD_B[i], PORT + 1))?,
        );
        let client = bind(&w.a, at(POD_A[i], 0))?;
        client.send_to(b"1", at(VIP[i], 80))?;
        old.recv(&mut [0; 4])?;
        for b in w.tables.backends.values_mut() {
            b.generation += 1;
            b.port_be = (PORT + 1).to_be();
        }
        let tables = w.tables.clone();
        w.programs.write(&tables);
        client.send_to(b"2", at(VIP[i], 80))?;
        new.recv(&mut [0; 4])?;
    }
    Ok(())
}

/// Traffic that lies about its source.
#[test]
fn spoofed_sources_are_dropped() -> Result<()> {
    let mut w = Wire::new()?;
    for i in 0..2 {
        let b = bind(&w.b, at(POD_B[i], PORT))?;
        b.set_nonblocking(true)?;
        // A pod with another pod's address, and the outside with a local pod's.
        for (netns, link, lie, reason) in [
            (
                &w.a,
                "lo",
                ["10.201.9.9", "fd00:201:9::9"][i],
                Reason::SpoofedSource,
            ),
            (&w.far, "lo", POD_A[i], Reason::SpoofedLocalPod),
        ] {
            let whole = [32, 128][i];
            rhumb_harness::link::address(netns, link, lie.parse()?, whole)?;
            let liar = bind(netns, at(lie, 0))?;
            let before = w.programs.counted(reason);
            liar.send_to(b"x", at(POD_B[i], PORT))?;
            wait_for(reason.text(), Duration::from_secs(5), || {
                Ok((w.programs.counted(reason) == before + 1).then_some(()))
            })?;
            ensure!(b.recv(&mut [0; 4]).is_err(), "{lie} got through");
        }
    }
    Ok(())
}
