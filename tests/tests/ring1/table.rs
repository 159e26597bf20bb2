//! The table "hook × path" of ARCHITECTURE.md, a test a cell: exact bytes, flows and counters.

use anyhow::{Result, ensure};
use rhumb_common::event::{Reason, hook};
use rhumb_common::flow::flow_flag;
use rhumb_common::maps::{EndpointPolicy, Service, ServiceKey, config_flag, endpoint_flag, name};
use rhumb_tests::frames::{self, ACK, Body, Frame, RST, SYN, TCP, UDP, echo, tcp, udp};

use super::lab::{
    A, B, ELSEWHERE, FORWARDED, FROM_NODE, Lab, NAT_MAX, NAT_MIN, NOBODY, NODE, OK, OUTSIDE,
    REDIRECT, REMOTE, SHOT, VIP, expect, macs,
};
use super::wire::ip;

/// The frame one hop on, into a pod.
fn delivered(frame: &Frame, pod: &str) -> Frame {
    Frame {
        macs: macs(pod),
        ttl: frame.ttl - 1,
        ..frame.clone()
    }
}

/// The frame one hop on, to be routed: the neighbour's MAC comes later.
fn routed(frame: &Frame) -> Frame {
    Frame {
        ttl: frame.ttl - 1,
        ..frame.clone()
    }
}

#[test]
fn pod_to_pod_on_the_node() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for (there, back) in [
            (tcp(4000, 80, SYN), tcp(80, 4000, SYN | ACK)),
            (udp(4000, 80), udp(80, 4000)),
            (echo(false, 9), echo(true, 9)),
        ] {
            let there = Frame::new(A[i], B[i], there);
            let back = Frame::new(B[i], A[i], back);
            expect(&lab.at_pod(&there)?, REDIRECT, &delivered(&there, B[i]));
            expect(&lab.at_pod(&back)?, REDIRECT, &delivered(&back, A[i]));
            expect(&lab.at_pod(&there)?, REDIRECT, &delivered(&there, B[i]));
        }
        let elsewhere = Frame::new(A[i], ELSEWHERE[i], udp(1, 2));
        let ran = lab.at_pod(&elsewhere)?;
        expect(&ran, REDIRECT, &delivered(&elsewhere, ELSEWHERE[i]));
    }
    let flows = lab.programs.flows();
    ensure!(flows.len() == 2 * (3 * 2 + 2), "{flows:#?}");
    ensure!(lab.programs.counted(Reason::Forwarded) == 2 * (9 + 1));
    let replied = flows.values().filter(|f| f.flags & flow_flag::REPLIED != 0);
    ensure!(replied.count() == 2 * 6);
    Ok(())
}

/// From outside to a port of the node: the client keeps its address, and is answered by the address it asked.
#[test]
fn host_ports_from_outside() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        lab.service(NODE[i], 8080, TCP, &[(B[i], 80)]);
        lab.service(NODE[i], 5353, UDP, &[(B[i], 53)]);
    }
    let asked = Frame::new(OUTSIDE[0], NODE[0], tcp(4000, 8080, SYN));
    // Unless something of the kind is there, nothing is looked up.
    expect(&lab.at_uplink(&asked)?, OK, &asked);
    lab.tables.config.flags |= config_flag::HOST_PORTS;
    lab.write();
    for i in 0..2 {
        for (client, host, pod, there, back) in
            [(4000, 8080, 80, SYN, SYN | ACK), (4001, 5353, 53, 0, 0)]
        {
            let body = |s, d, flags| match flags {
                0 => udp(s, d),
                flags => tcp(s, d, flags),
            };
            let asked = Frame::new(OUTSIDE[i], NODE[i], body(client, host, there));
            let sent = Frame::new(OUTSIDE[i], B[i], body(client, pod, there));
            for _ in 0..2 {
                expect(&lab.at_uplink(&asked)?, REDIRECT, &delivered(&sent, B[i]));
            }
            let reply = Frame::new(B[i], OUTSIDE[i], body(pod, client, back));
            let seen = Frame::new(NODE[i], OUTSIDE[i], body(host, client, back));
            expect(&lab.at_pod(&reply)?, REDIRECT, &routed(&seen));
        }
        // Other ports, the other protocol and a ping are the node's own.
        for body in [tcp(4000, 8081, SYN), udp(4000, 8080), echo(false, 9)] {
            let own = Frame::new(OUTSIDE[i], NODE[i], body);
            expect(&lab.at_uplink(&own)?, OK, &own);
        }
        // From a pod of the node, packet by packet.
        let asked = Frame::new(A[i], NODE[i], tcp(4002, 8080, SYN));
        let sent = Frame::new(A[i], B[i], tcp(4002, 80, SYN));
        expect(&lab.at_pod(&asked)?, REDIRECT, &delivered(&sent, B[i]));
    }
    // Policy knows the client.
    for pod in B {
        lab.sets(pod, 1, 0);
    }
    for i in 0..2 {
        let asked = Frame::new(OUTSIDE[i], NODE[i], tcp(4003, 8080, SYN));
        ensure!(lab.at_uplink(&asked)?.code == SHOT, "not denied");
        // Also what was admitted before.
        let asked = Frame::new(OUTSIDE[i], NODE[i], tcp(4000, 8080, ACK));
        ensure!(lab.at_uplink(&asked)?.code == SHOT, "not denied");
    }
    Ok(())
}

