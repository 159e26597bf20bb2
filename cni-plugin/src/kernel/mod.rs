//! The plugin's door to the kernel: namespaces, links, routes (`netlink`, `netns`, `wire`), programs
//! on interfaces (`filter`), and the pinned programs and maps (`attach`, the only module that knows
//! aya).

pub mod attach;
mod bpf;
pub mod filter;
pub mod losses;
pub mod netlink;
pub mod netns;
pub mod wire;
