//! SPDY/3.1, which `kubectl port-forward` speaks inside a WebSocket, and containerd for attach.

pub mod frame;
pub mod headers;

/// What is wrong with what a client sent; its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);
