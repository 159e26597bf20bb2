//! One interface of one container: what the journal holds.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// What identifies an attachment: CNI's container id and interface name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub container_id: String,
    pub ifname: String,
}

impl Key {
    pub fn new(container_id: impl Into<String>, ifname: impl Into<String>) -> Key {
        Key {
            container_id: container_id.into(),
            ifname: ifname.into(),
        }
    }

    /// FNV-1a over container id, a zero byte and the interface name.
    pub fn hash64(&self) -> u64 {
        let bytes = self
            .container_id
            .bytes()
            .chain([0])
            .chain(self.ifname.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        })
    }

    /// Name of the host-side veth: `rh` and 12 hex digits, within IFNAMSIZ.
    pub fn host_ifname(&self) -> String {
        format!("rh{:012x}", self.hash64() & 0xffff_ffff_ffff)
    }

    /// Whether a link of this name may be a host-side veth.
    pub fn may_name(link: &str) -> bool {
        let digits = link.strip_prefix("rh").unwrap_or_default().as_bytes();
        digits.len() == 12 && digits.iter().all(u8::is_ascii_hexdigit)
    }

    /// Alias of the host-side veth, by which people and other processes know whose it is.
    pub fn alias(&self) -> String {
        format!("rhumb:{}:{}", self.container_id, self.ifname)
    }

    /// From [`Key::alias`].
    pub fn of_alias(alias: &str) -> Option<Key> {
        let (container_id, ifname) = alias.strip_prefix("rhumb:")?.rsplit_once(':')?;
        Some(Key::new(container_id, ifname))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// How far an attachment has come. Only an [`Phase::Attached`] one is a pod's; the others are
/// finished or undone by whoever holds the journal next once their process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Adding,
    Attached,
    Deleting,
}

/// A six-byte hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// As [`rhumb_common::maps::Endpoint`] holds it: the first six bytes in memory.
    pub fn to_u64(self) -> u64 {
        let m = self.0;
        u64::from_ne_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0])
    }

    /// From [`Mac::to_u64`].
    pub fn of_u64(mac: u64) -> Mac {
        let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
        Mac([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(
            f,
            "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            m[0], m[1], m[2], m[3], m[4], m[5]
        )
    }
}

impl From<Mac> for String {
    fn from(m: Mac) -> String {
        m.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(s: String) -> Result<Mac, String> {
        let bad = || format!("{s:?} is not a hardware address");
        let mut mac = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut mac {
            *byte = parts
                .next()
                .filter(|p| p.len() == 2)
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(bad)?;
        }
        match parts.next() {
            None => Ok(Mac(mac)),
            Some(_) => Err(bad()),
        }
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Only at this address of the node; `None`: at all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As a packet's header has it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub container_id: String,
    pub ifname: String,
    /// Name of the CNI network that it belongs to.
    pub network: String,
    pub netns: PathBuf,
    /// Kubernetes' names, empty where the runtime gave none.
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// One address a family, and the pod CIDR that each was taken from.
    pub ips: Vec<IpAddr>,
    pub cidrs: Vec<IpNetwork>,
    pub host_ifname: String,
    pub mtu: u32,
    pub host_mac: Mac,
    pub pod_mac: Mac,
    /// Host-side veth; 0 until it exists.
    pub ifindex: u32,
    /// `SO_NETNS_COOKIE` of the pod's namespace; 0 until known.
    pub netns_cookie: u64,
    /// Written with `endpoint_flag::OPEN`: set up without the agent, in a namespace without policy.
    pub open: bool,
    pub phase: Phase,
    /// Journal revision that wrote this state.
    pub revision: u64,
}

impl Attachment {
    pub fn key(&self) -> Key {
        Key::new(&*self.container_id, &*self.ifname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_fit_and_differ() {
        let a = Key::new("c1", "eth0").host_ifname();
        let b = Key::new("c1e", "th0").host_ifname();
        let key = Key::new("c1", "eth0");
        assert_eq!(Key::of_alias(&key.alias()), Some(key));
        assert_eq!(Key::of_alias("somebody's"), None);
        assert!(Key::may_name(&a) && !Key::may_name("rhumb0") && !Key::may_name("eth0"));
        assert_eq!(a.len(), 14);
        assert_ne!(a, b);
    }

    #[test]
    fn macs_read_back() {
        let m = Mac([2, 0, 0xff, 4, 5, 6]);
        assert_eq!(Mac::try_from(m.to_string()), Ok(m));
        assert_eq!(Mac::of_u64(m.to_u64()), m);
        for bad in [
            "",
            "02:00",
            "02:00:ff:04:05:06:07",
            "2:0:ff:4:5:6",
            "zz:00:ff:04:05:06",
        ] {
            assert!(Mac::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
