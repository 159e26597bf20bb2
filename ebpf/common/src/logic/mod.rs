//! The packet logic: what each hook decides, over a packet and the tables.
//!
//! The same code is compiled into the kernel programs and for the host. Its shapes are what the
//! verifier of the kernel wants: everything inlined, bounds checked at each access, no indexing by
//! variables, no panics, bounded loops.

mod answer;
pub mod csum;
mod flows;
mod hooks;
mod icmp_error;
mod packet;
mod parse;
mod policy;
mod rewrite;
mod service;
mod sock;
mod tables;

#[cfg(any(test, feature = "host"))]
pub mod host;

#[cfg(test)]
mod tests;

pub use answer::answer;
pub use flows::{create, expired, timeout};
pub use hooks::{from_pod, from_uplink, to_pod};
pub use icmp_error::related;
pub use packet::{L4Csum, Packet, Wire};
pub use parse::{ETH_LEN, Kind, Meta};
pub use policy::judge;
pub use sock::{
    SockVerdict, forward as sock_forward, reverse as sock_reverse, scope as sock_scope,
};
pub use tables::{Insert, SockTables, Tables};

use crate::event::Reason;

/// What the program is to do with the packet, which by then is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to the host's stack.
    Stack,
    /// Into the pod behind this host-side veth; the MAC addresses are set.
    Pod(u32),
    /// Route [`Meta::to`] by the FIB.
    Route,
    /// The packet was turned into an answer to the pod behind this veth.
    Answer(u32, Reason),
    Drop(Reason),
}
