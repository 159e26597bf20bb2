//! Turning a pod's packet into the answer to it: TCP reset, ICMP error.

use super::Action;
use super::csum::{add, fold16};
use super::packet::Packet;
use super::parse::{ACK, ETH_LEN, FIN, ICMP, ICMP6, Kind, Meta, RST, SYN, TCP, V4_LEN, V6_LEN};
use super::rewrite::to_pod_macs;
use super::tables::Tables;
use crate::addr::Ip;
use crate::event::Reason;

const TTL: u32 = 64;

/// An ICMP error's type and code, per family.
#[derive(Clone, Copy)]
struct Unreachable {
    v4: u32,
    v6: u32,
}

/// Host unreachable, address unreachable.
const HOST: Unreachable = Unreachable {
    v4: 3 << 24 | 1 << 16,
    v6: 1 << 24 | 3 << 16,
};
/// Port unreachable.
const PORT: Unreachable = Unreachable {
    v4: 3 << 24 | 3 << 16,
    v6: 1 << 24 | 4 << 16,
};
/// TTL or hop limit exceeded in transit.
const TTL_EXCEEDED: Unreachable = Unreachable {
    v4: 11 << 24,
    v6: 3 << 24,
};

/// Tells the pod that sent the packet why it goes no further: an expired TTL from the node's
/// address; anything else refuses from the address that was asked for, by a reset for TCP.
#[inline(always)]
pub fn answer<P: Packet, T: Tables>(p: &mut P, t: &mut T, m: &mut Meta, reason: Reason) -> Action {
    let Some(e) = t.endpoint(&m.key.src) else {
        return Action::Drop(reason);
    };
    let expired = reason == Reason::TtlExceeded;
    let done = match m.kind {
        Kind::Tcp if !expired => reset(p, m),
        Kind::IcmpError => None,
        _ if expired => match node(t, m.v6) {
            Some(node) => icmp_error(p, m, TTL_EXCEEDED, node),
            None => None,
        },
        Kind::EchoRequest if reason == Reason::NoEndpoint => icmp_error(p, m, HOST, m.key.dst),
        Kind::Udp | Kind::EchoRequest => icmp_error(p, m, PORT, m.key.dst),
        _ => None,
    };
    match done {
        Some(()) if to_pod_macs(p, &e).is_some() => Action::Answer(e.ifindex, reason),
        _ => Action::Drop(reason),
    }
}

#[inline(always)]
fn node<T: Tables>(t: &T, v6: bool) -> Option<Ip> {
    let c = t.config()?;
    let node = if v6 { c.node_ip6 } else { c.node_ip4 };
    (node != Ip::UNSPECIFIED).then_some(node)
}

/// Writes an IP header of `payload` bytes to follow, and gives the pseudo-header's sum.
#[inline(always)]
fn ip_header<P: Packet>(
    p: &mut P,
    src: &Ip,
    dst: &Ip,
    protocol: u32,
    payload: u32,
    v6: bool,
) -> Option<u64> {
    let mut sum = add(add(0, payload.to_be()), protocol.to_be());
    if v6 {
        let head = 6u64 << 60 | (payload as u64) << 16 | (protocol as u64) << 8 | TTL as u64;
        p.write(ETH_LEN, [head.to_be(), src.hi, src.lo, dst.hi, dst.lo])?;
        sum += words64(src.hi) + words64(src.lo) + words64(dst.hi) + words64(dst.lo);
        return Some(sum);
    }
    let (s, d) = (src.v4_raw(), dst.v4_raw());
    let w0 = (4 << 28 | 5 << 24 | (V4_LEN as u32 + payload)).to_be();
    // Don't fragment, id 0 (RFC 6864, 4.1).
    let w1 = 0x4000u32.to_be();
    let w2 = TTL << 24 | protocol << 16;
    let header = add(add(add(add(add(0, w0), w1), w2.to_be()), s), d);
    // A sum folded over words in memory order is in memory order.
    let c = !fold16(header);
    p.write(ETH_LEN, [w0, w1, with_csum(w2, c), s, d])?;
    sum += s as u64 + d as u64;
    Some(sum)
}

