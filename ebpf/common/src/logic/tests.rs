//! The hooks on the host: what needs a clock, a full table or a lucky random number. Bytes and
//! paths are ring 1's.

use std::vec;
use std::vec::Vec;

use super::host::{Frame, HostTables};
use super::*;
use crate::addr::Ip;
use crate::flow::{Flow, FlowKey, flow_flag};
use crate::maps::*;

const POD: [u8; 4] = [10, 0, 1, 2];
const OTHER: [u8; 4] = [10, 0, 1, 3];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const NODE: [u8; 4] = [172, 16, 0, 1];

fn ip(a: [u8; 4]) -> Ip {
    core::net::Ipv4Addr::from(a).into()
}

/// A UDP datagram without a checksum.
fn datagram(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> Frame {
    let mut b = vec![0; 12];
    b.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    b.extend(src);
    b.extend(dst);
    b.extend(sport.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend([0, 8, 0, 0]);
    Frame(b)
}

fn tables() -> HostTables {
    let mut t = HostTables::default();
    for (pod, ifindex) in [(POD, 3), (OTHER, 4)] {
        let e = Endpoint {
            ifindex,
            flags: endpoint_flag::OPEN,
            ..Endpoint::default()
        };
        t.endpoints.insert(ip(pod), e);
    }
    t.config.flags = config_flag::MASQUERADE_V4;
    t.config.node_ip4 = ip(NODE);
    t.config.nat_port_min = 40_000;
    t.config.nat_port_max = 40_003;
    t
}

fn send(t: &mut HostTables, frame: &Frame) -> (Action, Meta) {
    let mut m = Meta::default();
    m.reset();
    let action = from_pod(&mut frame.clone(), t, &mut m, 3);
    (action, m)
}

fn ports(t: &HostTables) -> Vec<u16> {
    let mut ports: Vec<u16> = t
        .flows
        .values()
        .filter(|f| f.flags & flow_flag::REPLY == 0)
        .map(|f| u16::from_be(f.to_sport_be))
        .collect();
    ports.sort_unstable();
    ports
}

#[test]
fn masquerade_uses_each_port_once_towards_a_place() {
    let mut t = tables();
    for i in 0..200 {
        let (action, _) = send(&mut t, &datagram(POD, OUTSIDE, 1000 + i, 53));
        match action {
            Action::Route => {}
            Action::Drop(Reason::NatPortsExhausted) => break,
            other => panic!("{other:?}"),
        }
    }
    // Four ports in all, and tries enough to find each of them.
    for i in 0..200 {
        send(&mut t, &datagram(POD, OUTSIDE, 2000 + i, 53));
    }
    assert_eq!(ports(&t), [40_000, 40_001, 40_002, 40_003]);
    let (action, _) = send(&mut t, &datagram(POD, OUTSIDE, 999, 53));
    assert_eq!(action, Action::Drop(Reason::NatPortsExhausted));
    // Another destination has the same ports once more.
    let (action, _) = send(&mut t, &datagram(POD, OUTSIDE, 999, 54));
    assert_eq!(action, Action::Route);
    // Idle flows give their ports back.
    t.now += timeout(17, 0) + 1;
    let (action, m) = send(&mut t, &datagram(POD, OUTSIDE, 998, 53));
    assert_eq!(action, Action::Route);
    assert_eq!(m.to.src, ip(NODE));
}

#[test]
fn either_direction_keeps_both_alive_and_mends_the_other() {
    let mut t = tables();
    let there = datagram(POD, OTHER, 1000, 53);
    let back = datagram(OTHER, POD, 53, 1000);
    send(&mut t, &there);
    let reply = |t: &mut HostTables| {
        let mut m = Meta::default();
        m.reset();
        from_pod(&mut back.clone(), t, &mut m, 4)
    };
    assert_eq!(reply(&mut t), Action::Pod(3));
    for _ in 0..10 {
        t.now += 100;
        assert_eq!(reply(&mut t), Action::Pod(3));
    }
    assert!(t.flows.values().all(|f| f.last_seen == t.now));
    // One entry is evicted; the next packet of the other makes it again, as it was.
    let before = t.flows.clone();
    let key = FlowKey {
        src: ip(POD),
        dst: ip(OTHER),
        sport_be: 1000u16.to_be(),
        dport_be: 53u16.to_be(),
        protocol: 17,
    };
    t.flows.remove(&key).expect("the flow");
    t.now += 1;
    reply(&mut t);
    let timeless = |f: &crate::flow::Flow| crate::flow::Flow { last_seen: 0, ..*f };
    assert_eq!(timeless(&t.flows[&key]), timeless(&before[&key]));
}

#[test]
fn a_flow_whose_other_half_was_taken_starts_anew() {
    let mut t = tables();
    let mine = datagram(POD, OUTSIDE, 40_000, 53);
    send(&mut t, &mine);
    let reply = FlowKey {
        src: ip(OUTSIDE),
        dst: ip(NODE),
        sport_be: 53u16.to_be(),
        dport_be: 40_000u16.to_be(),
        protocol: 17,
    };
    // Evicted; then another pod's flow takes the same port.
    t.flows.remove(&reply).expect("the replies' entry");
    let mut m = Meta::default();
    m.reset();
    let mut theirs = datagram(OTHER, OUTSIDE, 40_000, 53);
    assert_eq!(from_pod(&mut theirs, &mut t, &mut m, 4), Action::Route);
    let taken = t.flows[&reply];
    assert_eq!(taken.to_dst, ip(OTHER));
    t.now += 1;
    let (action, m) = send(&mut t, &mine);
    assert_eq!(action, Action::Route);
    assert_ne!(m.to.sport_be, 40_000u16.to_be());
    assert_eq!(t.flows[&reply], taken);
}

#[test]
fn a_slot_that_just_went_away_is_read_again() {
    let mut t = tables();
    let key = ServiceKey {
        vip: ip([10, 96, 0, 1]),
        port_be: 53u16.to_be(),
        protocol: 17,
        ..ServiceKey::default()
    };
    let service = Service {
        id: 1,
        count: 2,
        ..Service::default()
    };
    t.services.insert(key, service);
    let asked = datagram(POD, [10, 96, 0, 1], 1000, 53);
    // No slot at all: the writer is between two steps for longer than a packet waits.
    let (action, _) = send(&mut t, &asked);
    assert_eq!(action, Action::Drop(Reason::ServiceRace));
    let slot = SlotKey {
        service: 1,
        slot: 0,
    };
    t.slots.insert(slot, 9);
    let backend = Backend {
        addr: ip(OTHER),
        port_be: 5353u16.to_be(),
        protocol: 17,
        flags: 0,
        generation: 1,
    };
    t.random = vec![0];
    let (action, _) = send(&mut t, &asked);
    assert_eq!(action, Action::Drop(Reason::ServiceRace), "no backend yet");
    t.backends.insert(9, backend);
    t.random = vec![0];
    let (action, m) = send(&mut t, &asked);
    assert_eq!(action, Action::Pod(4));
    assert_eq!((m.to.dst, m.to.dport_be), (ip(OTHER), backend.port_be));
}

#[test]
fn timeouts_grow_with_what_was_seen() {
    let all = flow_flag::REPLIED | flow_flag::FIN_ORIGINAL | flow_flag::FIN_REPLY;
    assert!(timeout(6, flow_flag::REPLIED) > timeout(6, 0));
    assert!(timeout(6, flow_flag::REPLIED | flow_flag::FIN_REPLY) > timeout(6, all));
    assert!(timeout(6, all | flow_flag::RST) < timeout(6, all));
    assert!(timeout(17, flow_flag::REPLIED) > timeout(17, 0));
}

/// Whatever bytes come in, nothing panics and no hook hands on what it can't read as its own.
#[test]
fn any_bytes_are_survived() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut t = tables();
    for round in 0..20_000u32 {
        let mut bytes = datagram(POD, OTHER, 1, 2).0;
        bytes.resize(42 + (next() % 80) as usize, 0);
        for _ in 0..next() % 12 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = next() as u8;
        }
        if round % 3 == 0 {
            bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
            bytes[14] = 0x60;
        }
        bytes.truncate((next() % (bytes.len() as u64 + 1)) as usize);
        let mut m = Meta::default();
        m.reset();
        let _ = from_pod(&mut Frame(bytes.clone()), &mut t, &mut m, 3);
        m.reset();
        let _ = from_uplink(&mut Frame(bytes.clone()), &mut t, &mut m);
        m.reset();
        let _ = to_pod(&mut Frame(bytes), &mut t, &mut m, 3, round % 2 == 0);
    }
}

