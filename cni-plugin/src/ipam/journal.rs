//! How records stand in the journal's file, and what is read out of a damaged one. Pure.
//!
//! A record is `RJ1\n`, payload length and CRC-32 of the payload (both u32, little-endian), the
//! payload as JSON, and a newline. The mark lets a reader tell a torn tail (nothing good behind
//! the damage: an append that a kill or a power cut interrupted) from damage in the middle, where
//! going on would forget who holds which address.

use super::state::{Record, State, StateError};

const MARK: [u8; 4] = *b"RJ1\n";
const HEAD: usize = 12;

/// A journal's good part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub state: State,
    /// Length of the good part, bytes; what follows is a torn tail.
    pub good: usize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("damaged at byte {at}, with good records from byte {good_again} on")]
    Middle { at: usize, good_again: usize },
    /// Nothing good is behind it.
    #[error("damaged from byte {at} on")]
    End { at: usize },
    #[error("the record at byte {at} contradicts those before it: {source}")]
    Contradiction { at: usize, source: Box<StateError> },
    #[error("the record at byte {at} is whole but unknown to this version ({reason})")]
    Unknown { at: usize, reason: String },
}

pub fn encode(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut out = vec![0; HEAD];
    serde_json::to_writer(&mut out, record)?;
    let payload = &out[HEAD..];
    let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
    out[..4].copy_from_slice(&MARK);
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..HEAD].copy_from_slice(&crc.to_le_bytes());
    out.push(b'\n');
    Ok(out)
}

/// The payload of a whole and sound record at the start of `data`, and the record's length.
fn record_at(data: &[u8]) -> Option<(&[u8], usize)> {
    let (head, rest) = data.split_at_checked(HEAD)?;
    let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let payload = rest.get(..word(4) as usize)?;
    let sound = head[..4] == MARK
        && rest.get(payload.len()) == Some(&b'\n')
        && crc32fast::hash(payload) == word(8);
    sound.then_some((payload, HEAD + payload.len() + 1))
}

pub fn decode(data: &[u8]) -> Result<Read, JournalError> {
    let mut read = Read::default();
    while read.good < data.len() {
        let at = read.good;
        let Some((payload, len)) = record_at(&data[at..]) else {
            let later = (at + 1..data.len()).find(|i| record_at(&data[*i..]).is_some());
            return match later {
                Some(good_again) => Err(JournalError::Middle { at, good_again }),
                None => Ok(read),
            };
        };
        let record: Record =
            serde_json::from_slice(payload).map_err(|e| JournalError::Unknown {
                at,
                reason: e.to_string(),
            })?;
        read.state
            .apply(record)
            .map_err(|e| JournalError::Contradiction {
                at,
                source: Box::new(e),
            })?;
        read.good += len;
    }
    Ok(read)
}

/// Whether this is the beginning of a record: an append that was cut short.
pub fn is_cut_short(tail: &[u8]) -> bool {
    let len = tail.len();
    if len < HEAD {
        return MARK.starts_with(&tail[..len.min(MARK.len())]) || tail.starts_with(&MARK);
    }
    let payload = u32::from_le_bytes([tail[4], tail[5], tail[6], tail[7]]) as usize;
    tail.starts_with(&MARK) && len < HEAD + payload + 1
}

/// The sound records, whatever is between them; an error is one that this version doesn't know.
fn sound_records(data: &[u8]) -> impl Iterator<Item = serde_json::Result<Record>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            if let Some((payload, len)) = record_at(rest) {
                rest = &rest[len..];
                return Some(serde_json::from_slice(payload));
            }
            rest = rest.get(1..)?;
        }
    })
}

