//! Attachments that the journal has lost, from what else knows of them: their interfaces, ENDPOINTS, the
//! container runtime, and what can be read of a damaged journal. Pure.
//!
//! The kernel's word on addresses comes first, since that is what packets follow. A link without an entry in
//! ENDPOINTS is one that was being taken down, which entries go first of.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use ipnetwork::IpNetwork;
use rhumb_common::maps::{Endpoint, endpoint_flag};

use crate::{
    attachment::{Attachment, Key, Mac, Phase, PortMapping},
    ipam::state::State,
    kernel::wire::PodLink,
};

/// A pod's sandbox, as its runtime has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Empty where the runtime doesn't tell.
    pub netns: PathBuf,
    pub ports: Vec<PortMapping>,
}

#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub links: &'a [PodLink],
    /// ENDPOINTS.
    pub entries: &'a [(IpAddr, Endpoint)],
    pub cidrs: &'a [IpNetwork],
    /// The network that attachments are of, where no attachment says.
    pub network: &'a str,
    /// By container id; `None`: not asked yet.
    pub pods: Option<&'a HashMap<String, Sandbox>>,
}

/// Attachments whose pods' names only the runtime knows, and it has not been asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed(pub Vec<Key>);

/// Attachments of running pods that a journal doesn't know, or of which it knows less than the kernel: a record
/// is written before the entry in ENDPOINTS that has its revision. There are none, unless the journal was lost or
/// replaced by an older one. A link without entries takes no packets: it is left to whoever made it.
pub fn behind(state: &State, links: &[PodLink], entries: &[(IpAddr, Endpoint)]) -> Vec<Key> {
    let mut found = vec![];
    for (ip, entry) in entries {
        let Some(link) = links.iter().find(|l| l.ifindex == entry.ifindex) else {
            continue;
        };
        let mut all = state.attachments.values();
        let key = match all.find(|a| a.host_ifname == link.name) {
            Some(a) if a.ips.contains(ip) && entry.revision <= a.revision => continue,
            Some(a) => Some(a.key()),
            None => link.key.clone(),
        };
        found.extend(key.filter(|key| !found.contains(key)));
    }
    found
}

/// What the journal has to say of which this is left: what could be read of it, or an older one.
pub fn rebuild(left: State, evidence: Evidence) -> Result<State, Unnamed> {
    let mut state = left;
    let old = std::mem::take(&mut state.attachments);
    state.attachments = attachments(&old, evidence)?;
    for a in old.values() {
        state.rest(&a.ips);
    }
    Ok(state.settled(evidence))
}

impl State {
    fn settled(mut self, evidence: Evidence) -> State {
        let held: Vec<IpAddr> = self
            .attachments
            .values()
            .flat_map(|a| a.ips.clone())
            .collect();
        self.released.retain(|ip| !held.contains(ip));
        let revisions = self.attachments.values().map(|a| a.revision);
        let entries = evidence.entries.iter().map(|(_, e)| e.revision);
        let highest = revisions.chain(entries).fold(self.revision, u64::max);
        self.revision = highest + 1;
        self
    }
}

fn attachments(
    old: &BTreeMap<Key, Attachment>,
    evidence: Evidence,
) -> Result<BTreeMap<Key, Attachment>, Unnamed> {
    let mut found = BTreeMap::new();
    let mut unnamed = vec![];
    for link in evidence.links {
        let named = || old.keys().find(|key| key.host_ifname() == link.name);
        // Without a name from anywhere, its own process will put it into the journal.
        let Some(key) = link.key.clone().or_else(|| named().cloned()) else {
            continue;
        };
        let old = old.get(&key);
        if old.is_none() && evidence.pods.is_none() {
            unnamed.push(key);
        } else if let Some(a) = attachment(&key, link, old, evidence) {
            // Only where ENDPOINTS is lost too can two claim one.
            let held = |ip: &IpAddr| found.values().any(|a: &Attachment| a.ips.contains(ip));
            let a = keep_ips(a, |ip| !held(ip));
            found.insert(key, a);
        }
    }
    match unnamed.is_empty() {
        true => Ok(found),
        false => Err(Unnamed(unnamed)),
    }
}

/// Takes addresses from an attachment that are not its own any more.
fn keep_ips(a: Attachment, keep: impl Fn(&IpAddr) -> bool) -> Attachment {
    let pairs = a.ips.into_iter().zip(a.cidrs);
    let (ips, cidrs) = pairs.filter(|(ip, _)| keep(ip)).unzip();
    Attachment { ips, cidrs, ..a }
}

