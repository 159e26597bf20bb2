//! Frames of SPDY/3.1, as far as port-forwarding uses them.
//! <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/#26-control-frames>

use bytes::{Buf, Bytes, BytesMut};

use super::Broken;
use super::headers::{Headers, Reader, Writer};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const FIN: u8 = 1;
/// Of a control frame; header blocks are far smaller.
const MAX_CONTROL: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A new stream of the client's; with `fin` it will send nothing on it.
    Open {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    /// No new streams will come.
    GoAway,
}

/// Cuts what arrives into frames.
#[derive(Default)]
pub struct Decoder {
    buffer: BytesMut,
    headers: Reader,
}

impl Decoder {
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole frame that means something here.
    pub fn next(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            let Some(head) = self.buffer.first_chunk::<8>().copied() else {
                return Ok(None);
            };
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            let control = head[0] & 0x80 != 0;
            if control && length > MAX_CONTROL {
                return Err(Broken("a control frame is too long"));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let payload = self.buffer.split_to(length).freeze();
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let fin = head[4] & FIN != 0;
            if !control {
                return Ok(Some(Frame::Data {
                    stream: first,
                    fin,
                    data: payload,
                }));
            }
            if (first >> 16) as u16 & 0x7fff != VERSION {
                return Err(Broken("only version 3 of SPDY is spoken"));
            }
            if let Some(frame) = self.control(first as u16, fin, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, fin: bool, p: &[u8]) -> Result<Option<Frame>, Broken> {
        let number = |at: usize| -> Result<u32, Broken> {
            let bytes = p.get(at..).and_then(|p| p.first_chunk::<4>());
            bytes
                .map(|b| u32::from_be_bytes(*b) & 0x7fff_ffff)
                .ok_or(Broken("a control frame is too short"))
        };
        Ok(match kind {
            SYN_STREAM => {
                let stream = number(0)?;
                let block = p.get(10..).ok_or(Broken("a control frame is too short"))?;
                let headers = self.headers.read(block)?;
                Some(Frame::Open {
                    stream,
                    fin,
                    headers,
                })
            }
            // Read for the compression's state, which all blocks share.
            HEADERS | SYN_REPLY => {
                let block = p.get(4..).ok_or(Broken("a control frame is too short"))?;
                self.headers.read(block)?;
                None
            }
            RST_STREAM => Some(Frame::Reset { stream: number(0)? }),
            PING => Some(Frame::Ping {
                id: p
                    .first_chunk::<4>()
                    .map(|b| u32::from_be_bytes(*b))
                    .ok_or(Broken("a control frame is too short"))?,
            }),
            GOAWAY => Some(Frame::GoAway),
            SETTINGS | WINDOW_UPDATE => None,
            _ => None,
        })
    }
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&((u32::from(flags) << 24) | payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Accepts a stream.
pub fn reply(stream: u32, headers: &mut Writer) -> Result<Vec<u8>, Broken> {
    let mut payload = stream.to_be_bytes().to_vec();
    payload.extend_from_slice(&headers.write(&[])?);
    Ok(control(SYN_REPLY, 0, &payload))
}

pub fn reset(stream: u32) -> Vec<u8> {
    /// RST_STREAM's PROTOCOL_ERROR.
    const PROTOCOL_ERROR: u32 = 1;
    let mut payload = stream.to_be_bytes().to_vec();
    payload.extend_from_slice(&PROTOCOL_ERROR.to_be_bytes());
    control(RST_STREAM, 0, &payload)
}

pub fn pong(id: u32) -> Vec<u8> {
    control(PING, 0, &id.to_be_bytes())
}

/// Data has less than 2^24 bytes.
pub fn data(stream: u32, fin: bool, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + data.len());
    out.extend_from_slice(&stream.to_be_bytes());
    let flags = if fin { u32::from(FIN) << 24 } else { 0 };
    out.extend_from_slice(&(flags | data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Opens a stream.
pub fn open(
    stream: u32,
    fin: bool,
    headers: &[(&str, &str)],
    writer: &mut Writer,
) -> Result<Vec<u8>, Broken> {
    let mut payload = stream.to_be_bytes().to_vec();
    // No associated stream, no priority.
    payload.extend_from_slice(&[0; 6]);
    payload.extend_from_slice(&writer.write(headers)?);
    Ok(control(SYN_STREAM, u8::from(fin), &payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_pieces() {
        let mut writer = Writer::new().unwrap();
        let mut wire = open(1, true, &[("streamtype", "error")], &mut writer).unwrap();
        wire.extend(control(SETTINGS, 0, &[0; 12]));
        wire.extend(open(3, false, &[("streamtype", "data")], &mut writer).unwrap());
        wire.extend(data(3, false, b"hello"));
        wire.extend(pong(7));
        wire.extend(data(3, true, b""));
        wire.extend(reset(1));
        wire.extend(control(GOAWAY, 0, &[0; 8]));
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for byte in wire {
            decoder.push(&[byte]);
            frames.extend(decoder.next().unwrap());
        }
        let headers = |kind: &str| vec![("streamtype".to_string(), kind.to_string())];
        let piece = |fin, data: &'static [u8]| Frame::Data {
            stream: 3,
            fin,
            data: Bytes::from_static(data),
        };
        assert_eq!(
            frames,
            [
                Frame::Open {
                    stream: 1,
                    fin: true,
                    headers: headers("error")
                },
                Frame::Open {
                    stream: 3,
                    fin: false,
                    headers: headers("data")
                },
                piece(false, b"hello"),
                Frame::Ping { id: 7 },
                piece(true, b""),
                Frame::Reset { stream: 1 },
                Frame::GoAway,
            ]
        );
    }

    #[test]
    fn malformed_frames() {
        for wire in [
            &control(SYN_STREAM, 0, &[0; 3])[..],
            &control(RST_STREAM, 0, &[]),
            &control(PING, 0, &[1]),
            &control(HEADERS, 0, &[0, 0, 0, 1, 9, 9]),
            &[0x80, 2, 0, 1, 0, 0, 0, 0],
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        ] {
            let mut decoder = Decoder::default();
            decoder.push(wire);
            assert!(decoder.next().is_err(), "{wire:?}");
        }
    }

    #[test]
    fn whatever_arrives() {
        let mut writer = Writer::new().unwrap();
        let mut stream = Vec::new();
        for id in [1, 3, 5] {
            let headers = [("streamtype", "data"), ("port", "80"), ("requestid", "0")];
            stream.extend(open(id, false, &headers, &mut writer).unwrap());
            stream.extend(data(id, id == 5, b"hello"));
        }
        stream.extend(pong(7));
        stream.extend(reset(1));
        rhumb_fuzz::run("spdy", 3000, |dice| {
            let stream = rhumb_fuzz::bytes(&stream, &["\u{0}\u{3}", "\u{1}"], dice);
            let mut decoder = Decoder::default();
            let mut frames = 0;
            // In pieces, as it comes from a socket.
            for piece in stream.chunks(1 + dice.index(64)) {
                decoder.push(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(_)) => frames += 1,
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
            assert!(frames <= stream.len() / 8 + 1);
        });
    }
}