#[test]
fn service_to_each_place() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for (protocol, body) in [
            (
                TCP,
                (|s, d, back| tcp(s, d, if back { ACK } else { SYN })) as fn(_, _, _) -> _,
            ),
            (UDP, |s, d, _| udp(s, d)),
        ] {
            lab.service(VIP[i], 80, protocol, &[(B[i], 8080)]);
            lab.service(VIP[i], 81, protocol, &[(REMOTE[i], 8080)]);
            lab.service(VIP[i], 82, protocol, &[(NODE[i], 8080)]);
            lab.service(VIP[i], 83, protocol, &[(A[i], 8080)]);
            lab.service(VIP[i], 84, protocol, &[(OUTSIDE[i], 8080)]);

            // Same node.
            let asked = Frame::new(A[i], VIP[i], body(4000, 80, false));
            let sent = Frame::new(A[i], B[i], body(4000, 8080, false));
            expect(&lab.at_pod(&asked)?, REDIRECT, &delivered(&sent, B[i]));
            let reply = Frame::new(B[i], A[i], body(8080, 4000, true));
            let seen = Frame::new(VIP[i], A[i], body(80, 4000, true));
            expect(&lab.at_pod(&reply)?, REDIRECT, &delivered(&seen, A[i]));

            // Another node.
            let asked = Frame::new(A[i], VIP[i], body(4001, 81, false));
            let sent = Frame::new(A[i], REMOTE[i], body(4001, 8080, false));
            expect(&lab.at_pod(&asked)?, REDIRECT, &routed(&sent));
            let reply = Frame::new(REMOTE[i], A[i], body(8080, 4001, true));
            let seen = Frame::new(VIP[i], A[i], body(81, 4001, true));
            expect(&lab.at_uplink(&reply)?, REDIRECT, &delivered(&seen, A[i]));

            // The node itself: the stack has the packet, and its reply comes out at the pod.
            let asked = Frame::new(A[i], VIP[i], body(4002, 82, false));
            let sent = Frame::new(A[i], NODE[i], body(4002, 8080, false));
            expect(&lab.at_pod(&asked)?, OK, &sent);
            let reply = Frame::new(NODE[i], A[i], body(8080, 4002, true));
            let seen = Frame::new(VIP[i], A[i], body(82, 4002, true));
            expect(&lab.at_stack(&reply, FROM_NODE)?, OK, &seen);

            // The asking pod itself: the Service stands in as the client.
            let asked = Frame::new(A[i], VIP[i], body(4003, 83, false));
            let sent = Frame::new(VIP[i], A[i], body(4003, 8080, false));
            expect(&lab.at_pod(&asked)?, REDIRECT, &delivered(&sent, A[i]));
            let reply = Frame::new(A[i], VIP[i], body(8080, 4003, true));
            let seen = Frame::new(VIP[i], A[i], body(83, 4003, true));
            expect(&lab.at_pod(&reply)?, REDIRECT, &delivered(&seen, A[i]));

            // Outside: both ends are translated.
            let asked = Frame::new(A[i], VIP[i], body(50_004, 84, false));
            let sent = Frame::new(NODE[i], OUTSIDE[i], body(50_004, 8080, false));
            expect(&lab.at_pod(&asked)?, REDIRECT, &routed(&sent));
            let reply = Frame::new(OUTSIDE[i], NODE[i], body(8080, 50_004, true));
            let seen = Frame::new(VIP[i], A[i], body(84, 50_004, true));
            expect(&lab.at_uplink(&reply)?, REDIRECT, &delivered(&seen, A[i]));
        }
    }
    Ok(())
}

