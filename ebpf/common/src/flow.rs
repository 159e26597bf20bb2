//! The flow table: one entry a direction, each holding the tuple to translate to.
//!
//! An entry's key is the tuple as it arrives at one of our hooks. The key of the other direction
//! is the reverse of `to`, and its `to` is the reverse of this key, so that each entry can make
//! the other again. ICMP echo counts as a flow too: a request has its id as source port, a reply
//! as destination port, so that reversing works for it as well.

use crate::addr::Ip;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    pub src: Ip,
    pub dst: Ip,
    pub sport_be: u16,
    pub dport_be: u16,
    /// IANA number, in the low byte.
    pub protocol: u32,
}

impl FlowKey {
    #[inline(always)]
    pub const fn reversed(&self) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            sport_be: self.dport_be,
            dport_be: self.sport_be,
            protocol: self.protocol,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The packet's tuple after translation; equal to the key where nothing is translated.
    pub to_src: Ip,
    pub to_dst: Ip,
    pub to_sport_be: u16,
    pub to_dport_be: u16,
    /// `flow_flag`.
    pub flags: u32,
    /// Ticks ([`TICK_SHIFT`]) of the monotonic clock at which a packet of either direction was
    /// last seen, to within one tick.
    pub last_seen: u32,
    /// [`crate::maps::Config::policy_epoch`] at which policy last let the flow through.
    pub epoch: u32,
    /// Backend id if a Service was translated, or 0.
    pub backend: u32,
    pub generation: u32,
}

/// A tick is 2^30 ns: a shift in the kernel instead of a division.
pub const TICK_SHIFT: u32 = 30;

pub mod flow_flag {
    /// This entry is the direction of the replies.
    pub const REPLY: u32 = 1;
    /// Packets of this direction go to the host's stack (to the node itself, or they answer what
    /// came through its stack).
    pub const STACK: u32 = 2;
    /// Packets of this direction go to a pod of this node.
    pub const LOCAL: u32 = 4;
    /// Flags that differ between the directions; `<< PAIR_SHIFT` they are those of the other.
    pub const HERE: u32 = STACK | LOCAL;
    pub const PAIR_SHIFT: u32 = 4;
    /// Policy does not apply: from or to the own node, or a pod to itself.
    pub const EXEMPT: u32 = 8;

    // State, the same in both entries.
    /// A reply was seen.
    pub const REPLIED: u32 = 0x100;
    /// TCP: the initiator, the responder sent FIN.
    pub const FIN_ORIGINAL: u32 = 0x200;
    pub const FIN_REPLY: u32 = 0x400;
    pub const RST: u32 = 0x800;
    pub const STATE: u32 = 0xf00;
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Flow>() == 56);
};

#[cfg(feature = "aya")]
mod pod {
    // SAFETY: repr(C), no implicit padding (asserted by the sizes above), every bit pattern valid.
    unsafe impl aya::Pod for super::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Flow {}
}
