//! What isolates each local pod, straight from the snapshot.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rhumb_common::{
    addr::Ip,
    maps::{EndpointPolicy, namespace_hash},
};

use super::{
    Atom, Direction, Ids, NamespaceScope, RuleName, SetContent, SetPort, SetRule, UNKNOWN_POD,
};
use crate::{
    model::{NamedPort, NetworkPolicy, ObjectName, Pod, PolicyPeer, PolicyRule, PortMatch},
    snapshot::Snapshot,
};

/// The sets that the node's pods need, by number.
pub type Sets = BTreeMap<u32, Arc<SetContent>>;

/// ENDPOINT_POLICY, and the sets that it names.
pub fn desired(snapshot: &Snapshot, ids: &mut Ids) -> (BTreeMap<Ip, EndpointPolicy>, Sets) {
    let mut out = BTreeMap::new();
    let mut sets = Sets::new();
    let by_namespace = policies_by_namespace(snapshot);
    for endpoint in snapshot.endpoints.values() {
        let policies = by_namespace
            .get(endpoint.pod.namespace.as_str())
            .map_or(&[][..], Vec::as_slice);
        let mut set = |content: Option<SetContent>| {
            content.map_or(0, |content| {
                let id = ids.set_id(&content);
                sets.entry(id).or_insert_with(|| Arc::new(content));
                id
            })
        };
        let (ingress_set, egress_set) = match snapshot.pod_of(endpoint) {
            Some(pod) => (
                set(set_of(pod, policies, Direction::Ingress)),
                set(set_of(pod, policies, Direction::Egress)),
            ),
            // Deleted by force while it still runs, or not seen yet: without labels it is open
            // only where no policy could select it.
            None if policies.is_empty() => (0, 0),
            None => (
                set(Some(closed(Direction::Ingress))),
                set(Some(closed(Direction::Egress))),
            ),
        };
        let row = EndpointPolicy {
            ingress_set,
            egress_set,
            netns_cookie: endpoint.netns_cookie,
        };
        for ip in &endpoint.ips {
            out.insert((*ip).into(), row);
        }
    }
    (out, sets)
}

/// Namespaces with any NetworkPolicy, by hash; the value counts them.
pub fn isolated_namespaces(snapshot: &Snapshot) -> BTreeMap<u64, u32> {
    let mut out = BTreeMap::new();
    for name in snapshot.policies.keys() {
        *out.entry(namespace_hash(&name.namespace)).or_insert(0) += 1;
    }
    out
}

fn policies_by_namespace(snapshot: &Snapshot) -> HashMap<&str, Vec<&NetworkPolicy>> {
    let mut out: HashMap<&str, Vec<&NetworkPolicy>> = HashMap::new();
    for policy in snapshot.policies.values() {
        out.entry(&policy.name.namespace).or_default().push(policy);
    }
    out
}

fn closed(direction: Direction) -> SetContent {
    SetContent {
        direction,
        policies: vec![UNKNOWN_POD.to_owned()],
        rules: Vec::new(),
    }
}

/// What isolates `pod` in a direction, or `None`.
fn set_of(pod: &Pod, policies: &[&NetworkPolicy], direction: Direction) -> Option<SetContent> {
    if pod.host_network {
        return None;
    }
    let mut content = SetContent {
        direction,
        policies: Vec::new(),
        rules: Vec::new(),
    };
    for policy in policies.iter().filter(|p| p.pods.matches(&pod.labels)) {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let Some(rules) = rules else { continue };
        let name = policy.name.to_string();
        for (index, rule) in rules.iter().enumerate() {
            content.rules.push(SetRule {
                name: RuleName {
                    policy: name.clone(),
                    direction,
                    index: index as u32,
                },
                peers: peers(&policy.name, rule),
                ports: ports(pod, rule, direction),
            });
        }
        content.policies.push(name);
    }
    (!content.policies.is_empty()).then_some(content)
}

fn peers(policy: &ObjectName, rule: &PolicyRule) -> Option<Vec<Atom>> {
    let peers = rule.peers.as_ref()?;
    let mut atoms: Vec<Atom> = peers
        .iter()
        .map(|peer| match peer {
            PolicyPeer::Pods { namespaces, pods } => Atom::Pods {
                namespaces: namespaces.clone().map_or_else(
                    || NamespaceScope::Name(policy.namespace.clone()),
                    NamespaceScope::Selector,
                ),
                pods: pods.clone(),
            },
            PolicyPeer::Block { cidr, except } => {
                let mut except = except.clone();
                except.sort_unstable();
                except.dedup();
                Atom::Block {
                    cidr: *cidr,
                    except,
                }
            }
        })
        .collect();
    atoms.sort_unstable();
    atoms.dedup();
    Some(atoms)
}

fn ports(pod: &Pod, rule: &PolicyRule, direction: Direction) -> Option<Vec<SetPort>> {
    let ports = rule.ports.as_ref()?;
    let resolve = |port: &crate::model::PolicyPort| {
        let port_match = match (&port.port, direction) {
            // At ingress the destination is this pod. A name that it does not have admits nothing.
            (PortMatch::Named(name), Direction::Ingress) => {
                let number = named(&pod.ports, name, port.protocol)?;
                PortMatch::Range(number, number)
            }
            (other, _) => other.clone(),
        };
        Some(SetPort {
            protocol: port.protocol,
            port: port_match,
        })
    };
    Some(ports.iter().filter_map(resolve).collect())
}

/// The first port of that name, in container order.
pub(super) fn named(ports: &[NamedPort], name: &str, protocol: u8) -> Option<u16> {
    ports
        .iter()
        .find(|p| p.name == name && p.protocol == protocol)
        .map(|p| p.port)
}
