//! What the sets in use ask of an address.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::{Atom, sets::Sets};
use crate::model::PortMatch;

/// Everything that some set asks of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub pods: BTreeSet<Atom>,
    pub blocks: BTreeSet<Atom>,
    /// Named ports of egress rules: name and protocol.
    pub ports: BTreeSet<(String, u8)>,
}

impl Asked {
    pub fn of(sets: &Sets) -> Asked {
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

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.blocks.is_empty() && self.ports.is_empty()
    }

    /// Every prefix that occurs, with what holds for the addresses in it and in no longer one.
    pub fn prefixes(&self) -> BTreeMap<IpNetwork, Vec<Atom>> {
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
            blocks: BTreeSet::from([outer.clone(), inner.clone(), six.clone()]),
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
