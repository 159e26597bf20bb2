//! The one door to the kernel.
//!
//! * [`bpf`]: maps, programs and links, pinned in the bpf file system.

pub mod bpf;
