//! The store in one file, over redb: a log of revisions and an index from key to revisions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::feed::Feed;
use crate::record::Record;
use crate::writer::{Request, Writer};
use crate::{
    Event, FIRST_REVISION, KeyValue, ListRequest, ListResponse, Outcome, Result, Revision, Store,
    StoreError, Watch, Write,
};

/// revision → [`Record`]
pub(crate) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// key, revision → whether the key exists from there on
pub(crate) const INDEX: TableDefinition<(&[u8], u64), bool> = TableDefinition::new("index");
/// expiry in unix seconds, key → revision that set it
pub(crate) const LEASES: TableDefinition<(u64, &[u8]), u64> = TableDefinition::new("leases");
pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(crate) const META_COMPACTED: &str = "compacted";
const META_FORMAT: &str = "format";
const FORMAT: u64 = 1;

/// Events that one step of a watch returns at most.
const WATCH_STEP: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for pages of the file. Lists of now are served from the API server's own cache, so
    /// this stays small.
    pub cache_bytes: usize,
    /// Memory for recent events.
    pub ring_bytes: usize,
    /// History that compaction leaves, by age and by count; the longer of the two.
    pub keep: Duration,
    pub keep_revisions: u64,
    /// How often expiry and compaction are looked at.
    pub tick: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 8 << 20,
            ring_bytes: 4 << 20,
            keep: Duration::from_secs(300),
            keep_revisions: 1_000,
            tick: Duration::from_secs(5),
        }
    }
}

/// What readers and the writer share.
pub(crate) struct Shared {
    pub db: Database,
    pub feed: Feed,
    oldest: AtomicU64,
    path: PathBuf,
    /// Why the store can't go on.
    fatal: tokio::sync::watch::Sender<Option<String>>,
}

impl Shared {
    /// Notes an error that the database doesn't come back from. redb refuses all writes after an
    /// I/O error, since it can't know what reached the file.
    pub fn note(&self, doing: &'static str, error: &redb::Error) {
        let fatal = matches!(
            error,
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)
        );
        if fatal {
            self.fatal.send_if_modified(|known| {
                let first = known.is_none();
                if first {
                    *known = Some(format!("{}: {doing}: {error}", self.path.display()));
                }
                first
            });
        }
    }

    pub fn oldest(&self) -> Revision {
        self.oldest.load(Ordering::Acquire)
    }

    pub fn set_oldest(&self, revision: Revision) {
        self.oldest.store(revision, Ordering::Release);
    }

    pub fn failed(&self, doing: &'static str, error: &redb::Error) -> StoreError {
        self.note(doing, error);
        match error {
            redb::Error::Corrupted(what) => StoreError::Corrupt {
                path: self.path.display().to_string(),
                what: what.clone(),
            },
            // redb's error can't be cloned, and a batch has many callers to tell.
            other => StoreError::Database {
                doing,
                source: Box::new(redb::Error::Io(std::io::Error::other(other.to_string()))),
            },
        }
    }
}

pub(crate) mod database {
    /// The index names an entry that the log does not have.
    pub fn missing(revision: u64) -> redb::Error {
        redb::Error::Corrupted(format!("log entry {revision} is missing or unreadable"))
    }
}

