//! What the scheduler and the controllers share as clients of the API: informers (a watched cache
//! that tells what changed), a work queue with back-off, a recorder of Events, and the matching of
//! selectors and tolerations.
//!
//! Everything here knows Kubernetes' API conventions and nothing about a particular controller.

pub mod error;
pub mod events;
pub mod informer;
pub mod key;
pub mod packed;
pub mod selectors;
pub mod workqueue;

pub use error::{is_already_exists, is_conflict, is_not_found};
pub use events::{EventKind, EventSource, Recorder};
pub use informer::{Change, Informer, Written};
pub use key::ObjectKey;
pub use packed::Packed;
pub use workqueue::WorkQueue;
