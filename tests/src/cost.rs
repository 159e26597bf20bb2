//! What a packet costs in each program, by BPF_PROG_TEST_RUN.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use rhumb_common::addr::{Ip, prefix_len};
use rhumb_common::logic::host::HostTables;
use rhumb_common::maps::{
    Backend, Config, Endpoint, EndpointPolicy, PolicyKey, PolicyVal, Route, Service, ServiceKey,
    SlotKey, endpoint_flag, name, policy_prefix, route_class, verdict,
};

use crate::frames::{ACK, Frame, tcp, udp};
use crate::kernel::{At, Programs};

/// Nanoseconds a packet, as the kernel counts them.
#[derive(Clone, Debug)]
pub struct Cost {
    pub what: String,
    pub nanoseconds: u64,
}

const POD: [&str; 2] = ["10.211.1.10", "fd00:211:1::a"];
const PEER: [&str; 2] = ["10.211.1.11", "fd00:211:1::b"];
const CUT_OFF: [&str; 2] = ["10.211.1.12", "fd00:211:1::c"];
const FAR: [&str; 2] = ["10.211.2.10", "fd00:211:2::a"];
const VIP: [&str; 2] = ["10.96.211.1", "fd00:96::d3:1"];

/// The loopback interface, where test runs are.
const HERE: At = At {
    ifindex: 1,
    ingress_ifindex: 1,
};

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

fn tables() -> HostTables {
    let mut t = HostTables {
        config: Config {
            abi: rhumb_common::ABI_VERSION,
            nat_port_min: 50_000,
            nat_port_max: 59_999,
            policy_epoch: 1,
            ..Config::default()
        },
        ..HostTables::default()
    };
    for i in 0..2 {
        for (pod, ifindex) in [(POD[i], 1), (PEER[i], 7), (CUT_OFF[i], 8)] {
            let endpoint = Endpoint {
                ifindex,
                flags: endpoint_flag::OPEN,
                ..Endpoint::default()
            };
            t.endpoints.insert(ip(pod), endpoint);
        }
        let sets = |ingress_set, egress_set| EndpointPolicy {
            ingress_set,
            egress_set,
            netns_cookie: 0,
        };
        t.endpoint_policy.insert(ip(POD[i]), sets(0, 1));
        t.endpoint_policy.insert(ip(PEER[i]), sets(1, 0));
        t.endpoint_policy.insert(ip(CUT_OFF[i]), sets(2, 0));
        let family = prefix_len(i == 0, [16, 32][i]);
        let cluster = Route {
            class: route_class::CLUSTER,
            _pad: 0,
        };
        t.routes.insert(family, &ip(FAR[i]).octets(), cluster);
        let backend = Backend {
            addr: ip(PEER[i]),
            port_be: 8080u16.to_be(),
            protocol: 6,
            flags: 0,
            generation: 1,
        };
        let id = i as u32 + 1;
        t.backends.insert(id, backend);
        t.slots.insert(
            SlotKey {
                service: id,
                slot: 0,
            },
            id,
        );
        let service = Service {
            id,
            count: 1,
            flags: 0,
            affinity: 0,
        };
        for protocol in [6, 17] {
            let key = ServiceKey {
                vip: ip(VIP[i]),
                port_be: 80u16.to_be(),
                protocol,
                scope: 0,
                _pad: 0,
            };
            t.services.insert(key, service);
        }
    }
    let allow = PolicyVal {
        rule: 1,
        verdict: verdict::ALLOW,
    };
    let everyone = PolicyKey::new(1, 0, 0, 0);
    t.policy_insert(policy_prefix::ANY_PROTOCOL, &everyone, allow);
    t
}

/// Measures every path; `repeat` runs each.
pub fn measure(repeat: u32) -> Result<Vec<Cost>> {
    let mut programs = Programs::load();
    programs.write(&tables());
    let mut costs = Vec::new();
    for (i, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let frame = |src: &str, dst: &str, body| Frame::new(src, dst, body).bytes();
        // The kernel repeats on the packet as the program left it: rewritten addresses, a lower
        // TTL. Paths that rewrite nothing but the TTL are measured in runs short enough for it.
        for (what, program, bytes, each) in [
            (
                "from_pod, established, same node",
                name::FROM_POD,
                frame(POD[i], PEER[i], tcp(40_000, 8080, ACK)),
                50,
            ),
            (
                "from_pod, established, denied",
                name::FROM_POD,
                frame(POD[i], CUT_OFF[i], udp(40_000, 8080)),
                repeat,
            ),
            (
                "from_pod, spoofed",
                name::FROM_POD,
                frame(FAR[i], PEER[i], udp(40_000, 8080)),
                repeat,
            ),
            (
                "from_uplink, established",
                name::FROM_UPLINK,
                frame(FAR[i], POD[i], tcp(40_000, 8080, ACK)),
                50,
            ),
            (
                "from_uplink, not ours",
                name::FROM_UPLINK,
                frame(FAR[i], FAR[i], tcp(40_000, 8080, ACK)),
                repeat,
            ),
            (
                "to_pod, from the node",
                name::TO_POD,
                frame(FAR[i], POD[i], tcp(40_001, 8080, ACK)),
                repeat,
            ),
        ] {
            let at = if program == name::TO_POD {
                At {
                    ingress_ifindex: 0,
                    ..HERE
                }
            } else {
                HERE
            };
            let nanoseconds = average(&mut programs, program, &bytes, at, each, repeat)?;
            costs.push(Cost {
                what: format!("{what}, {family}"),
                nanoseconds,
            });
        }
        // One run each: a Service's packet is rewritten, and a flow is new only once.
        let mut first = 0;
        let mut then = 0;
        let count = 2_000;
        for port in 0..count {
            let bytes = frame(POD[i], VIP[i], tcp(10_000 + port, 80, ACK));
            first += run(programs.classifier(name::FROM_POD), &bytes)?;
            then += run(programs.classifier(name::FROM_POD), &bytes)?;
        }
        for (what, total) in [("new flow", first), ("established", then)] {
            costs.push(Cost {
                what: format!("from_pod, Service, {what}, single runs, {family}"),
                nanoseconds: total / u64::from(count),
            });
        }
    }
    Ok(costs)
}

fn run(program: &SchedClassifier, bytes: &[u8]) -> Result<u64> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(bytes);
    let ran = program.test_run(options).context("test run")?;
    Ok(ran.duration.as_nanos() as u64)
}

fn average(
    programs: &mut Programs,
    program: &str,
    bytes: &[u8],
    at: At,
    each: u32,
    repeat: u32,
) -> Result<u64> {
    programs.run(program, bytes, at)?;
    let rounds = (repeat / each).clamp(1, 2_000);
    let mut total = 0;
    for _ in 0..rounds {
        total += programs
            .run_many(program, bytes, at, each)?
            .duration
            .as_nanos();
    }
    Ok(total as u64 / u64::from(rounds))
}