#[test]
fn all_backends_are_used() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.service(
        VIP[0],
        80,
        UDP,
        &[(B[0], 1), (B[0], 2), (B[0], 3), (B[0], 4)],
    );
    let mut used = [0; 4];
    for port in 0..200 {
        let ran = lab.at_pod(&Frame::new(A[0], VIP[0], udp(10_000 + port, 80)))?;
        let seen = frames::read(&ran.frame).expect("a sound frame");
        let Body::Udp { dport, .. } = seen.body else {
            panic!("{seen:?}")
        };
        used[usize::from(dport) - 1] += 1;
    }
    // Each is expected 50 times; 20 is five standard deviations away.
    ensure!(used.iter().all(|n| *n > 20), "{used:?}");
    Ok(())
}

#[test]
fn pod_to_node_and_node_to_pod() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        // Policy that admits nothing does not stand between a pod and its node.
        lab.sets(A[i], 66, 66);
        let to_node = Frame::new(A[i], NODE[i], tcp(4000, 22, SYN));
        expect(&lab.at_pod(&to_node)?, OK, &to_node);
        let reply = Frame::new(NODE[i], A[i], tcp(22, 4000, SYN | ACK));
        expect(&lab.at_stack(&reply, FROM_NODE)?, OK, &reply);

        let to_pod = Frame::new(NODE[i], A[i], tcp(5000, 80, SYN));
        expect(&lab.at_stack(&to_pod, FROM_NODE)?, OK, &to_pod);
        let reply = Frame::new(A[i], NODE[i], tcp(80, 5000, SYN | ACK));
        expect(&lab.at_pod(&reply)?, OK, &reply);
        // Whatever source the node's own packet has.
        let odd = Frame::new(OUTSIDE[i], A[i], udp(5000, 53));
        expect(&lab.at_stack(&odd, FROM_NODE)?, OK, &odd);
        let reply = Frame::new(A[i], OUTSIDE[i], udp(53, 5000));
        expect(&lab.at_pod(&reply)?, OK, &reply);

        // What the stack forwards is judged by its source address, that of the node too.
        for source in [NODE[i], OUTSIDE[i], REMOTE[i]] {
            let forwarded = Frame::new(source, A[i], udp(6000, 80));
            let event = lab.dropped(Reason::PolicyIngress, |lab| {
                lab.at_stack(&forwarded, FORWARDED)
            })?;
            ensure!(event.set == 66 && event.src == ip(source), "{event:?}");
        }
        lab.peer(REMOTE[i], 5);
        lab.allow(66, 5, UDP, 80);
        let forwarded = Frame::new(REMOTE[i], A[i], udp(6000, 80));
        expect(&lab.at_stack(&forwarded, FORWARDED)?, OK, &forwarded);
        // Its reply goes back the way it came: through the stack.
        let reply = Frame::new(A[i], REMOTE[i], udp(80, 6000));
        expect(&lab.at_pod(&reply)?, OK, &reply);
    }
    Ok(())
}

