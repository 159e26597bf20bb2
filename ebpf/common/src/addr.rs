//! One address type for both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address in its v4-mapped form (`::ffff:a.b.c.d`).
///
/// The 16 bytes stand in memory in network order; two `u64` because the compiler turns byte
/// arrays into byte loops that the verifier has to walk. Use [`Ip::octets`], not `hi`/`lo`
/// arithmetic, wherever byte order matters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ip {
    pub hi: u64,
    pub lo: u64,
}

/// Bytes 8..12 of a v4-mapped address (`00 00 ff ff`), as the low word's first half in memory.
const V4_TAG: [u8; 4] = [0, 0, 0xff, 0xff];

impl Ip {
    pub const UNSPECIFIED: Ip = Ip { hi: 0, lo: 0 };

    /// From an IPv4 address as it stands in a packet header (network order in memory).
    #[inline(always)]
    pub const fn from_v4_raw(raw: u32) -> Ip {
        let tag = u32::from_ne_bytes(V4_TAG);
        #[cfg(target_endian = "little")]
        let lo = (tag as u64) | ((raw as u64) << 32);
        #[cfg(target_endian = "big")]
        let lo = ((tag as u64) << 32) | (raw as u64);
        Ip { hi: 0, lo }
    }

    /// The IPv4 address in packet order; meaningful only if [`Ip::is_v4`].
    #[inline(always)]
    pub const fn v4_raw(self) -> u32 {
        #[cfg(target_endian = "little")]
        return (self.lo >> 32) as u32;
        #[cfg(target_endian = "big")]
        return self.lo as u32;
    }

    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        #[cfg(target_endian = "little")]
        let head = self.lo as u32;
        #[cfg(target_endian = "big")]
        let head = (self.lo >> 32) as u32;
        self.hi == 0 && head == u32::from_ne_bytes(V4_TAG)
    }

    /// 127.0.0.0/8 or ::1.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        const ONE: Ip = Ip::from_octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        if self.is_v4() {
            u32::from_be(self.v4_raw()) >> 24 == 127
        } else {
            self.hi == ONE.hi && self.lo == ONE.lo
        }
    }

    pub const fn from_octets(b: [u8; 16]) -> Ip {
        Ip {
            hi: u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            lo: u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        }
    }

    pub const fn octets(self) -> [u8; 16] {
        let h = self.hi.to_ne_bytes();
        let l = self.lo.to_ne_bytes();
        [
            h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], l[0], l[1], l[2], l[3], l[4], l[5],
            l[6], l[7],
        ]
    }

    /// The address as the standard library has it, v4-mapped ones as IPv4.
    pub const fn to_std(self) -> IpAddr {
        let v6 = Ipv6Addr::from_octets(self.octets());
        match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(v6),
        }
    }
}

impl From<Ipv4Addr> for Ip {
    fn from(a: Ipv4Addr) -> Ip {
        Ip::from_v4_raw(u32::from_ne_bytes(a.octets()))
    }
}

impl From<Ipv6Addr> for Ip {
    fn from(a: Ipv6Addr) -> Ip {
        Ip::from_octets(a.octets())
    }
}

impl From<IpAddr> for Ip {
    fn from(a: IpAddr) -> Ip {
        match a {
            IpAddr::V4(a) => a.into(),
            IpAddr::V6(a) => a.into(),
        }
    }
}

impl core::fmt::Display for Ip {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_std().fmt(f)
    }
}

/// Prefix length of a CIDR in the 128-bit space that [`Ip`] keys live in.
pub const fn prefix_len(is_v4: bool, len: u8) -> u32 {
    if is_v4 { 96 + len as u32 } else { len as u32 }
}

const _: () = assert!(size_of::<Ip>() == 16 && align_of::<Ip>() == 8);
