use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::*;
use crate::node::NodeSpec;

fn node(name: &str, cpu: &str, memory: &str, pods: &str, extra: Value) -> NodeSpec {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": {
            "allocatable": { "cpu": cpu, "memory": memory, "pods": pods },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    json_patch_merge(&mut node, &extra);
    NodeSpec::of(&serde_json::from_value::<Node>(node).unwrap())
}

fn json_patch_merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (k, v) in patch {
                json_patch_merge(base.entry(k).or_insert(Value::Null), v);
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn pod(name: &str, spec: Value) -> PodInfo {
    pod_labelled(name, json!({}), spec)
}

fn pod_labelled(name: &str, labels: Value, mut spec: Value) -> PodInfo {
    if spec["containers"].is_null() {
        spec["containers"] = json!([{ "name": "c" }]);
    }
    let pod = json!({ "metadata": { "namespace": "default", "name": name, "uid": name, "labels": labels }, "spec": spec });
    PodInfo::of(&serde_json::from_value::<Pod>(pod).unwrap())
}

fn requesting(name: &str, cpu: &str, memory: &str) -> PodInfo {
    pod(
        name,
        json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } }] }),
    )
}

fn cluster(nodes: Vec<NodeSpec>) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.put_node(node);
    }
    cache
}

fn place(pod: &PodInfo, cache: &Cache) -> Result<String, Unplaced> {
    Scheduler::default().place(pod, cache, &mut StdRng::seed_from_u64(1))
}

fn why(pod: &PodInfo, cache: &Cache) -> String {
    place(pod, cache).unwrap_err().to_string()
}

#[test]
fn the_message_counts_reasons_as_kube_scheduler_does() {
    let mut cache = cluster(vec![
        node("a", "1", "1Gi", "10", json!({})),
        node(
            "b",
            "4",
            "1Gi",
            "10",
            json!({ "spec": { "unschedulable": true } }),
        ),
        node("c", "1", "10Mi", "10", json!({})),
    ]);
    assert_eq!(
        why(&requesting("p", "2", "100Mi"), &cache),
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
    cache = cluster(vec![]);
    assert_eq!(
        why(&requesting("p", "2", "1"), &cache),
        "no nodes available to schedule pods"
    );
}

#[test]
fn a_node_that_is_not_ready_takes_nothing_even_without_its_taint() {
    let not_ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let cache = cluster(vec![node("a", "4", "4Gi", "10", not_ready)]);
    assert_eq!(
        why(&pod("p", json!({})), &cache),
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    );
    let tolerant = pod("p", json!({ "tolerations": [{ "operator": "Exists" }] }));
    assert_eq!(place(&tolerant, &cache).unwrap(), "a");
}

#[test]
fn taints_and_selectors_decide() {
    let cache = cluster(vec![
        node(
            "tainted",
            "4",
            "4Gi",
            "10",
            json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoExecute" }] } }),
        ),
        node(
            "ssd",
            "4",
            "4Gi",
            "10",
            json!({ "metadata": { "labels": { "disk": "ssd" } } }),
        ),
        node(
            "hdd",
            "4",
            "4Gi",
            "10",
            json!({ "metadata": { "labels": { "disk": "hdd" } } }),
        ),
    ]);
    assert_eq!(
        place(
            &pod("p", json!({ "nodeSelector": { "disk": "ssd" } })),
            &cache
        )
        .unwrap(),
        "ssd"
    );
    let affinity = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": "disk", "operator": "NotIn", "values": ["ssd"] }, { "key": "disk", "operator": "Exists" }] }
    ] } } } });
    assert_eq!(place(&pod("p", affinity), &cache).unwrap(), "hdd");
    assert_eq!(
        why(
            &pod("p", json!({ "nodeSelector": { "disk": "tape" } })),
            &cache
        ),
        "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 2 node(s) didn't match Pod's node affinity/selector."
    );
    let preferring = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 10, "preference": { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["hdd"] }] } }
    ] } } });
    assert_eq!(place(&pod("p", preferring), &cache).unwrap(), "hdd");
}

#[test]
fn the_pod_limit_and_host_ports_are_kept() {
    let mut cache = cluster(vec![node("a", "4", "4Gi", "2", json!({}))]);
    let port = |name: &str| {
        pod(
            name,
            json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] }),
        )
    };
    cache.assume(Arc::new(port("one")), "a");
    assert_eq!(
        why(&port("two"), &cache),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
    cache.assume(Arc::new(pod("two", json!({}))), "a");
    assert_eq!(
        why(&pod("three", json!({})), &cache),
        "0/1 nodes are available: 1 Too many pods."
    );
}

