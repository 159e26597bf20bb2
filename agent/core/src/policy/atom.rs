use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Labels, protocol},
    selector::Selector,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceScope {
    Name(String),
    Selector(Selector),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Atom {
    Pods {
        namespaces: NamespaceScope,
        pods: Selector,
    },
    Block {
        cidr: IpNetwork,
        /// Sorted.
        except: Vec<IpNetwork>,
    },
    /// The address is a pod's whose port of this name has this number.
    Port {
        name: String,
        protocol: u8,
        port: u16,
    },
}

impl Atom {
    pub fn matches_pod(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        match self {
            Atom::Pods { namespaces, pods } => {
                let in_scope = match namespaces {
                    NamespaceScope::Name(name) => name == namespace,
                    NamespaceScope::Selector(s) => s.matches(namespace_labels),
                };
                in_scope && pods.matches(labels)
            }
            _ => false,
        }
    }

    pub fn matches_address(&self, addr: IpAddr) -> bool {
        match self {
            Atom::Block { cidr, except } => {
                cidr.contains(addr) && !except.iter().any(|e| e.contains(addr))
            }
            _ => false,
        }
    }

    /// Whether every address of `net` is in the block, given that no longer prefix of any block
    /// or exception is inside `net`.
    pub fn covers(&self, net: IpNetwork) -> bool {
        match self {
            Atom::Block { cidr, except } => {
                is_within(net, *cidr) && !except.iter().any(|e| is_within(net, *e))
            }
            _ => false,
        }
    }
}

/// Whether `inner` is `outer` or lies inside it.
fn is_within(inner: IpNetwork, outer: IpNetwork) -> bool {
    inner.prefix() >= outer.prefix() && outer.contains(inner.network())
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Pods { namespaces, pods } => {
                match namespaces {
                    NamespaceScope::Name(name) => f.write_str(name)?,
                    NamespaceScope::Selector(s) => write!(f, "namespaces{s}")?,
                }
                write!(f, "/pods{pods}")
            }
            Atom::Block { cidr, except } => {
                write!(f, "{cidr}")?;
                for e in except {
                    write!(f, "-{e}")?;
                }
                Ok(())
            }
            Atom::Port {
                name,
                protocol: p,
                port,
            } => write!(f, "{name}/{}={port}", protocol::name(*p)),
        }
    }
}
