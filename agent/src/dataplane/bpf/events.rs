//! The ring buffer of drops.

use std::{io, os::fd::AsRawFd, path::Path, time::Duration};

use aya::maps::{Map, MapData, RingBuf};
use rhumb_common::event::Event;

use super::Error;

/// The one reader of the ring buffer.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn open(path: &Path) -> Result<Events, Error> {
        let ring = MapData::from_pin(path)
            .and_then(|m| RingBuf::try_from(Map::RingBuf(m)))
            .map_err(|e| Error::OpenPin {
                path: path.to_owned(),
                source: io::Error::other(e),
            })?;
        Ok(Events { ring })
    }

    /// Waits until there is an event, or for `timeout` (below 24 days).
    pub fn wait(&self, timeout: Duration) {
        let mut poll = libc::pollfd {
            fd: self.ring.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd. Whatever it returns, the ring is asked next.
        unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as libc::c_int) };
    }

    /// The next event, if there is one now.
    #[expect(
        clippy::should_implement_trait,
        reason = "an end for now is no end of the sequence"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() < size_of::<Event>() {
                continue;
            }
            // SAFETY: at least as long as an Event, for which every bit pattern is valid.
            return Some(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) });
        }
    }
}
