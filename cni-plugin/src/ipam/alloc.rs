//! Choice of a free address. Pure.
//!
//! Next-fit: the search goes on behind the address given out last, so that an address returns as
//! late as possible. Addresses that have been released are taken only when the CIDR has no
//! untouched one left, and then the one that has been free longest: peers may still hold flows,
//! and caches, of its former pod.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

/// Addresses of a CIDR that pods may have, as offsets from its network address.
///
/// Not given out: the network address (in IPv6 the subnet-router anycast address, RFC 4291 2.6.1),
/// the one behind it, which bridges and gateways of other plugins and people's habits claim, and
/// in IPv4 the broadcast address. CIDRs of one or two addresses have no such addresses (RFC 3021).
fn usable(cidr: &IpNetwork) -> (u128, u128) {
    let (bits, v4) = match cidr {
        IpNetwork::V4(c) => (32 - u32::from(c.prefix()), true),
        IpNetwork::V6(c) => (128 - u32::from(c.prefix()), false),
    };
    let last = if bits == 128 {
        u128::MAX
    } else {
        (1u128 << bits) - 1
    };
    match (bits, v4) {
        (0 | 1, _) => (0, last),
        (_, true) => (2, last - 1),
        (_, false) => (2, last),
    }
}

/// Whether pods may have the address.
pub fn is_usable(cidr: &IpNetwork, ip: IpAddr) -> bool {
    let (first, last) = usable(cidr);
    offset(cidr, ip).is_some_and(|o| (first..=last).contains(&o))
}

/// How many addresses a CIDR has for pods.
pub fn capacity(cidr: &IpNetwork) -> u128 {
    let (first, last) = usable(cidr);
    (last - first).saturating_add(1)
}

fn at(cidr: &IpNetwork, offset: u128) -> IpAddr {
    match cidr {
        IpNetwork::V4(c) => {
            // An offset lies within the CIDR, so it fits 32 bits.
            IpAddr::V4(Ipv4Addr::from_bits(c.network().to_bits() | offset as u32))
        }
        IpNetwork::V6(c) => IpAddr::V6(Ipv6Addr::from_bits(c.network().to_bits() | offset)),
    }
}

fn offset(cidr: &IpNetwork, ip: IpAddr) -> Option<u128> {
    match (cidr, ip) {
        (IpNetwork::V4(c), IpAddr::V4(ip)) if c.contains(ip) => {
            Some(u128::from(ip.to_bits() - c.network().to_bits()))
        }
        (IpNetwork::V6(c), IpAddr::V6(ip)) if c.contains(ip) => {
            Some(ip.to_bits() - c.network().to_bits())
        }
        _ => None,
    }
}

/// Takes an address of `cidr` that is not in `used`. `released` runs from the address that has
/// been free longest; `cursors` holds the address given out last, by CIDR.
pub fn choose(
    cidr: &IpNetwork,
    used: &HashSet<IpAddr>,
    released: &VecDeque<IpAddr>,
    cursors: &BTreeMap<IpNetwork, IpAddr>,
) -> Option<IpAddr> {
    let (first, last) = usable(cidr);
    let start = cursors
        .get(cidr)
        .and_then(|ip| offset(cidr, *ip))
        .filter(|o| (first..last).contains(o))
        .map_or(first, |o| o + 1);
    let resting: HashSet<&IpAddr> = released.iter().collect();
    // At most used + released addresses are skipped, so the walk is short also in a /64.
    let steps = used.len() + resting.len() + 1;
    let untouched = (start..=last)
        .chain(first..start)
        .take(steps)
        .map(|o| at(cidr, o))
        .find(|ip| !used.contains(ip) && !resting.contains(ip));
    untouched.or_else(|| {
        released
            .iter()
            .find(|ip| {
                !used.contains(ip)
                    && offset(cidr, **ip).is_some_and(|o| (first..=last).contains(&o))
            })
            .copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(cidr: &str) -> Vec<String> {
        let cidr: IpNetwork = cidr.parse().unwrap();
        let (mut used, mut cursors) = (HashSet::new(), BTreeMap::new());
        let mut got = vec![];
        while let Some(ip) = choose(&cidr, &used, &VecDeque::new(), &cursors) {
            assert!(used.insert(ip), "{ip} twice");
            cursors.insert(cidr, ip);
            got.push(ip.to_string());
            if got.len() == 300 {
                break;
            }
        }
        got
    }

    #[test]
    fn reserved_addresses_are_skipped() {
        let got = fill("10.1.2.0/24");
        assert_eq!(got.len(), 253);
        assert_eq!(
            (got[0].as_str(), got[252].as_str()),
            ("10.1.2.2", "10.1.2.254")
        );
        assert_eq!(fill("10.1.2.4/30"), ["10.1.2.6"]);
        assert_eq!(fill("10.1.2.4/31"), ["10.1.2.4", "10.1.2.5"]);
        assert_eq!(fill("10.1.2.4/32"), ["10.1.2.4"]);
        assert_eq!(fill("fd00::/126"), ["fd00::2", "fd00::3"]);
        assert_eq!(fill("fd00::7/128"), ["fd00::7"]);
        assert_eq!(fill("fd00::/64")[..2], ["fd00::2", "fd00::3"]);
        assert_eq!(capacity(&"10.1.2.0/24".parse().unwrap()), 253);
    }

    #[test]
    fn released_addresses_come_last_and_oldest_first() {
        let cidr: IpNetwork = "10.0.0.0/29".parse().unwrap(); // .2 to .6
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let used = HashSet::from([ip("10.0.0.4")]);
        let mut released = VecDeque::from([ip("10.0.0.3"), ip("10.0.0.2")]);
        let cursors = BTreeMap::from([(cidr, ip("10.0.0.6"))]);
        // Wraps, and finds the one address that nobody had.
        assert_eq!(
            choose(&cidr, &used, &released, &cursors),
            Some(ip("10.0.0.5"))
        );
        let used = HashSet::from([ip("10.0.0.4"), ip("10.0.0.5"), ip("10.0.0.6")]);
        assert_eq!(
            choose(&cidr, &used, &released, &cursors),
            Some(ip("10.0.0.3"))
        );
        released.pop_front();
        assert_eq!(
            choose(&cidr, &used, &released, &cursors),
            Some(ip("10.0.0.3"))
        );
        let used: HashSet<_> = (2..=6).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        assert_eq!(choose(&cidr, &used, &released, &cursors), None);
    }

    #[test]
    fn a_cursor_outside_the_cidr_is_ignored() {
        let cidr: IpNetwork = "10.0.0.0/29".parse().unwrap();
        for c in ["10.9.9.9", "fd00::1", "10.0.0.0", "10.0.0.7"] {
            let cursors = BTreeMap::from([(cidr, c.parse().unwrap())]);
            let got = choose(&cidr, &HashSet::new(), &VecDeque::new(), &cursors);
            assert_eq!(got, Some("10.0.0.2".parse().unwrap()), "{c}");
        }
    }
}
