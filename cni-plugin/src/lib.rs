//! The CNI plugin's library: what the plugin does for a runtime, and what the agent needs of it.
//!
//! * [`attachments::Attachments`]: the agent's door: list and watch the node's pods, lock, delete
//!   with the revision that it was decided at, repair what the kernel lost.
//! * [`node::NodeConfig`]: `node.json`, which the agent writes.
//! * [`agent`]: the socket's messages.
//! * [`attachment`], [`ipam`]: who holds which address, in a crash-safe journal.
//! * [`kernel`]: veth, routes, programs, ENDPOINTS.
//! * [`spec`], [`verbs`]: CNI itself.
//!
//! Everything is blocking and starts no runtime; an async caller uses a thread for it.

pub mod agent;
pub mod attachment;
pub mod attachments;
pub mod ipam;
pub mod kernel;
pub mod node;
pub mod rebuild;
pub mod spec;
pub mod verbs;
