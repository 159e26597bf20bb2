//! The agent's local gRPC API: `agent.proto` and what is generated from it.

#[expect(
    clippy::allow_attributes_without_reason,
    reason = "generated; its style is the generator's"
)]
mod generated {
    tonic::include_proto!("rhumb.agent.v1");
}

pub use generated::*;
