//! What the journal's records add up to. Pure.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::alloc;
use crate::attachment::{Attachment, Key, Phase};

/// Released addresses that are remembered, so that they rest. Beyond it the oldest counts as
/// untouched again. Four of the usual IPv4 pod CIDRs; reading the journal stays cheap.
const RESTING: usize = 1024;

/// One step, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Record {
    /// Everything so far; the first record of a compacted journal.
    Snapshot { state: State },
    /// The machine has been booted again: no pod of before runs any more.
    Boot { revision: u64, boot_id: String },
    /// The attachment is now this.
    Put { attachment: Attachment },
    /// The attachment is gone and its addresses are free.
    Remove { revision: u64, key: Key },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `/proc/sys/kernel/random/boot_id` of the boot that the attachments belong to.
    pub boot_id: String,
    /// Grows by one with each record.
    pub revision: u64,
    #[serde(with = "as_list")]
    pub attachments: BTreeMap<Key, Attachment>,
    /// Freed addresses, from the one that has been free longest.
    pub released: VecDeque<IpAddr>,
    /// The address given out last, by CIDR.
    pub cursors: BTreeMap<IpNetwork, IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("record of revision {got} follows revision {have}")]
    Order { have: u64, got: u64 },
    #[error("{ip} is given to {second} while {first} holds it")]
    Double { ip: IpAddr, first: Key, second: Key },
}

/// Why no address could be had: which CIDRs, and who holds them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Exhausted {
    pub family: &'static str,
    pub cidrs: Vec<CidrUse>,
}

/// Why a pod can't have an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error(
        "{ip}, which the runtime asks for, is no address for pods of this node: it has {}",
        shown(cidrs)
    )]
    Elsewhere { ip: IpAddr, cidrs: Vec<IpNetwork> },
    #[error("{ip}, which the runtime asks for, is held by {holder}")]
    Held { ip: IpAddr, holder: Key },
}

fn shown(cidrs: &[IpNetwork]) -> String {
    let cidrs: Vec<String> = cidrs.iter().map(IpNetwork::to_string).collect();
    cidrs.join(", ")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrUse {
    pub cidr: IpNetwork,
    pub capacity: u128,
    pub attached: usize,
    pub adding: usize,
    pub deleting: usize,
    /// Namespaces that hold most, with their count.
    pub namespaces: Vec<(String, usize)>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no free {} address for a pod: ", self.family)?;
        for (i, c) in self.cidrs.iter().enumerate() {
            let sep = if i > 0 { "; " } else { "" };
            write!(
                f,
                "{sep}{} has {} addresses for pods, {} held by attached pods, {} by ADDs and {} by DELs under way",
                c.cidr, c.capacity, c.attached, c.adding, c.deleting
            )?;
            let top: Vec<String> = c
                .namespaces
                .iter()
                .map(|(ns, n)| {
                    format!("{n} in {}", if ns.is_empty() { "no namespace" } else { ns })
                })
                .collect();
            if !top.is_empty() {
                write!(f, " ({})", top.join(", "))?;
            }
        }
        Ok(())
    }
}

