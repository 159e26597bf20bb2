//! Policy verdicts.

use super::parse::Meta;
use super::tables::Tables;
use crate::event::Reason;
use crate::maps::{Endpoint, PolicyKey, endpoint_flag, verdict};

/// Egress of the pod `m.pair_key.src` towards `m.pair_key.dst`, then ingress of the latter, each
/// where the pod is ours. The port is that of the responder (`m.pair_key.dport_be`): addresses and
/// port are those behind any Service. They stand in the room for the pair, which is free until the
/// verdict is known.
#[inline(always)]
pub fn judge<T: Tables>(t: &T, m: &mut Meta) -> Result<(), Reason> {
    judge_side(t, m, false)?;
    judge_side(t, m, true)
}

/// A pod whose policy is not known yet.
#[inline(always)]
fn unknown(e: &Endpoint) -> Result<(), Reason> {
    if e.flags & endpoint_flag::OPEN == 0 {
        return Err(Reason::PolicyPending);
    }
    Ok(())
}

#[inline(always)]
fn judge_side<T: Tables>(t: &T, m: &mut Meta, ingress: bool) -> Result<(), Reason> {
    let (pod, peer) = if ingress {
        (&m.pair_key.dst, &m.pair_key.src)
    } else {
        (&m.pair_key.src, &m.pair_key.dst)
    };
    let Some(e) = t.endpoint(pod) else {
        return Ok(());
    };
    let set = match t.endpoint_policy(pod) {
        // What was written for an earlier pod of this address says nothing of this one.
        Some(p) if p.netns_cookie != e.netns_cookie => return unknown(&e),
        Some(p) if ingress => p.ingress_set,
        Some(p) => p.egress_set,
        None => return unknown(&e),
    };
    if set == 0 {
        return Ok(());
    }
    let identity = match t.peer(peer) {
        Some(p) => p.identity,
        None => match t.peer_cidr(peer) {
            Some(p) => p.identity,
            None => 0,
        },
    };
    let key = PolicyKey::new(set, identity, m.key.protocol as u8, m.pair_key.dport_be);
    let rule = match t.policy(&key) {
        Some(v) if v.verdict == verdict::ALLOW => return Ok(()),
        Some(v) => v.rule,
        None => 0,
    };
    m.set = set;
    m.rule = rule;
    m.identity = identity;
    Err(if ingress {
        Reason::PolicyIngress
    } else {
        Reason::PolicyEgress
    })
}