#[test]
fn pod_to_outside_and_back() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for body in [
            (|s, d, _| tcp(s, d, ACK)) as fn(u16, u16, bool) -> Body,
            |s, d, _| udp(s, d),
            |s, d, reply| echo(reply, s | d),
        ] {
            let echoes = matches!(body(0, 0, false), Body::Echo { .. });
            let far = if echoes { 0 } else { 443 };
            let asked = Frame::new(A[i], OUTSIDE[i], body(4000, far, false));
            let ran = lab.at_pod(&asked)?;
            let seen = frames::read(&ran.frame).expect("a sound frame");
            let port = match seen.body {
                Body::Tcp { sport, .. } | Body::Udp { sport, .. } => sport,
                Body::Echo { id, .. } => id,
                ref other => panic!("{other:?}"),
            };
            ensure!((NAT_MIN..=NAT_MAX).contains(&port), "{seen:?}");
            let sent = Frame::new(NODE[i], OUTSIDE[i], body(port, far, false));
            expect(&ran, REDIRECT, &routed(&sent));
            // The same again, by the same port.
            expect(&lab.at_pod(&asked)?, REDIRECT, &routed(&sent));
            let reply = Frame::new(OUTSIDE[i], NODE[i], body(far, port, true));
            let back = Frame::new(OUTSIDE[i], A[i], body(far, 4000, true));
            expect(&lab.at_uplink(&reply)?, REDIRECT, &delivered(&back, A[i]));
        }
        // What is the node's own goes to the stack: ports of ours without a flow too.
        for port in [22, 55_555] {
            let frame = Frame::new(OUTSIDE[i], NODE[i], udp(443, port));
            expect(&lab.at_uplink(&frame)?, OK, &frame);
        }
    }
    Ok(())
}

/// Errors of routers on the way, about packets that left under the node's address.
#[test]
fn icmp_errors_find_their_flow() -> Result<()> {
    let mut lab = Lab::new()?;
    let router = ["192.0.2.1", "2001:db8:2::1"];
    // Fragmentation needed, packet too big.
    let error = |i: usize, data: Vec<u8>| Body::Icmp {
        kind: [3, 2][i],
        code: [4, 0][i],
        word: 1400,
        data,
    };
    for i in 0..2 {
        lab.service(VIP[i], 80, UDP, &[(OUTSIDE[i], 8080)]);
        let asked = Frame::new(A[i], VIP[i], udp(50_100, 80));
        let sent = Frame::new(NODE[i], OUTSIDE[i], udp(50_100, 8080));
        expect(&lab.at_pod(&asked)?, REDIRECT, &routed(&sent));
        let quoted = sent.packet();
        let told = Frame::new(router[i], NODE[i], error(i, quoted.clone()));
        let ran = lab.at_uplink(&told)?;
        let seen = frames::read(&ran.frame).expect("sound checksums");
        ensure!(ran.code == REDIRECT && seen.dst == Frame::new(A[i], A[i], udp(0, 0)).dst);
        ensure!(seen.src == told.src && seen.macs == macs(A[i]), "{seen:?}");
        let Body::Icmp {
            word: 1400, data, ..
        } = seen.body
        else {
            panic!("{seen:?}")
        };
        // Addresses and ports of the quoted packet are those that the pod used; its UDP checksum
        // is left, as nobody checks it.
        let mut expected = asked.packet();
        let checksum = if i == 0 { 26..28 } else { 46..48 };
        expected[checksum.clone()].copy_from_slice(&quoted[checksum]);
        ensure!(data == expected, "{data:?} {expected:?}");
        // About a flow that we don't have: the stack's.
        let unknown = Frame::new(NODE[i], OUTSIDE[i], udp(50_101, 8080));
        let told = Frame::new(router[i], NODE[i], error(i, unknown.packet()));
        expect(&lab.at_uplink(&told)?, OK, &told);
    }
    Ok(())
}

