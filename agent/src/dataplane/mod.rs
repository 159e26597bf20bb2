//! The one door to the kernel.
//!
//! * [`bpf`]: maps, programs and links, pinned in the bpf file system.
//! * [`netlink`]: interfaces, addresses and routes of the host's stack.
//! * [`sysctl`]: the network namespace's settings.

pub mod bpf;
pub mod netlink;
pub mod sysctl;
