//! A network divided into equal parts, each given to one holder at most.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

#[derive(Debug)]
pub struct CidrSet {
    network: IpNetwork,
    mask: u8,
    used: BTreeSet<u128>,
    /// Where to look first: parts are given out in turn, so that one just given back rests a while.
    next: u128,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn width(network: &IpNetwork) -> u8 {
    if network.is_ipv4() { 32 } else { 128 }
}

impl CidrSet {
    /// `network` in parts of prefix length `mask`. The caller has checked that the mask is between the
    /// network's prefix and the address width, and at most 16 bits longer than the prefix.
    pub fn new(network: IpNetwork, mask: u8) -> Self {
        Self {
            network,
            mask,
            used: BTreeSet::new(),
            next: 0,
        }
    }

    fn parts(&self) -> u128 {
        1u128 << (self.mask.saturating_sub(self.network.prefix())).min(127)
    }

    fn shift(&self) -> u32 {
        u32::from(width(&self.network) - self.mask)
    }

    fn part(&self, index: u128) -> Option<IpNetwork> {
        // A /0 part has a shift as wide as the address.
        let offset = index.checked_shl(self.shift()).unwrap_or(0);
        let base = number(self.network.network()) + offset;
        let ip = if self.network.is_ipv4() {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(base).ok()?))
        } else {
            IpAddr::V6(Ipv6Addr::from(base))
        };
        IpNetwork::new(ip, self.mask).ok()
    }

    /// Indexes of the parts that `cidr` touches.
    fn touched(&self, cidr: &IpNetwork) -> Option<(u128, u128)> {
        if cidr.is_ipv4() != self.network.is_ipv4() {
            return None;
        }
        let (base, end) = (
            number(self.network.network()),
            number(self.network.broadcast()),
        );
        let (from, to) = (
            number(cidr.network()).max(base),
            number(cidr.broadcast()).min(end),
        );
        if from > to {
            return None;
        }
        let index = |n: u128| (n - base).checked_shr(self.shift()).unwrap_or(0);
        Some((index(from), index(to)))
    }

    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// Takes all parts that `cidr` touches; says whether one of them was taken already.
    pub fn occupy(&mut self, cidr: &IpNetwork) -> bool {
        let Some((from, to)) = self.touched(cidr) else {
            return false;
        };
        let mut double = false;
        for index in from..=to {
            double |= !self.used.insert(index);
        }
        double
    }

    pub fn release(&mut self, cidr: &IpNetwork) {
        if let Some((from, to)) = self.touched(cidr) {
            for index in from..=to {
                self.used.remove(&index);
            }
        }
    }

    /// A part that nobody has, or `None` when all are given out.
    pub fn allocate(&mut self) -> Option<IpNetwork> {
        let parts = self.parts();
        if self.used.len() as u128 >= parts {
            return None;
        }
        let index = (0..parts)
            .map(|i| (self.next + i) % parts)
            .find(|i| !self.used.contains(i))?;
        let part = self.part(index)?;
        self.used.insert(index);
        self.next = (index + 1) % parts;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn parts_come_in_order_and_end() {
        let mut set = CidrSet::new(net("10.244.0.0/22"), 24);
        let all: Vec<_> = std::iter::from_fn(|| set.allocate())
            .map(|c| c.to_string())
            .collect();
        assert_eq!(
            all,
            [
                "10.244.0.0/24",
                "10.244.1.0/24",
                "10.244.2.0/24",
                "10.244.3.0/24"
            ]
        );
        set.release(&net("10.244.1.0/24"));
        assert_eq!(set.allocate(), Some(net("10.244.1.0/24")));
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn v6_parts() {
        let mut set = CidrSet::new(net("fd00:10:244::/56"), 64);
        assert_eq!(set.allocate(), Some(net("fd00:10:244::/64")));
        assert_eq!(set.allocate(), Some(net("fd00:10:244:1::/64")));
    }

    #[test]
    fn what_overlaps_is_taken_whole_and_other_families_are_not() {
        let mut set = CidrSet::new(net("10.0.0.0/8"), 16);
        assert!(!set.occupy(&net("10.0.0.0/15")));
        assert!(!set.occupy(&net("10.2.3.0/24")));
        assert!(set.occupy(&net("10.2.0.0/16")), "taken twice");
        assert!(!set.occupy(&net("192.168.0.0/16")));
        assert!(!set.occupy(&net("fd00::/8")));
        assert_eq!(set.allocate(), Some(net("10.3.0.0/16")));
    }

    #[test]
    fn one_part_may_be_the_whole() {
        let mut set = CidrSet::new(net("10.1.2.0/24"), 24);
        assert_eq!(set.allocate(), Some(net("10.1.2.0/24")));
        assert_eq!(set.allocate(), None);
        let mut set = CidrSet::new(net("10.1.2.3/32"), 32);
        assert_eq!(set.allocate(), Some(net("10.1.2.3/32")));
    }

    proptest! {
        #[test]
        fn nothing_is_given_out_twice(ops in proptest::collection::vec((any::<bool>(), 0..16usize), 1..200), v6 in any::<bool>()) {
            let mut set = if v6 { CidrSet::new(net("fd00::/60"), 64) } else { CidrSet::new(net("10.0.0.0/20"), 24) };
            let mut held: Vec<IpNetwork> = Vec::new();
            for (give, which) in ops {
                if give {
                    match set.allocate() {
                        Some(part) => held.push(part),
                        None => prop_assert_eq!(held.len(), 16),
                    }
                } else if !held.is_empty() {
                    let part = held.swap_remove(which % held.len());
                    set.release(&part);
                }
                let distinct: HashSet<_> = held.iter().collect();
                prop_assert_eq!(distinct.len(), held.len());
            }
        }
    }
}