/// A pod's ICMP error follows a flow past policy only if it is about what was sent to that pod.
#[test]
fn a_pod_complains_of_its_own_packets_only() -> Result<()> {
    let mut lab = Lab::new()?;
    // Port unreachable.
    let error = |i: usize, quoted: &Frame| Body::Icmp {
        kind: [3, 1][i],
        code: [3, 4][i],
        word: 0,
        data: quoted.packet(),
    };
    for i in 0..2 {
        let to_a = Frame::new(B[i], A[i], udp(4000, 80));
        expect(&lab.at_pod(&to_a)?, REDIRECT, &delivered(&to_a, A[i]));
        let to_other = Frame::new(B[i], REMOTE[i], udp(4000, 80));
        expect(&lab.at_pod(&to_other)?, REDIRECT, &routed(&to_other));
        // Nobody gets into B but what answers it.
        lab.sets(B[i], 67, 0);
        let own = Frame::new(A[i], B[i], error(i, &to_a));
        expect(&lab.at_pod(&own)?, REDIRECT, &delivered(&own, B[i]));
        let forged = Frame::new(A[i], B[i], error(i, &to_other));
        lab.dropped(Reason::PolicyIngress, |lab| lab.at_pod(&forged))?;
        // A router on the way may.
        let routers = Frame::new(OUTSIDE[i], B[i], error(i, &to_other));
        let ran = lab.at_uplink(&routers)?;
        expect(&ran, REDIRECT, &delivered(&routers, B[i]));
    }
    Ok(())
}

#[test]
fn from_outside_and_other_nodes_to_pod() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for source in [REMOTE[i], OUTSIDE[i]] {
            let there = Frame::new(source, A[i], tcp(6000, 80, SYN));
            expect(&lab.at_uplink(&there)?, REDIRECT, &delivered(&there, A[i]));
            // The reply keeps the pod's address, though it leaves the cluster.
            let back = Frame::new(A[i], source, tcp(80, 6000, SYN | ACK));
            expect(&lab.at_pod(&back)?, REDIRECT, &routed(&back));
        }
        // Policy is judged here.
        lab.sets(A[i], 67, 0);
        let denied = Frame::new(OUTSIDE[i], A[i], tcp(6001, 80, SYN));
        let event = lab.dropped(Reason::PolicyIngress, |lab| lab.at_uplink(&denied))?;
        ensure!(event.hook == hook::FROM_UPLINK && event.dport_be == 80u16.to_be());
        // … and of the connection that is under way, since the epoch has moved on.
        let under_way = Frame::new(OUTSIDE[i], A[i], tcp(6000, 80, ACK));
        lab.dropped(Reason::PolicyIngress, |lab| lab.at_uplink(&under_way))?;
        let reply = Frame::new(A[i], OUTSIDE[i], tcp(80, 6000, ACK));
        lab.dropped(Reason::PolicyIngress, |lab| lab.at_pod(&reply))?;
        lab.sets(A[i], 0, 0);
        expect(&lab.at_pod(&reply)?, REDIRECT, &routed(&reply));
        // A source that is one of our pods'.
        let forged = Frame::new(B[i], A[i], udp(1, 2));
        lab.dropped(Reason::SpoofedLocalPod, |lab| lab.at_uplink(&forged))?;
    }
    Ok(())
}