impl State {
    pub fn apply(&mut self, record: Record) -> Result<(), StateError> {
        let next = |have: u64, got: u64| match got == have + 1 {
            true => Ok(got),
            false => Err(StateError::Order { have, got }),
        };
        match record {
            Record::Snapshot { state } => *self = state,
            Record::Boot { revision, boot_id } => {
                self.revision = next(self.revision, revision)?;
                self.boot_id = boot_id;
                for (_, old) in std::mem::take(&mut self.attachments) {
                    self.rest(&old.ips);
                }
            }
            Record::Put { attachment } => {
                let key = attachment.key();
                self.revision = next(self.revision, attachment.revision)?;
                if !self.attachments.contains_key(&key) {
                    if let Some((ip, first)) = self.holder_of_any(&attachment.ips) {
                        return Err(StateError::Double {
                            ip,
                            first,
                            second: key,
                        });
                    }
                    for (ip, cidr) in attachment.ips.iter().zip(&attachment.cidrs) {
                        self.cursors.insert(*cidr, *ip);
                    }
                    self.released.retain(|ip| !attachment.ips.contains(ip));
                }
                self.attachments.insert(key, attachment);
            }
            Record::Remove { revision, key } => {
                self.revision = next(self.revision, revision)?;
                if let Some(old) = self.attachments.remove(&key) {
                    self.rest(&old.ips);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn rest(&mut self, ips: &[IpAddr]) {
        self.released.extend(ips);
        while self.released.len() > RESTING {
            self.released.pop_front();
        }
    }

    fn holder_of_any(&self, ips: &[IpAddr]) -> Option<(IpAddr, Key)> {
        self.attachments.iter().find_map(|(key, a)| {
            let ip = a.ips.iter().find(|ip| ips.contains(ip))?;
            Some((*ip, key.clone()))
        })
    }

    /// One free address for each family that `cidrs` has, with the CIDR that it is from: the one that
    /// is asked for, else the next. CIDRs of one family are used up in their order.
    pub fn choose(
        &self,
        cidrs: &[IpNetwork],
        asked: &[IpAddr],
    ) -> Result<Vec<(IpAddr, IpNetwork)>, NoAddress> {
        for ip in asked {
            if !cidrs.iter().any(|c| alloc::is_usable(c, *ip)) {
                return Err(NoAddress::Elsewhere {
                    ip: *ip,
                    cidrs: cidrs.to_vec(),
                });
            }
            if let Some((ip, holder)) = self.holder_of_any(&[*ip]) {
                return Err(NoAddress::Held { ip, holder });
            }
        }
        let used: HashSet<IpAddr> = self
            .attachments
            .values()
            .flat_map(|a| a.ips.iter().copied())
            .collect();
        let mut chosen = Vec::new();
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let of_family: Vec<&IpNetwork> = cidrs.iter().filter(|c| c.is_ipv4() == v4).collect();
            if of_family.is_empty() {
                continue;
            }
            let of_asked = asked.iter().find(|ip| ip.is_ipv4() == v4);
            let found = of_family.iter().find_map(|cidr| {
                if let Some(ip) = of_asked {
                    return alloc::is_usable(cidr, *ip).then_some((*ip, **cidr));
                }
                let ip = alloc::choose(cidr, &used, &self.released, &self.cursors)?;
                Some((ip, **cidr))
            });
            chosen.push(found.ok_or_else(|| {
                NoAddress::Exhausted(Exhausted {
                    family,
                    cidrs: of_family.iter().map(|c| self.usage(c)).collect(),
                })
            })?);
        }
        Ok(chosen)
    }

    /// Who holds the addresses of a CIDR.
    pub fn usage(&self, cidr: &IpNetwork) -> CidrUse {
        let mut by_namespace: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by_phase = [0; 3];
        for a in self.attachments.values() {
            if a.ips.iter().any(|ip| cidr.contains(*ip)) {
                *by_namespace.entry(&a.namespace).or_default() += 1;
                by_phase[a.phase as usize] += 1;
            }
        }
        let mut namespaces: Vec<(String, usize)> = by_namespace
            .into_iter()
            .map(|(ns, n)| (ns.to_owned(), n))
            .collect();
        namespaces.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        namespaces.truncate(5);
        CidrUse {
            cidr: *cidr,
            capacity: alloc::capacity(cidr),
            attached: by_phase[Phase::Attached as usize],
            adding: by_phase[Phase::Adding as usize],
            deleting: by_phase[Phase::Deleting as usize],
            namespaces,
        }
    }
}

/// JSON has no maps with such keys; the key is part of the value anyway.
mod as_list {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<Key, Attachment>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map.values())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<Key, Attachment>, D::Error> {
        let list = Vec::<Attachment>::deserialize(d)?;
        Ok(list.into_iter().map(|a| (a.key(), a)).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::attachment::Mac;

    pub fn attachment(id: &str, ips: &[(IpAddr, IpNetwork)], revision: u64) -> Attachment {
        let key = Key::new(id, "eth0");
        Attachment {
            host_ifname: key.host_ifname(),
            container_id: key.container_id,
            ifname: key.ifname,
            network: "rhumb".into(),
            netns: "/run/netns/x".into(),
            namespace: "default".into(),
            pod: id.into(),
            uid: String::new(),
            ports: Vec::new(),
            ips: ips.iter().map(|x| x.0).collect(),
            cidrs: ips.iter().map(|x| x.1).collect(),
            mtu: 1500,
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
            ifindex: 0,
            netns_cookie: 0,
            open: false,
            phase: Phase::Adding,
            revision,
        }
    }

    fn add(s: &mut State, id: &str, cidrs: &[IpNetwork]) -> Result<Vec<IpAddr>, NoAddress> {
        let ips = s.choose(cidrs, &[])?;
        let attachment = attachment(id, &ips, s.revision + 1);
        s.apply(Record::Put { attachment }).unwrap();
        Ok(ips.into_iter().map(|x| x.0).collect())
    }

    fn remove(s: &mut State, id: &str) {
        let (revision, key) = (s.revision + 1, Key::new(id, "eth0"));
        s.apply(Record::Remove { revision, key }).unwrap();
    }

    #[test]
    fn both_families_and_the_second_cidr_when_the_first_is_full() {
        let cidrs: Vec<IpNetwork> = ["10.0.0.0/30", "10.0.1.0/30", "fd00::/64"]
            .iter()
            .map(|c| c.parse().unwrap())
            .collect();
        let mut s = State::default();
        let got = |ips: Vec<IpAddr>| ips.iter().map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(
            got(add(&mut s, "a", &cidrs).unwrap()),
            ["10.0.0.2", "fd00::2"]
        );
        assert_eq!(
            got(add(&mut s, "b", &cidrs).unwrap()),
            ["10.0.1.2", "fd00::3"]
        );
        let e = add(&mut s, "c", &cidrs).unwrap_err().to_string();
        assert!(
            e.contains("IPv4") && e.contains("10.0.0.0/30 has 1 addresses"),
            "{e}"
        );
        assert!(
            e.contains("10.0.1.0/30") && e.contains("1 in default"),
            "{e}"
        );
        remove(&mut s, "a");
        // The IPv6 address that was never had goes before the released one.
        assert_eq!(
            got(add(&mut s, "c", &cidrs).unwrap()),
            ["10.0.0.2", "fd00::4"]
        );
    }

    #[test]
    fn addresses_that_are_asked_for() {
        let cidrs: Vec<IpNetwork> = ["10.0.0.0/29", "10.0.1.0/29", "fd00::/64"]
            .iter()
            .map(|c| c.parse().unwrap())
            .collect();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut s = State::default();
        add(&mut s, "a", &cidrs).unwrap();
        let chosen = s.choose(&cidrs, &[ip("10.0.1.4")]).unwrap();
        assert_eq!(
            chosen,
            [(ip("10.0.1.4"), cidrs[1]), (ip("fd00::3"), cidrs[2])]
        );
        let why = |asked: &str| s.choose(&cidrs, &[ip(asked)]).unwrap_err().to_string();
        assert!(why("10.0.0.2").contains("is held by a/eth0"));
        for elsewhere in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.9.0.1", "fd01::2"] {
            assert!(
                why(elsewhere).contains("no address for pods"),
                "{elsewhere}"
            );
        }
        // One that rests is given to who asks for it.
        remove(&mut s, "a");
        assert_eq!(
            s.choose(&cidrs, &[ip("10.0.0.2")]).unwrap()[0].0,
            ip("10.0.0.2")
        );
    }

    #[test]
    fn a_new_boot_frees_everything_and_reuses_it_last() {
        let cidrs = ["10.0.0.0/29".parse().unwrap()]; // .2 to .6
        let mut s = State::default();
        for id in ["a", "b", "c"] {
            add(&mut s, id, &cidrs).unwrap();
        }
        let (revision, boot_id) = (s.revision + 1, "second".to_owned());
        s.apply(Record::Boot { revision, boot_id }).unwrap();
        assert!(s.attachments.is_empty());
        let got: Vec<String> = (0..5)
            .map(|i| add(&mut s, &format!("n{i}"), &cidrs).unwrap()[0].to_string())
            .collect();
        assert_eq!(
            got,
            ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        );
    }

    #[test]
    fn records_out_of_order_or_doubling_an_address_are_refused() {
        let cidr = "10.0.0.0/29".parse().unwrap();
        let ip = ("10.0.0.2".parse().unwrap(), cidr);
        let mut s = State::default();
        let put = |id, rev| Record::Put {
            attachment: attachment(id, &[ip], rev),
        };
        s.apply(put("a", 1)).unwrap();
        assert!(matches!(
            s.apply(put("a", 5)),
            Err(StateError::Order { .. })
        ));
        assert!(matches!(
            s.apply(put("b", 2)),
            Err(StateError::Double { .. })
        ));
    }

    proptest::proptest! {
        /// Whatever the order of adds and removes, no address has two holders, none leaks, and a
        /// snapshot reads back as what it was made of.
        #[test]
        fn no_address_doubles_or_leaks(ops in proptest::collection::vec((0u8..20, proptest::bool::ANY), 1..300)) {
            let cidrs: Vec<IpNetwork> = vec!["10.0.0.0/28".parse().unwrap(), "fd00::/124".parse().unwrap()];
            let mut s = State::default();
            for (id, is_add) in ops {
                let id = format!("c{id}");
                let held = s.attachments.contains_key(&Key::new(&*id, "eth0"));
                match (is_add, held) {
                    (true, false) => {
                        let free = 13 - s.attachments.len();
                        let got = add(&mut s, &id, &cidrs);
                        proptest::prop_assert_eq!(got.is_ok(), free > 0);
                    }
                    (false, true) => remove(&mut s, &id),
                    _ => {}
                }
                let all: Vec<IpAddr> = s.attachments.values().flat_map(|a| a.ips.clone()).collect();
                let distinct: HashSet<_> = all.iter().collect();
                proptest::prop_assert_eq!(all.len(), distinct.len());
                proptest::prop_assert!(s.released.iter().all(|ip| !distinct.contains(ip)));
            }
            let text = serde_json::to_vec(&Record::Snapshot { state: s.clone() }).unwrap();
            let mut back = State::default();
            back.apply(serde_json::from_slice(&text).unwrap()).unwrap();
            proptest::prop_assert_eq!(back, s);
        }
    }
}
