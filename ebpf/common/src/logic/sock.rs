//! Services at the socket: the destination is translated before there is any packet.

use super::parse::TCP;
use super::service::{is_vip, select};
use super::tables::{SockTables, Tables};
use crate::addr::Ip;
use crate::event::Reason;
use crate::maps::{SockKey, SockVal, config_flag, service_scope, sock_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockVerdict {
    /// No Service: leave the address alone.
    Keep,
    To(Ip, u16),
    Refuse(Reason),
}

/// Whose Services a destination may be: `None` if it is nobody's. `netns`, asked for where it matters,
/// is the lower half of the cookie of the socket's network namespace.
#[inline(always)]
pub fn scope<T: Tables>(t: &T, dst: &Ip, netns: impl FnOnce() -> u32) -> Option<u8> {
    if !dst.is_loopback() {
        return Some(service_scope::CLUSTER);
    }
    let c = t.config()?;
    let ports = c.flags & config_flag::HOST_PORTS != 0 && c.host_netns != 0;
    (ports && c.host_netns == netns()).then_some(service_scope::LOOPBACK)
}

/// Destination of a connect or sendmsg. `each` is set where every datagram names its destination:
/// those of one socket to one frontend then stay with one backend.
#[inline(always)]
pub fn forward<T: SockTables>(
    t: &mut T,
    cookie: u64,
    dst: Ip,
    port_be: u16,
    protocol: u8,
    scope: u8,
    each: bool,
) -> SockVerdict {
    let asked = SockKey {
        cookie,
        addr: dst,
        port_be,
        kind: sock_key::FRONTEND,
        _pad: [0; 2],
    };
    if each && let Some(v) = t.sock_peer(&asked) {
        match t.backend(v.backend) {
            Some(b) if b.generation == v.generation => return SockVerdict::To(v.addr, v.port_be),
            _ => {}
        }
    }
    let (id, b) = match select(t, &dst, port_be, protocol, scope) {
        // To connect a datagram socket sends nothing: resolvers do so to ask for a source address.
        // What it sends later is answered as a packet.
        None if (each || u32::from(protocol) == TCP) && is_vip(t, &dst) => {
            return SockVerdict::Refuse(Reason::NoServicePort);
        }
        None => return SockVerdict::Keep,
        Some(Err(reason)) => return SockVerdict::Refuse(reason),
        Some(Ok(found)) => found,
    };
    let answered = SockKey {
        cookie,
        addr: b.addr,
        port_be: b.port_be,
        kind: sock_key::BACKEND,
        _pad: [0; 2],
    };
    let mut value = SockVal {
        addr: dst,
        port_be,
        backend: id,
        generation: b.generation,
        ..SockVal::default()
    };
    t.sock_peer_set(&answered, &value);
    if each {
        value.addr = b.addr;
        value.port_be = b.port_be;
        t.sock_peer_set(&asked, &value);
    }
    SockVerdict::To(b.addr, b.port_be)
}

/// The frontend that the socket's owner asked for, if this peer is a backend behind it.
#[inline(always)]
pub fn reverse<T: SockTables>(t: &T, cookie: u64, peer: Ip, port_be: u16) -> Option<(Ip, u16)> {
    let v = t.sock_peer(&SockKey {
        cookie,
        addr: peer,
        port_be,
        kind: sock_key::BACKEND,
        _pad: [0; 2],
    })?;
    Some((v.addr, v.port_be))
}
