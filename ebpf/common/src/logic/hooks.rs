//! What each tc hook decides: the table "hook × path" of ARCHITECTURE.md.

use super::Action;
use super::flows::find;
use super::packet::Packet;
use super::parse::{Kind, Meta, parse};
use super::rewrite::{rewrite, to_pod_macs};
use super::service::{is_vip, select};
use super::tables::Tables;
use crate::addr::Ip;
use crate::event::Reason;
use crate::flow::flow_flag as ff;
use crate::maps::{Backend, Endpoint, config_flag, route_class, service_scope};

/// What the pod behind `ifindex` sends.
#[inline(always)]
pub fn from_pod<P: Packet, T: Tables>(p: &mut P, t: &mut T, m: &mut Meta, ifindex: u32) -> Action {
    if let Err(reason) = parse(p, m) {
        return Action::Drop(reason);
    }
    if m.kind == Kind::NotIp {
        return Action::Stack;
    }
    // Neighbour discovery with the gateway is the stack's, and uses link-local addresses.
    if m.kind == Kind::Neighbour && link_scope(&m.key.dst) {
        return Action::Stack;
    }
    match t.endpoint(&m.key.src) {
        Some(e) if e.ifindex == ifindex => {}
        _ => return Action::Drop(Reason::SpoofedSource),
    }
    if multicast(&m.key.dst) {
        return Action::Drop(Reason::NoRoute);
    }
    let flags = match decide_from_pod(p, t, m) {
        Ok(flags) => flags,
        Err(reason @ (Reason::NoBackend | Reason::NoServicePort | Reason::NoEndpoint)) => {
            return p.answer(t, m, reason);
        }
        Err(reason) => return Action::Drop(reason),
    };
    if flags & ff::STACK != 0 {
        return match rewrite(p, m, false) {
            Some(()) => Action::Stack,
            None => Action::Drop(Reason::Internal),
        };
    }
    if m.ttl <= 1 {
        return p.answer(t, m, Reason::TtlExceeded);
    }
    if flags & ff::LOCAL != 0 {
        let Some(to) = t.endpoint(&m.to.dst) else {
            // The pod went away with its connections.
            return p.answer(t, m, Reason::NoEndpoint);
        };
        return deliver(p, m, &to);
    }
    match rewrite(p, m, true) {
        Some(()) => Action::Route,
        None => Action::Drop(Reason::Internal),
    }
}

/// Sets `m.to`; the flags are those of a flow.
#[inline(always)]
fn decide_from_pod<P: Packet, T: Tables>(
    p: &mut P,
    t: &mut T,
    m: &mut Meta,
) -> Result<u32, Reason> {
    // A pod is no router: it may complain about what was sent to itself.
    if m.kind == Kind::IcmpError
        && let Some(flags) = p.related(t, m, true)
    {
        return Ok(flags);
    }
    if m.has_flow() {
        if find(t, m)? {
            return Ok(m.flow.flags);
        }
        if m.kind != Kind::EchoReply {
            return open_from_pod(t, m);
        }
    }
    stateless_from_pod(t, m)
}

/// The first packet of a flow: Service, policy, masquerade.
#[inline(always)]
fn open_from_pod<T: Tables>(t: &mut T, m: &mut Meta) -> Result<u32, Reason> {
    // Replies go to this pod.
    untranslated(t, m, ff::LOCAL << ff::PAIR_SHIFT);
    if m.kind != Kind::EchoRequest
        && let Some(selected) = select_for(t, m)
    {
        translate(m, selected?);
    }
    if m.flow.to_dst == m.key.src {
        m.flow.flags |= ff::LOCAL | ff::EXEMPT;
        if m.flow.backend != 0 {
            // So that the reply comes back through here: to the pod, the Service is the client.
            m.flow.to_src = m.key.dst;
        }
    } else {
        let class = class_of(t, &m.flow.to_dst);
        match class {
            Class::Pod => m.flow.flags |= ff::LOCAL,
            Class::ThisNode => m.flow.flags |= ff::STACK | ff::EXEMPT,
            Class::NoPod => return Err(Reason::NoEndpoint),
            Class::Vip => return Err(Reason::NoServicePort),
            Class::Cluster | Class::Outside => {}
        }
        if class != Class::ThisNode {
            m.pair_key.src = m.key.src;
            m.pair_key.dst = m.flow.to_dst;
            m.pair_key.dport_be = m.flow.to_dport_be;
            t.judge(m)?;
        }
        if class == Class::Outside {
            masquerade(t, m)?;
        }
    }
    t.create(m)?;
    Ok(m.flow.flags)
}

