//! Writing a decision into the packet: addresses, ports, TTL, MAC addresses.

use super::csum;
use super::packet::{L4Csum, Packet};
use super::parse::{ETH_LEN, ICMP, ICMP6, Meta, UDP};
use crate::maps::Endpoint;

/// Source and destination port as the word that they are in the header.
#[inline(always)]
fn ports(sport_be: u16, dport_be: u16) -> u32 {
    let (s, d) = (sport_be.to_ne_bytes(), dport_be.to_ne_bytes());
    u32::from_ne_bytes([s[0], s[1], d[0], d[1]])
}

/// Turns the packet's tuple from `m.key` into `m.to` and takes one off its TTL if `hop`.
/// `None` if the packet could not be written.
#[inline(always)]
pub fn rewrite<P: Packet>(p: &mut P, m: &Meta, hop: bool) -> Option<()> {
    let translated = m.key != m.to;
    if translated {
        rewrite_l4(p, m)?;
    }
    if !translated && !hop {
        return Some(());
    }
    if m.v6 {
        if translated {
            let addresses = [m.to.src.hi, m.to.src.lo, m.to.dst.hi, m.to.dst.lo];
            p.write(ETH_LEN + 8, addresses)?;
        }
        if hop {
            p.write(ETH_LEN + 7, m.ttl.wrapping_sub(1))?;
            let (old, new) = ([0, m.ttl], [0, m.ttl.wrapping_sub(1)]);
            let diff = csum::diff(
                u16::from_ne_bytes(old) as u32,
                u16::from_ne_bytes(new) as u32,
            );
            p.uncompensated(csum::fold32(diff));
        }
        return Some(());
    }
    let w: [u32; 3] = p.read(ETH_LEN + 8)?;
    let b = w[0].to_ne_bytes();
    let ttl = b[0].wrapping_sub(hop as u8);
    let without_csum = u32::from_ne_bytes([ttl, b[1], 0, 0]);
    let mut diff = csum::diff(u32::from_ne_bytes([b[0], b[1], 0, 0]), without_csum);
    let (src, dst) = (m.to.src.v4_raw(), m.to.dst.v4_raw());
    diff += csum::diff(w[1], src) + csum::diff(w[2], dst);
    let c = csum::apply(u16::from_ne_bytes([b[2], b[3]]), diff).to_ne_bytes();
    p.write(
        ETH_LEN + 8,
        [u32::from_ne_bytes([ttl, b[1], c[0], c[1]]), src, dst],
    )
}

#[inline(always)]
fn rewrite_l4<P: Packet>(p: &mut P, m: &Meta) -> Option<()> {
    let l4 = m.l4();
    let (key, to) = (&m.key, &m.to);
    let icmp = key.protocol == ICMP || key.protocol == ICMP6;
    let udp = key.protocol == UDP;
    let offset = l4
        + if icmp {
            2
        } else if udp {
            6
        } else {
            16
        };
    let csum = L4Csum {
        offset,
        pseudo: true,
        v6: m.v6,
        udp,
    };
    // ICMP for IPv4 has no pseudo-header.
    if key.protocol != ICMP {
        let diff = if m.v6 {
            csum::diff64(key.src.hi, to.src.hi)
                + csum::diff64(key.src.lo, to.src.lo)
                + csum::diff64(key.dst.hi, to.dst.hi)
                + csum::diff64(key.dst.lo, to.dst.lo)
        } else {
            csum::diff(key.src.v4_raw(), to.src.v4_raw())
                + csum::diff(key.dst.v4_raw(), to.dst.v4_raw())
        };
        p.update_l4(csum, csum::fold32(diff))?;
    }
    let (old, new) = (
        ports(key.sport_be, key.dport_be),
        ports(to.sport_be, to.dport_be),
    );
    if old == new {
        return Some(());
    }
    p.update_l4(
        L4Csum {
            pseudo: false,
            ..csum
        },
        csum::fold32(csum::diff(old, new)),
    )?;
    if icmp {
        // One of the two is the id, the other is 0.
        p.write(l4 + 4, to.sport_be | to.dport_be)
    } else {
        p.write(l4, new)
    }
}

/// MAC addresses of a frame from the host's side to the pod.
#[inline(always)]
pub fn to_pod_macs<P: Packet>(p: &mut P, e: &Endpoint) -> Option<()> {
    let (d, s) = (e.pod_mac.to_ne_bytes(), e.host_mac.to_ne_bytes());
    p.write(
        0,
        [
            u16::from_ne_bytes([d[0], d[1]]),
            u16::from_ne_bytes([d[2], d[3]]),
            u16::from_ne_bytes([d[4], d[5]]),
            u16::from_ne_bytes([s[0], s[1]]),
            u16::from_ne_bytes([s[2], s[3]]),
            u16::from_ne_bytes([s[4], s[5]]),
        ],
    )
}