#[test]
fn pods_of_one_controller_spread() {
    let mut cache = cluster(vec![
        node("a", "2", "24Gi", "110", json!({})),
        node("b", "2", "24Gi", "110", json!({})),
    ]);
    let mut scheduler = Scheduler::default();
    let mut rng = StdRng::seed_from_u64(7);
    // One node is a good deal busier from the start.
    for i in 0..4 {
        cache.assume(Arc::new(pod(&format!("system-{i}"), json!({}))), "a");
    }
    let mut counts = BTreeMap::new();
    for i in 0..6 {
        let mut p = pod(&format!("web-{i}"), json!({}));
        p.owner = Some("rs".into());
        let node = scheduler.place(&p, &cache, &mut rng).unwrap();
        *counts.entry(node.clone()).or_insert(0) += 1;
        cache.assume(Arc::new(p), &node);
    }
    assert_eq!(counts, [("a".to_string(), 3), ("b".to_string(), 3)].into());
}

#[test]
fn required_anti_affinity_holds_both_ways() {
    let mut cache = cluster(vec![
        node("a", "4", "4Gi", "10", json!({})),
        node("b", "4", "4Gi", "10", json!({})),
    ]);
    let lonely = |name: &str| {
        pod_labelled(
            name,
            json!({ "app": "db" }),
            json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "kubernetes.io/hostname" }
            ] } } }),
        )
    };
    for i in 0..2 {
        let p = lonely(&format!("db-{i}"));
        let node = place(&p, &cache).unwrap();
        cache.assume(Arc::new(p), &node);
    }
    assert_eq!(
        cache
            .nodes()
            .iter()
            .map(|n| n.pods.len())
            .collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(
        why(&lonely("db-2"), &cache),
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    );
    // A pod that asks for nothing itself, but that the pods there refuse.
    assert_eq!(
        why(
            &pod_labelled("plain", json!({ "app": "db" }), json!({})),
            &cache
        ),
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    );
}

#[test]
fn required_affinity_follows_and_the_first_of_a_group_may_go_anywhere() {
    let mut cache = cluster(vec![
        node("a", "4", "4Gi", "10", json!({})),
        node("b", "4", "4Gi", "10", json!({})),
    ]);
    let near = |name: &str, own: &str, wants: &str| {
        pod_labelled(
            name,
            json!({ "app": own }),
            json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "labelSelector": { "matchLabels": { "app": wants } }, "topologyKey": "kubernetes.io/hostname" }
            ] } } }),
        )
    };
    assert_eq!(
        why(&near("p", "web", "cache"), &cache),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    );
    assert!(place(&near("p", "web", "web"), &cache).is_ok());
    cache.assume(
        Arc::new(pod_labelled("c", json!({ "app": "cache" }), json!({}))),
        "b",
    );
    assert_eq!(place(&near("p", "web", "cache"), &cache).unwrap(), "b");
}

#[test]
fn hard_topology_spread_holds() {
    let zone = |z: &str| json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": z } } });
    let mut cache = cluster(vec![
        node("a", "4", "4Gi", "10", zone("1")),
        node("b", "4", "4Gi", "10", zone("2")),
    ]);
    let spread = |name: &str| {
        pod_labelled(
            name,
            json!({ "app": "web" }),
            json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] }),
        )
    };
    cache.assume(Arc::new(spread("w0")), "a");
    assert_eq!(place(&spread("w1"), &cache).unwrap(), "b");
    // With the other zone closed the third may not go where it would skew.
    cache.assume(Arc::new(spread("w1")), "b");
    cache.assume(Arc::new(spread("w2")), "a");
    cache.put_node(node("b", "4", "4Gi", "1", zone("2")));
    assert_eq!(
        why(&spread("w3"), &cache),
        "0/2 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints."
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let cache = cluster(vec![node("a", "4", "4Gi", "10", json!({}))]);
    let p = pod(
        "p",
        json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] }),
    );
    assert_eq!(
        why(&p, &cache),
        "the field spec.volumes[0].persistentVolumeClaim is not supported by this scheduler"
    );
}

