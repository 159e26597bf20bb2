//! Frontend to backend.

use super::tables::Tables;
use crate::addr::Ip;
use crate::event::Reason;
use crate::maps::{Backend, ServiceKey, SlotKey};

/// `None` if the destination is no frontend. The id is that of the backend.
#[inline(always)]
pub fn select<T: Tables>(
    t: &mut T,
    dst: &Ip,
    dport_be: u16,
    protocol: u8,
    scope: u8,
) -> Option<Result<(u32, Backend), Reason>> {
    let key = ServiceKey {
        vip: *dst,
        port_be: dport_be,
        protocol,
        scope,
        _pad: 0,
    };
    let service = t.service(&key)?;
    // `checked_rem`: no panic path for the verifier to walk.
    let Some(slot) = t.random().checked_rem(service.count) else {
        return Some(Err(Reason::NoBackend));
    };
    let id = match slot_of(t, service.id, slot) {
        Some(id) => Some(id),
        // The last slot went away between the two reads: read the Service once more.
        None => match t.service(&key) {
            Some(s) => match slot.checked_rem(s.count) {
                Some(slot) => slot_of(t, s.id, slot),
                None => return Some(Err(Reason::NoBackend)),
            },
            None => return None,
        },
    };
    Some(match id {
        Some(id) => match t.backend(id) {
            Some(backend) => Ok((id, backend)),
            None => Err(Reason::ServiceRace),
        },
        None => Err(Reason::ServiceRace),
    })
}

/// Whether some Service has this address.
#[inline(always)]
pub fn is_vip<T: Tables>(t: &T, dst: &Ip) -> bool {
    t.service(&ServiceKey::address(*dst)).is_some()
}

#[inline(always)]
fn slot_of<T: Tables>(t: &T, service: u32, slot: u32) -> Option<u32> {
    t.slot(&SlotKey { service, slot })
}
