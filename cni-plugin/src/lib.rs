//! The CNI plugin's library: what the plugin does for a runtime, and what the agent needs of it.
//!
//! * [`attachment`], [`ipam`], [`node`]: who holds which address, in a crash-safe journal.
//!
//! Everything is blocking and starts no runtime; an async caller uses a thread for it.

pub mod attachment;
pub mod ipam;
pub mod node;
