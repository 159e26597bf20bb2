//! A queue of keys to reconcile: a key is never worked on twice at once, is queued once however often
//! it is added, and comes back with back-off after a failure.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// First and longest wait of a key that keeps failing.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The queue's bookkeeping, free of clocks and tasks.
#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or added while being worked on.
    dirty: HashSet<T>,
    working: HashSet<T>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, T>,
    /// The earliest time a key is due, so that later additions of the same key cost nothing.
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    sequence: u64,
}

impl<T: Clone + Eq + Hash> State<T> {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }

    fn add(&mut self, key: T) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, at: Instant) {
        if self.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(key.clone(), at);
        self.sequence += 1;
        self.delayed_keys.insert(self.sequence, key);
        self.delayed.push(Reverse((at, self.sequence)));
    }

    /// Moves what is due to the ready queue; says when the next key is due.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.delayed.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&id) {
                // A key that was put forward has an entry left over at its old, later time.
                if self.due.get(&key) == Some(&at) {
                    self.due.remove(&key);
                    self.add(key);
                }
            }
        }
        None
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &T) {
        self.working.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    fn backoff(&mut self, key: &T) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let wait = BACKOFF_FIRST
            .checked_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX))
            .map_or(BACKOFF_MAX, |w| w.min(BACKOFF_MAX));
        *failures = failures.saturating_add(1);
        wait
    }
}

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Look again after this long, failure or not.
    After(Duration),
    /// Failed: look again with back-off.
    Retry,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

/// A handle to the queue; clones share it.
#[derive(Debug)]
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T: Clone + Eq + Hash + Debug + Send + 'static> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash + Debug + Send + 'static> WorkQueue<T> {
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new()),
                wake: Notify::new(),
            }),
        }
    }

    /// Queues `key`.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.wake.notify_one();
    }

    /// Queues `key` in `wait`, unless it is due earlier already.
    pub fn add_after(&self, key: T, wait: Duration) {
        self.shared.state.lock().add_at(key, Instant::now() + wait);
        self.shared.wake.notify_one();
    }

    async fn next(&self, shutdown: &CancellationToken) -> Option<T> {
        loop {
            let due = {
                let mut state = self.shared.state.lock();
                let due = state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        // Another worker may be asleep while more is ready.
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                due
            };
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = self.shared.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Works off the queue with `workers` tasks until `shutdown`.
    pub async fn run<F, Fut>(&self, workers: usize, shutdown: CancellationToken, reconcile: F)
    where
        F: Fn(T) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Outcome> + Send,
    {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..workers.max(1) {
            let (queue, shutdown, reconcile) = (self.clone(), shutdown.clone(), reconcile.clone());
            tasks.spawn(async move {
                while let Some(key) = queue.next(&shutdown).await {
                    let guard = Working {
                        queue: &queue,
                        key: key.clone(),
                    };
                    let outcome = reconcile(key.clone()).await;
                    drop(guard);
                    queue.settle(key, outcome);
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a reconcile worker ended");
            }
        }
    }

    fn settle(&self, key: T, outcome: Outcome) {
        let mut state = self.shared.state.lock();
        match outcome {
            Outcome::Done => {
                state.failures.remove(&key);
            }
            Outcome::After(wait) => {
                state.failures.remove(&key);
                state.add_at(key, Instant::now() + wait);
            }
            Outcome::Retry => {
                let wait = state.backoff(&key);
                state.add_at(key, Instant::now() + wait);
            }
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}

/// Gives the key back even if the reconcile is dropped midway.
struct Working<'a, T: Clone + Eq + Hash> {
    queue: &'a WorkQueue<T>,
    key: T,
}

impl<T: Clone + Eq + Hash> Drop for Working<'_, T> {
    fn drop(&mut self) {
        self.queue.shared.state.lock().done(&self.key);
        self.queue.shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_queued_once_and_never_worked_on_twice_at_once() {
        let mut s = State::new();
        s.add("a");
        s.add("a");
        assert_eq!(s.take(), Some("a"));
        s.add("a");
        assert_eq!(s.take(), None, "being worked on");
        s.done(&"a");
        assert_eq!(s.take(), Some("a"), "added meanwhile");
        s.done(&"a");
        assert_eq!(s.take(), None);
    }

    #[test]
    fn the_earliest_delay_wins() {
        let t0 = Instant::now();
        let mut s = State::new();
        s.add_at("a", t0 + Duration::from_secs(5));
        s.add_at("a", t0 + Duration::from_secs(1));
        s.add_at("a", t0 + Duration::from_secs(9));
        assert_eq!(s.promote(t0), Some(t0 + Duration::from_secs(1)));
        s.promote(t0 + Duration::from_secs(1));
        assert_eq!(s.take(), Some("a"));
        s.done(&"a");
        s.promote(t0 + Duration::from_secs(60));
        assert_eq!(s.take(), None, "the later entries are void");
    }

    #[test]
    fn failures_back_off_to_a_limit() {
        let mut s = State::new();
        let waits: Vec<_> = (0..40).map(|_| s.backoff(&"a")).collect();
        assert_eq!(waits[0], Duration::from_millis(5));
        assert_eq!(waits[1], Duration::from_millis(10));
        assert_eq!(waits[39], BACKOFF_MAX);
        assert!(waits.is_sorted());
    }

    #[tokio::test]
    async fn workers_retry_until_done() {
        let queue = WorkQueue::new();
        let shutdown = CancellationToken::new();
        let tries = Arc::new(Mutex::new(0));
        queue.add("a");
        let (seen, stop) = (tries.clone(), shutdown.clone());
        queue
            .run(2, shutdown, move |_| {
                let (seen, stop) = (seen.clone(), stop.clone());
                async move {
                    *seen.lock() += 1;
                    if *seen.lock() < 3 {
                        Outcome::Retry
                    } else {
                        stop.cancel();
                        Outcome::Done
                    }
                }
            })
            .await;
        assert_eq!(*tries.lock(), 3);
    }
}
