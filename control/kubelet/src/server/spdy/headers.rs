//! Header blocks of SPDY/3: names and values, compressed in one zlib stream a direction with a
//! dictionary that both sides know.
//! <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/#2610-name-value-header-block>

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::Broken;

/// The dictionary's first part: words with their lengths before them.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
accept-language accept-ranges age allow authorization cache-control connection content-base \
content-encoding content-language content-length content-location content-md5 content-range \
content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
user-agent vary via warning www-authenticate method get status 200~OK version HTTP/1.1 url public \
set-cookie keep-alive origin";

/// The second part: text as it is.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 \
Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service \
UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, \
Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::new();
    for word in WORDS.split(' ') {
        put(&mut out, word.replace('~', " ").as_bytes());
    }
    out.extend_from_slice(TEXT.as_bytes());
    out
});

/// Longer blocks than any client of ours sends.
const LIMIT: usize = 64 << 10;

fn put(out: &mut Vec<u8>, text: &[u8]) {
    // Nothing here is longer than a frame, which is less than 2^24 bytes.
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
}

pub type Headers = Vec<(String, String)>;

pub fn get<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, v)| v.as_str())
}

/// Reads the header blocks of one direction.
pub struct Reader(Decompress);

impl Default for Reader {
    fn default() -> Self {
        Reader(Decompress::new(true))
    }
}

impl Reader {
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, Broken> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= LIMIT {
                    return Err(Broken("the headers are too long"));
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let step = self
                .0
                .decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - read).unwrap_or(block.len());
            block = block.get(taken..).unwrap_or_default();
            match step {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| {
                        Broken("the headers are compressed with another dictionary")
                    })?;
                }
                Err(_) => return Err(Broken("the headers can't be decompressed")),
                Ok(flate2::Status::StreamEnd) => return Ok(out),
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if taken == 0 && self.0.total_out() == written && !block.is_empty() => {
                    return Err(Broken("the headers can't be decompressed"));
                }
                Ok(_) => {}
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Broken> {
    const SHORT: Broken = Broken("the headers end too soon");
    let number = |block: &mut &[u8]| -> Result<usize, Broken> {
        let (head, rest) = block.split_first_chunk::<4>().ok_or(SHORT)?;
        *block = rest;
        usize::try_from(u32::from_be_bytes(*head)).map_err(|_| SHORT)
    };
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let mut text = || -> Result<String, Broken> {
            let length = number(&mut block)?;
            let text = block.get(..length).ok_or(SHORT)?;
            block = &block[length..];
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        headers.push((text()?, text()?));
    }
    Ok(headers)
}

/// Writes the header blocks of one direction.
pub struct Writer(Compress);

impl Writer {
    pub fn new() -> Result<Writer, Broken> {
        let mut stream = Compress::new(Compression::default(), true);
        stream
            .set_dictionary(&DICTIONARY)
            .map_err(|_| Broken("the header compressor refuses its dictionary"))?;
        Ok(Writer(stream))
    }

    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, Broken> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for (name, value) in headers {
            put(&mut plain, name.as_bytes());
            put(&mut plain, value.as_bytes());
        }
        // Room enough for text that does not shrink.
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 256);
        self.0
            .compress_vec(&plain, &mut out, FlushCompress::Sync)
            .map_err(|_| Broken("compressing headers"))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        assert_eq!(DICTIONARY.len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        // The id by which every SPDY/3 stream names it.
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_stream() {
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::default());
        for port in ["80", "8080"] {
            let block = writer
                .write(&[("streamtype", "data"), ("port", port), ("requestid", "0")])
                .unwrap();
            let headers = reader.read(&block).unwrap();
            assert_eq!(get(&headers, "Port"), Some(port));
            assert_eq!(headers.len(), 3);
        }
        assert_eq!(reader.read(&writer.write(&[]).unwrap()).unwrap(), vec![]);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Reader::default().read(b"nonsense").is_err());
        assert!(Reader::default().read(b"").is_err());
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']).is_err());
        assert!(parse(&[0xff; 4]).is_err());
        // A small block of much text.
        let mut bomb = Compress::new(Compression::best(), true);
        bomb.set_dictionary(&DICTIONARY).unwrap();
        let mut out = Vec::with_capacity(1 << 20);
        bomb.compress_vec(&vec![0; 16 << 20], &mut out, FlushCompress::Sync)
            .unwrap();
        assert!(Reader::default().read(&out).is_err());
    }

    #[test]
    fn blocks_do_not_blow_up() {
        let mut writer = Writer::new().unwrap();
        let block = writer.write(&[("a", "b"), ("c", "d")]).unwrap();
        rhumb_fuzz::run("header_blocks", 3000, |dice| {
            let block = rhumb_fuzz::bytes(&block, &[], dice);
            let mut reader = Reader::default();
            if let Ok(headers) = reader.read(&block) {
                // Bytes that are no UTF-8 take three each.
                let size: usize = headers.iter().map(|(n, v)| n.len() + v.len()).sum();
                assert!(size <= 6 * LIMIT);
            }
        });
        let mut writer = Writer::new().unwrap();
        let bomb = writer.write(&[("a", &"x".repeat(10 << 20))]).unwrap();
        assert!(bomb.len() < 100_000);
        assert!(Reader::default().read(&bomb).is_err());
        // A count that the block can't hold allocates nothing for it.
        assert!(parse(&[0xff; 8]).is_err());
    }
}
