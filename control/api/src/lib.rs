//! The pure half of the API server: the registry of kinds and everything derived from it.
//! No I/O, no clock, no randomness: callers bring time, uids and random bits.
//!
//! The way of a write through this crate, as `rhumb-apiserver` walks it:
//! - create: [`codec::decode`] → [`strategy::conform`] → [`default_object`] → [`apply::Writer::track`] → admission
//!   ([`admission`], [`service::default_families`]) → allocation → [`registry::Kind::to_stored`] →
//!   [`strategy::prepare_create`] → store.
//! - update: [`codec::decode`] → [`strategy::conform`] → [`default_object`] → [`apply::Writer::track`] →
//!   [`registry::Kind::to_stored`] → [`strategy::prepare_update`] → store, or remove.
//! - patch: [`patch::apply`] to the served form of the current object → [`patch::decode`] →
//!   as update.
//! - apply: [`apply::Writer::apply`] to the served form of the current object, or to none →
//!   [`codec::decode_applied`] → as update, or as create.
//! - delete: [`strategy::prepare_delete`].
//! - reads: [`registry::Kind::served`], [`selector`], [`table::render`].

pub mod admission;
pub mod apply;
mod autoscaler;
pub mod cel;
pub mod codec;
pub mod crd;
pub mod csr;
pub mod defaults;
pub mod discovery;
pub mod disruption;
pub mod event;
pub mod flowcontrol;
#[cfg(test)]
mod fuzz;
pub mod json;
mod merge_keys;
pub mod node_restriction;
pub mod openapi;
pub mod openapi_protobuf;
pub mod options;
pub mod patch;
pub mod per_kind;
pub mod pod;
pub mod pod_status;
pub mod protobuf;
pub mod proxy;
pub mod quantity;
pub mod rbac;
pub mod registry;
#[cfg(test)]
mod robust;
pub mod scale;
mod schedule;
pub mod schema;
pub mod selector;
pub mod service;
pub mod status;
mod strategic;
pub mod strategy;
pub mod table;
pub mod time;
pub mod topology;
pub mod validation;

pub use quantity::Quantity;
pub use registry::{Kind, Subresource};
pub use status::ApiError;

/// Applies the defaults of a kind to an object in its served form.
pub fn default_object(kind: &Kind, object: &mut serde_json::Value) {
    kind.default(object);
}
