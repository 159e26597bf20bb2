//! Ring 0 of the agent's decisions: golden scenarios and properties over one stand-in kernel.

#![expect(
    clippy::unwrap_used,
    reason = "a test's own files and values; helpers are not test functions to clippy"
)]

mod golden;
mod kernel;
mod properties;
