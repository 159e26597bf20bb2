//! The flow table: finding, keeping alive, making.

use super::parse::{ACK, FIN, Kind, Meta, RST, SYN, TCP, UDP};
use super::tables::{Insert, Tables};
use crate::event::Reason;
use crate::flow::{Flow, FlowKey, flow_flag as ff};

/// How often another source port is tried.
const PORT_TRIES: u32 = 8;

/// Idle time, in ticks of 1.07 s, after which a flow is forgotten. The values are Linux' conntrack
/// with the changes that kube-proxy makes (established 24 h, half-closed 1 h).
#[inline(always)]
pub const fn timeout(protocol: u32, flags: u32) -> u32 {
    if protocol == TCP {
        let both = ff::FIN_ORIGINAL | ff::FIN_REPLY;
        if flags & ff::RST != 0 {
            10
        } else if flags & both == both {
            30
        } else if flags & both != 0 {
            3_350
        } else if flags & ff::REPLIED == 0 {
            60
        } else {
            80_400
        }
    } else if protocol == UDP && flags & ff::REPLIED != 0 {
        170
    } else {
        30
    }
}

#[inline(always)]
pub const fn expired(flow: &Flow, protocol: u32, now: u32) -> bool {
    let idle = now.wrapping_sub(flow.last_seen);
    // Another CPU may have written a time that is ahead of ours.
    idle < 1 << 31 && idle > timeout(protocol, flow.flags)
}

/// The tuple that the packet leaves with.
#[inline(always)]
pub fn target(key: &FlowKey, f: &Flow) -> FlowKey {
    FlowKey {
        src: f.to_src,
        dst: f.to_dst,
        sport_be: f.to_sport_be,
        dport_be: f.to_dport_be,
        protocol: key.protocol,
    }
}

/// Whether `f` under `key` is the other direction of `other`.
#[inline(always)]
fn is_pair(key: &FlowKey, f: &Flow, other: &FlowKey) -> bool {
    f.to_src == other.dst
        && f.to_dst == other.src
        && f.to_sport_be == other.dport_be
        && f.to_dport_be == other.sport_be
        && key.protocol == other.protocol
}

/// Works out the entry of the other direction of `m.flow`.
#[inline(always)]
fn set_pair(m: &mut Meta) {
    set_pair_key(m);
    let f = &m.flow;
    let swapped = (f.flags & ff::HERE) << ff::PAIR_SHIFT | (f.flags >> ff::PAIR_SHIFT) & ff::HERE;
    m.pair.to_src = m.key.dst;
    m.pair.to_dst = m.key.src;
    m.pair.to_sport_be = m.key.dport_be;
    m.pair.to_dport_be = m.key.sport_be;
    m.pair.flags =
        swapped | (f.flags & (ff::EXEMPT | ff::STATE)) | (f.flags & ff::REPLY ^ ff::REPLY);
    m.pair.last_seen = f.last_seen;
    m.pair.epoch = f.epoch;
    m.pair.backend = f.backend;
    m.pair.generation = f.generation;
}

#[inline(always)]
fn set_pair_key(m: &mut Meta) {
    m.pair_key.src = m.flow.to_dst;
    m.pair_key.dst = m.flow.to_src;
    m.pair_key.sport_be = m.flow.to_dport_be;
    m.pair_key.dport_be = m.flow.to_sport_be;
    m.pair_key.protocol = m.key.protocol;
}

/// Removes `m.flow` in both directions.
#[inline(always)]
fn remove<T: Tables>(t: &mut T, m: &mut Meta) {
    set_pair_key(m);
    t.flow_remove(&m.key);
    // Where this entry was stale, another flow may have taken the tuple of the replies.
    if t.flow(&m.pair_key, |e| is_pair(&m.pair_key, e, &m.key)) == Some(true) {
        t.flow_remove(&m.pair_key);
    }
}

/// Sets `m.flow` and `m.to` to the live flow of `m.key` if there is one, judged again if policy has
/// changed since, and keeps it alive.
#[inline(always)]
pub fn find<T: Tables>(t: &mut T, m: &mut Meta) -> Result<bool, Reason> {
    if t.flow(&m.key, |f| m.flow = *f).is_none() {
        return Ok(false);
    }
    let now = t.now();
    if expired(&m.flow, m.key.protocol, now) || restarted(m) || backend_gone(t, m) {
        remove(t, m);
        return Ok(false);
    }
    let flags = m.flow.flags;
    let epoch = match t.config() {
        Some(c) if !m.trusted => c.policy_epoch,
        // Not judged: the flow's other packets may still have to be.
        _ => m.flow.epoch,
    };
    if m.flow.epoch != epoch && flags & ff::EXEMPT == 0 {
        judge_again(t, m)?;
    }
    let state = next_state(m, flags);
    if flags & ff::STATE != state || m.flow.last_seen != now || m.flow.epoch != epoch {
        m.flow.flags = flags & !ff::STATE | state;
        m.flow.last_seen = now;
        m.flow.epoch = epoch;
        set_pair(m);
        let ours = t.flow(&m.pair_key, |e| {
            let ours = is_pair(&m.pair_key, e, &m.key);
            if ours {
                touch(e, &m.pair);
            }
            ours
        });
        match ours {
            Some(true) => {}
            // Evicted: this entry knows all of the other.
            None => {
                t.flow_insert(&m.pair_key, &m.pair);
            }
            // Evicted, and since then another flow's: this one needs another tuple.
            Some(false) => {
                t.flow_remove(&m.key);
                return Ok(false);
            }
        }
        t.flow(&m.key, |e| touch(e, &m.flow));
    }
    m.to = target(&m.key, &m.flow);
    Ok(true)
}

