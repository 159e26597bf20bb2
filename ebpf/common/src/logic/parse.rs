//! A frame to its tuple.

use super::packet::Packet;
use crate::addr::Ip;
use crate::event::Reason;
use crate::flow::{Flow, FlowKey};

pub const ETH_LEN: usize = 14;
pub const V4_LEN: usize = 20;
pub const V6_LEN: usize = 40;

pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const ICMP: u32 = 1;
pub const ICMP6: u32 = 58;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Headers end before this: the verifier needs a bound, and longer chains of extension headers
/// are not seen outside of attacks.
const L4_LIMIT: usize = 256;

/// What the packet's transport layer is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// ARP or another network layer.
    #[default]
    NotIp,
    Tcp,
    Udp,
    EchoRequest,
    EchoReply,
    /// An ICMP error, with the packet that it is about inside.
    IcmpError,
    /// Neighbour discovery or multicast listener reports.
    Neighbour,
    /// Another ICMP message.
    IcmpOther,
    /// A fragment without a transport header.
    Fragment,
    Other,
}

/// A parsed packet, and what was decided about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    pub key: FlowKey,
    /// The tuple that the packet leaves with.
    pub to: FlowKey,
    /// Offset of the transport header in the frame.
    pub l4: usize,
    pub kind: Kind,
    pub v6: bool,
    pub tcp_flags: u8,
    pub ttl: u8,
    /// Policy does not apply to the packet: it comes from the node itself.
    pub trusted: bool,
    /// Why a stage that is a function of its own failed.
    pub reason: Reason,
    /// For the event of a denial.
    pub set: u32,
    pub rule: u32,
    pub identity: u32,
    /// The packet's flow, and room to work out the entry of its other direction: here rather than
    /// on the kernel's stack of 512 bytes.
    pub flow: Flow,
    pub pair_key: FlowKey,
    pub pair: Flow,
}

impl Meta {
    /// For the next packet. Only what is read before it is written.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.key.sport_be = 0;
        self.key.dport_be = 0;
        self.key.protocol = 0;
        self.kind = Kind::NotIp;
        self.tcp_flags = 0;
        self.trusted = false;
        self.set = 0;
        self.rule = 0;
        self.identity = 0;
    }

    /// A bounded offset of the transport header, also for the verifier.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        self.l4 & (2 * L4_LIMIT - 1)
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.key.protocol == TCP
    }

    /// Has a flow: TCP, UDP or echo.
    #[inline(always)]
    pub fn has_flow(&self) -> bool {
        matches!(
            self.kind,
            Kind::Tcp | Kind::Udp | Kind::EchoRequest | Kind::EchoReply
        )
    }
}

const ETH_V4: u16 = 0x0800;
const ETH_V6: u16 = 0x86dd;
const ETH_ARP: u16 = 0x0806;

/// Fills `m`; `Ok` also for what is not IP ([`Kind::NotIp`]).
#[inline(always)]
pub fn parse<P: Packet>(p: &P, m: &mut Meta) -> Result<(), Reason> {
    let ethertype = u16::from_be(p.read::<u16>(12).ok_or(Reason::Malformed)?);
    match ethertype {
        ETH_V4 => parse_v4(p, m),
        ETH_V6 => parse_v6(p, m),
        ETH_ARP => {
            m.kind = Kind::NotIp;
            Ok(())
        }
        _ => {
            m.kind = Kind::NotIp;
            Err(Reason::UnsupportedProtocol)
        }
    }
}

#[inline(always)]
fn parse_v4<P: Packet>(p: &P, m: &mut Meta) -> Result<(), Reason> {
    let w: [u32; 5] = p.read(ETH_LEN).ok_or(Reason::Malformed)?;
    let w0 = u32::from_be(w[0]);
    let header = ((w0 >> 22) & 0x3c) as usize;
    let total = w0 & 0xffff;
    if w0 >> 28 != 4 || header < V4_LEN {
        return Err(Reason::Malformed);
    }
    let available = p.len() - ETH_LEN as u32;
    // A total length of 0 stands for more than 65 535 bytes in segmentation offload.
    let big = total == 0 && available > 0xffff;
    if !big && (total < header as u32 || total > available) {
        return Err(Reason::Malformed);
    }
    m.v6 = false;
    m.ttl = (u32::from_be(w[2]) >> 24) as u8;
    let protocol = (u32::from_be(w[2]) >> 16) & 0xff;
    m.key.src = Ip::from_v4_raw(w[3]);
    m.key.dst = Ip::from_v4_raw(w[4]);
    m.key.protocol = protocol;
    m.l4 = ETH_LEN + header;
    if u32::from_be(w[1]) & 0x1fff != 0 {
        m.kind = Kind::Fragment;
        return Ok(());
    }
    parse_l4(p, m)
}

