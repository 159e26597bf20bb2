//! Cluster IPs of Services. The Services in the store are the truth: the set of used addresses is
//! made from them at start, and kept in step by the writes of this process.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_api::service::{Family, Wanted};

/// One range of a cluster, e.g. 10.96.0.0/16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    #[error("{0:?} is not a network in CIDR form, like 10.96.0.0/16")]
    Syntax(String),
    #[error(
        "{0}: a service range needs room: a prefix of /12 to /29 (IPv4) or /108 to /125 (IPv6)"
    )]
    Size(String),
    #[error("{0} and {1} are of the same family; one range each")]
    SameFamily(String, String),
    #[error("no service range is given")]
    None,
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Range {
    pub fn parse(text: &str) -> Result<Range, RangeError> {
        let syntax = || RangeError::Syntax(text.to_string());
        let (ip, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let ip: IpAddr = ip.parse().map_err(|_| syntax())?;
        let prefix: u8 = prefix.parse().map_err(|_| syntax())?;
        let fits = match ip {
            IpAddr::V4(_) => (12..=29).contains(&prefix),
            IpAddr::V6(_) => (108..=125).contains(&prefix),
        };
        if !fits {
            return Err(RangeError::Size(text.to_string()));
        }
        let range = Range { first: ip, prefix };
        let first = range.at_bits(to_bits(ip) & !(range.size() - 1));
        Ok(Range { first, prefix })
    }

    fn at_bits(&self, bits: u128) -> IpAddr {
        match self.first {
            // An IPv4 range stays within 32 bits.
            IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }

    fn bits(&self) -> u32 {
        if self.first.is_ipv4() { 32 } else { 128 }
    }

    fn size(&self) -> u128 {
        1 << (self.bits() - u32::from(self.prefix))
    }

    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// The address of the `kubernetes` Service: the first one.
    pub fn kubernetes(&self) -> IpAddr {
        self.nth(1)
    }

    fn nth(&self, n: u128) -> IpAddr {
        self.at_bits(to_bits(self.first) + n)
    }

    /// Whether a Service can have the address: not the network's nor (IPv4) the broadcast one.
    fn holds(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() != self.first.is_ipv4() {
            return false;
        }
        let offset = to_bits(ip).wrapping_sub(to_bits(self.first));
        offset >= 1 && offset < self.usable_end()
    }

    fn usable_end(&self) -> u128 {
        if self.first.is_ipv4() {
            self.size() - 1
        } else {
            self.size()
        }
    }

    /// Kubernetes keeps a lower part of the range for addresses that people choose: at least 16,
    /// at most 256.
    fn chosen_band(&self) -> u128 {
        let band = (self.size() / 16).clamp(16, 256);
        if band + 1 >= self.usable_end() {
            1
        } else {
            band
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

pub struct ServiceIps {
    ranges: Vec<Range>,
    families: Vec<Family>,
    used: Mutex<HashSet<IpAddr>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Taken(IpAddr),
    OutOfRange(IpAddr),
    NoFamily(Family),
    Full(Family),
}

/// Addresses taken for a write that has not happened yet.
pub struct Reserved {
    ips: Arc<ServiceIps>,
    addresses: Vec<IpAddr>,
}

impl Reserved {
    pub fn nothing(ips: Arc<ServiceIps>) -> Reserved {
        Reserved {
            ips,
            addresses: Vec::new(),
        }
    }

    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The write happened.
    pub fn keep(mut self) {
        self.addresses.clear();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.ips.release(&self.addresses);
    }
}

impl ServiceIps {
    /// One range, or one a family; the first is the default.
    pub fn new(ranges: Vec<Range>) -> Result<ServiceIps, RangeError> {
        match ranges.as_slice() {
            [] => return Err(RangeError::None),
            [a, b, ..] if a.family() == b.family() || ranges.len() > 2 => {
                return Err(RangeError::SameFamily(a.to_string(), b.to_string()));
            }
            _ => {}
        }
        Ok(ServiceIps {
            families: ranges.iter().map(Range::family).collect(),
            ranges,
            used: Mutex::new(HashSet::new()),
        })
    }

    pub fn families(&self) -> &[Family] {
        &self.families
    }

    pub fn described(&self) -> String {
        let shown: Vec<String> = self.ranges.iter().map(Range::to_string).collect();
        shown.join(",")
    }

    /// Takes addresses of Services that are stored.
    pub fn take(&self, addresses: &[IpAddr]) {
        self.used.lock().extend(addresses);
    }

    pub fn release(&self, addresses: &[IpAddr]) {
        let mut used = self.used.lock();
        for address in addresses {
            used.remove(address);
        }
    }

    /// Takes what is wanted: `held` are the addresses that the Service has already.
    pub fn reserve(
        self: &Arc<Self>,
        wanted: &[Wanted],
        held: &[IpAddr],
    ) -> Result<(Vec<IpAddr>, Reserved), Refused> {
        let mut reserved = Reserved::nothing(self.clone());
        let mut addresses = Vec::new();
        for one in wanted {
            let range = self
                .ranges
                .iter()
                .find(|range| range.family() == one.family)
                .ok_or(Refused::NoFamily(one.family))?;
            let address = match one.address {
                Some(ip) if held.contains(&ip) => ip,
                Some(ip) if !range.holds(ip) => return Err(Refused::OutOfRange(ip)),
                Some(ip) => {
                    if !self.used.lock().insert(ip) {
                        return Err(Refused::Taken(ip));
                    }
                    reserved.addresses.push(ip);
                    ip
                }
                None => {
                    let ip = self.pick(range).ok_or(Refused::Full(one.family))?;
                    reserved.addresses.push(ip);
                    ip
                }
            };
            addresses.push(address);
        }
        Ok((addresses, reserved))
    }

    /// A free address, from a random place on; the lower band last.
    fn pick(&self, range: &Range) -> Option<IpAddr> {
        let mut used = self.used.lock();
        let (band, end) = (range.chosen_band(), range.usable_end());
        let start = band + rand::random::<u128>() % (end - band);
        let order = (start..end).chain(band..start).chain(1..band);
        for n in order {
            let ip = range.nth(n);
            if used.insert(ip) {
                return Some(ip);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(ranges: &[&str]) -> Arc<ServiceIps> {
        let ranges = ranges.iter().map(|r| Range::parse(r).unwrap()).collect();
        Arc::new(ServiceIps::new(ranges).unwrap())
    }

    fn any(family: Family) -> Wanted {
        Wanted {
            family,
            address: None,
        }
    }

    fn exactly(address: &str) -> Wanted {
        let address: IpAddr = address.parse().unwrap();
        Wanted {
            family: Family::of(address),
            address: Some(address),
        }
    }

    #[test]
    fn a_range_is_used_up_and_no_address_twice() {
        let ips = ips(&["10.0.0.8/29", "fd00::/125"]);
        let mut seen = HashSet::new();
        for _ in 0..6 {
            let (got, reserved) = ips
                .reserve(&[any(Family::V4), any(Family::V6)], &[])
                .unwrap();
            reserved.keep();
            assert!(got.iter().all(|ip| seen.insert(*ip)), "{got:?} twice");
        }
        assert!(!seen.contains(&"10.0.0.8".parse().unwrap()), "the network");
        assert!(!seen.contains(&"10.0.0.15".parse().unwrap()), "broadcast");
        let full = ips.reserve(&[any(Family::V4)], &[]);
        assert_eq!(full.map(|_| ()), Err(Refused::Full(Family::V4)));
        ips.release(&["10.0.0.9".parse().unwrap()]);
        let (got, _reserved) = ips.reserve(&[any(Family::V4)], &[]).unwrap();
        assert_eq!(got, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_not_kept_returns() {
        let ips = ips(&["10.96.0.0/16"]);
        let refused = ips.reserve(&[exactly("10.96.0.1"), exactly("10.97.0.1")], &[]);
        assert!(matches!(refused, Err(Refused::OutOfRange(_))));
        let (_, reserved) = ips.reserve(&[exactly("10.96.0.1")], &[]).unwrap();
        let taken = ips.reserve(&[exactly("10.96.0.1")], &[]);
        assert!(matches!(taken, Err(Refused::Taken(_))));
        drop(reserved);
        let (_, reserved) = ips.reserve(&[exactly("10.96.0.1")], &[]).unwrap();
        reserved.keep();
        let held = ["10.96.0.1".parse().unwrap()];
        assert!(ips.reserve(&[exactly("10.96.0.1")], &held).is_ok());
        let other = ips.reserve(&[any(Family::V6)], &[]);
        assert_eq!(other.map(|_| ()), Err(Refused::NoFamily(Family::V6)));
    }

    #[test]
    fn ranges() {
        let range = Range::parse("10.96.3.7/16").unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.kubernetes(), "10.96.0.1".parse::<IpAddr>().unwrap());
        for bad in [
            "",
            "10.96.0.0",
            "10.96.0.0/8",
            "10.96.0.0/30",
            "fd00::/64",
            "x/16",
            "10.0.0.0/x",
        ] {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
        let two = vec![Range::parse("10.96.0.0/16").unwrap(); 2];
        assert!(ServiceIps::new(two).is_err());
        assert!(ServiceIps::new(vec![]).is_err());
    }
}
