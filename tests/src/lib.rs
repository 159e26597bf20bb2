//! What the rings share: the kernel programs loaded for test runs, and frames to run them on.

pub mod cost;
pub mod frames;
pub mod kernel;
