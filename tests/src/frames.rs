//! Frames as bytes, made and read without any of the product's code.

use std::net::IpAddr;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        sport: u16,
        dport: u16,
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        data: Vec<u8>,
    },
    Udp {
        sport: u16,
        dport: u16,
        data: Vec<u8>,
    },
    Echo {
        reply: bool,
        id: u16,
        data: Vec<u8>,
    },
    /// An ICMP message: type, code, the word after the checksum, what follows.
    Icmp {
        kind: u8,
        code: u8,
        word: u32,
        data: Vec<u8>,
    },
    Other {
        protocol: u8,
        data: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination, then source.
    pub macs: [[u8; 6]; 2],
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    /// IPv4: the word of identification, flags and fragment offset.
    pub fragment: u32,
    pub body: Body,
}

impl Frame {
    pub fn new(src: &str, dst: &str, body: Body) -> Frame {
        Frame::between(
            src.parse().expect("an address"),
            dst.parse().expect("an address"),
            body,
        )
    }

    pub fn between(src: IpAddr, dst: IpAddr, body: Body) -> Frame {
        Frame {
            macs: [[2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]],
            src,
            dst,
            ttl: 64,
            fragment: 0x4000,
            body,
        }
    }

    pub fn protocol(&self) -> u8 {
        match (&self.body, self.src.is_ipv4()) {
            (Body::Tcp { .. }, _) => TCP,
            (Body::Udp { .. }, _) => UDP,
            (Body::Echo { .. } | Body::Icmp { .. }, true) => 1,
            (Body::Echo { .. } | Body::Icmp { .. }, false) => 58,
            (Body::Other { protocol, .. }, _) => *protocol,
        }
    }

