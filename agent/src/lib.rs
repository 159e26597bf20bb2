//! The agent: watches the cluster, decides (in `rhumb-core`) and writes the kernel's tables.

pub mod dataplane;
