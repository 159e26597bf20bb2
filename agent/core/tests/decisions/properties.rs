//! Random histories: whatever happens, in whatever batches and with whatever restarts, the tables
//! are those of the present state alone; they say what NetworkPolicy says; and while one change is
//! being written, a packet whose verdict it does not change never sees another.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, option, prelude::*, sample::select};
use rhumb_core::{
    model::{
        EndpointSlice, HostPort, LocalEndpoint, NamedPort, Namespace, NetworkPolicy, Node,
        ObjectName, Pod, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Service, ServicePort,
        SliceEndpoint, SlicePort, protocol,
    },
    policy::Direction,
    selector::Selector,
    snapshot::{Change, Snapshot},
};

use crate::kernel::{World, admits};

const NODE: &str = "n1";
const NAMESPACES: [&str; 2] = ["x", "y"];
/// Pods 0..LOCAL are this node's.
const PODS: usize = 7;
const LOCAL: usize = 3;

fn pod_name(i: usize) -> ObjectName {
    ObjectName::new(NAMESPACES[i % 2], format!("p{i}"))
}

fn pod_ips(i: usize) -> Vec<IpAddr> {
    let node = if i < LOCAL { 1 } else { 2 };
    vec![
        format!("10.244.{node}.{}", i + 2).parse().unwrap(),
        format!("fd00:{node}::{}", i + 2).parse().unwrap(),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    let expression = (
        select(vec!["app", "tier"]),
        select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
        vec(select(vec!["a", "b"]), 1..3),
    );
    vec(expression, 0..3).prop_map(|expressions| {
        let mut out = Selector::everything();
        for (key, op, values) in expressions {
            let values = values.into_iter().map(str::to_owned).collect();
            out.expression(key.to_owned(), op, values).unwrap();
        }
        out
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let label = |key: &'static str| {
        option::of(select(vec!["a", "b", "c"])).prop_map(move |v| v.map(|v| (key, v)))
    };
    (label("app"), label("tier")).prop_map(|(a, b)| {
        [a, b]
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    })
}

const BLOCKS: [&str; 9] = [
    "0.0.0.0/0",
    "10.244.0.0/16",
    "10.244.2.0/24",
    "10.244.2.5/32",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "::/0",
    "fd00::/16",
    "fd00:2::/32",
];

fn peer() -> impl Strategy<Value = PolicyPeer> {
    prop_oneof![
        (option::of(selector()), selector())
            .prop_map(|(namespaces, pods)| PolicyPeer::Pods { namespaces, pods }),
        (select(BLOCKS.to_vec()), vec(select(BLOCKS.to_vec()), 0..3)).prop_map(|(cidr, except)| {
            PolicyPeer::Block {
                cidr: cidr.parse().unwrap(),
                except: except.iter().map(|e| e.parse().unwrap()).collect(),
            }
        }),
    ]
}

fn port() -> impl Strategy<Value = PolicyPort> {
    let port = prop_oneof![
        Just(PortMatch::Any),
        select(vec![(80, 80), (79, 8080), (1, 65535), (8080, 9000)])
            .prop_map(|(a, b)| PortMatch::Range(a, b)),
        select(vec!["http", "alt"]).prop_map(|n| PortMatch::Named(n.to_owned())),
    ];
    (select(vec![protocol::TCP, protocol::UDP]), port)
        .prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

fn rules() -> impl Strategy<Value = Option<Vec<PolicyRule>>> {
    let rule = (option::of(vec(peer(), 0..3)), option::of(vec(port(), 0..3)))
        .prop_map(|(peers, ports)| PolicyRule { peers, ports });
    option::of(vec(rule, 0..3))
}

fn policy_change() -> impl Strategy<Value = Change> {
    (
        0..4usize,
        option::weighted(0.8, (selector(), rules(), rules())),
    )
        .prop_map(|(slot, p)| {
            let name = ObjectName::new(NAMESPACES[slot % 2], format!("np{slot}"));
            let policy = p.map(|(pods, ingress, egress)| NetworkPolicy {
                name: name.clone(),
                pods,
                ingress,
                egress,
            });
            Change::Policy(name, policy)
        })
}

fn pod_change() -> impl Strategy<Value = Change> {
    let named = |name: &'static str| {
        option::of(select(vec![80, 8080])).prop_map(move |port| {
            port.map(|port| NamedPort {
                name: name.to_owned(),
                protocol: protocol::TCP,
                port,
            })
        })
    };
    let pod = (labels(), any::<bool>(), named("http"), named("alt"));
    let pod = (pod, proptest::bool::weighted(0.1), 0..4u8);
    (0..PODS, option::weighted(0.85, pod)).prop_map(|(i, pod)| {
        let name = pod_name(i);
        let pod = pod.map(|((labels, terminated, http, alt), stale, announced)| Pod {
            name: name.clone(),
            uid: format!("u{i}"),
            node: if i < LOCAL { NODE } else { "n2" }.to_owned(),
            labels,
            host_network: false,
            // Rarely, and never here: the journal is what counts for local pods.
            terminated: terminated && i == PODS - 1,
            // A status that names the address of another pod.
            ips: pod_ips(if stale { (i + 1) % PODS } else { i }),
            announced: match announced {
                0 | 1 => Vec::new(),
                2 => pod_ips(i),
                // What somebody else wrote, or of an earlier sandbox.
                _ => pod_ips((i + 2) % PODS),
            },
            ports: [http, alt].into_iter().flatten().collect(),
        });
        Change::Pod(name, pod)
    })
}

/// A local pod that the agent has asked the API for, before the watch told of it.
fn adoption() -> impl Strategy<Value = Change> {
    (0..LOCAL, labels()).prop_map(|(i, labels)| {
        Change::Adopt(Pod {
            name: pod_name(i),
            uid: format!("u{i}"),
            node: NODE.to_owned(),
            labels,
            host_network: false,
            terminated: false,
            ips: Vec::new(),
            announced: Vec::new(),
            ports: Vec::new(),
        })
    })
}

fn endpoint_change() -> impl Strategy<Value = Change> {
    // One after the other with the same address: the later one is another pod.
    (0..LOCAL, any::<bool>(), 1..3u64, host_port()).prop_map(|(i, there, life, port)| {
        let key = (format!("c{i}"), "eth0".to_owned());
        let endpoint = there.then(|| LocalEndpoint {
            container_id: key.0.clone(),
            ifname: key.1.clone(),
            pod: pod_name(i),
            uid: format!("u{i}"),
            netns_cookie: life,
            ips: pod_ips(i),
            ports: port.into_iter().collect(),
            revision: 10 * life + i as u64,
        });
        Change::Endpoint(key, endpoint)
    })
}

const HOST: [&str; 3] = ["172.30.0.11", "172.30.0.12", "fd00::11"];

fn host_port() -> impl Strategy<Value = Option<HostPort>> {
    let ip = option::of(select(vec![HOST[0], HOST[2], "127.0.0.1", "172.30.0.99"]));
    option::of((ip, 8080..8082u16).prop_map(|(ip, host_port)| HostPort {
        host_ip: ip.map(|ip| ip.parse().unwrap()),
        host_port,
        port: 80,
        protocol: protocol::TCP,
    }))
}

fn host_addresses() -> impl Strategy<Value = Change> {
    vec(any::<bool>(), HOST.len()).prop_map(|there| {
        let present = HOST.iter().zip(there).filter(|(_, there)| *there);
        Change::HostAddresses(present.map(|(ip, _)| ip.parse().unwrap()).collect())
    })
}

fn namespace_change() -> impl Strategy<Value = Change> {
    (select(NAMESPACES.to_vec()), labels()).prop_map(|(name, labels)| {
        Change::Namespace(
            name.to_owned(),
            Some(Namespace {
                name: name.to_owned(),
                labels,
            }),
        )
    })
}

fn service_change() -> impl Strategy<Value = Change> {
    (0..3usize, option::weighted(0.8, (0..3u8, 1..3u16))).prop_map(|(i, s)| {
        let name = ObjectName::new("x", format!("s{i}"));
        let service = s.map(|(ip, ports)| Service {
            name: name.clone(),
            cluster_ips: vec![
                IpAddr::from([10, 96, 0, ip]),
                format!("fd00:96::{ip}").parse().unwrap(),
            ],
            ports: (0..ports)
                .map(|p| ServicePort {
                    name: format!("p{p}"),
                    protocol: protocol::TCP,
                    port: 80 + p,
                })
                .collect(),
            affinity: None,
        });
        Change::Service(name, service)
    })
}

fn slice_change() -> impl Strategy<Value = Change> {
    let endpoint =
        (0..PODS, any::<bool>(), any::<bool>()).prop_map(|(i, v4, ready)| SliceEndpoint {
            address: pod_ips(i)[usize::from(!v4)],
            ready,
            serving: true,
            terminating: !ready,
        });
    let slice = (0..3usize, vec(endpoint, 0..6), 8080..8082u16);
    (0..4usize, option::weighted(0.8, slice)).prop_map(|(slot, slice)| {
        let name = ObjectName::new("x", format!("slice{slot}"));
        let slice = slice.map(|(service, endpoints, port)| EndpointSlice {
            name: name.clone(),
            service: format!("s{service}"),
            ports: vec![SlicePort {
                name: "p0".into(),
                protocol: protocol::TCP,
                port,
            }],
            endpoints,
        });
        Change::Slice(name, slice)
    })
}

/// Of either node, with addresses for all of its pods, for some, or for none.
fn node_change() -> impl Strategy<Value = Change> {
    (1..3, 0..4).prop_map(|(i, much)| {
        let cidrs: &[String] = match much {
            0 => &[],
            1 => &[format!("10.244.{i}.0/29"), format!("fd00:{i}::/125")],
            _ => &[format!("10.244.{i}.0/24"), format!("fd00:{i}::/64")],
        };
        let name = format!("n{i}");
        let node = Node {
            name: name.clone(),
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            addresses: Vec::new(),
            internal: Vec::new(),
        };
        Change::Node(name, (much < 3).then_some(node))
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => node_change(),
        3 => policy_change(),
        3 => pod_change(),
        2 => endpoint_change(),
        1 => namespace_change(),
        1 => adoption(),
        2 => service_change(),
        3 => slice_change(),
        1 => host_addresses(),
    ]
}

/// A fresh world with the same present: what a node that starts now would write.
fn from_scratch(s: &Snapshot) -> World {
    let mut w = World::new(NODE);
    let objects = (s
        .namespaces
        .iter()
        .map(|(k, v)| Change::Namespace(k.clone(), Some(v.clone()))))
    .chain(
        s.nodes
            .iter()
            .map(|(k, v)| Change::Node(k.clone(), Some(v.clone()))),
    )
    .chain(
        s.pods
            .iter()
            .map(|(k, v)| Change::Pod(k.clone(), Some((**v).clone()))),
    )
    .chain(
        s.services
            .iter()
            .map(|(k, v)| Change::Service(k.clone(), Some(v.clone()))),
    )
    .chain(
        s.slices
            .iter()
            .map(|(k, v)| Change::Slice(k.clone(), Some(v.clone()))),
    )
    .chain(
        s.policies
            .iter()
            .map(|(k, v)| Change::Policy(k.clone(), Some(v.clone()))),
    )
    .chain(
        s.endpoints
            .iter()
            .map(|(k, v)| Change::Endpoint(k.clone(), Some(v.clone()))),
    )
    .chain(s.adopted.values().map(|v| Change::Adopt((**v).clone())))
    .chain([Change::HostAddresses(s.host_addresses.clone())]);
    objects.for_each(|c| w.take(c));
    w.apply();
    w
}

/// NetworkPolicy by its text, straight from the objects.
fn oracle(
    s: &Snapshot,
    local: IpAddr,
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    port: u16,
) -> Option<bool> {
    let endpoint = s.endpoints.values().find(|e| e.ips.contains(&local))?;
    let in_namespace: Vec<&NetworkPolicy> = s
        .policies
        .values()
        .filter(|p| p.name.namespace == endpoint.pod.namespace)
        .collect();
    let of = |e: &LocalEndpoint| s.pods.get(&e.pod).or_else(|| s.adopted.get(&e.pod));
    let Some(pod) = of(endpoint) else {
        return Some(in_namespace.is_empty());
    };
    // On this node the journal says whose an address is, elsewhere the status does.
    let holder = |ip: IpAddr| -> Option<&Pod> {
        if let Some(e) = s.endpoints.values().find(|e| e.ips.contains(&ip)) {
            return of(e).map(|p| &**p);
        }
        s.pods
            .values()
            .map(|p| &**p)
            .filter(|p| !p.terminated)
            .filter(|p| {
                let node = s.nodes.get(&p.node);
                let cidrs = node.map_or(&[][..], |n| &n.pod_cidrs);
                let of_node = cidrs.iter().any(|c| c.contains(ip));
                p.ips.contains(&ip) || p.announced.contains(&ip) && of_node
            })
            // One of two claims is stale: an order that does not depend on that of the events.
            .max_by_key(|p| {
                let (status, announced) = (p.ips.contains(&ip), p.announced.contains(&ip));
                let rank = match status {
                    true if announced || p.announced.is_empty() => 3,
                    false => 2,
                    true => 1,
                };
                (rank, &p.uid)
            })
    };
    let peer_pod = holder(peer);
    let mut isolated = false;
    for policy in in_namespace.iter().filter(|p| p.pods.matches(&pod.labels)) {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let Some(rules) = rules else { continue };
        isolated = true;
        for rule in rules {
            let peer_matches = rule.peers.as_ref().is_none_or(|peers| {
                peers.iter().any(|p| match p {
                    PolicyPeer::Pods { namespaces, pods } => peer_pod.is_some_and(|pp| {
                        let none = BTreeMap::new();
                        let in_scope = match namespaces {
                            None => pp.name.namespace == policy.name.namespace,
                            Some(sel) => sel.matches(
                                s.namespaces
                                    .get(&pp.name.namespace)
                                    .map_or(&none, |n| &n.labels),
                            ),
                        };
                        in_scope && pods.matches(&pp.labels)
                    }),
                    PolicyPeer::Block { cidr, except } => {
                        cidr.contains(peer) && !except.iter().any(|e| e.contains(peer))
                    }
                })
            });
            let target = match direction {
                Direction::Ingress => Some(&**pod),
                Direction::Egress => peer_pod,
            };
            let port_matches = rule.ports.as_ref().is_none_or(|ports| {
                ports.iter().any(|p| {
                    p.protocol == protocol
                        && match &p.port {
                            PortMatch::Any => true,
                            PortMatch::Range(a, b) => (*a..=*b).contains(&port),
                            PortMatch::Named(name) => target
                                .and_then(|t| {
                                    t.ports
                                        .iter()
                                        .find(|x| x.name == *name && x.protocol == protocol)
                                })
                                .is_some_and(|x| x.port == port),
                        }
                })
            });
            if peer_matches && port_matches {
                return Some(true);
            }
        }
    }
    Some(!isolated)
}

type Probe = (IpAddr, Direction, IpAddr, u8, u16);

fn probes() -> Vec<Probe> {
    let outside = [
        "192.0.2.1",
        "192.0.2.200",
        "10.9.9.9",
        "2001:db8::1",
        "fd00:2::9999",
    ];
    let mut out = Vec::new();
    let peers: Vec<IpAddr> = (0..PODS)
        .flat_map(pod_ips)
        .chain(outside.iter().map(|o| o.parse().unwrap()))
        .collect();
    for local in (0..LOCAL).flat_map(pod_ips) {
        for peer in &peers {
            if peer.is_ipv4() != local.is_ipv4() || *peer == local {
                continue;
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                for (protocol, port) in [
                    (protocol::TCP, 80),
                    (protocol::TCP, 8080),
                    (protocol::UDP, 80),
                    (protocol::TCP, 9001),
                    (1, 0),
                ] {
                    out.push((local, direction, *peer, protocol, port));
                }
            }
        }
    }
    out
}

fn by_oracle(s: &Snapshot, probes: &[Probe]) -> Vec<Option<bool>> {
    probes
        .iter()
        .map(|(l, d, p, pr, po)| oracle(s, *l, *d, *p, *pr, *po))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn tables_depend_on_the_present_alone(
        batches in vec(
            (vec(change(), 1..8), any::<bool>(), proptest::option::of(0..40usize)),
            1..8,
        )
    ) {
        let probes = probes();
        let mut world = World::new(NODE);
        for (changes, restart, killed_after) in batches {
            changes.into_iter().for_each(|c| world.take(c));
            if let Some(steps) = killed_after {
                world.apply_cut(steps);
            }
            world.apply();
            if restart {
                world.restart();
                prop_assert_eq!(world.apply(), 0, "a restart writes nothing");
            }
            prop_assert_eq!(world.dump(), from_scratch(&world.snapshot).dump());
            let expected = by_oracle(&world.snapshot, &probes);
            for ((l, d, p, pr, po), want) in probes.iter().zip(expected) {
                let got = admits(&world.kernel, *l, *d, *p, *pr, *po);
                prop_assert_eq!(got, want, "{} {:?} {} {}/{}\n{}", l, d, p, po, pr, world.dump());
            }
        }
    }

    #[test]
    fn a_change_disturbs_only_what_it_is_about(changes in vec(change(), 1..24)) {
        let probes = probes();
        let mut world = World::new(NODE);
        world.apply();
        for change in changes {
            let before = by_oracle(&world.snapshot, &probes);
            world.take(change.clone());
            let after = by_oracle(&world.snapshot, &probes);
            let steady: Vec<(&Probe, bool)> = probes
                .iter()
                .zip(before.iter().zip(&after))
                .filter_map(|(p, (b, a))| match (b, a) {
                    (Some(b), Some(a)) if b == a => Some((p, *b)),
                    _ => None,
                })
                // A part is enough for each step; all are looked at over the cases.
                .step_by(7)
                .collect();
            world.apply_watched(|tables, step| {
                for ((l, d, p, pr, po), want) in &steady {
                    let got = admits(tables, *l, *d, *p, *pr, *po);
                    assert_eq!(got, Some(*want), "{l} {d:?} {p} {po}/{pr} after {step:?} of {change:?}");
                }
            });
        }
    }
}
