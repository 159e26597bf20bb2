//! Tells of qdiscs and filters that go: programs may hang on them.

use std::{io, os::fd::AsRawFd as _, time::Duration};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// `RTNLGRP_TC`.
const GROUP: u32 = 4;

/// Watches the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Losses {
    socket: Socket,
}

/// What was lost meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// By interfaces with these indexes.
    On(Vec<u32>),
    /// The kernel had more to tell than the socket holds.
    Anywhere,
}

impl Losses {
    pub fn watch() -> io::Result<Losses> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(Losses { socket })
    }

    /// Waits for something to go, for at most `wait`.
    pub fn next(&self, wait: Duration) -> io::Result<Lost> {
        let mut poll = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, which lives through the call.
        if unsafe { libc::poll(&mut poll, 1, wait) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut lost = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((data, _)) => lost.extend(gone(&data)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Lost::On(lost)),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Lost::Anywhere),
                Err(e) => return Err(e),
            }
        }
    }
}

/// The interfaces that messages say lost something. What can't be read says nothing.
fn gone(data: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut rest = data;
    while let Ok(message) = NetlinkMessage::<Message>::deserialize(rest) {
        // Messages are padded to four bytes.
        let step = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(step.max(16)..).unwrap_or_default();
        if let NetlinkPayload::InnerMessage(
            Message::DelQueueDiscipline(m) | Message::DelTrafficFilter(m),
        ) = message.payload
        {
            found.extend(u32::try_from(m.header.index));
        }
    }
    found
}
