//! A program on an interface by a clsact filter.
//!
//! Unlike a tcx link, which waits for an RCU grace period a hook (tens of milliseconds on a busy
//! machine), a filter costs some hundred microseconds; and it holds its program by itself, without a
//! pin. Ours is told by priority and handle: what others have on the same hook is never touched.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::netlink::{CREATE, Netlink, REPLACE};

/// Ours among the filters of a hook; lower ones run before.
pub const PRIORITY: u16 = 82;
const HANDLE: u32 = 82;

const KIND: &str = "bpf";
/// `ETH_P_ALL`: any protocol.
const ALL: u16 = 3;

/// Seen from the interface: ingress is what arrives by it. On the host side of a pod's veth that is
/// what the pod sends, and egress is what is on its way to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub fn text(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    fn parent(self) -> TcHandle {
        TcHandle {
            major: u16::MAX,
            minor: match self {
                Direction::Ingress => TcHandle::MIN_INGRESS,
                Direction::Egress => TcHandle::MIN_EGRESS,
            },
        }
    }
}

/// Makes the clsact qdisc, which filters hang on; one that is there, whosever it is, serves as well.
///
/// On an interface that is up the kernel takes the queues off for a moment: make it before.
pub fn make_hooks(netlink: &mut Netlink, ifindex: u32) -> io::Result<()> {
    let mut m = TcMessage::with_index(ifindex as i32);
    m.header.parent = TcHandle::CLSACT;
    m.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    m.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match netlink.change(Message::NewQueueDiscipline(m), CREATE) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        r => r,
    }
}

fn ours(ifindex: u32, direction: Direction) -> TcMessage {
    let mut m = TcMessage::with_index(ifindex as i32);
    m.header.parent = direction.parent();
    m.header.info = u32::from(PRIORITY) << 16 | u32::from(ALL.to_be());
    m
}

/// Hangs the program there, atomically in place of what hung in our place before.
pub fn put(
    netlink: &mut Netlink,
    ifindex: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    name: &str,
) -> io::Result<()> {
    let mut m = ours(ifindex, direction);
    m.header.handle = HANDLE.into();
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName(name.to_owned()),
        // The program's return value is the verdict.
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    m.attributes = vec![
        TcAttribute::Kind(KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    netlink.change(Message::NewTrafficFilter(m), REPLACE)
}

/// Id of the program that hangs in our place; none also where the interface or its hooks are gone.
pub fn attached(
    netlink: &mut Netlink,
    ifindex: u32,
    direction: Direction,
) -> io::Result<Option<u32>> {
    // The kernel lists those of our priority alone.
    let list = netlink.filters(ours(ifindex, direction))?;
    let is_ours = |m: &&TcMessage| {
        m.header.handle == HANDLE.into() && m.header.info >> 16 == u32::from(PRIORITY)
    };
    Ok(list.iter().find(is_ours).and_then(program))
}

fn program(m: &TcMessage) -> Option<u32> {
    let options = m.attributes.iter().filter_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|o| match o {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

/// Takes what hangs in our place away; absent is fine. The qdisc stays: it may be another's.
pub fn remove(netlink: &mut Netlink, ifindex: u32, direction: Direction) -> io::Result<()> {
    if attached(netlink, ifindex, direction)?.is_none() {
        return Ok(());
    }
    let mut m = ours(ifindex, direction);
    m.header.handle = HANDLE.into();
    m.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    match netlink.change(Message::DelTrafficFilter(m), 0) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        r => r,
    }
}
