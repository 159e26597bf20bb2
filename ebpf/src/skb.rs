//! The socket buffer as a packet: direct access, checksums by the helpers that know about partial
//! and complete checksums.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_pull_data,
};
use rhumb_common::event::Reason;
use rhumb_common::logic::{Action, L4Csum, Meta, Packet, Tables, Wire};

use crate::stages;

/// Linux 6.16: the changed addresses are IPv6's, which no header checksum compensates. Backported
/// widely; older kernels refuse it.
const BPF_F_IPV6: u64 = 1 << 7;

/// All headers that the logic looks at, that of a quoted packet in an ICMP error included.
const HEADERS: u32 = 160;

pub struct Skb {
    pub skb: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Skb {
        let s = Skb { skb };
        // Headers may lie in a fragment (drivers that build the buffer from pages).
        let len = s.len();
        let linear = (s.data_end() - s.data()) as u32;
        if linear < HEADERS && linear < len {
            let want = if len < HEADERS { len } else { HEADERS };
            // SAFETY: the pointer is the program's context. On failure the accesses fail.
            unsafe { bpf_skb_pull_data(skb, want) };
        }
        s
    }

    // SAFETY of the accesses below: the pointer is the program's context, whose layout the kernel
    // defines. Volatile, because helpers move the packet behind the compiler's back.
    #[inline(always)]
    fn data(&self) -> usize {
        unsafe { (&raw const (*self.skb).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        unsafe { (&raw const (*self.skb).data_end).read_volatile() as usize }
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        unsafe { (*self.skb).ifindex }
    }

    /// 0: sent by this host itself.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        unsafe { (*self.skb).ingress_ifindex }
    }

    #[inline(always)]
    pub fn as_ptr(&self) -> *mut __sk_buff {
        self.skb
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let at = self.data() + offset;
        if at + size_of::<T>() > self.data_end() {
            return None;
        }
        // SAFETY: inside the packet; this target reads unaligned words.
        Some(unsafe { *(at as *const T) })
    }

    #[inline(always)]
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        let at = self.data() + offset;
        if at + size_of::<T>() > self.data_end() {
            return None;
        }
        // SAFETY: as above.
        unsafe { *(at as *mut T) = value };
        Some(())
    }

    #[inline(always)]
    fn update_l4(&mut self, csum: L4Csum, diff: u32) -> Option<()> {
        let mut flags = 0u64;
        if csum.pseudo {
            flags |= BPF_F_PSEUDO_HDR as u64;
        }
        if csum.udp {
            flags |= BPF_F_MARK_MANGLED_0 as u64;
        }
        let offset = csum.offset as u32;
        // SAFETY: the pointer is the program's context. Size 0 in the flags: `to` is a difference.
        unsafe {
            if csum.v6 && csum.pseudo {
                let f = flags | BPF_F_IPV6;
                if bpf_l4_csum_replace(self.skb, offset, 0, diff as u64, f) == 0 {
                    return Some(());
                }
            }
            (bpf_l4_csum_replace(self.skb, offset, 0, diff as u64, flags) == 0).then_some(())
        }
    }

    #[inline(always)]
    fn uncompensated(&mut self, diff: u32) {
        // SAFETY: the pointer is the program's context. Fails unless the device summed the packet.
        unsafe { bpf_csum_update(self.skb, diff) };
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> Option<()> {
        // SAFETY: the pointer is the program's context.
        (unsafe { bpf_skb_change_tail(self.skb, len, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn related<T: Tables>(&mut self, _t: &mut T, m: &mut Meta, own_only: bool) -> Option<u32> {
        stages::related(self, m, own_only)
    }

    #[inline(always)]
    fn answer<T: Tables>(&mut self, _t: &mut T, m: &mut Meta, reason: Reason) -> Action {
        stages::answer(self, m, reason)
    }
}
