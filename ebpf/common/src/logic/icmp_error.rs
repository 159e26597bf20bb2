//! ICMP errors about a packet of a known flow follow it back through its translation.

use super::csum;
use super::flows::{expired, target};
use super::packet::{L4Csum, Packet};
use super::parse::{ICMP, ICMP6, Meta, TCP, UDP};
use super::tables::Tables;
use crate::addr::Ip;
use crate::flow::FlowKey;

/// The quoted packet.
struct Inner {
    key: FlowKey,
    /// Offset of its IP header in the frame.
    l3: usize,
    /// Offset of what holds its ports, or its id.
    ports: usize,
    echo: bool,
}

/// If the error belongs to a flow, translates the quoted packet back to what its sender sent, sets
/// `m.to`, and gives the flags of the flow's direction towards that sender. With `own_only` the
/// quoted packet must have been sent to who complains.
#[inline(always)]
pub fn related<P: Packet, T: Tables>(
    p: &mut P,
    t: &mut T,
    m: &mut Meta,
    own_only: bool,
) -> Option<u32> {
    let inner = if m.v6 {
        parse_v6(p, m)?
    } else {
        parse_v4(p, m)?
    };
    // An error goes to the sender of what it quotes.
    if inner.key.src != m.key.dst || own_only && inner.key.dst != m.key.src {
        return None;
    }
    let back = inner.key.reversed();
    let f = t.flow(&back, |f| *f)?;
    if expired(&f, back.protocol, t.now()) {
        return None;
    }
    let sent = target(&back, &f).reversed();
    if sent != inner.key {
        translate(p, m, &inner, &sent)?;
    }
    m.to = m.key;
    m.to.dst = sent.src;
    // From the responder itself: it is known by the address that was asked for.
    if m.key.src == inner.key.dst {
        m.to.src = sent.dst;
    }
    Some(f.flags)
}

#[inline(always)]
fn parse_v4<P: Packet>(p: &P, m: &Meta) -> Option<Inner> {
    let l3 = m.l4() + 8;
    let w: [u32; 5] = p.read(l3)?;
    let w0 = u32::from_be(w[0]);
    // Options in the quoted packet: not translated.
    if w0 >> 24 != 0x45 || u32::from_be(w[1]) & 0x1fff != 0 {
        return None;
    }
    let protocol = (u32::from_be(w[2]) >> 16) & 0xff;
    let key = FlowKey {
        src: Ip::from_v4_raw(w[3]),
        dst: Ip::from_v4_raw(w[4]),
        protocol,
        ..FlowKey::default()
    };
    with_ports(p, key, l3, l3 + 20)
}

#[inline(always)]
fn parse_v6<P: Packet>(p: &P, m: &Meta) -> Option<Inner> {
    let l3 = m.l4() + 8;
    let w: [u64; 5] = p.read(l3)?;
    let w0 = u64::from_be(w[0]);
    if w0 >> 60 != 6 {
        return None;
    }
    let key = FlowKey {
        src: Ip { hi: w[1], lo: w[2] },
        dst: Ip { hi: w[3], lo: w[4] },
        protocol: ((w0 >> 8) & 0xff) as u32,
        ..FlowKey::default()
    };
    with_ports(p, key, l3, l3 + 40)
}

#[inline(always)]
fn with_ports<P: Packet>(p: &P, mut key: FlowKey, l3: usize, l4: usize) -> Option<Inner> {
    let w: [u16; 4] = p.read(l4)?;
    let kind = u16::from_be(w[0]) >> 8;
    match (key.protocol, kind) {
        (TCP | UDP, _) => {
            key.sport_be = w[0];
            key.dport_be = w[1];
            return Some(Inner {
                key,
                l3,
                ports: l4,
                echo: false,
            });
        }
        (ICMP, 8) | (ICMP6, 128) => key.sport_be = w[2],
        (ICMP, 0) | (ICMP6, 129) => key.dport_be = w[2],
        _ => return None,
    }
    Some(Inner {
        key,
        l3,
        ports: l4 + 4,
        echo: true,
    })
}

#[inline(always)]
fn translate<P: Packet>(p: &mut P, m: &Meta, inner: &Inner, to: &FlowKey) -> Option<()> {
    let key = &inner.key;
    let mut diff = csum::diff(key.sport_be as u32, to.sport_be as u32)
        + csum::diff(key.dport_be as u32, to.dport_be as u32);
    if inner.echo {
        p.write(inner.ports, to.sport_be | to.dport_be)?;
    } else {
        p.write(inner.ports, [to.sport_be, to.dport_be])?;
    }
    if m.v6 {
        diff += csum::diff64(key.src.hi, to.src.hi)
            + csum::diff64(key.src.lo, to.src.lo)
            + csum::diff64(key.dst.hi, to.dst.hi)
            + csum::diff64(key.dst.lo, to.dst.lo);
        p.write(inner.l3 + 8, [to.src.hi, to.src.lo, to.dst.hi, to.dst.lo])?;
    } else {
        // The header's own checksum takes up the change: the sum over the header stays.
        let field: u16 = p.read(inner.l3 + 10)?;
        let (src, dst) = (to.src.v4_raw(), to.dst.v4_raw());
        let change = csum::diff(key.src.v4_raw(), src) + csum::diff(key.dst.v4_raw(), dst);
        p.write(inner.l3 + 10, csum::apply(field, change))?;
        p.write(inner.l3 + 12, [src, dst])?;
    }
    let csum = L4Csum {
        offset: m.l4() + 2,
        pseudo: false,
        v6: m.v6,
        udp: false,
    };
    p.update_l4(csum, csum::fold32(diff))
}
