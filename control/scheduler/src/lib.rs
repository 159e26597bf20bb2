//! The scheduler: gives each pending pod a node.
//!
//! The decision is pure: [`cache`] holds the cluster as far as it matters, [`queue`] the pods that wait,
//! [`filter`] and [`topology`] say which nodes can take a pod, [`score`] which is best, [`schedule`]
//! puts them together. [`run`](run()) is the shell: watches in, bindings, conditions and Events out.

pub mod cache;
pub mod filter;
pub mod node;
pub mod pod;
mod quantity;
pub mod queue;
pub mod resources;
mod run;
pub mod schedule;
pub mod score;
pub mod topology;

use rhumb_client::selectors;

pub use run::{Config, run};
