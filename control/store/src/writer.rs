//! The one thread that writes. Writers that wait at the same time share one transaction, and so
//! one fsync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{ReadableTable, Table};
use tokio::sync::oneshot;

use crate::embedded::{INDEX, LEASES, LOG, META, META_COMPACTED, Shared, database};
use crate::record::Record;
use crate::{Change, Condition, Event, KeyValue, Outcome, Result, Revision, Write};

/// Writes of one transaction. More only lengthen the wait of the first.
const MAX_BATCH: usize = 1024;
/// Log entries that one compaction step looks at, so that writers wait for a step only.
const COMPACT_STEP: usize = 2_000;

pub(crate) enum Request {
    Write(Write, oneshot::Sender<Result<Outcome>>),
    Compact(Revision, oneshot::Sender<Result<()>>),
    Stop,
}

pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub requests: Receiver<Request>,
    pub tick: Duration,
    pub keep: Duration,
    pub keep_revisions: u64,
    /// When each revision was the head, sampled, for compaction by age.
    pub ages: Vec<(Instant, Revision)>,
}

impl Writer {
    pub fn run(mut self) {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let first = match self.requests.recv_timeout(wait) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut writes = Vec::new();
            let mut compactions = Vec::new();
            let mut stop = false;
            let more = std::iter::from_fn(|| self.requests.try_recv().ok());
            for request in first.into_iter().chain(more.take(MAX_BATCH - 1)) {
                match request {
                    Request::Write(write, reply) => writes.push((write, reply)),
                    Request::Compact(revision, reply) => compactions.push((revision, reply)),
                    Request::Stop => stop = true,
                }
            }
            if !writes.is_empty() {
                self.write(writes);
            }
            for (revision, reply) in compactions {
                // A caller that has gone away no longer wants the answer.
                let _ = reply.send(self.compact(revision, true));
            }
            if stop {
                return;
            }
            if Instant::now() >= next_tick {
                self.on_tick();
                next_tick = Instant::now() + self.tick;
            }
        }
    }

    fn write(&mut self, writes: Vec<(Write, oneshot::Sender<Result<Outcome>>)>) {
        let (writes, replies): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        match self.commit(writes) {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    let _ = reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, "writing to the store failed; nothing of the batch was applied");
                for reply in replies {
                    let _ = reply.send(Err(self.shared.failed("writing", &error)));
                }
            }
        }
    }

    /// All writes in one durable transaction. A write sees those before it.
    fn commit(&mut self, writes: Vec<Write>) -> std::result::Result<Vec<Outcome>, redb::Error> {
        let head = self.shared.feed.head();
        let mut revision = head;
        let mut events = Vec::new();
        let mut outcomes = Vec::with_capacity(writes.len());
        let transaction = self.shared.db.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut index = transaction.open_table(INDEX)?;
            let mut leases = transaction.open_table(LEASES)?;
            for write in writes {
                let current = latest(&index, &log, &write.key)?;
                let live = current.as_ref().filter(|(_, r)| r.value.is_some());
                let holds = match (write.condition, live) {
                    (Condition::Absent, None) => true,
                    (Condition::ModRevision(wanted), Some((at, _))) => wanted == *at,
                    _ => false,
                };
                if !holds {
                    outcomes.push(Outcome::Conflict(live.and_then(|(at, r)| {
                        Some(KeyValue {
                            key: write.key.clone(),
                            value: r.value.clone()?,
                            create_revision: r.create_revision,
                            mod_revision: *at,
                        })
                    })));
                    continue;
                }
                revision += 1;
                let (value, expires) = match write.change {
                    Change::Put { value, ttl } => {
                        let expires = ttl.map_or(0, |ttl| unix_seconds() + ttl.as_secs().max(1));
                        (Some(value), expires)
                    }
                    Change::Delete => (None, 0),
                };
                if let Some((_, old)) = live
                    && old.expires != 0
                {
                    leases.remove((old.expires, &old.key[..]))?;
                }
                if expires != 0 {
                    leases.insert((expires, &write.key[..]), revision)?;
                }
                let record = Record {
                    create_revision: live.map_or(revision, |(_, r)| r.create_revision),
                    previous: current.as_ref().map_or(0, |(at, _)| *at),
                    key: write.key,
                    expires,
                    value,
                };
                log.insert(revision, &record.encode()[..])?;
                index.insert((&record.key[..], revision), record.value.is_some())?;
                events.push(Event {
                    revision,
                    key: record.key,
                    create_revision: record.create_revision,
                    value: record.value,
                });
                outcomes.push(Outcome::Committed(revision));
            }
        }
        if events.is_empty() {
            transaction.abort()?;
        } else {
            transaction.commit()?;
            self.shared.feed.publish(events);
        }
        Ok(outcomes)
    }

    fn on_tick(&mut self) {
        if let Err(error) = self.expire() {
            self.shared.note("deleting expired keys", &error);
            tracing::error!(%error, "deleting expired keys failed; trying again");
        }
        let now = Instant::now();
        let head = self.shared.feed.head();
        if self.ages.last().is_none_or(|(_, r)| *r != head) {
            self.ages.push((now, head));
        }
        // The newest sample that is old enough names the revision that may go.
        let old = self
            .ages
            .partition_point(|(at, _)| now.duration_since(*at) >= self.keep);
        if old > 0 {
            let target = self.ages[old - 1]
                .1
                .min(head.saturating_sub(self.keep_revisions));
            self.ages.drain(..old - 1);
            if target > self.shared.oldest()
                && let Err(error) = self.compact(target, false)
            {
                tracing::error!(%error, "compaction failed; trying again");
            }
        }
    }

    fn expire(&mut self) -> std::result::Result<(), redb::Error> {
        let now = unix_seconds();
        let mut due = Vec::new();
        {
            let read = redb::ReadableDatabase::begin_read(&self.shared.db)?;
            let leases = read.open_table(LEASES)?;
            for entry in leases.range(..(now + 1, &b""[..]))?.take(MAX_BATCH) {
                let (key, revision) = entry?;
                due.push(Write {
                    key: Bytes::copy_from_slice(key.value().1),
                    condition: Condition::ModRevision(revision.value()),
                    change: Change::Delete,
                });
            }
        }
        if !due.is_empty() {
            self.commit(due)?;
        }
        Ok(())
    }

    /// First says durably what is no longer promised, then removes it in steps; `finish` false
    /// leaves the rest for the next tick.
    fn compact(&mut self, to: Revision, finish: bool) -> Result<()> {
        let head = self.shared.feed.head();
        if to > head {
            return Err(crate::StoreError::Future {
                requested: to,
                current: head,
            });
        }
        if to <= self.shared.oldest() {
            return Ok(());
        }
        loop {
            let reached = self
                .compact_step(to)
                .map_err(|e| self.shared.failed("compacting", &e))?;
            if reached >= to {
                return Ok(());
            }
            if !finish {
                return Ok(());
            }
        }
    }

    fn compact_step(&mut self, to: Revision) -> std::result::Result<Revision, redb::Error> {
        let from = self.shared.oldest();
        let reached = to.min(from + COMPACT_STEP as u64);
        let transaction = self.shared.db.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut index = transaction.open_table(INDEX)?;
            let mut dead = Vec::new();
            for entry in log.range(from + 1..=reached)? {
                let (at, bytes) = entry?;
                let Some(record) = Record::decode(bytes.value()) else {
                    continue;
                };
                if record.previous != 0 {
                    dead.push((record.key.clone(), record.previous));
                }
                if record.value.is_none() {
                    dead.push((record.key, at.value()));
                }
            }
            for (key, at) in dead {
                log.remove(at)?;
                index.remove((&key[..], at))?;
            }
            transaction
                .open_table(META)?
                .insert(META_COMPACTED, reached)?;
        }
        transaction.commit()?;
        self.shared.set_oldest(reached);
        Ok(reached)
    }
}

/// The last entry of a key, deletions included.
fn latest(
    index: &Table<(&'static [u8], u64), bool>,
    log: &Table<u64, &'static [u8]>,
    key: &[u8],
) -> std::result::Result<Option<(Revision, Record)>, redb::Error> {
    let Some(entry) = index.range((key, 0)..=(key, u64::MAX))?.next_back() else {
        return Ok(None);
    };
    let at = entry?.0.value().1;
    let record = log.get(at)?.and_then(|bytes| Record::decode(bytes.value()));
    match record {
        Some(record) => Ok(Some((at, record))),
        None => Err(database::missing(at)),
    }
}

pub(crate) fn unix_seconds() -> u64 {
    // A clock before 1970 would only let keys expire late.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
