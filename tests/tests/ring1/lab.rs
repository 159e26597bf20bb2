//! A node made of tables alone: programs run on single frames, inside a namespace whose routes
//! lead everywhere.

use anyhow::{Context, Result, ensure};
use rhumb_common::addr::prefix_len;
use rhumb_common::event::{Event, Reason};
use rhumb_common::flow::{Flow, FlowKey};
use rhumb_common::logic::host::HostTables;
use rhumb_common::maps::{
    Backend, Config, Endpoint, EndpointPolicy, Peer, PolicyKey, PolicyVal, Route, Service,
    ServiceKey, SlotKey, config_flag, endpoint_flag, name, policy_prefix, route_class, verdict,
};
use rhumb_harness::{Netns, Run, link};
use rhumb_tests::frames::Frame;
use rhumb_tests::kernel::{At, Programs, Ran};

use super::wire::ip;

/// Pods behind the interface that test runs are on, and one behind another.
pub const A: [&str; 2] = ["10.221.1.10", "fd00:221:1::a"];
pub const B: [&str; 2] = ["10.221.1.11", "fd00:221:1::b"];
pub const ELSEWHERE: [&str; 2] = ["10.221.1.12", "fd00:221:1::c"];
/// In the node's pod CIDR, but nobody's.
pub const NOBODY: [&str; 2] = ["10.221.1.99", "fd00:221:1::99"];
pub const REMOTE: [&str; 2] = ["10.221.2.10", "fd00:221:2::a"];
pub const NODE: [&str; 2] = ["172.31.221.1", "fd00:31:221::1"];
pub const OUTSIDE: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
pub const VIP: [&str; 2] = ["10.96.221.1", "fd00:96::dd:1"];

pub const NAT_MIN: u16 = 50_000;
pub const NAT_MAX: u16 = 59_999;

/// Interface of the test runs (loopback), and of ELSEWHERE.
pub const HERE: u32 = 1;
const THERE: u32 = 9;

/// What the host's stack forwards, and what the node itself sends.
pub const FORWARDED: At = At {
    ifindex: HERE,
    ingress_ifindex: 5,
};
pub const FROM_NODE: At = At {
    ifindex: HERE,
    ingress_ifindex: 0,
};

/// Kernel's codes of the programs.
/// `TC_ACT_UNSPEC`: on to the next program, and to the stack.
pub const OK: u32 = u32::MAX;
pub const SHOT: u32 = 2;
pub const REDIRECT: u32 = 7;

pub struct Lab {
    pub programs: Programs,
    pub tables: HostTables,
    pub netns: Netns,
    pub _wire: Netns,
    pub _run: Run,
}

/// Pod's and host's MAC of an endpoint, from its place in the lists above.
pub fn macs(pod: &str) -> [[u8; 6]; 2] {
    let last = *pod.as_bytes().last().expect("not empty");
    [[2, 1, 0, 0, 0, last], [2, 2, 0, 0, 0, last]]
}

fn mac_word(mac: [u8; 6]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    u64::from_ne_bytes(bytes)
}

impl Lab {
    pub fn new() -> Result<Lab> {
        let run = Run::new("ebpf-lab")?;
        let (netns, wire) = (run.netns("node")?, run.netns("wire")?);
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        link::veth(&netns, "up", &wire, "eth0")?;
        link::up(&netns, "up")?;
        link::up(&wire, "eth0")?;
        for (i, all) in ["0.0.0.0", "::"].into_iter().enumerate() {
            link::address(&netns, "up", NODE[i].parse()?, [24, 64][i])?;
            let gateway = ["172.31.221.2", "fd00:31:221::2"][i].parse()?;
            link::neighbour(&netns, "up", gateway, &[2, 9, 9, 9, 9, 9])?;
            link::route(&netns, (all.parse()?, 0), Some(gateway), "up")?;
        }
        let mut lab = Lab {
            programs: Programs::load(),
            tables: HostTables::default(),
            netns,
            _wire: wire,
            _run: run,
        };
        lab.fill();
        lab.write();
        Ok(lab)
    }

    fn fill(&mut self) {
        let t = &mut self.tables;
        t.config = Config {
            abi: rhumb_common::ABI_VERSION,
            flags: config_flag::MASQUERADE_V4 | config_flag::MASQUERADE_V6,
            uplink_ifindex: 2,
            mtu: 1500,
            node_ip4: ip(NODE[0]),
            node_ip6: ip(NODE[1]),
            nat_port_min: NAT_MIN.into(),
            nat_port_max: NAT_MAX.into(),
            policy_epoch: 1,
            host_netns: 0,
        };
        for i in 0..2 {
            for (pod, ifindex) in [(A[i], HERE), (B[i], HERE), (ELSEWHERE[i], THERE)] {
                let [pod_mac, host_mac] = macs(pod).map(mac_word);
                t.endpoints.insert(
                    ip(pod),
                    Endpoint {
                        ifindex,
                        flags: endpoint_flag::OPEN,
                        pod_mac,
                        host_mac,
                        ..Endpoint::default()
                    },
                );
            }
            let length = |v4, v6| prefix_len(i == 0, [v4, v6][i]);
            for (net, length, class) in [
                (A[i], length(16, 32), route_class::CLUSTER),
                (A[i], length(24, 48), route_class::LOCAL_PODS),
                (NODE[i], length(24, 64), route_class::CLUSTER),
                (NODE[i], length(32, 128), route_class::THIS_NODE),
            ] {
                let route = Route { class, _pad: 0 };
                t.routes.insert(length, &ip(net).octets(), route);
            }
        }
    }