pub struct Embedded {
    shared: Arc<Shared>,
    requests: SyncSender<Request>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the file, or makes it when it is absent. A file that is not a store, or is damaged,
    /// is left as it is.
    pub fn open(path: &Path, options: Options) -> Result<Embedded> {
        let corrupt = |what: String| StoreError::Corrupt {
            path: path.display().to_string(),
            what,
        };
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(path, &options)));
        let (db, head, oldest) = match opened {
            Ok(result) => result?,
            // redb asserts on some damage instead of returning an error.
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                return Err(corrupt(what.unwrap_or_else(|| "unreadable".into())));
            }
        };
        let shared = Arc::new(Shared {
            db,
            feed: Feed::new(head, options.ring_bytes),
            oldest: AtomicU64::new(oldest),
            path: path.to_owned(),
            fatal: tokio::sync::watch::Sender::new(None),
        });
        let (requests, receiver) = sync_channel(4096);
        let writer = Writer {
            shared: shared.clone(),
            requests: receiver,
            tick: options.tick,
            keep: options.keep,
            keep_revisions: options.keep_revisions,
            ages: vec![(Instant::now(), head)],
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|e| StoreError::Database {
                doing: "starting the writer thread",
                source: Box::new(redb::Error::Io(e)),
            })?;
        Ok(Embedded {
            shared,
            requests,
            thread: Mutex::new(Some(thread)),
        })
    }

    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T>>) -> Request,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let mut request = make(reply);
        loop {
            match self.requests.try_send(request) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(back)) => {
                    request = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {
                    return Err(StoreError::Closed);
                }
            }
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn open_database(path: &Path, options: &Options) -> Result<(Database, Revision, Revision)> {
    let shown = path.display().to_string();
    let failed = |doing: &'static str, error: redb::Error| match error {
        redb::Error::Corrupted(what) => StoreError::Corrupt {
            path: shown.clone(),
            what,
        },
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse {
            path: shown.clone(),
        },
        redb::Error::Io(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Corrupt {
                path: shown.clone(),
                what: e.to_string(),
            }
        }
        other => StoreError::Database {
            doing,
            source: Box::new(other),
        },
    };
    let mut builder = Database::builder();
    builder
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(true);
    // It holds secrets: nobody else reads it, from its first byte on.
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| failed("opening the store's file", redb::Error::Io(e)))?;
    let backend = redb::backends::FileBackend::new(file)
        .map_err(|e| failed("locking the store's file", e.into()))?;
    let db = builder
        .create_with_backend(backend)
        .map_err(|e| failed("opening the store's file", e.into()))?;
    let load = || -> std::result::Result<(u64, Revision, Revision), redb::Error> {
        let transaction = db.begin_write()?;
        let result;
        let fresh;
        {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get(META_FORMAT)?.map(|v| v.value());
            fresh = format.is_none();
            if fresh {
                meta.insert(META_FORMAT, FORMAT)?;
                meta.insert(META_COMPACTED, FIRST_REVISION)?;
            }
            let oldest = meta
                .get(META_COMPACTED)?
                .map_or(FIRST_REVISION, |v| v.value());
            transaction.open_table(INDEX)?;
            transaction.open_table(LEASES)?;
            let log = transaction.open_table(LOG)?;
            // The newest entry may have been a deletion that compaction removed.
            let head = log.last()?.map_or(oldest, |(at, _)| at.value()).max(oldest);
            result = (format.unwrap_or(FORMAT), head, oldest);
        }
        if fresh {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(result)
    };
    let (found, head, oldest) = load().map_err(|e| failed("reading the store's tables", e))?;
    if found != FORMAT {
        return Err(StoreError::Format {
            path: shown,
            found,
            known: FORMAT,
        });
    }
    Ok((db, head, oldest))
}

fn read_at(
    shared: &Shared,
    request: &ListRequest,
) -> std::result::Result<ListResponse, redb::Error> {
    let (revision, read) = loop {
        // Taken before the snapshot: the snapshot holds at least this revision, and later entries
        // are skipped.
        let revision = request.at.unwrap_or_else(|| shared.feed.head());
        let read = shared.db.begin_read()?;
        // Compaction ran away with what "now" was a moment ago.
        if request.at.is_none() && shared.oldest() > revision {
            continue;
        }
        break (revision, read);
    };
    let index = read.open_table(INDEX)?;
    let log = read.open_table(LOG)?;
    let start: &[u8] = match &request.after {
        Some(after) if after[..] >= request.prefix[..] => after,
        _ => &request.prefix,
    };
    let mut items = Vec::new();
    let mut remaining = 0;
    let mut take = |key: &[u8], at: Revision| -> std::result::Result<(), redb::Error> {
        if request.limit != 0 && items.len() == request.limit {
            remaining += 1;
            return Ok(());
        }
        let record = log
            .get(at)?
            .and_then(|bytes| Record::decode(bytes.value()))
            .ok_or_else(|| database::missing(at))?;
        if let Some(value) = record.value {
            items.push(KeyValue {
                key: Bytes::copy_from_slice(key),
                value,
                create_revision: record.create_revision,
                mod_revision: at,
            });
        }
        Ok(())
    };
    // Entries of one key follow each other by revision: the last one that counts wins.
    let mut candidate: Option<(Vec<u8>, Revision, bool)> = None;
    for entry in index.range((start, 0)..)? {
        let (key, live) = entry?;
        let (key, at) = key.value();
        if !key.starts_with(&request.prefix) {
            break;
        }
        if request.after.as_deref().is_some_and(|after| key <= after) || at > revision {
            continue;
        }
        match &mut candidate {
            Some((current, latest, alive)) if current == key => {
                *latest = at;
                *alive = live.value();
            }
            other => {
                if let Some((done, latest, true)) = other.take() {
                    take(&done, latest)?;
                }
                *other = Some((key.to_vec(), at, live.value()));
            }
        }
    }
    if let Some((done, latest, true)) = candidate {
        take(&done, latest)?;
    }
    Ok(ListResponse {
        revision,
        items,
        remaining,
    })
}

