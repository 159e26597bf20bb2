//! The kubelet: runs the pods of one node through CRI, as a client of the public Kubernetes API.

pub mod config;
pub mod pure;

pub use config::{Args, Config};
