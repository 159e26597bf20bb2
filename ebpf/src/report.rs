//! Counters and events.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use rhumb_common::event::{Event, Reason};
use rhumb_common::logic::{Meta, Packet};

use crate::maps::{COUNTERS, EVENTS};
use crate::skb::Skb;

#[inline(always)]
pub fn count(reason: Reason, bytes: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own slot.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}

/// Counts and tells of a drop; a full ring buffer loses only the telling.
#[inline(always)]
pub fn dropped(p: &Skb, m: &Meta, hook: u8, reason: Reason) {
    count(reason, p.len());
    event(|| Event {
        time_ns: unsafe { bpf_ktime_get_ns() },
        src: m.key.src,
        dst: m.key.dst,
        sport_be: m.key.sport_be,
        dport_be: m.key.dport_be,
        protocol: m.key.protocol as u8,
        hook,
        _pad: 0,
        reason: reason as u32,
        set: m.set,
        rule: m.rule,
        identity: m.identity,
        ifindex: p.ifindex(),
        len: p.len(),
    });
}

/// Made in place: it is too large for the stack.
#[inline(always)]
pub fn event(make: impl FnOnce() -> Event) {
    if let Some(mut entry) = EVENTS.reserve(0) {
        entry.write(make());
        entry.submit(0);
    }
}