/// Tables whose policy changes while a packet is being judged.
struct Racing {
    tables: HostTables,
    next: Config,
    judged: core::cell::Cell<bool>,
}

impl Tables for Racing {
    fn config(&self) -> Option<&Config> {
        Some(if self.judged.get() {
            &self.next
        } else {
            &self.tables.config
        })
    }
    fn endpoint(&self, ip: &Ip) -> Option<Endpoint> {
        self.tables.endpoint(ip)
    }
    fn endpoint_policy(&self, ip: &Ip) -> Option<EndpointPolicy> {
        let row = self.tables.endpoint_policy(ip);
        self.judged.set(true);
        row
    }
    fn peer(&self, ip: &Ip) -> Option<Peer> {
        self.tables.peer(ip)
    }
    fn peer_cidr(&self, ip: &Ip) -> Option<Peer> {
        self.tables.peer_cidr(ip)
    }
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVal> {
        self.tables.policy(key)
    }
    fn route(&self, ip: &Ip) -> Option<Route> {
        self.tables.route(ip)
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.tables.service(key)
    }
    fn slot(&self, key: &SlotKey) -> Option<u32> {
        self.tables.slot(key)
    }
    fn backend(&self, id: u32) -> Option<Backend> {
        self.tables.backend(id)
    }
    fn flow<R>(&mut self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        self.tables.flow(key, f)
    }
    fn flow_insert(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        self.tables.flow_insert(key, flow)
    }
    fn flow_replace(&mut self, key: &FlowKey, flow: &Flow) -> Insert {
        self.tables.flow_replace(key, flow)
    }
    fn flow_remove(&mut self, key: &FlowKey) {
        self.tables.flow_remove(key);
    }
    fn now(&self) -> u32 {
        self.tables.now()
    }
    fn random(&mut self) -> u32 {
        self.tables.random()
    }
}

