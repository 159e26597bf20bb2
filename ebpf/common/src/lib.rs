//! The contract between the kernel programs and user space, and the packet logic that both run.
//!
//! * [`addr`], [`maps`], [`event`]: map keys and values, drop reasons, events. `repr(C)`, explicit
//!   padding, layout asserted at compile time. A changed layout bumps [`ABI_VERSION`].
//! * [`flow`]: the flow table.
//! * `logic`: parse, checksum, load balancing, flow table, NAT and policy verdict, written over
//!   small packet and table traits; compiled into the tc and cgroup programs, and for the host.
#![no_std]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod addr;
pub mod event;
pub mod flow;
pub mod logic;
pub mod maps;

/// Version of every layout in this crate; kept in [`maps::Config::abi`].
pub const ABI_VERSION: u32 = 2;
