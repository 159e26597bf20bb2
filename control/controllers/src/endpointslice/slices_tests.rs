use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use proptest::prelude::*;

use super::*;

fn service() -> Service {
    let mut s = Service::default();
    s.metadata.namespace = Some("default".into());
    s.metadata.name = Some("web".into());
    s.metadata.uid = Some("u".into());
    s
}

fn endpoint(n: u32, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![format!("10.0.{}.{}", n / 250, n % 250)],
        conditions: Some(k8s_openapi::api::discovery::v1::EndpointConditions {
            ready: Some(ready),
            ..Default::default()
        }),
        target_ref: Some(ObjectReference {
            uid: Some(format!("uid-{n}")),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn group(address_type: &'static str, port: i32, endpoints: impl IntoIterator<Item = u32>) -> Group {
    Group {
        address_type,
        ports: vec![EndpointPort {
            name: Some(String::new()),
            port: Some(port),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }],
        endpoints: endpoints.into_iter().map(|n| endpoint(n, true)).collect(),
    }
}

/// The server: names what is created, applies the rest.
fn apply(existing: &[EndpointSlice], plan: Plan, names: &mut u32) -> Vec<EndpointSlice> {
    let gone: BTreeSet<_> = plan
        .delete
        .iter()
        .map(|s| s.metadata.name.clone())
        .collect();
    let mut out: Vec<EndpointSlice> = existing
        .iter()
        .filter(|s| !gone.contains(&s.metadata.name))
        .cloned()
        .collect();
    for slice in plan.update {
        let at = out
            .iter()
            .position(|s| s.metadata.name == slice.metadata.name)
            .unwrap();
        assert_eq!(
            out[at].address_type, slice.address_type,
            "the address type can't be changed"
        );
        out[at] = slice;
    }
    for mut slice in plan.create {
        *names += 1;
        slice.metadata.name = Some(format!("web-{names}"));
        out.push(slice);
    }
    out
}

fn held(slices: &[EndpointSlice], group: &Group) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = slices
        .iter()
        .filter(|s| s.address_type == group.address_type && sorted(s.ports.as_ref()) == group.ports)
        .flat_map(|s| s.endpoints.clone().unwrap_or_default())
        .collect();
    all.sort_by_key(identity);
    all
}

fn writes(plan: &Plan) -> (usize, usize, usize) {
    (plan.create.len(), plan.update.len(), plan.delete.len())
}

#[test]
fn what_is_right_is_not_written() {
    let mut names = 0;
    let groups = [group("IPv4", 80, 0..150), group("IPv6", 80, 0..3)];
    let slices = apply(&[], plan(&service(), &groups, vec![]), &mut names);
    assert_eq!(slices.len(), 3);
    assert_eq!(
        writes(&plan(&service(), &groups, slices.clone())),
        (0, 0, 0)
    );
}

#[test]
fn one_change_is_one_write() {
    let mut names = 0;
    let slices = apply(
        &[],
        plan(&service(), &[group("IPv4", 80, 0..250)], vec![]),
        &mut names,
    );
    assert_eq!(slices.len(), 3);
    let mut changed = group("IPv4", 80, 0..250);
    changed.endpoints[120] = endpoint(120, false);
    assert_eq!(
        writes(&plan(&service(), &[changed], slices.clone())),
        (0, 1, 0)
    );
    assert_eq!(
        writes(&plan(
            &service(),
            &[group("IPv4", 80, 0..251)],
            slices.clone()
        )),
        (0, 1, 0),
        "into the slice with room"
    );
    let replaced = group("IPv4", 80, (0..250).filter(|n| *n != 50).chain([900]));
    assert_eq!(
        writes(&plan(&service(), &[replaced], slices.clone())),
        (0, 1, 0),
        "in the place of the one that went"
    );
}

#[test]
fn the_last_endpoint_leaves_an_empty_slice_which_the_next_fills() {
    let mut names = 0;
    let one = [group("IPv4", 80, [1])];
    let none = [Group {
        address_type: "IPv4",
        ports: vec![],
        endpoints: vec![],
    }];
    let slices = apply(&[], plan(&service(), &one, vec![]), &mut names);
    let to_none = plan(&service(), &none, slices.clone());
    assert_eq!(writes(&to_none), (0, 1, 0));
    let slices = apply(&slices, to_none, &mut names);
    assert_eq!(slices.len(), 1);
    assert_eq!(writes(&plan(&service(), &none, slices.clone())), (0, 0, 0));
    assert_eq!(writes(&plan(&service(), &one, slices.clone())), (0, 1, 0));
}

#[test]
fn labels_follow_the_service() {
    let mut names = 0;
    let groups = [group("IPv4", 80, 0..2)];
    let slices = apply(&[], plan(&service(), &groups, vec![]), &mut names);
    let mut s = service();
    s.metadata.labels = Some([("team".to_string(), "a".to_string())].into());
    s.spec.get_or_insert_default().cluster_ip = Some("None".into());
    let p = plan(&s, &groups, slices.clone());
    assert_eq!(writes(&p), (0, 1, 0));
    let labels = p.update[0].metadata.labels.clone().unwrap();
    assert_eq!(labels.get("team").map(String::as_str), Some("a"));
    assert_eq!(labels.get(SERVICE_NAME).map(String::as_str), Some("web"));
    assert!(labels.contains_key(HEADLESS));
}

proptest! {
    /// Any walk through sets of endpoints: after each step the slices hold exactly what is wanted, none
    /// more than allowed, and a second look finds nothing to do.
    #[test]
    fn slices_follow_any_walk(steps in proptest::collection::vec(
        (proptest::collection::btree_set(0..400u32, 0..260), proptest::collection::btree_set(0..20u32, 0..10), any::<bool>()), 1..6,
    )) {
        let mut slices: Vec<EndpointSlice> = Vec::new();
        let mut names = 0;
        for (v4, v6, second_port) in steps {
            let mut groups = vec![group("IPv4", 80, v4), group("IPv6", 80, v6)];
            if second_port {
                groups.push(group("IPv4", 81, 500..510));
            }
            let p = plan(&service(), &groups, slices.clone());
            slices = apply(&slices, p, &mut names);
            for g in &groups {
                let mut wanted = g.endpoints.clone();
                wanted.sort_by_key(identity);
                prop_assert_eq!(held(&slices, g), wanted);
            }
            let total: usize = slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum();
            prop_assert_eq!(total, groups.iter().map(|g| g.endpoints.len()).sum::<usize>());
            prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().map_or(0, Vec::len) <= MAX_ENDPOINTS));
            prop_assert_eq!(writes(&plan(&service(), &groups, slices.clone())), (0, 0, 0));
        }
    }
}