/// The backend, if the packet's destination is a frontend.
#[inline(always)]
fn select_for<T: Tables>(t: &mut T, m: &Meta) -> Option<Result<(u32, Backend), Reason>> {
    let (key, scope) = (&m.key, service_scope::CLUSTER);
    select(t, &key.dst, key.dport_be, key.protocol as u8, scope)
}

/// Leads the flow to a backend.
#[inline(always)]
fn translate(m: &mut Meta, (id, backend): (u32, Backend)) {
    m.flow.to_dst = backend.addr;
    m.flow.to_dport_be = backend.port_be;
    m.flow.backend = id;
    m.flow.generation = backend.generation;
}

#[inline(always)]
fn untranslated<T: Tables>(t: &T, m: &mut Meta, flags: u32) {
    // Read before the verdict: what changes meanwhile has the flow judged again.
    m.flow.epoch = match t.config() {
        Some(c) => c.policy_epoch,
        None => 0,
    };
    m.flow.to_src = m.key.src;
    m.flow.to_dst = m.key.dst;
    m.flow.to_sport_be = m.key.sport_be;
    m.flow.to_dport_be = m.key.dport_be;
    m.flow.flags = flags;
    m.flow.backend = 0;
    m.flow.generation = 0;
}

/// Whether what leaves the cluster takes the node's address, and that address.
#[inline(always)]
fn node_source<T: Tables>(t: &T, v6: bool) -> Option<Ip> {
    let c = t.config()?;
    let (flag, ip) = if v6 {
        (config_flag::MASQUERADE_V6, c.node_ip6)
    } else {
        (config_flag::MASQUERADE_V4, c.node_ip4)
    };
    (c.flags & flag != 0).then_some(ip)
}

#[inline(always)]
fn masquerade<T: Tables>(t: &mut T, m: &mut Meta) -> Result<(), Reason> {
    let Some(node) = node_source(t, m.v6) else {
        return Ok(());
    };
    if node == Ip::UNSPECIFIED {
        return Err(Reason::NoRoute);
    }
    let (min, max) = match t.config() {
        Some(c) => (c.nat_port_min, c.nat_port_max),
        None => (0, 0),
    };
    if min == 0 || max < min {
        return Err(Reason::NatPortsExhausted);
    }
    m.flow.to_src = node;
    let port = u16::from_be(m.flow.to_sport_be) as u32;
    if port < min || port > max {
        let step = t.random().checked_rem(max - min + 1).unwrap_or(0);
        m.flow.to_sport_be = ((min + step) as u16).to_be();
    }
    Ok(())
}

/// What has no flow: other ICMP messages, later fragments. Never translated.
#[inline(always)]
fn stateless_from_pod<T: Tables>(t: &mut T, m: &mut Meta) -> Result<u32, Reason> {
    m.to = m.key;
    let class = class_of(t, &m.key.dst);
    if class == Class::ThisNode {
        return Ok(ff::STACK);
    }
    let reason = match m.kind {
        Kind::Fragment => Reason::Fragment,
        _ => Reason::UnsupportedProtocol,
    };
    if m.kind == Kind::Other || class == Class::Outside && node_source(t, m.v6).is_some() {
        return Err(reason);
    }
    match class {
        Class::NoPod => return Err(Reason::NoEndpoint),
        Class::Vip => return Err(Reason::NoServicePort),
        _ => {}
    }
    judge_stateless(t, m)?;
    Ok(if class == Class::Pod { ff::LOCAL } else { 0 })
}

