//! What the rings of tests and `cargo xtask up` are built from: network namespaces, wires between
//! them, cgroups, mounts, supervised processes, images without a registry, and whole clusters.
//!
//! Two rules hold everywhere here. Nothing is dialled from the root network namespace, which may
//! have a way out of the machine; and everything that is made carries the prefix of its run, so
//! that it can be found and removed even after a crash.

pub mod cgroup;
pub mod cluster;
pub mod image;
pub mod link;
pub mod mount;
pub mod netns;
pub mod run;
pub mod supervise;
pub mod wait;

pub use netns::Netns;
pub use run::Run;
pub use wait::{wait_for, wait_until};