/// A Service without endpoints, a Service's address at another port, and an address of the node's
/// own pods that none of them has.
#[test]
fn what_nobody_serves_is_refused() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        lab.service(VIP[i], 80, TCP, &[]);
        lab.service(VIP[i], 80, UDP, &[]);
        let address = ServiceKey::address(ip(VIP[i]));
        lab.tables.services.insert(address, Service::default());
        lab.write();
        refuses(&mut lab, i, VIP[i], 80, Reason::NoBackend)?;
        refuses(&mut lab, i, VIP[i], 81, Reason::NoServicePort)?;
        refuses(&mut lab, i, NOBODY[i], 80, Reason::NoEndpoint)?;
        // Whatever policy says of what is there.
        lab.sets(A[i], 0, 68);
        refuses(&mut lab, i, NOBODY[i], 80, Reason::NoEndpoint)?;
        lab.sets(A[i], 0, 0);
        // A ping: port unreachable, as kube-proxy's rules say; host and address unreachable.
        for (to, reason, [v4, v6]) in [
            (VIP[i], Reason::NoServicePort, [3, 4]),
            (NOBODY[i], Reason::NoEndpoint, [1, 3]),
        ] {
            let asked = Frame::new(A[i], to, echo(false, 7));
            let code = [v4, v6][i];
            told_unreachable(&mut lab, i, to, &asked, code, reason)?;
            let reply = Frame::new(A[i], to, echo(true, 7));
            lab.dropped(reason, |lab| lab.at_pod(&reply))?;
        }
        // Other protocols and later fragments have no answer.
        let sctp = Body::Other {
            protocol: 132,
            data: vec![0; 20],
        };
        let frame = Frame::new(A[i], VIP[i], sctp);
        lab.dropped(Reason::UnsupportedProtocol, |lab| lab.at_pod(&frame))?;
    }
    ensure!(lab.programs.flows().is_empty());
    // Not masqueraded, they would have been let out.
    lab.tables.config.flags = 0;
    lab.write();
    let mut fragment = Frame::new(
        A[0],
        VIP[0],
        Body::Other {
            protocol: UDP,
            data: vec![7; 64],
        },
    );
    fragment.fragment = 0x0001_00b9;
    lab.dropped(Reason::NoServicePort, |lab| lab.at_pod(&fragment))?;
    Ok(())
}

fn answer(dst: &str, src: &str, body: Body) -> Frame {
    Frame {
        macs: macs(dst),
        fragment: 0x4000,
        ..Frame::new(src, dst, body)
    }
}

fn refuses(lab: &mut Lab, i: usize, to: &str, port: u16, reason: Reason) -> Result<()> {
    // RFC 9293, 3.10.7.1: a SYN's reset acknowledges it; an ACK's takes its sequence number.
    for (flags, seq, ack, reset) in [(SYN, 0, 1001, RST | ACK), (ACK, 5000, 0, RST)] {
        let before = lab.programs.counted(reason);
        lab.programs.events();
        let ran = lab.at_pod(&Frame::new(A[i], to, tcp(4000, port, flags)))?;
        let body = Body::Tcp {
            sport: port,
            dport: 4000,
            seq,
            ack,
            flags: reset,
            window: 0,
            data: vec![],
        };
        expect(&ran, REDIRECT, &answer(A[i], to, body));
        lab.told(reason, before)?;
    }
    // A reset is never answered.
    let reset = Frame::new(A[i], to, tcp(4000, port, RST));
    lab.dropped(reason, |lab| lab.at_pod(&reset))?;
    let asked = Frame::new(A[i], to, udp(4000, port));
    told_unreachable(lab, i, to, &asked, [3, 4][i], reason)
}

/// Destination unreachable, quoting the IP header and eight bytes.
fn told_unreachable(
    lab: &mut Lab,
    i: usize,
    from: &str,
    asked: &Frame,
    code: u8,
    reason: Reason,
) -> Result<()> {
    let before = lab.programs.counted(reason);
    lab.programs.events();
    let ran = lab.at_pod(asked)?;
    let body = Body::Icmp {
        kind: [3, 1][i],
        code,
        word: 0,
        data: asked.packet()[..[28, 48][i]].to_vec(),
    };
    expect(&ran, REDIRECT, &answer(A[i], from, body));
    lab.told(reason, before)?;
    Ok(())
}

