//! Stages of the logic as functions that the verifier walks once, whoever calls them ("global
//! functions"): their arguments are the program's context, plain numbers and the working space,
//! and what they return is a number.

use aya_ebpf::bindings::__sk_buff;
use rhumb_common::event::Reason;
use rhumb_common::logic::{self, Action, Meta};

use crate::skb::Skb;
use crate::tables::Maps;

const OK: u32 = 0;
const FAILED: u32 = 1;
/// No flags of a flow.
const NONE: u32 = u32::MAX;

/// The reason goes by the working space: it is a number to the verifier, not a path each.
#[inline(always)]
fn code(m: &mut Meta, result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => OK,
        Err(reason) => {
            m.reason = reason;
            FAILED
        }
    }
}

#[inline(always)]
fn outcome(m: &Meta, code: u32) -> Result<(), Reason> {
    if code == OK { Ok(()) } else { Err(m.reason) }
}

#[inline(always)]
pub fn judge(m: &mut Meta) -> Result<(), Reason> {
    let code = judge_stage(m);
    outcome(m, code)
}

#[inline(always)]
pub fn create(m: &mut Meta) -> Result<(), Reason> {
    let code = create_stage(m);
    outcome(m, code)
}

#[inline(always)]
pub fn related(p: &Skb, m: &mut Meta, own_only: bool) -> Option<u32> {
    let flags = related_stage(p.as_ptr(), m, own_only as u32);
    (flags != NONE).then_some(flags)
}

#[inline(always)]
pub fn answer(p: &Skb, m: &mut Meta, reason: Reason) -> Action {
    m.reason = reason;
    match answer_stage(p.as_ptr(), m) {
        0 => Action::Drop(m.reason),
        ifindex => Action::Answer(ifindex, m.reason),
    }
}

// SAFETY of the references: the verifier has the callers hand over the whole working space, which
// nobody else holds meanwhile; it makes us check for null, as it does not know that of callers.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_stage(m: *mut Meta) -> u32 {
    let Some(m) = (unsafe { m.as_mut() }) else {
        return FAILED;
    };
    let result = logic::judge(&Maps, m);
    code(m, result)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn create_stage(m: *mut Meta) -> u32 {
    let Some(m) = (unsafe { m.as_mut() }) else {
        return FAILED;
    };
    let result = logic::create(&mut Maps, m);
    code(m, result)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn related_stage(skb: *mut __sk_buff, m: *mut Meta, own_only: u32) -> u32 {
    let Some(m) = (unsafe { m.as_mut() }) else {
        return NONE;
    };
    logic::related(&mut Skb { skb }, &mut Maps, m, own_only != 0).unwrap_or(NONE)
}

/// The interface that the answer goes to, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_stage(skb: *mut __sk_buff, m: *mut Meta) -> u32 {
    let Some(m) = (unsafe { m.as_mut() }) else {
        return 0;
    };
    let reason = m.reason;
    match logic::answer(&mut Skb { skb }, &mut Maps, m, reason) {
        Action::Answer(ifindex, _) => ifindex,
        _ => 0,
    }
}
