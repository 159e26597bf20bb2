//! The rows of one set for one identity.

use std::collections::BTreeMap;

use rhumb_common::maps::{PolicyKey, PolicyVal, policy_prefix, verdict};

use super::{Atom, Ids, SetContent};
use crate::{model::PortMatch, tables::RowKey};

/// A range of ports as aligned blocks: first port and number of leading bits.
pub fn port_prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut out = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last));
    while at <= end {
        // The largest block that starts here and ends in time.
        let align = if at == 0 { 16 } else { at.trailing_zeros() };
        let fit = (end - at + 1).ilog2();
        let size = align.min(fit);
        out.push((at as u16, 16 - size));
        at += 1 << size;
    }
    out
}

fn row(set: u32, identity: u32, protocol: u8, port: u16, len: u32) -> RowKey {
    RowKey {
        len,
        key: PolicyKey::new(set, identity, protocol, port.to_be()),
    }
}

/// Adds what `set` admits from (or to) an address with `atoms`. The first rule that admits a
/// thing names it; rows that a shorter one of them covers are left out.
pub(super) fn add(
    out: &mut BTreeMap<RowKey, PolicyVal>,
    ids: &mut Ids,
    (set, content): (u32, &SetContent),
    (identity, atoms): (u32, &[Atom]),
) {
    // Shortest first, and in the order of the rules within a length.
    let mut found: BTreeMap<(u32, u8, u16), u32> = BTreeMap::new();
    for (index, rule) in content.rules.iter().enumerate() {
        let admitted = rule
            .peers
            .as_ref()
            .is_none_or(|peers| peers.iter().any(|p| atoms.contains(p)));
        if !admitted {
            continue;
        }
        let mut admit = |len, protocol, port| {
            found.entry((len, protocol, port)).or_insert(index as u32);
        };
        let Some(ports) = &rule.ports else {
            admit(policy_prefix::ANY_PROTOCOL, 0, 0);
            continue;
        };
        for port in ports {
            match &port.port {
                PortMatch::Any => admit(policy_prefix::PROTOCOL, port.protocol, 0),
                PortMatch::Range(first, last) => {
                    for (at, bits) in port_prefixes(*first, *last) {
                        admit(policy_prefix::PROTOCOL + bits, port.protocol, at);
                    }
                }
                PortMatch::Named(name) => {
                    for atom in atoms {
                        if let Atom::Port {
                            name: has,
                            protocol,
                            port: number,
                        } = atom
                            && has == name
                            && *protocol == port.protocol
                        {
                            admit(policy_prefix::PORT, *protocol, *number);
                        }
                    }
                }
            }
        }
    }
    let mut kept: Vec<(u32, u8, u16)> = Vec::new();
    for ((len, protocol, port), rule) in found {
        let covered = kept.iter().any(|(l, pr, po)| {
            *l == policy_prefix::ANY_PROTOCOL
                || (*pr == protocol && {
                    let bits = l - policy_prefix::PROTOCOL;
                    bits == 0 || (port ^ po).leading_zeros() >= bits
                })
        });
        if covered {
            continue;
        }
        kept.push((len, protocol, port));
        let name = &content.rules[rule as usize].name;
        out.insert(
            row(set, identity, protocol, port, len),
            PolicyVal {
                rule: ids.rule_id(name),
                verdict: verdict::ALLOW,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_exactly_their_ports() {
        assert_eq!(port_prefixes(80, 80), vec![(80, 16)]);
        assert_eq!(port_prefixes(0, 65535), vec![(0, 0)]);
        assert_eq!(
            port_prefixes(1000, 1010),
            vec![(1000, 13), (1008, 15), (1010, 16)]
        );
        for (first, last) in [
            (1, 65535),
            (0, 1),
            (65535, 65535),
            (30000, 32767),
            (7, 1023),
            (5, 4),
        ] {
            let blocks = port_prefixes(first, last);
            assert!(blocks.len() <= 30, "{first}-{last}: {blocks:?}");
            for port in 0..=u16::MAX {
                let inside = (first..=last).contains(&port);
                let hit = blocks
                    .iter()
                    .filter(|(at, bits)| *bits == 0 || (port ^ at).leading_zeros() >= *bits)
                    .count();
                assert_eq!(hit, usize::from(inside), "{first}-{last} at {port}");
            }
        }
    }
}