/// A row that was written for an earlier pod of the address, open or not, says nothing of this one.
#[test]
fn policy_of_an_earlier_pod_is_none() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        let to = Frame::new(A[i], B[i], udp(4000, 80));
        let from = Frame::new(B[i], A[i], udp(4001, 80));
        for (open, sets) in [(true, 68), (false, 0)] {
            let endpoint = lab.tables.endpoints.get_mut(&ip(B[i])).expect("a pod");
            endpoint.flags = if open { endpoint_flag::OPEN } else { 0 };
            endpoint.netns_cookie = 1;
            let mut row = EndpointPolicy {
                ingress_set: sets,
                egress_set: sets,
                netns_cookie: 1,
            };
            lab.tables.endpoint_policy.insert(ip(B[i]), row);
            lab.next_epoch();
            let obeyed = if sets == 0 { REDIRECT } else { SHOT };
            for frame in [&to, &from] {
                ensure!(lab.at_pod(frame)?.code == obeyed, "its own: {frame:?}");
            }
            row.netns_cookie = 2;
            lab.tables.endpoint_policy.insert(ip(B[i]), row);
            lab.next_epoch();
            for frame in [&to, &from] {
                if open {
                    let ran = lab.at_pod(frame)?;
                    ensure!(ran.code == REDIRECT, "an earlier one's: {frame:?}");
                } else {
                    lab.dropped(Reason::PolicyPending, |lab| lab.at_pod(frame))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_last_hop() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for to in [B[i], REMOTE[i], OUTSIDE[i]] {
            let mut frame = Frame::new(A[i], to, udp(4000, 80));
            frame.ttl = 1;
            let before = lab.programs.counted(Reason::TtlExceeded);
            lab.programs.events();
            let ran = lab.at_pod(&frame)?;
            let body = Body::Icmp {
                kind: [11, 3][i],
                code: 0,
                word: 0,
                data: frame.packet()[..[28, 48][i]].to_vec(),
            };
            let answer = Frame {
                macs: macs(A[i]),
                ..Frame::new(NODE[i], A[i], body)
            };
            expect(&ran, REDIRECT, &answer);
            lab.told(Reason::TtlExceeded, before)?;
        }
        let mut frame = Frame::new(REMOTE[i], A[i], udp(4000, 80));
        frame.ttl = 1;
        lab.dropped(Reason::TtlExceeded, |lab| lab.at_uplink(&frame))?;
    }
    Ok(())
}

#[test]
fn what_is_dropped() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for liar in [B[i], ELSEWHERE[i], REMOTE[i]] {
            let at = rhumb_tests::kernel::At {
                ifindex: 1,
                ingress_ifindex: 1,
            };
            let frame = Frame::new(liar, A[i], udp(1, 2));
            let ran = lab.bytes(name::FROM_POD, &frame.bytes(), at)?;
            // B is behind the same interface in this lab.
            ensure!((ran.code == REDIRECT) == (liar == B[i]), "{liar}: {ran:?}");
        }
        let sctp = Body::Other {
            protocol: 132,
            data: vec![0; 20],
        };
        let frame = Frame::new(A[i], B[i], sctp.clone());
        lab.dropped(Reason::UnsupportedProtocol, |lab| lab.at_pod(&frame))?;
        let to_node = Frame::new(A[i], NODE[i], sctp);
        expect(&lab.at_pod(&to_node)?, OK, &to_node);
        let multicast = ["224.0.0.251", "ff05::fb"][i];
        let frame = Frame::new(A[i], multicast, udp(5353, 5353));
        lab.dropped(Reason::NoRoute, |lab| lab.at_pod(&frame))?;
        lab.sets(B[i], 0, 68);
        let frame = Frame::new(B[i], A[i], udp(1, 3));
        let event = lab.dropped(Reason::PolicyEgress, |lab| lab.at_pod(&frame))?;
        ensure!(event.set == 68 && event.rule == 0, "{event:?}");
        // A pod without policy yet.
        let key = ip(ELSEWHERE[i]);
        let mut closed = lab.tables.endpoints[&key];
        closed.flags = 0;
        lab.tables.endpoints.insert(key, closed);
        lab.write();
        let frame = Frame::new(A[i], ELSEWHERE[i], udp(1, 3));
        lab.dropped(Reason::PolicyPending, |lab| lab.at_pod(&frame))?;
    }
    // Later fragments: within the cluster they pass where no rule needs a port.
    let mut fragment = Frame::new(
        A[0],
        REMOTE[0],
        Body::Other {
            protocol: UDP,
            data: vec![7; 64],
        },
    );
    fragment.fragment = 0x0001_00b9;
    expect(&lab.at_pod(&fragment)?, REDIRECT, &routed(&fragment));
    fragment.dst = Frame::new(OUTSIDE[0], OUTSIDE[0], udp(0, 0)).dst;
    lab.dropped(Reason::Fragment, |lab| lab.at_pod(&fragment))?;
    lab.sets(A[0], 0, 68);
    fragment.dst = Frame::new(REMOTE[0], REMOTE[0], udp(0, 0)).dst;
    lab.dropped(Reason::Fragment, |lab| lab.at_pod(&fragment))?;
    Ok(())
}

