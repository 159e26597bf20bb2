//! CNI's own types: what comes in by environment and standard input, and what goes out.
//! <https://www.cni.dev/docs/spec/>. Pure.

pub mod config;
pub mod env;
pub mod error;
pub mod result;
pub mod runtime;
pub mod version;
