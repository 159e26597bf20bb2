//! CustomResourceDefinitions: the kind itself, and the kinds that it defines.
//!
//! A definition is checked ([`definition`], [`faults`]), gets its names ([`names`]), and becomes a
//! [`Kind`](crate::registry::Kind) a served version ([`kinds`]). An object of such a kind is decoded
//! and pruned, defaulted, and validated by the compiled schema of the version.

pub mod custom;
pub mod definition;
pub mod faults;
pub mod format;
pub mod json_path;
pub mod names;
pub mod openapi;
pub mod pattern;
pub mod prune;
pub mod rules;
pub mod structural;
#[cfg(test)]
pub(crate) mod tests;
pub mod validate;

pub use custom::{Custom, kinds};