#[test]
fn truncated_and_malformed() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        for body in [tcp(4000, 80, SYN), udp(4000, 80), echo(false, 4)] {
            let frame = Frame::new(A[i], B[i], body);
            let whole = frame.bytes();
            // The kernel refuses test runs without a network header.
            let least = [34, 54][i];
            for length in least..whole.len() {
                let cut = &whole[..length];
                for program in [name::FROM_POD, name::TO_POD] {
                    let run = |lab: &mut Lab| lab.bytes(program, cut, FORWARDED);
                    lab.dropped(Reason::Malformed, run)?;
                }
                // Not for a pod as far as we can read: the stack's to drop.
                let ran = lab.bytes(name::FROM_UPLINK, cut, FORWARDED)?;
                ensure!(ran.code == OK && ran.frame == cut, "{ran:?}");
            }
        }
    }
    let frame = Frame::new(A[0], B[0], udp(1, 2)).bytes();
    // Version, header length, total length of the IPv4 header.
    for (at, value) in [(14, 0x55), (14, 0x44), (16, 0xff), (17, 3)] {
        let mut bytes = frame.clone();
        bytes[at] = value;
        let run = |lab: &mut Lab| lab.bytes(name::FROM_POD, &bytes, FORWARDED);
        lab.dropped(Reason::Malformed, run)?;
    }
    // Extension headers without end.
    let chain = Body::Other {
        protocol: 0,
        data: [0, 0, 1, 4, 0, 0, 0, 0].repeat(40),
    };
    let frame = Frame::new(A[1], B[1], chain);
    lab.dropped(Reason::UnsupportedProtocol, |lab| lab.at_pod(&frame))?;
    Ok(())
}

/// A forgotten flow chooses anew; a connection that was closed and is opened again does too.
#[test]
fn flows_end() -> Result<()> {
    let mut lab = Lab::new()?;
    for i in 0..2 {
        lab.service(VIP[i], 80, UDP, &[(B[i], 1)]);
        lab.service(VIP[i], 80, TCP, &[(B[i], 1)]);
        let datagram = Frame::new(A[i], VIP[i], udp(4000, 80));
        let segment = |flags| Frame::new(A[i], VIP[i], tcp(4000, 80, flags));
        let to = |port, body: fn(u16, u16) -> Body| {
            delivered(&Frame::new(A[i], B[i], body(4000, port)), B[i])
        };
        let syn = |s, d| tcp(s, d, SYN);
        expect(&lab.at_pod(&datagram)?, REDIRECT, &to(1, udp));
        expect(&lab.at_pod(&segment(SYN))?, REDIRECT, &to(1, syn));
        let reply = Frame::new(B[i], A[i], tcp(1, 4000, SYN | ACK));
        lab.at_pod(&reply)?;
        // Another backend takes the slot; flows stay with the one that they have.
        lab.service(VIP[i], 80, UDP, &[(B[i], 2)]);
        lab.service(VIP[i], 80, TCP, &[(B[i], 2)]);
        expect(&lab.at_pod(&datagram)?, REDIRECT, &to(1, udp));
        expect(&lab.at_pod(&segment(SYN))?, REDIRECT, &to(1, syn));
        // Idle for longer than any datagram's flow lives.
        lab.age(200);
        expect(&lab.at_pod(&datagram)?, REDIRECT, &to(2, udp));
        expect(&lab.at_pod(&segment(SYN))?, REDIRECT, &to(1, syn));
        // Closed by its own side, then opened again from the same port.
        lab.at_pod(&segment(frames::FIN | ACK))?;
        expect(&lab.at_pod(&segment(SYN))?, REDIRECT, &to(2, syn));
    }
    Ok(())
}