/// Only rules for all ports can speak for a packet that shows none.
#[inline(always)]
fn judge_stateless<T: Tables>(t: &mut T, m: &mut Meta) -> Result<(), Reason> {
    m.pair_key.src = m.key.src;
    m.pair_key.dst = m.key.dst;
    m.pair_key.dport_be = 0;
    match t.judge(m) {
        Err(_) if m.kind == Kind::Fragment => Err(Reason::Fragment),
        verdict => verdict,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Pod,
    NoPod,
    ThisNode,
    Cluster,
    /// A Service's address.
    Vip,
    Outside,
}

#[inline(always)]
fn class_of<T: Tables>(t: &T, ip: &Ip) -> Class {
    if t.endpoint(ip).is_some() {
        return Class::Pod;
    }
    match t.route(ip) {
        Some(r) if r.class == route_class::THIS_NODE => Class::ThisNode,
        Some(r) if r.class == route_class::LOCAL_PODS => Class::NoPod,
        // Before the cluster's networks, which may cover the addresses of Services too.
        _ if is_vip(t, ip) => Class::Vip,
        Some(r) if r.class == route_class::CLUSTER => Class::Cluster,
        _ => Class::Outside,
    }
}

/// Routed into a local pod.
#[inline(always)]
fn deliver<P: Packet>(p: &mut P, m: &Meta, to: &Endpoint) -> Action {
    if rewrite(p, m, true).is_none() || to_pod_macs(p, to).is_none() {
        return Action::Drop(Reason::Internal);
    }
    Action::Pod(to.ifindex)
}

/// What arrives at the uplink.
#[inline(always)]
pub fn from_uplink<P: Packet, T: Tables>(p: &mut P, t: &mut T, m: &mut Meta) -> Action {
    // What we can't read is not for a pod, or the hook at the pod drops it.
    if parse(p, m).is_err() || m.kind == Kind::NotIp {
        return Action::Stack;
    }
    if t.endpoint(&m.key.src).is_some() {
        return Action::Drop(Reason::SpoofedLocalPod);
    }
    let to_pod = t.endpoint(&m.key.dst).is_some();
    let to_port = !to_pod && host_ports(t) && m.has_flow();
    if !to_pod && !to_port && !masqueraded(t, m) {
        return Action::Stack;
    }
    let decided = decide_from_uplink(p, t, m, to_pod);
    match decided {
        Ok(true) => {}
        Ok(false) => return Action::Stack,
        Err(reason) => return Action::Drop(reason),
    }
    if m.ttl <= 1 {
        return Action::Drop(Reason::TtlExceeded);
    }
    match t.endpoint(&m.to.dst) {
        Some(e) => deliver(p, m, &e),
        None => Action::Drop(Reason::NoEndpoint),
    }
}

/// Whether some address of the node may lead to a pod.
#[inline(always)]
fn host_ports<T: Tables>(t: &T) -> bool {
    t.config()
        .is_some_and(|c| c.flags & config_flag::HOST_PORTS != 0)
}

/// May be the answer to what we masqueraded.
#[inline(always)]
fn masqueraded<T: Tables>(t: &T, m: &Meta) -> bool {
    let Some(c) = t.config() else { return false };
    let node = if m.v6 { c.node_ip6 } else { c.node_ip4 };
    let port = u16::from_be(m.key.dport_be) as u32;
    m.key.dst == node
        && (m.kind == Kind::IcmpError
            || m.has_flow() && port >= c.nat_port_min && port <= c.nat_port_max)
}

/// `false`: not ours.
#[inline(always)]
fn decide_from_uplink<P: Packet, T: Tables>(
    p: &mut P,
    t: &mut T,
    m: &mut Meta,
    to_pod: bool,
) -> Result<bool, Reason> {
    if m.kind == Kind::IcmpError
        && let Some(flags) = p.related(t, m, false)
    {
        return Ok(flags & ff::LOCAL != 0);
    }
    if m.has_flow() && find(t, m)? {
        return Ok(m.flow.flags & ff::LOCAL != 0);
    }
    if !to_pod {
        return open_from_uplink(t, m);
    }
    m.to = m.key;
    admit(t, m, ff::LOCAL)?;
    Ok(true)
}

/// The first packet to a port of the node that leads to a pod. The client keeps its address, and the reply
/// leaves by the host's routes, from the address that was asked.
#[inline(always)]
fn open_from_uplink<T: Tables>(t: &mut T, m: &mut Meta) -> Result<bool, Reason> {
    if !host_ports(t) || !m.has_flow() || matches!(m.kind, Kind::EchoRequest | Kind::EchoReply) {
        return Ok(false);
    }
    let Some(selected) = select_for(t, m) else {
        return Ok(false);
    };
    untranslated(t, m, ff::LOCAL);
    translate(m, selected?);
    if t.endpoint(&m.flow.to_dst).is_none() {
        return Err(Reason::NoEndpoint);
    }
    m.pair_key.src = m.key.src;
    m.pair_key.dst = m.flow.to_dst;
    m.pair_key.dport_be = m.flow.to_dport_be;
    t.judge(m)?;
    t.create(m)?;
    Ok(true)
}

/// Ingress policy of a first packet to a pod of ours, and its flow.
#[inline(always)]
fn admit<T: Tables>(t: &mut T, m: &mut Meta, flags: u32) -> Result<(), Reason> {
    if m.has_flow() && m.kind != Kind::EchoReply {
        untranslated(t, m, flags);
        m.pair_key = m.key;
        t.judge(m)?;
        return t.create(m);
    }
    if m.kind == Kind::Other {
        return Err(Reason::UnsupportedProtocol);
    }
    judge_stateless(t, m)
}

/// What the host's stack sends to the pod behind `ifindex`; `from_node` if it comes from the node
/// itself, that is, came in on no interface.
#[inline(always)]
pub fn to_pod<P: Packet, T: Tables>(
    p: &mut P,
    t: &mut T,
    m: &mut Meta,
    ifindex: u32,
    from_node: bool,
) -> Action {
    if let Err(reason) = parse(p, m) {
        return if from_node {
            Action::Stack
        } else {
            Action::Drop(reason)
        };
    }
    if m.kind == Kind::NotIp || m.kind == Kind::Neighbour {
        return Action::Stack;
    }
    m.trusted = from_node;
    match decide_to_pod(p, t, m, ifindex) {
        Ok(()) => {}
        Err(reason) if !from_node => return Action::Drop(reason),
        Err(_) => m.to = m.key,
    }
    match rewrite(p, m, false) {
        Some(()) => Action::Stack,
        None => Action::Drop(Reason::Internal),
    }
}

#[inline(always)]
fn decide_to_pod<P: Packet, T: Tables>(
    p: &mut P,
    t: &mut T,
    m: &mut Meta,
    ifindex: u32,
) -> Result<(), Reason> {
    m.to = m.key;
    if m.kind == Kind::IcmpError && p.related(t, m, false).is_some() {
        return Ok(());
    }
    if m.has_flow() && find(t, m)? {
        return Ok(());
    }
    // Replies go back to the stack.
    let mut flags = ff::STACK << ff::PAIR_SHIFT;
    if m.trusted {
        if !m.has_flow() || m.kind == Kind::EchoReply {
            return Ok(());
        }
        flags |= ff::EXEMPT;
        untranslated(t, m, flags);
        return t.create(m);
    }
    match t.endpoint(&m.key.dst) {
        Some(e) if e.ifindex == ifindex => admit(t, m, flags),
        _ => Err(Reason::NoEndpoint),
    }
}

#[inline(always)]
fn multicast(ip: &Ip) -> bool {
    if ip.is_v4() {
        // 224.0.0.0/4 and what is above, the limited broadcast among it.
        u32::from_be(ip.v4_raw()) >= 0xe000_0000
    } else {
        u64::from_be(ip.hi) >> 56 == 0xff
    }
}

#[inline(always)]
fn link_scope(ip: &Ip) -> bool {
    let head = u64::from_be(ip.hi) >> 48;
    // fe80::/10, and multicast of link scope.
    !ip.is_v4() && (head & 0xffc0 == 0xfe80 || head & 0xff0f == 0xff02)
}
