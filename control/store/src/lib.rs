//! A store of keys and values with revisions: what a Kubernetes API server needs, and nothing of
//! Kubernetes itself.
//!
//! Every write gets the next revision of one counter for the whole store. Writes are
//! compare-and-swap, reads are of now or of an earlier revision, watches replay from a revision.
//! History older than the compaction revision is gone, and asking for it is an error, never a
//! silent gap.
//!
//! [`Embedded`] keeps all that in one file. [`contract`] is the test-suite that any other
//! implementation has to pass as well.

pub mod contract;
mod embedded;
mod feed;
mod record;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use embedded::{Embedded, Options};

/// Number of a write. The first write of a new store is [`FIRST_REVISION`] + 1, so that 0 can go
/// on meaning "any" in the Kubernetes API.
pub type Revision = u64;

/// Revision of a store that nothing was ever written to.
pub const FIRST_REVISION: Revision = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision that created the key (since its last deletion).
    pub create_revision: Revision,
    /// Revision of the last change.
    pub mod_revision: Revision,
}

/// One change. Each revision has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: Bytes,
    pub create_revision: Revision,
    /// `None`: the key was deleted.
    pub value: Option<Bytes>,
}

/// What must be true of the key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Absent,
    /// The key exists, and this was its last change.
    ModRevision(Revision),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// With a time to live the store deletes the key itself, with an event like any other.
    Put {
        value: Bytes,
        ttl: Option<Duration>,
    },
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Bytes,
    pub condition: Condition,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, and visible to readers and watchers, at this revision.
    Committed(Revision),
    /// The condition did not hold; this is what the key holds now.
    Conflict(Option<KeyValue>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub prefix: Bytes,
    /// Only keys greater than this one.
    pub after: Option<Bytes>,
    /// 0: no limit.
    pub limit: usize,
    /// `None`: now.
    pub at: Option<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListResponse {
    /// The revision that the items show.
    pub revision: Revision,
    pub items: Vec<KeyValue>,
    /// Keys of the prefix that follow the last item.
    pub remaining: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("revision {requested} is compacted away (the oldest kept is {oldest})")]
    Compacted {
        requested: Revision,
        oldest: Revision,
    },
    #[error("revision {requested} is in the future (the store is at {current})")]
    Future {
        requested: Revision,
        current: Revision,
    },
    #[error(
        "{path}: the store is damaged: {what}. Restore it from a snapshot, or move it away to start empty"
    )]
    Corrupt { path: String, what: String },
    #[error(
        "{path}: the store is in use by another process. Stop that one first, or choose another data directory"
    )]
    InUse { path: String },
    #[error("{path}: the store was written in format {found}, this program reads format {known}")]
    Format {
        path: String,
        found: u64,
        known: u64,
    },
    /// Of stores that keep values in another form.
    #[error("the value of {key} can't be read: {what}")]
    Unreadable { key: String, what: &'static str },
    #[error("{doing}: {source}")]
    Database {
        doing: &'static str,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("the store is closed")]
    Closed,
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The last revision that readers see.
    fn revision(&self) -> Revision;

    /// The oldest revision that can be listed or watched from.
    fn oldest(&self) -> Revision;

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>>;

    /// Items in the order of their keys.
    async fn list(&self, request: ListRequest) -> Result<ListResponse>;

    /// Returns once the write is durable. If the future is dropped, the write may still happen.
    async fn write(&self, write: Write) -> Result<Outcome>;

    /// The changes of keys with this prefix, of revisions greater than `after`.
    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Box<dyn Watch>>;

    /// Forgets what was replaced or deleted at or before `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Resolves, with the reason, once the store can't go on: after an I/O error nothing more can
    /// be promised of what it holds in memory, and only opening it anew helps.
    async fn failure(&self) -> String;
}

#[async_trait]
pub trait Watch: Send {
    /// Waits for changes; returns those of the watch's prefix in order, and the revision up to
    /// which the watch has now seen everything. The list is empty when only other keys changed.
    async fn next(&mut self) -> Result<(Vec<Event>, Revision)>;
}
