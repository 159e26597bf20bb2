//! Scenarios: Kubernetes objects in YAML to the dump of the kernel's tables. Each is also run
//! reversed, split, duplicated, with restarts and with detours; what comes out may not differ.
//!
//! `UPDATE_GOLDENS=1 cargo test -p rhumb-core --test decisions` writes the dumps anew; read the diff.

use std::{fs, path::PathBuf};

use rhumb_core::{
    model::{HostPort, LocalEndpoint, ObjectName},
    object,
    snapshot::Change,
};
use serde_json::Value;

use crate::kernel::World;

struct Scenario {
    name: String,
    path: PathBuf,
    node: String,
    /// Each with the change that takes it back.
    changes: Vec<(Change, Change)>,
}

fn text<'a>(v: &'a Value, field: &str) -> &'a str {
    v.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn name(v: &Value) -> ObjectName {
    ObjectName::new(
        text(&v["metadata"], "namespace"),
        text(&v["metadata"], "name"),
    )
}

fn number(v: &Value, field: &str) -> u16 {
    v[field].as_u64().and_then(|n| n.try_into().ok()).unwrap()
}

fn host_port(v: &Value) -> HostPort {
    HostPort {
        host_ip: v["hostIP"].as_str().map(|ip| ip.parse().unwrap()),
        host_port: number(v, "hostPort"),
        port: number(v, "containerPort"),
        protocol: match text(v, "protocol") {
            "udp" => 17,
            _ => 6,
        },
    }
}

fn load(path: PathBuf) -> Scenario {
    let yaml = fs::read_to_string(&path).unwrap();
    let mut node = "n1".to_owned();
    let mut changes = Vec::new();
    for document in yaml.split("\n---\n") {
        let value: Value = serde_saphyr::from_str(document)
            .unwrap_or_else(|e| panic!("{}: {e}\n{document}", path.display()));
        let kind = text(&value, "kind");
        match kind {
            // A pod's interface on this node, as the plugin's journal has it.
            "LocalEndpoint" => {
                let (namespace, pod) = text(&value, "pod").split_once('/').unwrap();
                let key = (text(&value, "containerID").to_owned(), "eth0".to_owned());
                let endpoint = LocalEndpoint {
                    container_id: key.0.clone(),
                    ifname: key.1.clone(),
                    pod: ObjectName::new(namespace, pod),
                    uid: text(&value, "uid").to_owned(),
                    netns_cookie: value["netnsCookie"].as_u64().unwrap_or(1),
                    ips: value["ips"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|ip| ip.as_str().unwrap().parse().unwrap())
                        .collect(),
                    ports: value["ports"]
                        .as_array()
                        .map_or(Vec::new(), |ports| ports.iter().map(host_port).collect()),
                    revision: value["revision"].as_u64().unwrap_or(1),
                };
                changes.push((
                    Change::Endpoint(key.clone(), Some(endpoint)),
                    Change::Endpoint(key, None),
                ));
            }
            "HostAddresses" => {
                let addresses = value["addresses"].as_array().unwrap().iter();
                let addresses = addresses.map(|ip| ip.as_str().unwrap().parse().unwrap());
                changes.push((
                    Change::HostAddresses(addresses.collect()),
                    Change::HostAddresses(Default::default()),
                ));
            }
            "ThisNode" => text(&value, "name").clone_into(&mut node),
            _ => {
                let converted = object::change(kind, &value)
                    .unwrap_or_else(|| panic!("{}: kind {kind:?}", path.display()))
                    .unwrap_or_else(|e| panic!("{}: {e}\n{document}", path.display()));
                let back = object::removal(kind, name(&value)).unwrap();
                changes.push((converted.object, back));
            }
        }
    }
    Scenario {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        path,
        node,
        changes,
    }
}

fn scenarios() -> Vec<Scenario> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scenarios in {}", dir.display());
    paths.into_iter().map(load).collect()
}

/// Plays the changes; `every` is called after each.
fn play<'a>(
    node: &str,
    changes: impl IntoIterator<Item = &'a Change>,
    mut every: impl FnMut(&mut World),
) -> World {
    let mut world = World::new(node);
    for change in changes {
        world.take(change.clone());
        every(&mut world);
    }
    world.apply();
    world
}

#[test]
fn dumps_are_as_written_whatever_the_order() {
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    for s in scenarios() {
        let forward: Vec<&Change> = s.changes.iter().map(|(c, _)| c).collect();
        let squashed = play(&s.node, forward.clone(), |_| {});
        let dump = squashed.dump();
        let golden = s.path.with_extension("txt");
        if update {
            fs::write(&golden, &dump).unwrap();
        }
        let expected =
            fs::read_to_string(&golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
        assert_eq!(dump, expected, "{}", s.name);

        let same = |variant: &str, world: World| {
            assert_eq!(world.dump(), expected, "{} {variant}", s.name);
        };
        same(
            "reversed",
            play(&s.node, forward.iter().rev().copied(), |_| {}),
        );
        same(
            "split",
            play(&s.node, forward.clone(), |w| {
                w.apply();
            }),
        );
        same(
            "reversed and split",
            play(&s.node, forward.iter().rev().copied(), |w| {
                w.apply();
            }),
        );
        same(
            "duplicated",
            play(&s.node, forward.iter().flat_map(|c| [*c, *c]), |w| {
                w.apply();
            }),
        );
        same(
            "with restarts",
            play(&s.node, forward.clone(), |w| {
                w.apply();
                w.restart();
            }),
        );
        // Every object once more gone and back, a plan each time.
        let detours = s.changes.iter().flat_map(|(c, back)| [c, back, c]);
        same(
            "with detours",
            play(&s.node, detours, |w| {
                w.apply();
            }),
        );
        // A restart onto what is there changes nothing.
        let mut again = squashed;
        again.restart();
        assert_eq!(again.apply(), 0, "{}: a restart writes nothing", s.name);
        // And with everything gone, nothing is left.
        for (_, back) in &s.changes {
            again.take(back.clone());
            again.apply();
        }
        assert_eq!(again.kernel, Default::default(), "{} taken back", s.name);
    }
}
