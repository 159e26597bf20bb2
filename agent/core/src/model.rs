//! What the agent keeps of cluster objects: the reduced, checked form.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::selector::Selector;

pub type Labels = BTreeMap<String, String>;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ObjectName {
        ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// IANA protocol numbers of what Kubernetes names.
pub mod protocol {
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const SCTP: u8 = 132;

    pub fn name(protocol: u8) -> &'static str {
        match protocol {
            TCP => "TCP",
            UDP => "UDP",
            SCTP => "SCTP",
            1 => "ICMP",
            58 => "ICMPv6",
            _ => "?",
        }
    }

    /// `None` for a name that Kubernetes does not have.
    pub fn parse(name: &str) -> Option<u8> {
        match name {
            "TCP" | "" => Some(TCP),
            "UDP" => Some(UDP),
            "SCTP" => Some(SCTP),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub pod_cidrs: Vec<IpNetwork>,
    /// InternalIPs and ExternalIPs, in the order of the status.
    pub addresses: Vec<IpAddr>,
    pub internal: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    pub name: String,
    pub protocol: u8,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: ObjectName,
    pub uid: String,
    pub node: String,
    pub labels: Labels,
    pub host_network: bool,
    /// Succeeded or Failed: its addresses are no longer its own.
    pub terminated: bool,
    /// Of its status.
    pub ips: Vec<IpAddr>,
    /// What its node's agent has noted at ADD, before any status.
    pub announced: Vec<IpAddr>,
    /// Named container ports, in container order.
    pub ports: Vec<NamedPort>,
}

impl Pod {
    /// Whether the addresses of its status are its own.
    pub fn claims_addresses(&self) -> bool {
        !self.host_network && !self.terminated
    }

    /// Addresses of its status, and announced ones.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let announced = self.announced.iter();
        let more = announced.filter(|ip| !self.ips.contains(ip));
        self.ips.iter().chain(more).copied()
    }

    /// How well it claims an address. A status is the kubelet's word, and late; an announcement is early, but
    /// who may annotate a pod can write one: it never takes an address from a status, unless that pod's own
    /// announcement has moved on.
    pub fn claim(&self, ip: IpAddr) -> u8 {
        let announced = self.announced.contains(&ip);
        match (self.ips.contains(&ip), announced) {
            (true, true) => 3,
            (true, false) if self.announced.is_empty() => 3,
            (false, true) => 2,
            (true, false) => 1,
            (false, false) => 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: u8,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    /// Empty for headless and ExternalName Services.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// Seconds of ClientIP affinity.
    pub affinity: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: u8,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// The Service that owns it (label `kubernetes.io/service-name`), same namespace.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub name: ObjectName,
    pub pods: Selector,
    /// `None`: the policy does not isolate in this direction.
    pub ingress: Option<Vec<PolicyRule>>,
    pub egress: Option<Vec<PolicyRule>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// `None`: anyone. Empty: no one (every peer of the rule was invalid).
    pub peers: Option<Vec<PolicyPeer>>,
    /// `None`: every port of every protocol.
    pub ports: Option<Vec<PolicyPort>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyPeer {
    Pods {
        /// `None`: the policy's own namespace.
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block {
        cidr: IpNetwork,
        except: Vec<IpNetwork>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyPort {
    pub protocol: u8,
    pub port: PortMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMatch {
    Any,
    /// Inclusive.
    Range(u16, u16),
    Named(String),
}

/// A pod's interface on this node, from the plugin's journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalEndpoint {
    pub container_id: String,
    pub ifname: String,
    pub pod: ObjectName,
    /// Empty if the runtime did not tell.
    pub uid: String,
    /// Cookie of the pod's network namespace: no other pod has ever had it, so that a row for
    /// this one is never taken for a later pod of the same address.
    pub netns_cookie: u64,
    pub ips: Vec<IpAddr>,
    /// Ports of the node that lead to the pod.
    pub ports: Vec<HostPort>,
    /// Of the journal: of two pods that want one port, the older has it.
    pub revision: u64,
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Only at this address of the node; `None`: at all of them.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub port: u16,
    pub protocol: u8,
}

/// Address, port and protocol that a Service leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendAddr {
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.addr, self.port).fmt(f)
    }
}
