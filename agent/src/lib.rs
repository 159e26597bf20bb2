//! The agent: watches the cluster, decides (in `rhumb-core`) and writes the kernel's tables.
//!
//! ```text
//! watch, journal, cni_socket -> engine (state, plan) -> writer -> dataplane/bpf
//!                                  |                 -> routes -> dataplane/netlink
//!                                  v
//!                       observe, grpc, drops (readers)
//! ```
//! [`run`] composes the parts.

pub mod cni_socket;
pub mod config;
pub mod dataplane;
pub mod drops;
pub mod engine;
pub mod grpc;
pub mod guard;
pub mod install;
pub mod journal;
pub mod keeper;
pub mod metrics;
pub mod observe;
pub mod run;
pub mod runtime;
pub mod watch;
pub mod writer;
