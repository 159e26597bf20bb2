//! Addresses of this node's pods: which are free (`alloc`), which are whose (`state`), and how that
//! survives a `kill -9` or a crash (`journal`, `store`).

pub mod alloc;
pub mod journal;
pub mod state;
pub mod store;