#[inline(always)]
fn parse_v6<P: Packet>(p: &P, m: &mut Meta) -> Result<(), Reason> {
    let w: [u64; 5] = p.read(ETH_LEN).ok_or(Reason::Malformed)?;
    let w0 = u64::from_be(w[0]);
    let payload = ((w0 >> 16) & 0xffff) as u32;
    if w0 >> 60 != 6 || payload > p.len() - (ETH_LEN + V6_LEN) as u32 {
        return Err(Reason::Malformed);
    }
    m.v6 = true;
    m.ttl = w0 as u8;
    m.key.src = Ip { hi: w[1], lo: w[2] };
    m.key.dst = Ip { hi: w[3], lo: w[4] };
    // A v4-mapped address on the wire is forged (RFC 4942, 2.2).
    if m.key.src.is_v4() || m.key.dst.is_v4() {
        return Err(Reason::Malformed);
    }
    let mut next = ((w0 >> 8) & 0xff) as u32;
    let mut l4 = ETH_LEN + V6_LEN;
    // At most four extension headers.
    let mut i = 0;
    while i < 4 {
        let length = match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let h: u16 = p.read(l4).ok_or(Reason::Malformed)?;
                let h = u16::from_be(h);
                next = (h >> 8) as u32;
                ((h & 0xff) as usize + 1) * 8
            }
            // Authentication header: in words of four bytes, minus two.
            51 => {
                let h: u16 = p.read(l4).ok_or(Reason::Malformed)?;
                let h = u16::from_be(h);
                next = (h >> 8) as u32;
                ((h & 0xff) as usize + 2) * 4
            }
            44 => {
                let h: u32 = p.read(l4).ok_or(Reason::Malformed)?;
                let h = u32::from_be(h);
                next = h >> 24;
                if h & 0xfff8 != 0 {
                    m.key.protocol = next;
                    m.kind = Kind::Fragment;
                    m.l4 = l4;
                    return Ok(());
                }
                8
            }
            _ => break,
        };
        l4 += length;
        if l4 >= L4_LIMIT {
            return Err(Reason::UnsupportedProtocol);
        }
        i += 1;
    }
    m.key.protocol = next;
    m.l4 = l4;
    parse_l4(p, m)
}

#[inline(always)]
fn parse_l4<P: Packet>(p: &P, m: &mut Meta) -> Result<(), Reason> {
    let l4 = m.l4();
    match m.key.protocol {
        TCP => {
            let w: [u32; 5] = p.read(l4).ok_or(Reason::Malformed)?;
            set_ports(m, w[0]);
            m.tcp_flags = (u32::from_be(w[3]) >> 16) as u8;
            m.kind = Kind::Tcp;
        }
        UDP => {
            let w: [u32; 2] = p.read(l4).ok_or(Reason::Malformed)?;
            set_ports(m, w[0]);
            m.kind = Kind::Udp;
        }
        ICMP if !m.v6 => {
            let w: [u32; 2] = p.read(l4).ok_or(Reason::Malformed)?;
            let id = (u32::from_be(w[1]) >> 16) as u16;
            match u32::from_be(w[0]) >> 24 {
                8 => echo_request(m, id),
                0 => echo_reply(m, id),
                3 | 11 | 12 => m.kind = Kind::IcmpError,
                _ => m.kind = Kind::IcmpOther,
            }
        }
        ICMP6 if m.v6 => {
            let w: [u32; 2] = p.read(l4).ok_or(Reason::Malformed)?;
            let id = (u32::from_be(w[1]) >> 16) as u16;
            match u32::from_be(w[0]) >> 24 {
                128 => echo_request(m, id),
                129 => echo_reply(m, id),
                1..=4 => m.kind = Kind::IcmpError,
                // Listener queries and reports, router and neighbour messages; not redirects.
                130..=132 | 133..=136 | 143 => m.kind = Kind::Neighbour,
                _ => m.kind = Kind::IcmpOther,
            }
        }
        _ => m.kind = Kind::Other,
    }
    Ok(())
}

#[inline(always)]
fn set_ports(m: &mut Meta, word: u32) {
    let [a, b, c, d] = word.to_ne_bytes();
    m.key.sport_be = u16::from_ne_bytes([a, b]);
    m.key.dport_be = u16::from_ne_bytes([c, d]);
}

#[inline(always)]
fn echo_request(m: &mut Meta, id: u16) {
    m.kind = Kind::EchoRequest;
    m.key.sport_be = id.to_be();
}

#[inline(always)]
fn echo_reply(m: &mut Meta, id: u16) {
    m.kind = Kind::EchoReply;
    m.key.dport_be = id.to_be();
}
