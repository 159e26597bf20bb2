//! Internet checksums (RFC 1071, RFC 1624), over words as they stand in memory.

/// Sum of words, to be folded.
#[inline(always)]
pub fn add(sum: u64, word: u32) -> u64 {
    sum + word as u64
}

/// 64-bit sum to a 32-bit one's complement sum.
#[inline(always)]
pub fn fold32(sum: u64) -> u32 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff_ffff) + (s >> 32);
    s as u32
}

#[inline(always)]
pub fn fold16(sum: u64) -> u16 {
    let s = fold32(sum) as u64;
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

/// What replacing `old` by `new` adds to a sum (as `bpf_csum_diff`).
#[inline(always)]
pub fn diff(old: u32, new: u32) -> u64 {
    (!old) as u64 + new as u64
}

#[inline(always)]
pub fn diff64(old: u64, new: u64) -> u64 {
    diff(old as u32, new as u32) + diff((old >> 32) as u32, (new >> 32) as u32)
}

/// The checksum field after its data changed by `diff` (RFC 1624, equation 3).
#[inline(always)]
pub fn apply(field: u16, diff: u64) -> u16 {
    !fold16((!field) as u64 + fold32(diff) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum by the definition of RFC 1071.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn incremental_equals_recomputed() {
        let mut bytes = *b"\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\x00\x00\xc0\xa8\x00\x01";
        for value in [0u32, 1, 0xffff, 0xffff_0000, 0xdead_beef, u32::MAX] {
            let old = u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
            let field = u16::from_ne_bytes(naive(&bytes).to_be_bytes());
            bytes[12..].copy_from_slice(&value.to_ne_bytes());
            let now = apply(field, diff(old, value));
            assert_eq!(now, u16::from_ne_bytes(naive(&bytes).to_be_bytes()));
        }
    }

    #[test]
    fn folding() {
        assert_eq!(fold16(0xffff_ffff_ffff), 0xffff);
        assert_eq!(fold16(0x1_0000), 1);
        assert_eq!(fold32(0x1_0000_0000), 1);
    }
}
