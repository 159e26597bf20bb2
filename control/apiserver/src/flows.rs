//! Who may use how much of the server at once: a noisy client waits for itself, not others for it.
//!
//! A request that does work takes a seat. Users take turns at free seats, each user's requests in
//! their order; one user has at most half of the seats. What can't be queued is answered 429 with
//! `Retry-After`, which Kubernetes' clients heed. `system:masters` is exempt, as in Kubernetes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_api::status::{ApiError, Result};
use tokio::sync::oneshot;

use crate::auth::{MASTERS, User};

/// Requests that work at once.
const SEATS: usize = 256;
/// Requests of one user that wait.
const QUEUE: usize = 1024;
/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Watches of one user.
const WATCHES: usize = 10_000;
/// Bytes of bodies of one user, read or being read.
const BODIES: usize = 64 << 20;

#[derive(Debug, Clone, Copy)]
struct Limits {
    seats: usize,
    seats_each: usize,
    queue: usize,
    watches: usize,
    bodies: usize,
}

#[derive(Default)]
struct Flow {
    busy: usize,
    watches: usize,
    bodies: usize,
    waiting: VecDeque<oneshot::Sender<Seat>>,
}

#[derive(Default)]
struct State {
    busy: usize,
    flows: HashMap<Arc<str>, Flow>,
    /// Users with waiting requests, whose turn is next first.
    turns: VecDeque<Arc<str>>,
}

pub struct Flows {
    limits: Limits,
    state: Mutex<State>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows::new(Limits {
            seats: SEATS,
            seats_each: SEATS / 2,
            queue: QUEUE,
            watches: WATCHES,
            bodies: BODIES,
        })
    }
}

/// A request at work; dropped, its place goes to the next.
pub struct Seat(Option<(Arc<Flows>, Arc<str>)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((flows, name)) = self.0.take() {
            flows.leave(&name);
        }
    }
}

/// A watch that goes on.
pub struct Watching(Option<(Arc<Flows>, Arc<str>)>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some((flows, name)) = self.0.take() {
            let mut state = flows.state.lock();
            if let Some(flow) = state.flows.get_mut(&name) {
                flow.watches -= 1;
            }
            state.forget_idle(&name);
        }
    }
}

/// Room for a body.
pub struct Room(Option<(Arc<Flows>, Arc<str>, usize)>);

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((flows, name, bytes)) = self.0.take() {
            let mut state = flows.state.lock();
            if let Some(flow) = state.flows.get_mut(&name) {
                flow.bodies -= bytes;
            }
            state.forget_idle(&name);
        }
    }
}

impl State {
    fn forget_idle(&mut self, name: &Arc<str>) {
        let idle = |flow: &Flow| flow.busy == 0 && flow.watches == 0 && flow.waiting.is_empty();
        if self.flows.get(name).is_some_and(idle) {
            self.flows.remove(name);
        }
    }
}

impl Flows {
    fn new(limits: Limits) -> Flows {
        Flows {
            limits,
            state: Mutex::default(),
        }
    }

    fn is_exempt(user: &User) -> bool {
        user.groups.iter().any(|group| group == MASTERS)
    }

    /// Waits for a seat.
    pub async fn seat(self: &Arc<Self>, user: &User) -> Result<Seat> {
        if Self::is_exempt(user) {
            return Ok(Seat(None));
        }
        let name: Arc<str> = user.name.as_str().into();
        let waiting = {
            let mut state = self.state.lock();
            let State { busy, flows, turns } = &mut *state;
            let flow = flows.entry(name.clone()).or_default();
            if *busy < self.limits.seats
                && flow.busy < self.limits.seats_each
                && flow.waiting.is_empty()
            {
                *busy += 1;
                flow.busy += 1;
                return Ok(Seat(Some((self.clone(), name))));
            }
            // Those whose clients went away don't count.
            if flow.waiting.len() >= self.limits.queue {
                flow.waiting.retain(|sender| !sender.is_closed());
            }
            if flow.waiting.len() >= self.limits.queue {
                return Err(too_many());
            }
            if flow.waiting.is_empty() {
                turns.push_back(name);
            }
            let (sender, receiver) = oneshot::channel();
            flow.waiting.push_back(sender);
            receiver
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(too_many()),
        }
    }

    fn leave(self: &Arc<Self>, name: &Arc<str>) {
        let mut state = self.state.lock();
        state.busy -= 1;
        if let Some(flow) = state.flows.get_mut(name) {
            flow.busy -= 1;
        }
        let mut looked_at = 0;
        while state.busy < self.limits.seats && looked_at < state.turns.len() {
            let Some(next) = state.turns.pop_front() else {
                break;
            };
            let State { busy, flows, turns } = &mut *state;
            let Some(flow) = flows.get_mut(&next) else {
                continue;
            };
            if flow.busy >= self.limits.seats_each {
                // It has its share; its turn stays.
                turns.push_back(next);
                looked_at += 1;
                continue;
            }
            if let Some(sender) = flow.waiting.pop_front() {
                *busy += 1;
                flow.busy += 1;
                let seat = Seat(Some((self.clone(), next.clone())));
                if let Err(mut unclaimed) = sender.send(seat) {
                    *busy -= 1;
                    flow.busy -= 1;
                    // Taken back already; to drop it would do so again, and the lock is held.
                    unclaimed.0 = None;
                }
                looked_at = 0;
            }
            if flow.waiting.is_empty() {
                state.forget_idle(&next);
            } else {
                turns.push_back(next);
            }
        }
        state.forget_idle(name);
    }

