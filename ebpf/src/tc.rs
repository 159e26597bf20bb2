//! The tc hooks: logic's action to the kernel's.

use aya_ebpf::bindings::{
    TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup as FibParams, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer};
use rhumb_common::event::{Reason, hook};
use rhumb_common::logic::{self, Action, Meta, Packet};

use crate::maps::SCRATCH;
use crate::report::{count, dropped};
use crate::skb::Skb;
use crate::tables::Maps;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[inline(always)]
pub fn from_pod(mut p: Skb) -> i32 {
    let Some(m) = scratch() else {
        return TC_ACT_SHOT as i32;
    };
    let ifindex = p.ifindex();
    let action = logic::from_pod(&mut p, &mut Maps, m, ifindex);
    act(&p, m, action, hook::FROM_POD)
}

#[inline(always)]
pub fn to_pod(mut p: Skb) -> i32 {
    let Some(m) = scratch() else {
        return TC_ACT_SHOT as i32;
    };
    let (ifindex, from_node) = (p.ifindex(), p.ingress_ifindex() == 0);
    let action = logic::to_pod(&mut p, &mut Maps, m, ifindex, from_node);
    act(&p, m, action, hook::TO_POD)
}

#[inline(always)]
pub fn from_uplink(mut p: Skb) -> i32 {
    let Some(m) = scratch() else {
        return TC_ACT_SHOT as i32;
    };
    let action = logic::from_uplink(&mut p, &mut Maps, m);
    act(&p, m, action, hook::FROM_UPLINK)
}

/// The packet's working space. Programs of tc don't interrupt one another on a CPU.
#[inline(always)]
fn scratch() -> Option<&'static mut Meta> {
    let m = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's own entry, of which this is the only reference.
    let m = unsafe { &mut *m };
    m.reset();
    Some(m)
}

#[inline(always)]
fn act(p: &Skb, m: &Meta, action: Action, hook: u8) -> i32 {
    match action {
        // On to what others hang behind us, and then to the stack.
        Action::Stack => TC_ACT_UNSPEC,
        Action::Pod(ifindex) => {
            count(Reason::Forwarded, p.len());
            // SAFETY: no pointers.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Action::Answer(ifindex, reason) => {
            dropped(p, m, hook, reason);
            // SAFETY: no pointers.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Action::Route if hook == hook::FROM_POD => route(p, m, hook),
        Action::Route => TC_ACT_SHOT as i32,
        Action::Drop(reason) => {
            dropped(p, m, hook, reason);
            TC_ACT_SHOT as i32
        }
    }
}

const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGH: i64 = 7;
const FIB_FRAG_NEEDED: i64 = 8;

/// By the host's routes; the neighbour subsystem resolves the next hop.
#[inline(always)]
fn route(p: &Skb, m: &Meta, hook: u8) -> i32 {
    // SAFETY: integers and arrays of them.
    let mut fib: FibParams = unsafe { core::mem::zeroed() };
    fib.l4_protocol = m.to.protocol as u8;
    fib.ifindex = p.ifindex();
    // Segmentation offload makes the packet longer than what is sent: the length is left 0, and
    // the device's MTU is the pods' own.
    if m.v6 {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = words(m.to.src.hi, m.to.src.lo);
        fib.__bindgen_anon_4.ipv6_dst = words(m.to.dst.hi, m.to.dst.lo);
    } else {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = m.to.src.v4_raw();
        fib.__bindgen_anon_4.ipv4_dst = m.to.dst.v4_raw();
    }
    // SAFETY: context and parameters are valid for the call.
    let found = unsafe {
        bpf_fib_lookup(
            p.as_ptr().cast(),
            &raw mut fib,
            size_of::<FibParams>() as i32,
            0,
        )
    };
    if found != FIB_SUCCESS && found != FIB_NO_NEIGH {
        let reason = if found == FIB_FRAG_NEEDED {
            Reason::TooBig
        } else {
            Reason::NoRoute
        };
        dropped(p, m, hook, reason);
        return TC_ACT_SHOT as i32;
    }
    // The look-up left the next hop in place of the destination.
    // SAFETY: every member of the unions is integers.
    let mut next = unsafe {
        bpf_redir_neigh {
            nh_family: fib.family as u32,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: fib.__bindgen_anon_4.ipv6_dst,
            },
        }
    };
    count(Reason::Forwarded, p.len());
    // SAFETY: the parameters are valid for the call.
    unsafe {
        bpf_redirect_neigh(
            fib.ifindex,
            &raw mut next,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        ) as i32
    }
}

#[inline(always)]
fn words(hi: u64, lo: u64) -> [u32; 4] {
    [hi as u32, (hi >> 32) as u32, lo as u32, (lo >> 32) as u32]
}