    pub fn write(&mut self) {
        let Lab {
            programs, tables, ..
        } = self;
        programs.write(tables);
    }

    /// A Service of one protocol; gives the ids of its backends.
    pub fn service(&mut self, vip: &str, port: u16, protocol: u8, to: &[(&str, u16)]) -> Vec<u32> {
        let t = &mut self.tables;
        let key = ServiceKey {
            vip: ip(vip),
            port_be: port.to_be(),
            protocol,
            scope: 0,
            _pad: 0,
        };
        let id = t.services.get(&key).map(|s| s.id);
        let id = id.unwrap_or(t.services.len() as u32 + 1);
        let mut ids = Vec::new();
        for (slot, (address, port)) in to.iter().enumerate() {
            let backend = t.backends.len() as u32 + 1;
            let row = Backend {
                addr: ip(address),
                port_be: port.to_be(),
                protocol,
                flags: 0,
                generation: 1,
            };
            t.backends.insert(backend, row);
            let slot = slot as u32;
            t.slots.insert(SlotKey { service: id, slot }, backend);
            ids.push(backend);
        }
        let service = Service {
            id,
            count: to.len() as u32,
            flags: 0,
            affinity: 0,
        };
        t.services.insert(key, service);
        self.write();
        ids
    }

    pub fn sets(&mut self, pod: &str, ingress_set: u32, egress_set: u32) {
        let sets = EndpointPolicy {
            ingress_set,
            egress_set,
            netns_cookie: 0,
        };
        self.tables.endpoint_policy.insert(ip(pod), sets);
        self.next_epoch();
    }

    /// Admits an identity on one port in a set.
    pub fn allow(&mut self, set: u32, identity: u32, protocol: u8, port: u16) {
        let row = PolicyVal {
            rule: 77,
            verdict: verdict::ALLOW,
        };
        let key = PolicyKey::new(set, identity, protocol, port.to_be());
        self.tables.policy_insert(policy_prefix::PORT, &key, row);
        self.next_epoch();
    }

    pub fn peer(&mut self, address: &str, identity: u32) {
        let peer = Peer { identity, _pad: 0 };
        self.tables.peers.insert(ip(address), peer);
        self.next_epoch();
    }

    pub fn next_epoch(&mut self) {
        self.tables.config.policy_epoch += 1;
        self.write();
    }

    /// Every flow was last seen that many ticks earlier.
    pub fn age(&mut self, ticks: u32) {
        let flows = self.programs.flows();
        let mut map = self.programs.hash::<FlowKey, Flow>(name::FLOWS);
        for (key, mut flow) in flows {
            flow.last_seen = flow.last_seen.wrapping_sub(ticks);
            map.insert(key, flow, 0).expect("write FLOWS");
        }
    }

    pub fn bytes(&mut self, program: &str, bytes: &[u8], at: At) -> Result<Ran> {
        let Lab {
            programs, netns, ..
        } = self;
        netns
            .run(|| programs.run(program, bytes, at))?
            .with_context(|| format!("test run of {program}"))
    }

    pub fn at_pod(&mut self, frame: &Frame) -> Result<Ran> {
        self.bytes(name::FROM_POD, &frame.bytes(), FORWARDED)
    }

    pub fn at_uplink(&mut self, frame: &Frame) -> Result<Ran> {
        self.bytes(name::FROM_UPLINK, &frame.bytes(), FORWARDED)
    }

    pub fn at_stack(&mut self, frame: &Frame, at: At) -> Result<Ran> {
        self.bytes(name::TO_POD, &frame.bytes(), at)
    }

    /// Runs `f`, expects a drop for `reason`, and gives the event that tells of it.
    pub fn dropped(
        &mut self,
        reason: Reason,
        f: impl FnOnce(&mut Lab) -> Result<Ran>,
    ) -> Result<Event> {
        let before = self.programs.counted(reason);
        self.programs.events();
        let ran = f(self)?;
        ensure!(ran.code == SHOT, "{}: {ran:?}", reason.text());
        self.told(reason, before)
    }

    /// The only event since, and that it was counted.
    pub fn told(&mut self, reason: Reason, before: u64) -> Result<Event> {
        let now = self.programs.counted(reason);
        let events = self.programs.events();
        ensure!(now == before + 1, "{}: {events:?}", reason.text());
        ensure!(events.len() == 1, "{events:?}");
        ensure!(events[0].reason == reason as u32, "{events:?}");
        Ok(events[0])
    }
}

/// The frame came out exactly so.
#[track_caller]
pub fn expect(ran: &Ran, code: u32, frame: &Frame) {
    let seen = rhumb_tests::frames::read(&ran.frame);
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(seen.as_ref(), Some(frame));
    assert_eq!(ran.frame, frame.bytes());
}