/// A verdict counts for the epoch that it began under: a flow that was let through while policy
/// changed is judged once more, whether it is new or known.
#[test]
fn a_change_during_the_verdict_is_not_missed() {
    let frame = datagram(POD, OTHER, 1000, 53);
    for known in [false, true] {
        let mut tables = tables();
        tables.config.policy_epoch = 1;
        if known {
            send(&mut tables, &frame);
            tables.config.policy_epoch = 2;
        }
        let mut racing = Racing {
            next: Config {
                policy_epoch: 3,
                ..tables.config
            },
            tables,
            judged: core::cell::Cell::new(false),
        };
        let mut m = Meta::default();
        m.reset();
        let action = from_pod(&mut frame.clone(), &mut racing, &mut m, 3);
        assert_eq!(action, Action::Pod(4), "known: {known}");
        let mut tables = racing.tables;
        let under = 1 + u32::from(known);
        assert!(
            tables.flows.values().all(|f| f.epoch == under),
            "{:?}",
            tables.flows
        );
        // What has changed: nobody gets in.
        tables.config.policy_epoch = 3;
        let closed = EndpointPolicy {
            ingress_set: 9,
            ..EndpointPolicy::default()
        };
        tables.endpoint_policy.insert(ip(OTHER), closed);
        let (action, _) = send(&mut tables, &frame);
        assert_eq!(
            action,
            Action::Drop(Reason::PolicyIngress),
            "known: {known}"
        );
    }
}