fn attachment(
    key: &Key,
    link: &PodLink,
    old: Option<&Attachment>,
    evidence: Evidence,
) -> Option<Attachment> {
    if evidence.entries.is_empty() {
        // ENDPOINTS was lost too and says nothing of anybody.
        return old.cloned();
    }
    let entries = evidence.entries.iter();
    let mut entries: Vec<&(IpAddr, Endpoint)> =
        entries.filter(|(_, e)| e.ifindex == link.ifindex).collect();
    entries.sort_by_key(|(ip, _)| (ip.is_ipv6(), *ip));
    let base = match old {
        Some(a) => a.clone(),
        None => nameless(key, link, evidence),
    };
    let Some((_, entry)) = entries.first() else {
        let others = |ip: &IpAddr| evidence.entries.iter().any(|(other, _)| other == ip);
        let base = keep_ips(base, |ip| !others(ip));
        return Some(Attachment {
            phase: Phase::Deleting,
            ..base
        });
    };
    let ips: Vec<IpAddr> = entries.iter().map(|(ip, _)| *ip).collect();
    let cidr = |ip: &IpAddr| {
        let cidr = evidence.cidrs.iter().find(|c| c.contains(*ip));
        cidr.copied().unwrap_or_else(|| IpNetwork::from(*ip))
    };
    Some(Attachment {
        cidrs: match ips == base.ips {
            true => base.cidrs.clone(),
            false => ips.iter().map(cidr).collect(),
        },
        ips,
        host_mac: Mac::of_u64(entry.host_mac),
        pod_mac: Mac::of_u64(entry.pod_mac),
        ifindex: link.ifindex,
        netns_cookie: entry.netns_cookie,
        open: entry.flags & endpoint_flag::OPEN != 0,
        // A later record is lost: the entry was written with it.
        phase: match entry.revision > base.revision {
            true => Phase::Attached,
            false => base.phase,
        },
        revision: entry.revision.max(base.revision),
        ..base
    })
}