#[test]
fn an_update_older_than_the_binding_does_not_free_the_node() {
    let mut cache = cluster(vec![node("a", "1", "1Gi", "10", json!({}))]);
    let p = Arc::new(requesting("p", "1", "1Mi"));
    cache.assume(p.clone(), "a");
    cache.put_pod(p.clone());
    assert!(place(&requesting("q", "1", "1Mi"), &cache).is_err());
    cache.forget(&p.key, "another-uid");
    assert!(place(&requesting("q", "1", "1Mi"), &cache).is_err());
    cache.forget(&p.key, &p.uid);
    assert!(place(&requesting("q", "1", "1Mi"), &cache).is_ok());
}

#[derive(Debug, Clone)]
enum Op {
    Pod {
        name: u8,
        node: u8,
        cpu: u16,
        owner: u8,
    },
    Remove {
        name: u8,
    },
    Node {
        name: u8,
        cpu: u16,
    },
    RemoveNode {
        name: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..12u8, 0..4u8, 0..3000u16, 0..3u8).prop_map(|(name, node, cpu, owner)| Op::Pod { name, node, cpu, owner }),
        2 => (0..12u8).prop_map(|name| Op::Remove { name }),
        1 => (0..4u8, 1..4000u16).prop_map(|(name, cpu)| Op::Node { name, cpu }),
        1 => (0..4u8).prop_map(|name| Op::RemoveNode { name }),
    ]
}

proptest! {
    /// The sums that are kept step by step are those of a cache built from scratch.
    #[test]
    fn sums_are_kept_right(ops in proptest::collection::vec(op(), 0..60)) {
        let mut cache = Cache::default();
        let mut nodes: BTreeMap<u8, u16> = BTreeMap::new();
        let mut pods: BTreeMap<u8, (u8, Arc<PodInfo>)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Pod { name, node, cpu, owner } => {
                    let mut p = requesting(&format!("p{name}"), &format!("{cpu}m"), "1Mi");
                    p.owner = (owner > 0).then(|| format!("o{owner}"));
                    p.node = Some(format!("n{node}"));
                    let p = Arc::new(p);
                    pods.insert(name, (node, p.clone()));
                    cache.put_pod(p);
                }
                Op::Remove { name } => {
                    let known = pods.remove(&name).is_some();
                    prop_assert_eq!(cache.remove_pod(&rhumb_client::ObjectKey::new("default", format!("p{name}"))), known);
                }
                Op::Node { name, cpu } => {
                    nodes.insert(name, cpu);
                    cache.put_node(node(&format!("n{name}"), &format!("{cpu}m"), "1Gi", "10", json!({})));
                }
                Op::RemoveNode { name } => {
                    nodes.remove(&name);
                    cache.remove_node(&format!("n{name}"));
                }
            }
        }
        prop_assert_eq!(cache.nodes().len(), nodes.len());
        for (name, cpu) in nodes {
            let info = cache.node(&format!("n{name}")).unwrap();
            let here: Vec<_> = pods.values().filter(|(n, _)| *n == name).collect();
            prop_assert_eq!(info.spec.allocatable.milli_cpu, i64::from(cpu));
            prop_assert_eq!(info.pods.len(), here.len());
            prop_assert_eq!(info.requested.milli_cpu, here.iter().map(|(_, p)| p.requests.resources.milli_cpu).sum::<i64>());
            for owner in ["o1", "o2"] {
                let count = here.iter().filter(|(_, p)| p.owner.as_deref() == Some(owner)).count() as u32;
                prop_assert_eq!(info.owners.get(owner).copied().unwrap_or(0), count);
            }
        }
    }

    /// A chosen node has room, and when none is chosen none has.
    #[test]
    fn a_decision_is_never_wrong(cpus in proptest::collection::vec(1..4000u16, 0..8), wants in proptest::collection::vec(1..2000u16, 1..30), seed in any::<u64>()) {
        let mut cache = cluster(
            cpus.iter().enumerate().map(|(i, cpu)| node(&format!("n{i}"), &format!("{cpu}m"), "1Gi", "5", json!({}))).collect(),
        );
        let mut scheduler = Scheduler::default();
        let mut rng = StdRng::seed_from_u64(seed);
        for (i, cpu) in wants.iter().enumerate() {
            let p = requesting(&format!("p{i}"), &format!("{cpu}m"), "1Mi");
            let fits = |n: &NodeInfo| n.pods.len() < 5 && n.requested.milli_cpu + i64::from(*cpu) <= n.spec.allocatable.milli_cpu;
            match scheduler.place(&p, &cache, &mut rng) {
                Ok(name) => {
                    prop_assert!(fits(cache.node(&name).unwrap()));
                    cache.assume(Arc::new(p), &name);
                }
                Err(_) => prop_assert!(!cache.nodes().iter().any(fits)),
            }
        }
    }
}
