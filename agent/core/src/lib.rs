//! The agent's decisions: cluster objects and local endpoints in, kernel tables out. No I/O, no
//! clock, no panic on cluster data.
//!
//! ```text
//! object (Kubernetes JSON) -> model -> Snapshot -> desired: frontends, policy, routes
//!                                                     | Planner: ids, and what the kernel holds
//!                                                     v
//!                                                  ordered Steps
//! ```
//! What is desired depends on the snapshot alone; only ids depend on history, and they are
//! restored from the maps (Services, backends) and from the interned contents (policy).

pub mod balancer;
pub mod dump;
pub mod model;
pub mod object;
pub mod planner;
pub mod policy;
pub mod routes;
pub mod selector;
pub mod services;
pub mod snapshot;
pub mod synced;
pub mod tables;

pub use synced::{Gate, Source, Synced};