/// What is known of an attachment that no record speaks of.
fn nameless(key: &Key, link: &PodLink, evidence: Evidence) -> Attachment {
    let pods = evidence.pods;
    let pod = pods.and_then(|pods| pods.get(&key.container_id));
    let pod = pod.cloned().unwrap_or_default();
    Attachment {
        container_id: key.container_id.clone(),
        ifname: key.ifname.clone(),
        network: evidence.network.to_owned(),
        netns: pod.netns,
        namespace: pod.namespace,
        pod: pod.name,
        uid: pod.uid,
        ports: pod.ports,
        ips: vec![],
        cidrs: vec![],
        host_ifname: link.name.clone(),
        mtu: link.mtu,
        host_mac: Mac::default(),
        pod_mac: Mac::default(),
        ifindex: link.ifindex,
        netns_cookie: 0,
        open: false,
        phase: Phase::Attached,
        revision: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::state::{Record, tests::attachment as sample};

    const CIDR: &str = "10.0.0.0/24";

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn link(id: &str, ifindex: u32) -> PodLink {
        let key = Key::new(id, "eth0");
        PodLink {
            name: key.host_ifname(),
            key: Some(key),
            ifindex,
            mtu: 1450,
        }
    }

    fn entry(ifindex: u32, revision: u64) -> Endpoint {
        Endpoint {
            ifindex,
            flags: endpoint_flag::OPEN,
            pod_mac: Mac([2, 0, 0, 0, 0, 1]).to_u64(),
            host_mac: Mac([2, 0, 0, 0, 0, 2]).to_u64(),
            netns_cookie: 7,
            revision,
        }
    }

    fn salvaged(all: &[(&str, u8, u64)]) -> State {
        let cidr = CIDR.parse().unwrap();
        let mut state = State::default();
        for (id, last, revision) in all {
            let a = sample(id, &[(ip(*last), cidr)], *revision);
            state.attachments.insert(a.key(), a);
            state.revision = state.revision.max(*revision);
        }
        state
    }

    fn evidence<'a>(links: &'a [PodLink], entries: &'a [(IpAddr, Endpoint)]) -> Evidence<'a> {
        Evidence {
            links,
            entries,
            cidrs: &[],
            network: "rhumb",
            pods: None,
        }
    }

    #[test]
    fn the_kernel_says_who_has_which_address() {
        // `a` was taken down and `b` got its address; the records of both are lost.
        let old = salvaged(&[("a", 2, 5), ("b", 3, 4), ("gone", 9, 6)]);
        let links = [link("a", 11), link("b", 12)];
        let entries = [(ip(2), entry(12, 20))];
        let new = rebuild(old, evidence(&links, &entries)).unwrap();
        let of = |id: &str| &new.attachments[&Key::new(id, "eth0")];
        assert_eq!(
            (of("a").phase, &of("a").ips[..]),
            (Phase::Deleting, &[][..])
        );
        assert_eq!(
            (&of("b").ips, of("b").phase),
            (&vec![ip(2)], Phase::Attached)
        );
        assert_eq!((of("b").ifindex, of("b").revision), (12, 20));
        assert_eq!(of("b").pod_mac, Mac([2, 0, 0, 0, 0, 1]));
        assert!(of("b").open);
        assert_eq!(new.attachments.len(), 2);
        assert_eq!(new.revision, 21);
        // What nobody holds rests, what somebody holds doesn't.
        assert!(new.released.contains(&ip(9)) && !new.released.contains(&ip(2)));
    }

    #[test]
    fn pods_without_a_record_are_named_by_the_runtime() {
        let links = [link("a", 11)];
        let entries = [(ip(2), entry(11, 8))];
        let evidence = evidence(&links, &entries);
        let unnamed = Err(Unnamed(vec![Key::new("a", "eth0")]));
        assert_eq!(rebuild(State::default(), evidence), unnamed);
        assert_eq!(behind(&State::default(), &links, &entries).len(), 1);
        let names = Sandbox {
            namespace: "n".into(),
            name: "p".into(),
            uid: "u".into(),
            netns: "/run/netns/a".into(),
            ports: vec![],
        };
        let pods = HashMap::from([("a".to_owned(), names)]);
        let cidrs = [CIDR.parse().unwrap()];
        let evidence = Evidence {
            pods: Some(&pods),
            cidrs: &cidrs,
            ..evidence
        };
        let new = rebuild(State::default(), evidence).unwrap();
        let a = &new.attachments[&Key::new("a", "eth0")];
        assert_eq!((&*a.namespace, &*a.pod, &*a.uid), ("n", "p", "u"));
        assert_eq!((&a.cidrs[..], a.mtu), (&cidrs[..], 1450));
        assert!(behind(&new, &links, &entries).is_empty());
    }

    #[test]
    fn an_older_journal_is_told_by_the_kernel() {
        let links = [link("b", 12)];
        let entries = [(ip(2), entry(12, 20))];
        let key = Key::new("b", "eth0");
        let state = |all: &[(&str, u8, u64)]| salvaged(all);
        for (older, why) in [
            (state(&[("x", 2, 5)]), "its address had another"),
            (state(&[("b", 2, 19)]), "it was on its way"),
            (state(&[("b", 3, 25)]), "it had another address"),
        ] {
            assert_eq!(
                behind(&older, &links, &entries),
                std::slice::from_ref(&key),
                "{why}"
            );
        }
        assert!(behind(&state(&[("b", 2, 20)]), &links, &entries).is_empty());
        assert!(behind(&state(&[("b", 2, 21)]), &links, &entries).is_empty());
        // An entry of an interface that is gone says nothing.
        assert!(behind(&State::default(), &[], &entries).is_empty());
        // Whoever had the address before is not left with it.
        let pods = HashMap::new();
        let evidence = Evidence {
            pods: Some(&pods),
            ..evidence(&links, &entries)
        };
        let new = rebuild(state(&[("x", 2, 5)]), evidence).unwrap();
        assert_eq!(new.attachments.keys().collect::<Vec<_>>(), [&key]);
    }

    #[test]
    fn an_attachment_under_way_stays_so() {
        let mut old = salvaged(&[("a", 2, 5)]);
        for a in old.attachments.values_mut() {
            a.phase = Phase::Adding;
            a.ifindex = 0;
        }
        let mut links = [link("a", 11)];
        // Before it is up it has no alias.
        links[0].key = None;
        for (revision, phase) in [(5, Phase::Adding), (6, Phase::Attached)] {
            let entries = [(ip(2), entry(11, revision))];
            let new = rebuild(old.clone(), evidence(&links, &entries)).unwrap();
            let a = new.attachments.values().next().unwrap();
            assert_eq!((a.phase, a.ifindex), (phase, 11));
        }
        // With ENDPOINTS lost too, the record is all that is left.
        let new = rebuild(old.clone(), evidence(&links, &[])).unwrap();
        assert_eq!(new.attachments, old.attachments);
        // And what comes of it is a journal that takes further records.
        let mut state = new;
        let cidr = CIDR.parse().unwrap();
        let attachment = sample("c", &[(ip(7), cidr)], state.revision + 1);
        state.apply(Record::Put { attachment }).unwrap();
    }
}