#[async_trait]
impl Store for Embedded {
    fn revision(&self) -> Revision {
        self.shared.feed.head()
    }

    fn oldest(&self) -> Revision {
        self.shared.oldest()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        let read = || -> std::result::Result<Option<KeyValue>, redb::Error> {
            let read = self.shared.db.begin_read()?;
            let index = read.open_table(INDEX)?;
            let Some(entry) = index.range((key, 0)..=(key, u64::MAX))?.next_back() else {
                return Ok(None);
            };
            let (found, live) = entry?;
            if !live.value() {
                return Ok(None);
            }
            let at = found.value().1;
            let record = read
                .open_table(LOG)?
                .get(at)?
                .and_then(|bytes| Record::decode(bytes.value()))
                .ok_or_else(|| database::missing(at))?;
            Ok(record.value.map(|value| KeyValue {
                key: record.key,
                value,
                create_revision: record.create_revision,
                mod_revision: at,
            }))
        };
        read().map_err(|e| self.shared.failed("reading a key", &e))
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse> {
        let current = self.revision();
        if let Some(at) = request.at {
            if at > current {
                return Err(StoreError::Future {
                    requested: at,
                    current,
                });
            }
            check_kept(&self.shared, at)?;
        }
        let shared = self.shared.clone();
        let at = request.at;
        let response = tokio::task::spawn_blocking(move || {
            read_at(&shared, &request).map_err(|e| shared.failed("listing keys", &e))
        })
        .await
        .map_err(|_| StoreError::Closed)??;
        // A compaction may have passed by while we read.
        if let Some(at) = at {
            check_kept(&self.shared, at)?;
        }
        Ok(response)
    }

    async fn write(&self, write: Write) -> Result<Outcome> {
        self.request(|reply| Request::Write(write, reply)).await
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Box<dyn Watch>> {
        let current = self.revision();
        if after > current {
            return Err(StoreError::Future {
                requested: after,
                current,
            });
        }
        check_kept(&self.shared, after)?;
        Ok(Box::new(Cursor {
            head: self.shared.feed.subscribe(),
            shared: self.shared.clone(),
            prefix,
            after,
        }))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.request(|reply| Request::Compact(revision, reply))
            .await
    }

    async fn failure(&self) -> String {
        let mut fatal = self.shared.fatal.subscribe();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is part of `self`.
            Err(_) => "it is closed".into(),
        }
    }
}

/// A list at `revision`, and a watch after it, are whole only if nothing of it was forgotten.
fn check_kept(shared: &Shared, revision: Revision) -> Result<()> {
    let oldest = shared.oldest();
    if revision < oldest {
        return Err(StoreError::Compacted {
            requested: revision,
            oldest,
        });
    }
    Ok(())
}

struct Cursor {
    shared: Arc<Shared>,
    head: tokio::sync::watch::Receiver<Revision>,
    prefix: Bytes,
    after: Revision,
}

impl Cursor {
    fn read_log(&self) -> std::result::Result<(Vec<Event>, Revision), redb::Error> {
        let read = self.shared.db.begin_read()?;
        let log = read.open_table(LOG)?;
        let mut reached = self.after;
        let mut events = Vec::new();
        for entry in log.range(self.after + 1..)?.take(WATCH_STEP) {
            let (at, bytes) = entry?;
            let at = at.value();
            let record = Record::decode(bytes.value()).ok_or_else(|| database::missing(at))?;
            reached = at;
            if record.key.starts_with(&self.prefix) {
                events.push(Event {
                    revision: at,
                    key: record.key,
                    create_revision: record.create_revision,
                    value: record.value,
                });
            }
        }
        Ok((events, reached))
    }
}

#[async_trait]
impl Watch for Cursor {
    async fn next(&mut self) -> Result<(Vec<Event>, Revision)> {
        let after = self.after;
        self.head
            .wait_for(|head| *head > after)
            .await
            .map_err(|_| StoreError::Closed)?;
        let read = self.shared.feed.read(&self.prefix, after, WATCH_STEP);
        let (events, reached) = match read {
            Some(found) => found,
            None => {
                let found = self
                    .read_log()
                    .map_err(|e| self.shared.failed("reading the log for a watch", &e))?;
                // Checked after reading: entries may have been compacted meanwhile.
                check_kept(&self.shared, after)?;
                found
            }
        };
        self.after = reached;
        Ok((events, reached))
    }
}