    /// Makes room for a body of at most so many bytes.
    pub fn room(self: &Arc<Self>, user: &User, bytes: usize) -> Result<Room> {
        if Self::is_exempt(user) || bytes == 0 {
            return Ok(Room(None));
        }
        let name: Arc<str> = user.name.as_str().into();
        let mut state = self.state.lock();
        let flow = state.flows.entry(name.clone()).or_default();
        if flow.bodies + bytes > self.limits.bodies {
            state.forget_idle(&name);
            return Err(too_many());
        }
        flow.bodies += bytes;
        drop(state);
        Ok(Room(Some((self.clone(), name, bytes))))
    }

    /// Counts a watch.
    pub fn watch(self: &Arc<Self>, user: &User) -> Result<Watching> {
        if Self::is_exempt(user) {
            return Ok(Watching(None));
        }
        let name: Arc<str> = user.name.as_str().into();
        let mut state = self.state.lock();
        let flow = state.flows.entry(name.clone()).or_default();
        if flow.watches >= self.limits.watches {
            return Err(too_many());
        }
        flow.watches += 1;
        drop(state);
        Ok(Watching(Some((self.clone(), name))))
    }
}

fn too_many() -> ApiError {
    ApiError::too_many_requests("too many requests, please try again later", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::pin::Pin;

    fn user(name: &str) -> User {
        User {
            name: name.into(),
            ..User::anonymous()
        }
    }

    fn flows(seats: usize, seats_each: usize, queue: usize) -> Arc<Flows> {
        Arc::new(Flows::new(Limits {
            seats,
            seats_each,
            queue,
            watches: 2,
            bodies: 100,
        }))
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Seat>> + 'a>>;

    #[tokio::test]
    async fn users_take_turns() {
        let flows = flows(2, 1, 3);
        let (noisy, quiet, third) = (user("noisy"), user("quiet"), user("third"));
        let first = flows.seat(&noisy).await.unwrap();
        // Its share is one seat; the rest waits, and what is more than the queue is refused.
        let mut waiting: Vec<Waiting<'_>> = (0..3)
            .map(|_| Box::pin(flows.seat(&noisy)) as Waiting<'_>)
            .collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(flows.seat(&noisy).await.err().unwrap().code, 429);
        // Somebody else finds a seat at once, a third waits, before the noisy one's second.
        let second = flows.seat(&quiet).await.unwrap();
        let mut other: Waiting<'_> = Box::pin(flows.seat(&third));
        assert!(other.as_mut().now_or_never().is_none());
        drop(second);
        let third_seat = other.await.unwrap();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(first);
        let next = waiting.remove(0).await.unwrap();
        // One whose client went away is passed over.
        drop(waiting.remove(0));
        drop(next);
        let last = waiting.remove(0).await.unwrap();
        drop((last, third_seat));
        let state = flows.state.lock();
        assert_eq!(state.busy, 0);
        assert!(state.flows.is_empty() && state.turns.is_empty());
    }

    #[tokio::test]
    async fn masters_are_exempt_and_watches_are_counted() {
        let flows = flows(1, 1, 0);
        let mut admin = user("admin");
        admin.groups.push(MASTERS.into());
        let seat = flows.seat(&user("a")).await.unwrap();
        assert!(flows.seat(&user("b")).await.is_err());
        assert!(flows.seat(&admin).await.is_ok());
        drop(seat);
        let watches = [
            flows.watch(&user("a")).unwrap(),
            flows.watch(&user("a")).unwrap(),
        ];
        assert_eq!(flows.watch(&user("a")).err().unwrap().code, 429);
        assert!(flows.watch(&user("b")).is_ok());
        drop(watches);
        assert!(flows.watch(&user("a")).is_ok());
        let room = flows.room(&user("a"), 60).unwrap();
        assert_eq!(flows.room(&user("a"), 60).err().unwrap().code, 429);
        assert!(flows.room(&user("b"), 60).is_ok() && flows.room(&admin, 1000).is_ok());
        drop(room);
        assert!(flows.room(&user("a"), 60).is_ok());
        assert!(flows.state.lock().flows.is_empty());
    }

    /// However requests come, wait and go away, no seat is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_seat_is_lost() {
        let flows = flows(4, 2, 50);
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..600u64 {
            let flows = flows.clone();
            tasks.spawn(async move {
                let user = user(&format!("u{}", i % 5));
                let limit = Duration::from_millis(i % 7);
                if let Ok(Ok(_seat)) = tokio::time::timeout(limit, flows.seat(&user)).await {
                    tokio::time::sleep(Duration::from_micros(i % 300)).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        for i in 0..5 {
            // Whoever waits and is not there any more is passed over.
            let seat = flows.seat(&user(&format!("u{i}"))).await.unwrap();
            drop(seat);
        }
        let state = flows.state.lock();
        assert_eq!(state.busy, 0);
        assert!(state.flows.is_empty());
    }
}
