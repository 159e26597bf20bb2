//! Decisions without I/O or a clock: everything here is a function of its arguments.

pub mod backoff;
pub mod dns;
pub mod downward;
pub mod env;
pub mod ephemeral;
pub mod expand;
pub mod image_ref;
pub mod logline;
pub mod model;
pub mod plan;
pub mod probe_count;
pub mod pull_auth;
pub mod quantity;
pub mod resources;
pub mod security;
pub mod service_env;
pub mod status;
pub mod supported;