#[inline(always)]
fn words64(w: u64) -> u64 {
    (w & 0xffff_ffff) + (w >> 32)
}

/// A header word (host order, low half 0) with a checksum (memory order) as its second half.
#[inline(always)]
fn with_csum(word: u32, csum: u16) -> u32 {
    let (w, c) = (word.to_be_bytes(), csum.to_ne_bytes());
    u32::from_ne_bytes([w[0], w[1], c[0], c[1]])
}

#[inline(always)]
fn reset<P: Packet>(p: &mut P, m: &Meta) -> Option<()> {
    // Resets are never answered (RFC 9293, 3.10.7.1).
    if m.tcp_flags & RST != 0 {
        return None;
    }
    let w: [u32; 5] = p.read(m.l4())?;
    let header = (u32::from_be(w[3]) >> 28) * 4;
    let (seq, ack, flags) = if m.tcp_flags & ACK != 0 {
        (u32::from_be(w[2]), 0, RST)
    } else {
        let data = p.len().checked_sub(m.l4() as u32 + header)?;
        let controls = (m.tcp_flags & SYN != 0) as u32 + (m.tcp_flags & FIN != 0) as u32;
        let end = u32::from_be(w[1]).wrapping_add(data).wrapping_add(controls);
        (0, end, RST | ACK)
    };
    let ip_len = if m.v6 { V6_LEN } else { V4_LEN };
    p.resize((ETH_LEN + ip_len + 20) as u32)?;
    let pseudo = ip_header(p, &m.key.dst, &m.key.src, TCP, 20, m.v6)?;
    let (s, d) = (m.key.dport_be.to_ne_bytes(), m.key.sport_be.to_ne_bytes());
    let t0 = u32::from_ne_bytes([s[0], s[1], d[0], d[1]]);
    let t3 = (5 << 28 | (flags as u32) << 16).to_be();
    let sum = add(add(add(add(pseudo, t0), seq.to_be()), ack.to_be()), t3);
    let c = !fold16(sum);
    let t = [t0, seq.to_be(), ack.to_be(), t3, first_half(c)];
    p.write(ETH_LEN + ip_len, t)
}

/// A checksum as the first half of a word in memory.
#[inline(always)]
fn first_half(csum: u16) -> u32 {
    let c = csum.to_ne_bytes();
    u32::from_ne_bytes([c[0], c[1], 0, 0])
}

/// Quotes the IP header and eight bytes, which is what RFC 792 asks for and what a socket needs
/// to be found; packets with options or extension headers are not answered.
#[inline(always)]
fn icmp_error<P: Packet>(p: &mut P, m: &Meta, what: Unreachable, src: Ip) -> Option<()> {
    if m.v6 {
        if m.l4() != ETH_LEN + V6_LEN {
            return None;
        }
        let quote: [u64; 6] = p.read(ETH_LEN)?;
        p.resize((ETH_LEN + V6_LEN + 8 + 48) as u32)?;
        let pseudo = ip_header(p, &src, &m.key.src, ICMP6, 8 + 48, true)?;
        let mut sum = pseudo + what.v6.to_be() as u64;
        sum += words64(quote[0]) + words64(quote[1]) + words64(quote[2]);
        sum += words64(quote[3]) + words64(quote[4]) + words64(quote[5]);
        p.write(ETH_LEN + V6_LEN, [with_csum(what.v6, !fold16(sum)), 0])?;
        return p.write(ETH_LEN + V6_LEN + 8, quote);
    }
    if m.l4() != ETH_LEN + V4_LEN {
        return None;
    }
    let quote: [u32; 7] = p.read(ETH_LEN)?;
    p.resize((ETH_LEN + V4_LEN + 8 + 28) as u32)?;
    ip_header(p, &src, &m.key.src, ICMP, 8 + 28, false)?;
    let mut sum = what.v4.to_be() as u64;
    sum += quote[0] as u64 + quote[1] as u64 + quote[2] as u64 + quote[3] as u64;
    sum += quote[4] as u64 + quote[5] as u64 + quote[6] as u64;
    p.write(ETH_LEN + V4_LEN, [with_csum(what.v4, !fold16(sum)), 0])?;
    p.write(ETH_LEN + V4_LEN + 8, quote)
}