#[inline(always)]
fn touch(e: &mut Flow, f: &Flow) {
    e.flags = f.flags;
    e.last_seen = f.last_seen;
    e.epoch = f.epoch;
}

/// A new connection over the tuple of one that is closed.
#[inline(always)]
fn restarted(m: &Meta) -> bool {
    let own_fin = if m.flow.flags & ff::REPLY != 0 {
        ff::FIN_REPLY
    } else {
        ff::FIN_ORIGINAL
    };
    m.kind == Kind::Tcp
        && m.tcp_flags & (SYN | ACK | RST) == SYN
        && m.flow.flags & (own_fin | ff::RST) != 0
}

/// The backend's id is gone or belongs to another: a datagram, or a connection that is not
/// established yet, is to choose again. An established connection goes on, as it does with
/// kube-proxy: a pod that is shutting down finishes what it has.
#[inline(always)]
fn backend_gone<T: Tables>(t: &T, m: &Meta) -> bool {
    let f = &m.flow;
    if f.backend == 0 || f.flags & ff::REPLY != 0 {
        return false;
    }
    if m.kind == Kind::Tcp && (f.flags & ff::REPLIED != 0 || m.tcp_flags & (SYN | ACK) != SYN) {
        return false;
    }
    match t.backend(f.backend) {
        Some(b) => b.generation != f.generation,
        None => true,
    }
}

/// Policy of a known flow, from whichever direction: on the initiator's own address, and on the
/// responder's address behind any Service.
#[inline(always)]
fn judge_again<T: Tables>(t: &mut T, m: &mut Meta) -> Result<(), Reason> {
    if m.flow.flags & ff::REPLY != 0 {
        m.pair_key.src = m.flow.to_dst;
        m.pair_key.dst = m.key.src;
        m.pair_key.dport_be = m.key.sport_be;
    } else {
        m.pair_key.src = m.key.src;
        m.pair_key.dst = m.flow.to_dst;
        m.pair_key.dport_be = m.flow.to_dport_be;
    }
    t.judge(m)
}

#[inline(always)]
fn next_state(m: &Meta, flags: u32) -> u32 {
    let reply = flags & ff::REPLY != 0;
    let mut state = flags & ff::STATE;
    if reply {
        state |= ff::REPLIED;
    }
    if m.kind == Kind::Tcp {
        if m.tcp_flags & RST != 0 {
            state |= ff::RST;
        } else if state & ff::RST != 0 {
            // The connection goes on: that reset was not accepted.
            state &= !ff::RST;
        }
        if m.tcp_flags & FIN != 0 {
            state |= if reply {
                ff::FIN_REPLY
            } else {
                ff::FIN_ORIGINAL
            };
        }
    }
    state
}

/// Enters `m.flow`, a new one, in both directions, and sets `m.to`. If the tuple of the replies
/// belongs to another flow, the source port is rewritten.
#[inline(always)]
pub fn create<T: Tables>(t: &mut T, m: &mut Meta) -> Result<(), Reason> {
    let (mut min, mut range) = (0, 0);
    if let Some(c) = t.config()
        && c.nat_port_min != 0
        && c.nat_port_max >= c.nat_port_min
    {
        min = c.nat_port_min;
        range = c.nat_port_max - c.nat_port_min + 1;
    }
    let now = t.now();
    m.flow.last_seen = now;
    let mut tries = 0;
    loop {
        set_pair(m);
        if m.pair_key == m.key {
            // The tuple is its own reverse: one entry serves both.
            break;
        }
        match t.flow_insert(&m.pair_key, &m.pair) {
            Insert::Done => break,
            Insert::Full => return Err(Reason::FlowTableFull),
            Insert::Exists => {}
        }
        // A stale entry, or this flow's own whose other half was evicted, gives way.
        let taken = t.flow(&m.pair_key, |e| {
            !expired(e, m.key.protocol, now) && !is_pair(&m.pair_key, e, &m.key)
        });
        if taken != Some(true) {
            if t.flow_replace(&m.pair_key, &m.pair) != Insert::Done {
                return Err(Reason::FlowTableFull);
            }
            break;
        }
        tries += 1;
        let Some(step) = t.random().checked_rem(range) else {
            return Err(Reason::NatPortsExhausted);
        };
        if tries == PORT_TRIES {
            return Err(Reason::NatPortsExhausted);
        }
        m.flow.to_sport_be = ((min + step) as u16).to_be();
    }
    let outcome = t.flow_insert(&m.key, &m.flow);
    if outcome == Insert::Full {
        return Err(Reason::FlowTableFull);
    }
    if outcome == Insert::Exists {
        // Another CPU was first: its translation holds.
        if t.flow(&m.key, |e| m.flow = *e).is_some() && !is_pair(&m.key, &m.flow, &m.pair_key) {
            t.flow_remove(&m.pair_key);
        }
    }
    m.to = target(&m.key, &m.flow);
    Ok(())
}
