//! The bytes of one entry of the log.

use bytes::Bytes;

use crate::Revision;

/// One entry of the log. The revision is the entry's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub key: Bytes,
    pub create_revision: Revision,
    /// The entry that this one replaces, which compaction removes; 0: none.
    pub previous: Revision,
    /// Unix time in seconds at which the key goes; 0: never.
    pub expires: u64,
    /// `None`: a deletion.
    pub value: Option<Bytes>,
}

const DELETED: u8 = 1;
const HEADER: usize = 1 + 8 + 8 + 8 + 4;

impl Record {
    /// flags u8, create u64, previous u64, expires u64, key length u32, key, value; little endian.
    pub fn encode(&self) -> Vec<u8> {
        let value: &[u8] = self.value.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(HEADER + self.key.len() + value.len());
        out.push(if self.value.is_none() { DELETED } else { 0 });
        out.extend_from_slice(&self.create_revision.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.expires.to_le_bytes());
        // Keys are bounded far below u32 by the writer (MAX_KEY).
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(value);
        out
    }

    /// `None` when the bytes are not an entry.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let u64_at = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let mut length = [0; 4];
        length.copy_from_slice(&header[25..29]);
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
        let value = match header[0] {
            DELETED if value.is_empty() => None,
            0 => Some(Bytes::copy_from_slice(value)),
            _ => return None,
        };
        Some(Record {
            key: Bytes::copy_from_slice(key),
            create_revision: u64_at(1),
            previous: u64_at(9),
            expires: u64_at(17),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"v"))] {
            let record = Record {
                key: Bytes::from_static(b"/pods/a"),
                create_revision: 7,
                previous: 6,
                expires: 1 << 40,
                value,
            };
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Record {
            key: Bytes::from_static(b"key"),
            create_revision: 1,
            previous: 0,
            expires: 0,
            value: None,
        }
        .encode();
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&good[..good.len() - 1]), None);
        let mut flags = good.clone();
        flags[0] = 9;
        assert_eq!(Record::decode(&flags), None);
        let mut trailing = good;
        trailing.push(0);
        assert_eq!(Record::decode(&trailing), None);
    }
}