    /// From the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        let body = self.transport();
        let mut out = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([0x45, 0]);
                out.extend((20 + body.len() as u16).to_be_bytes());
                out.extend(self.fragment.to_be_bytes());
                out.extend([self.ttl, self.protocol(), 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                let sum = checksum(&[&out]);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x60, 0, 0, 0]);
                out.extend((body.len() as u16).to_be_bytes());
                out.extend([self.protocol(), self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => panic!("addresses of two families: {} {}", self.src, self.dst),
        }
        out.extend(body);
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.macs.as_flattened());
        out.extend(if self.src.is_ipv4() {
            [8, 0]
        } else {
            [0x86, 0xdd]
        });
        out.extend(self.packet());
        out
    }

    fn transport(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let at = match &self.body {
            Body::Tcp {
                sport,
                dport,
                seq,
                ack,
                flags,
                window,
                data,
            } => {
                out.extend(sport.to_be_bytes());
                out.extend(dport.to_be_bytes());
                out.extend(seq.to_be_bytes());
                out.extend(ack.to_be_bytes());
                out.extend([0x50, *flags]);
                out.extend(window.to_be_bytes());
                out.extend([0; 4]);
                out.extend(data);
                16
            }
            Body::Udp { sport, dport, data } => {
                out.extend(sport.to_be_bytes());
                out.extend(dport.to_be_bytes());
                out.extend((8 + data.len() as u16).to_be_bytes());
                out.extend([0; 2]);
                out.extend(data);
                6
            }
            Body::Echo { reply, id, data } => {
                let kind = match (self.src.is_ipv4(), reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                out.extend([kind, 0, 0, 0]);
                out.extend(id.to_be_bytes());
                out.extend([0, 1]);
                out.extend(data);
                2
            }
            Body::Icmp {
                kind,
                code,
                word,
                data,
            } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(word.to_be_bytes());
                out.extend(data);
                2
            }
            Body::Other { data, .. } => return data.clone(),
        };
        let mut sum = transport_sum(self.src, self.dst, self.protocol(), &out);
        if self.protocol() == UDP && sum == 0 {
            sum = 0xffff;
        }
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Over the pseudo-header where the protocol has one.
fn transport_sum(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> u16 {
    if protocol == 1 {
        return checksum(&[body]);
    }
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let tail = [&(body.len() as u32).to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
    checksum(&[&octets(src), &octets(dst), &tail, body])
}

/// A whole frame back to its parts; `None` if a length or checksum is wrong.
pub fn read(bytes: &[u8]) -> Option<Frame> {
    let mac = |at: usize| bytes.get(at..at + 6)?.try_into().ok();
    let macs = [mac(0)?, mac(6)?];
    let packet = bytes.get(14..)?;
    let (src, dst, ttl, protocol, fragment, body): (IpAddr, IpAddr, _, _, _, _) =
        match bytes.get(12..14)? {
            [8, 0] => {
                let head = packet.get(..20)?;
                let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
                if head[0] != 0x45 || checksum(&[head]) != 0 || total != packet.len() {
                    return None;
                }
                let a: [u8; 4] = head[12..16].try_into().ok()?;
                let b: [u8; 4] = head[16..20].try_into().ok()?;
                let fragment = u32::from_be_bytes(head[4..8].try_into().ok()?);
                let rest = &packet[20..];
                (a.into(), b.into(), head[8], head[9], fragment, rest)
            }
            [0x86, 0xdd] => {
                let head = packet.get(..40)?;
                let payload = usize::from(u16::from_be_bytes([head[4], head[5]]));
                if head[0] >> 4 != 6 || payload != packet.len() - 40 {
                    return None;
                }
                let a: [u8; 16] = head[8..24].try_into().ok()?;
                let b: [u8; 16] = head[24..40].try_into().ok()?;
                (a.into(), b.into(), head[7], head[6], 0x4000, &packet[40..])
            }
            _ => return None,
        };
    let word16 = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let word32 = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    // A later fragment has no transport header.
    let known = matches!(protocol, 1 | 58 | TCP | UDP) && fragment & 0x1fff == 0;
    if known && transport_sum(src, dst, protocol, body) != 0 {
        return None;
    }
    let body = match protocol {
        _ if !known => Body::Other {
            protocol,
            data: body.to_vec(),
        },
        TCP => Body::Tcp {
            sport: word16(0)?,
            dport: word16(2)?,
            seq: word32(4)?,
            ack: word32(8)?,
            flags: *body.get(13)?,
            window: word16(14)?,
            data: body.get(20..)?.to_vec(),
        },
        UDP => Body::Udp {
            sport: word16(0)?,
            dport: word16(2)?,
            data: body.get(8..)?.to_vec(),
        },
        1 | 58 => match (protocol, body.first()?) {
            (1, 0 | 8) | (58, 128 | 129) => Body::Echo {
                reply: matches!(body[0], 0 | 129),
                id: word16(4)?,
                data: body.get(8..)?.to_vec(),
            },
            _ => Body::Icmp {
                kind: body[0],
                code: *body.get(1)?,
                word: word32(4)?,
                data: body.get(8..)?.to_vec(),
            },
        },
        _ => Body::Other {
            protocol,
            data: body.to_vec(),
        },
    };
    Some(Frame {
        macs,
        src,
        dst,
        ttl,
        fragment,
        body,
    })
}

pub fn tcp(sport: u16, dport: u16, flags: u8) -> Body {
    Body::Tcp {
        sport,
        dport,
        seq: 1_000,
        ack: if flags & ACK != 0 { 5_000 } else { 0 },
        flags,
        window: 512,
        data: Vec::new(),
    }
}

pub fn udp(sport: u16, dport: u16) -> Body {
    Body::Udp {
        sport,
        dport,
        data: b"datagram".to_vec(),
    }
}

pub fn echo(reply: bool, id: u16) -> Body {
    Body::Echo {
        reply,
        id,
        data: b"echo".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for body in [tcp(1, 2, SYN), udp(3, 4), echo(false, 5), echo(true, 6)] {
                let frame = Frame::new(src, dst, body);
                assert_eq!(read(&frame.bytes()), Some(frame.clone()));
                let mut bytes = frame.bytes();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                assert_eq!(read(&bytes), None);
            }
        }
    }

    /// The example of RFC 1071, 3.
    #[test]
    fn checksum_of_the_rfc() {
        let sum = checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]);
        assert_eq!(sum, !0xddf2);
    }
}
