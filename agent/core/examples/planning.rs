//! What planning costs at the size of a large cluster: the figures of docs/benchmarks.md.
//!
//! `cargo run --release -p rhumb-core --example planning`

#![expect(clippy::unwrap_used, reason = "a benchmark's own values")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use rhumb_core::{
    Gate, Source,
    model::{
        EndpointSlice, LocalEndpoint, NamedPort, Namespace, NetworkPolicy, ObjectName, Pod,
        PolicyPeer, PolicyPort, PolicyRule, PortMatch, Service, ServicePort, SliceEndpoint,
        SlicePort, protocol,
    },
    planner::Planner,
    policy::Ids,
    selector::Selector,
    snapshot::{Change, Dirty, Snapshot},
    tables::Tables,
};

const NAMESPACES: usize = 100;
const PODS: usize = 50_000;
/// Pods of this node.
const LOCAL: usize = 110;
/// Replicas that share their labels.
const REPLICAS: usize = 10;
const POLICIES: usize = 200;
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 5;
const ROUNDS: usize = 51;

fn namespace(i: usize) -> String {
    format!("ns{}", i % NAMESPACES)
}

fn ips(i: usize) -> Vec<IpAddr> {
    let [a, b] = ((i + 2) as u16).to_be_bytes();
    vec![
        IpAddr::from([10, 244 + (i >> 16) as u8, a, b]),
        IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, i as u16 + 2]),
    ]
}

/// As a Deployment labels its pods.
fn pod(i: usize, version: &str) -> Pod {
    // Those of this node are selected by both policies of their namespace.
    let app = if i < LOCAL {
        i % NAMESPACES
    } else {
        i / NAMESPACES / REPLICAS
    };
    let labels = [
        ("app", format!("app{app}")),
        ("tier", ["web", "api", "db"][app % 3].to_owned()),
        ("pod-template-hash", format!("{:010x}", app * 7919)),
        ("version", version.to_owned()),
    ];
    Pod {
        name: ObjectName::new(namespace(i), format!("pod{i}")),
        uid: format!("uid{i}"),
        node: if i < LOCAL { "here" } else { "there" }.to_owned(),
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        host_network: false,
        terminated: false,
        ips: ips(i),
        announced: Vec::new(),
        ports: vec![NamedPort {
            name: "http".into(),
            protocol: protocol::TCP,
            port: 8080,
        }],
    }
}

fn select(key: &str, value: String) -> Selector {
    let mut out = Selector::everything();
    out.label(key.to_owned(), value);
    out
}

/// Two for each namespace: a tier lets another one in, and one lets its namespace and a block out.
fn policy(i: usize, port: u16) -> NetworkPolicy {
    let tier = |n: usize| select("tier", ["web", "api", "db"][n % 3].to_owned());
    let ports = Some(vec![PolicyPort {
        protocol: protocol::TCP,
        port: PortMatch::Range(port, port),
    }]);
    let peers = |namespaces, pods| PolicyPeer::Pods { namespaces, pods };
    let (ingress, egress) = if i < NAMESPACES {
        let from = vec![
            peers(None, tier(i + 1)),
            peers(Some(select("team", format!("team{}", i % 10))), tier(i)),
        ];
        let rule = PolicyRule {
            peers: Some(from),
            ports,
        };
        (Some(vec![rule]), None)
    } else {
        let block = PolicyPeer::Block {
            cidr: format!("192.0.{}.0/24", i % 200).parse().unwrap(),
            except: vec![format!("192.0.{}.128/25", i % 200).parse().unwrap()],
        };
        let rule = PolicyRule {
            peers: Some(vec![peers(None, Selector::everything()), block]),
            ports,
        };
        (None, Some(vec![rule]))
    };
    NetworkPolicy {
        name: ObjectName::new(namespace(i), format!("np{i}")),
        pods: tier(i % NAMESPACES),
        ingress,
        egress,
    }
}

fn slice(i: usize, endpoints: usize) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new(namespace(i), format!("svc{i}-x")),
        service: format!("svc{i}"),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: protocol::TCP,
            port: 8080,
        }],
        endpoints: (0..endpoints)
            .map(|e| SliceEndpoint {
                address: ips((i * ENDPOINTS + e) % PODS)[0],
                ready: true,
                serving: true,
                terminating: false,
            })
            .collect(),
    }
}

fn service(i: usize) -> Service {
    Service {
        name: ObjectName::new(namespace(i), format!("svc{i}")),
        cluster_ips: vec![[10, 96, (i >> 8) as u8, i as u8].into()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: protocol::TCP,
            port: 80,
        }],
        affinity: None,
    }
}

