//! NetworkPolicy, compiled for one node.
//!
//! * An [`Atom`] is one thing that a rule can ask of an address: that a selector or a CIDR matches
//!   it, or what number its named port has.
//! * An *identity* is the set of atoms that an address has; interned, node-local.
//! * A *policy set* is what isolates a pod in one direction: the policies and their rules. It is
//!   interned by content, so that pods with the same policies share it and a changed policy gets a
//!   new id.
//! * [`State`] holds all of it and is changed by what has changed.
//! * A *row* says that a set admits an identity on a protocol and a port prefix. Rows follow from
//!   the two contents alone, hence never change: they come and go.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>

mod asked;
mod atom;
mod ids;
mod rows;
mod sets;
mod state;

pub use self::{
    atom::{Atom, NamespaceScope},
    ids::Ids,
    rows::port_prefixes,
    state::{State, Touched},
};

use serde::{Deserialize, Serialize};

use crate::model::PortMatch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// A rule as people find it: `namespace/policy ingress[2]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleName {
    pub policy: String,
    pub direction: Direction,
    pub index: u32,
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}[{}]",
            self.policy,
            self.direction.name(),
            self.index
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetPort {
    pub protocol: u8,
    /// Named ports are left in egress sets only: each destination has its own number.
    pub port: PortMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetRule {
    pub name: RuleName,
    /// `None`: anyone.
    pub peers: Option<Vec<Atom>>,
    /// `None`: everything.
    pub ports: Option<Vec<SetPort>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetContent {
    pub direction: Direction,
    /// The policies that isolate the pod, `namespace/name`, in order.
    pub policies: Vec<String>,
    pub rules: Vec<SetRule>,
}

/// Stands where a pod's policies can't be known: nothing is admitted.
pub const UNKNOWN_POD: &str = "(pod unknown to the API)";
