//! From the snapshot to sets, identities and rows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use rhumb_common::{
    addr::Ip,
    maps::{EndpointPolicy, Peer, PolicyVal, namespace_hash},
};

use super::{
    Atom, Direction, Ids, NamespaceScope, RuleName, SetContent, SetPort, SetRule, UNKNOWN_POD, rows,
};
use crate::{
    model::{Labels, NamedPort, NetworkPolicy, ObjectName, Pod, PolicyPeer, PolicyRule, PortMatch},
    snapshot::Snapshot,
    tables::{Prefix, RowKey},
};

/// The policy part of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTables {
    pub rows: BTreeMap<RowKey, PolicyVal>,
    pub peers: BTreeMap<Ip, Peer>,
    pub peer_cidrs: BTreeMap<Prefix, Peer>,
    pub endpoint_policy: BTreeMap<Ip, EndpointPolicy>,
    pub isolated: BTreeMap<u64, u32>,
}

/// Compiles for the pods of this node.
///
/// `retained` are sets that the kernel still uses and the snapshot may not: as long as they are
/// given, the identities keep the atoms that these sets ask for, and the rows cover them too. So a
/// change of policies goes in two passes, and no address is without a row it had before and has
/// after: first with the old sets retained, then, once every endpoint has its new set, without.
pub fn compile(snapshot: &Snapshot, ids: &mut Ids, retained: &BTreeSet<u32>) -> PolicyTables {
    let mut out = PolicyTables {
        isolated: isolated_namespaces(snapshot),
        ..PolicyTables::default()
    };
    let by_namespace = policies_by_namespace(snapshot);

    let mut sets: BTreeMap<u32, SetContent> = BTreeMap::new();
    for endpoint in snapshot.endpoints.values() {
        let policies = by_namespace
            .get(endpoint.pod.namespace.as_str())
            .map_or(&[][..], Vec::as_slice);
        let mut set = |content: Option<SetContent>| {
            content.map_or(0, |content| {
                let id = ids.set_id(&content);
                sets.insert(id, content);
                id
            })
        };
        let pair = match snapshot.pod_of(endpoint) {
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
            ingress_set: pair.0,
            egress_set: pair.1,
            netns_cookie: endpoint.netns_cookie,
        };
        for ip in &endpoint.ips {
            out.endpoint_policy.insert((*ip).into(), row);
        }
    }
    for id in retained {
        if let Some(content) = ids.set(*id) {
            sets.entry(*id).or_insert_with(|| content.clone());
        }
    }

    let asked = Asked::of(&sets);
    let mut identities: BTreeMap<u32, Vec<Atom>> = BTreeMap::from([(0, Vec::new())]);
    let mut identity = |atoms: Vec<Atom>| {
        let id = ids.identity_id(&atoms);
        identities.entry(id).or_insert(atoms);
        Peer {
            identity: id,
            _pad: 0,
        }
    };
    if !asked.is_empty() {
        // Many pods, few label sets and fewer identities: both are looked up by small keys.
        let mut by_labels: HashMap<(&str, &Labels), Vec<u32>> = HashMap::new();
        let mut by_atoms: HashMap<Vec<u32>, Peer> = HashMap::new();
        let mut ports: Vec<Atom> = Vec::new();
        for (ip, pod) in pod_addresses(snapshot) {
            let mut key = by_labels
                .entry((&pod.name.namespace, &pod.labels))
                .or_insert_with(|| asked.of_labels(snapshot, pod))
                .clone();
            asked.add_blocks(ip, &mut key);
            asked.add_ports(&pod.ports, &mut ports, &mut key);
            if key.is_empty() {
                continue;
            }
            let peer = match by_atoms.get(&key) {
                Some(peer) => *peer,
                None => {
                    let peer = identity(asked.atoms(&key, &ports));
                    by_atoms.insert(key, peer);
                    peer
                }
            };
            out.peers.insert(ip.into(), peer);
        }
    }
    for (prefix, atoms) in asked.prefixes() {
        out.peer_cidrs.insert(prefix.into(), identity(atoms));
    }

    for (set_id, content) in &sets {
        for (identity_id, atoms) in &identities {
            rows::add(
                &mut out.rows,
                ids,
                (*set_id, content),
                (*identity_id, atoms),
            );
        }
    }
    out
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

/// Addresses of pods, each with the pod that has it now.
fn pod_addresses(snapshot: &Snapshot) -> HashMap<IpAddr, &Pod> {
    let mut out: HashMap<IpAddr, &Pod> = HashMap::with_capacity(snapshot.pods.len());
    for pod in snapshot.pods.values() {
        if pod.host_network || pod.terminated {
            continue;
        }
        for ip in &pod.ips {
            // Two pods that claim one address: one status is stale. By uid, so that the order of
            // events has no say.
            out.entry(*ip)
                .and_modify(|p| {
                    if pod.uid > p.uid {
                        *p = pod;
                    }
                })
                .or_insert(pod);
        }
    }
    // On this node the journal knows better than any status, and earlier.
    for endpoint in snapshot.endpoints.values() {
        let pod = snapshot.pod_of(endpoint);
        for ip in &endpoint.ips {
            match pod {
                Some(pod) => drop(out.insert(*ip, pod)),
                None => drop(out.remove(ip)),
            }
        }
    }
    out
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
fn named(ports: &[NamedPort], name: &str, protocol: u8) -> Option<u16> {
    ports
        .iter()
        .find(|p| p.name == name && p.protocol == protocol)
        .map(|p| p.port)
}

/// Everything that some set asks of an address. An atom has a number here: its place in `pods`,
/// then in `blocks`, then in a list of ports that grows as pods are looked at.
#[derive(Default)]
struct Asked {
    pods: Vec<Atom>,
    blocks: Vec<Atom>,
    /// Named ports of egress rules: name and protocol.
    ports: BTreeSet<(String, u8)>,
}

impl Asked {
    fn of(sets: &BTreeMap<u32, SetContent>) -> Asked {
        let (mut pods, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        let mut ports = BTreeSet::new();
        for rule in sets.values().flat_map(|s| &s.rules) {
            for atom in rule.peers.iter().flatten() {
                match atom {
                    Atom::Pods { .. } => pods.insert(atom),
                    Atom::Block { .. } => blocks.insert(atom),
                    Atom::Port { .. } => false,
                };
            }
            for port in rule.ports.iter().flatten() {
                if let PortMatch::Named(name) = &port.port {
                    ports.insert((name.clone(), port.protocol));
                }
            }
        }
        Asked {
            pods: pods.into_iter().cloned().collect(),
            blocks: blocks.into_iter().cloned().collect(),
            ports,
        }
    }

    fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.blocks.is_empty() && self.ports.is_empty()
    }

    fn of_labels(&self, snapshot: &Snapshot, pod: &Pod) -> Vec<u32> {
        let none = Labels::new();
        let namespace = &pod.name.namespace;
        let namespace_labels = snapshot
            .namespaces
            .get(namespace)
            .map_or(&none, |n| &n.labels);
        (0..)
            .zip(&self.pods)
            .filter(|(_, a)| a.matches_pod(namespace, namespace_labels, &pod.labels))
            .map(|(i, _)| i)
            .collect()
    }

    fn add_blocks(&self, ip: IpAddr, key: &mut Vec<u32>) {
        let first = self.pods.len() as u32;
        let matching = (first..)
            .zip(&self.blocks)
            .filter(|(_, b)| b.matches_address(ip));
        key.extend(matching.map(|(i, _)| i));
    }

    fn add_ports(&self, has: &[NamedPort], known: &mut Vec<Atom>, key: &mut Vec<u32>) {
        for (name, protocol) in &self.ports {
            let Some(port) = named(has, name, *protocol) else {
                continue;
            };
            let atom = Atom::Port {
                name: name.clone(),
                protocol: *protocol,
                port,
            };
            let at = known.iter().position(|a| *a == atom).unwrap_or_else(|| {
                known.push(atom);
                known.len() - 1
            });
            key.push((self.pods.len() + self.blocks.len() + at) as u32);
        }
    }

    /// The atoms behind a key, in order.
    fn atoms(&self, key: &[u32], ports: &[Atom]) -> Vec<Atom> {
        let all = || self.pods.iter().chain(&self.blocks).chain(ports);
        let mut atoms: Vec<Atom> = key
            .iter()
            .filter_map(|i| all().nth(*i as usize).cloned())
            .collect();
        atoms.sort_unstable();
        atoms
    }

    /// Every prefix that occurs, with what holds for the addresses in it and in no longer one.
    fn prefixes(&self) -> BTreeMap<IpNetwork, Vec<Atom>> {
        let mut nets: BTreeSet<IpNetwork> = BTreeSet::new();
        for block in &self.blocks {
            if let Atom::Block { cidr, except } = block {
                nets.insert(*cidr);
                nets.extend(except);
            }
        }
        // IPv4 lives at ::ffff:0:0/96: an IPv6 block around that is not to match it.
        let mapped = std::net::Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0, 0]);
        if nets
            .iter()
            .any(|n| n.is_ipv6() && n.contains(mapped.into()))
        {
            nets.extend(IpNetwork::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0));
        }
        nets.into_iter()
            .map(|net| {
                let atoms = self
                    .blocks
                    .iter()
                    .filter(|b| b.covers(net))
                    .cloned()
                    .collect();
                (net, atoms)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_blocks() {
        let block = |cidr: &str, except: &[&str]| Atom::Block {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|e| e.parse().unwrap()).collect(),
        };
        let outer = block("10.0.0.0/8", &["10.1.0.0/16"]);
        let inner = block("10.1.2.0/24", &[]);
        let six = block("::/0", &[]);
        let asked = Asked {
            blocks: vec![outer.clone(), inner.clone(), six.clone()],
            ..Asked::default()
        };
        let prefixes = asked.prefixes();
        let of = |net: &str| prefixes[&net.parse::<IpNetwork>().unwrap()].clone();
        assert_eq!(of("10.0.0.0/8"), vec![outer]);
        assert_eq!(of("10.1.0.0/16"), vec![]);
        assert_eq!(of("10.1.2.0/24"), vec![inner]);
        assert_eq!(of("::/0"), vec![six]);
        assert_eq!(of("0.0.0.0/0"), vec![], "IPv4 is not in ::/0");
    }
}