fn cluster() -> Snapshot {
    let mut s = Snapshot::new("here");
    let mut take = |change| drop(s.apply(change));
    for i in 0..NAMESPACES {
        let name = namespace(i);
        let labels = [("team".to_owned(), format!("team{}", i % 10))].into();
        take(Change::Namespace(
            name.clone(),
            Some(Namespace { name, labels }),
        ));
    }
    for i in 0..PODS {
        let pod = pod(i, "1");
        take(Change::Pod(pod.name.clone(), Some(pod)));
    }
    for i in 0..LOCAL {
        let key = (format!("c{i}"), "eth0".to_owned());
        let endpoint = LocalEndpoint {
            container_id: key.0.clone(),
            ifname: key.1.clone(),
            pod: pod(i, "1").name,
            uid: format!("uid{i}"),
            netns_cookie: i as u64 + 1,
            ips: ips(i),
            ports: Vec::new(),
            revision: i as u64,
        };
        take(Change::Endpoint(key, Some(endpoint)));
    }
    for i in 0..POLICIES {
        let policy = policy(i, 8080);
        take(Change::Policy(policy.name.clone(), Some(policy)));
    }
    for i in 0..SERVICES {
        take(Change::Service(service(i).name, Some(service(i))));
        take(Change::Slice(
            slice(i, ENDPOINTS).name,
            Some(slice(i, ENDPOINTS)),
        ));
    }
    s
}

/// Median and longest time of a plan, and its steps, over many changes of a kind.
fn measure(what: &str, s: &mut Snapshot, planner: &mut Planner, change: impl Fn(usize) -> Change) {
    let proof = proof();
    let mut times: Vec<(Duration, usize)> = (0..ROUNDS)
        .map(|round| {
            let change = change(round);
            let start = Instant::now();
            let dirty = s.apply(change);
            let steps = planner.plan(s, &dirty, &proof).len();
            (start.elapsed(), steps)
        })
        .collect();
    times.sort_unstable();
    let (median, steps) = times[ROUNDS / 2];
    let (longest, _) = times[ROUNDS - 1];
    println!("{what}: median {median:.2?}, longest {longest:.2?}, {steps} steps");
}

fn proof() -> rhumb_core::Synced {
    let mut gate = Gate::default();
    Source::ALL.into_iter().for_each(|s| gate.mark(s));
    gate.proof().unwrap()
}

fn main() {
    let mut s = cluster();
    let mut planner = Planner::restore(Tables::default(), Ids::default(), 1);
    let start = Instant::now();
    let steps = planner.plan(&s, &Dirty::all(&s), &proof()).len();
    println!("from scratch: {:.1?}, {steps} steps", start.elapsed());
    let a = planner.actual();
    let sizes = (a.peers.len(), a.rows.len(), a.endpoint_policy.len());
    println!("peers, rows, local addresses: {sizes:?}");

    let flip = |round: usize| ["2", "1"][round % 2];
    measure("one slice", &mut s, &mut planner, |r| {
        let slice = slice(r, ENDPOINTS - (r % 2));
        Change::Slice(slice.name.clone(), Some(slice))
    });
    measure("a remote pod's labels", &mut s, &mut planner, |r| {
        let pod = pod(LOCAL + 977 * (r / 2), flip(r));
        Change::Pod(pod.name.clone(), Some(pod))
    });
    measure("a remote pod, gone and back", &mut s, &mut planner, |r| {
        let pod = pod(LOCAL + 977 * (r / 2), "1");
        Change::Pod(pod.name.clone(), (r % 2 == 1).then_some(pod))
    });
    measure("a local pod's labels", &mut s, &mut planner, |r| {
        let pod = pod(r / 2, flip(r));
        Change::Pod(pod.name.clone(), Some(pod))
    });
    measure("a policy's ports", &mut s, &mut planner, |r| {
        let policy = policy(r / 2, 8080 + 1 - (r % 2) as u16);
        Change::Policy(policy.name.clone(), Some(policy))
    });
    measure("a policy, gone and back", &mut s, &mut planner, |r| {
        let policy = policy(r / 2, 8080);
        Change::Policy(policy.name.clone(), (r % 2 == 1).then_some(policy))
    });
    measure(
        "an egress policy, gone and back",
        &mut s,
        &mut planner,
        |r| {
            let policy = policy(NAMESPACES + r / 2, 8080);
            Change::Policy(policy.name.clone(), (r % 2 == 1).then_some(policy))
        },
    );
    measure("a namespace's labels", &mut s, &mut planner, |r| {
        let name = namespace(r / 2);
        let team = if r % 2 == 0 { r + 1 } else { r / 2 };
        let labels = [("team".to_owned(), format!("team{}", team % 10))].into();
        Change::Namespace(name.clone(), Some(Namespace { name, labels }))
    });
}
