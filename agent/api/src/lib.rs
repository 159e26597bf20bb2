//! The agent's local gRPC API: `agent.proto` and what is generated from it.

#[expect(
    clippy::all,
    clippy::unwrap_used,
    reason = "generated; its style is the generator's"
)]
mod generated {
    tonic::include_proto!("rhumb.agent.v1");
}

pub use generated::*;
