//! Recent events in memory, for watches.
//!
//! A watch is a cursor into the ring, so a slow one costs no memory and holds nobody up; when the
//! ring has moved past it, it reads the log on disk instead.

use std::collections::VecDeque;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{Event, Revision};

pub(crate) struct Feed {
    ring: RwLock<Ring>,
    /// The last revision that the ring holds.
    head: watch::Sender<Revision>,
}

struct Ring {
    /// Revisions without a gap, oldest first.
    events: VecDeque<Event>,
    bytes: usize,
    max_bytes: usize,
}

fn weight(event: &Event) -> usize {
    event.key.len() + event.value.as_ref().map_or(0, |v| v.len()) + size_of::<Event>()
}

impl Feed {
    pub fn new(head: Revision, max_bytes: usize) -> Feed {
        Feed {
            ring: RwLock::new(Ring {
                events: VecDeque::new(),
                bytes: 0,
                max_bytes,
            }),
            head: watch::Sender::new(head),
        }
    }

    pub fn head(&self) -> Revision {
        *self.head.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// Events follow the head without a gap.
    pub fn publish(&self, events: Vec<Event>) {
        let Some(last) = events.last().map(|e| e.revision) else {
            return;
        };
        {
            let mut ring = self.ring.write();
            for event in events {
                ring.bytes += weight(&event);
                ring.events.push_back(event);
            }
            while ring.bytes > ring.max_bytes
                && ring.events.len() > 1
                && let Some(old) = ring.events.pop_front()
            {
                ring.bytes -= weight(&old);
            }
        }
        self.head.send_replace(last);
    }

    /// Up to `max` events of revisions greater than `after`, and the revision reached; `None`
    /// when the ring no longer holds them.
    pub fn read(
        &self,
        prefix: &[u8],
        after: Revision,
        max: usize,
    ) -> Option<(Vec<Event>, Revision)> {
        let ring = self.ring.read();
        let first = ring.events.front()?.revision;
        let start = (after + 1).checked_sub(first)? as usize;
        let mut reached = after;
        let mut out = Vec::new();
        for event in ring.events.iter().skip(start).take(max) {
            reached = event.revision;
            if event.key.starts_with(prefix) {
                out.push(event.clone());
            }
        }
        Some((out, reached))
    }
}