/// What can be read of a damaged journal: its sound records, whatever is between them. Nothing of it is certain:
/// a record that is lost may have said otherwise, and two attachments may hold one address.
pub fn salvage(data: &[u8]) -> State {
    let mut found = State::default();
    for record in sound_records(data) {
        match record {
            Ok(Record::Snapshot { state }) => {
                let revision = state.revision.max(found.revision);
                found = State { revision, ..state };
            }
            Ok(Record::Boot { revision, boot_id }) => {
                found.boot_id = boot_id;
                found.attachments.clear();
                found.revision = found.revision.max(revision);
            }
            Ok(Record::Put { attachment }) => {
                found.revision = found.revision.max(attachment.revision);
                for (ip, cidr) in attachment.ips.iter().zip(&attachment.cidrs) {
                    found.cursors.insert(*cidr, *ip);
                }
                found.attachments.insert(attachment.key(), attachment);
            }
            Ok(Record::Remove { revision, key }) => {
                found.revision = found.revision.max(revision);
                if let Some(old) = found.attachments.remove(&key) {
                    found.rest(&old.ips);
                }
            }
            // Another version's.
            Err(_) => {}
        }
    }
    found
}

/// Whether any sound record, behind damage too, says that it belongs to this boot.
pub fn speaks_of(data: &[u8], boot_id: &str) -> bool {
    sound_records(data).any(|record| match record {
        Ok(Record::Boot { boot_id: boot, .. }) => boot == boot_id,
        Ok(Record::Snapshot { state }) => state.boot_id == boot_id,
        Ok(Record::Put { .. } | Record::Remove { .. }) => false,
        // Written by another version: nothing is known of it, so nothing is risked.
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attachment::Key, ipam::state::tests::attachment};

    fn sample() -> (Vec<u8>, Vec<usize>) {
        let cidr = "10.0.0.0/24".parse().unwrap();
        let put = |id: &str, last: u8, rev| Record::Put {
            attachment: attachment(id, &[([10, 0, 0, last].into(), cidr)], rev),
        };
        let (mut data, mut ends) = (vec![], vec![]);
        for r in [
            Record::Boot {
                revision: 1,
                boot_id: "b".into(),
            },
            put("a", 2, 2),
            put("b", 3, 3),
            Record::Remove {
                revision: 4,
                key: Key::new("a", "eth0"),
            },
        ] {
            data.extend(encode(&r).unwrap());
            ends.push(data.len());
        }
        (data, ends)
    }

    #[test]
    fn a_tail_torn_at_any_byte_keeps_the_rest() {
        let (data, ends) = sample();
        for cut in 0..=data.len() {
            let read = decode(&data[..cut]).unwrap();
            assert!(is_cut_short(&data[read.good..cut]), "cut at {cut}");
            let whole = ends.iter().filter(|e| **e <= cut).count();
            assert_eq!(read.state.revision, whole as u64, "cut at {cut}");
            assert_eq!(read.good, if whole == 0 { 0 } else { ends[whole - 1] });
            // A power cut may leave zeros or rubbish instead of nothing.
            let mut padded = data[..cut].to_vec();
            padded.resize(cut + 100, 0);
            assert!(cut != read.good || !is_cut_short(&padded[read.good..]));
            assert_eq!(decode(&padded).unwrap().good, read.good);
        }
    }

    #[test]
    fn what_is_sound_is_salvaged() {
        let (data, ends) = sample();
        let whole = salvage(&data);
        assert_eq!(whole.revision, 4);
        let keys: Vec<String> = whole.attachments.keys().map(Key::to_string).collect();
        assert_eq!(keys, ["b/eth0"]);
        // Without the record that has removed it, `a` seems to be there.
        let mut bad = data.clone();
        bad[ends[2] + 20] ^= 0xff;
        bad.extend(&data[ends[1]..ends[2]]);
        assert_eq!(salvage(&bad).attachments.len(), 2);
        assert_eq!(salvage(b"rubbish"), State::default());
    }

    #[test]
    fn damage_in_the_middle_is_refused_at_every_byte() {
        let (data, ends) = sample();
        for i in 0..ends[2] {
            let mut bad = data.clone();
            bad[i] ^= 0x20;
            let e = decode(&bad).unwrap_err();
            assert!(matches!(e, JournalError::Middle { .. }), "byte {i}: {e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn rubbish_never_panics(data in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = (decode(&data), salvage(&data));
            let mut after = sample().0;
            after.extend(&data);
            let _ = decode(&after);
        }
    }
}
