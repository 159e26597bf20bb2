//! The tables as text: what `/dump/…` shows, and what the golden tests compare. Ids that differ
//! from run to run are shown as what they stand for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use rhumb_common::maps::{
    Backend, PolicyKey, ServiceKey, SlotKey, policy_prefix, route_class, verdict,
};

use crate::{
    model::protocol,
    policy::{Direction, Ids},
    tables::{RowKey, Tables},
};

fn socket(addr: rhumb_common::addr::Ip, port_be: u16) -> String {
    std::net::SocketAddr::new(addr.to_std(), u16::from_be(port_be)).to_string()
}

pub fn frontend(key: &ServiceKey) -> String {
    format!(
        "{}/{}",
        socket(key.vip, key.port_be),
        protocol::name(key.protocol)
    )
}

pub fn backend(b: &Backend) -> String {
    socket(b.addr, b.port_be)
}

/// `<frontend> -> <backends>`, or `refused` for a Service without endpoints.
pub fn services(t: &Tables) -> String {
    let mut lines = BTreeSet::new();
    for (key, service) in &t.services {
        if key.is_address() {
            lines.insert(format!("{} other ports -> refused", key.vip));
            continue;
        }
        let mut backends: Vec<String> = (0..service.count)
            .map(|slot| {
                let slot = SlotKey {
                    service: service.id,
                    slot,
                };
                t.slots
                    .get(&slot)
                    .and_then(|id| t.backends.get(id))
                    .map_or_else(|| "?".to_owned(), backend)
            })
            .collect();
        backends.sort();
        let mut line = format!("{} -> ", frontend(key));
        if backends.is_empty() {
            line.push_str("refused");
        }
        line.push_str(&backends.join(" "));
        if service.affinity > 0 {
            let _ = write!(line, " affinity {}s", service.affinity);
        }
        lines.insert(line);
    }
    text(lines)
}

/// `<address>/<protocol>` of every backend.
pub fn backends(t: &Tables) -> String {
    text(
        t.backends
            .values()
            .map(|b| format!("{}/{}", backend(b), protocol::name(b.protocol)))
            .collect(),
    )
}

pub fn routes(t: &Tables) -> String {
    text(
        t.routes
            .iter()
            .map(|(prefix, route)| {
                let class = match route.class {
                    route_class::CLUSTER => "cluster",
                    route_class::THIS_NODE => "this-node",
                    route_class::LOCAL_PODS => "local-pods",
                    _ => "?",
                };
                format!("{prefix} {class}")
            })
            .collect(),
    )
}

fn identity(ids: &Ids, id: u32) -> String {
    if id == 0 {
        return "anyone else".to_owned();
    }
    match ids.identity(id) {
        Some([]) | None => format!("identity {id}"),
        Some(atoms) => {
            let atoms: Vec<String> = atoms.iter().map(ToString::to_string).collect();
            atoms.join(" & ")
        }
    }
}

/// What every address is to the policies: pods, then CIDRs.
pub fn peers(t: &Tables, ids: &Ids) -> String {
    let mut out = text(
        t.peers
            .iter()
            .map(|(ip, p)| format!("{ip} is {}", identity(ids, p.identity)))
            .collect(),
    );
    out += &text(
        t.peer_cidrs
            .iter()
            .map(|(net, p)| format!("{net} is {}", identity(ids, p.identity)))
            .collect(),
    );
    out
}

/// Words of a policy key back to set, identity, protocol and port.
pub fn row_parts(key: &PolicyKey) -> (u32, u32, u8, u16) {
    let last = key.words[2].to_ne_bytes();
    (
        u32::from_be(key.words[0]),
        u32::from_be(key.words[1]),
        last[0],
        u16::from_be_bytes([last[1], last[2]]),
    )
}

fn ports(row: &RowKey) -> String {
    let (_, _, proto, port) = row_parts(&row.key);
    if row.len <= policy_prefix::ANY_PROTOCOL {
        return "everything".to_owned();
    }
    let name = protocol::name(proto);
    let bits = row.len - policy_prefix::PROTOCOL;
    match bits {
        0 => format!("all {name}"),
        16 => format!("{port}/{name}"),
        _ => {
            let last = u32::from(port) + (1u32 << (16 - bits)) - 1;
            format!("{port}-{last}/{name}")
        }
    }
}

/// Every local pod address with what isolates it and what is admitted nevertheless.
pub fn policy(t: &Tables, ids: &Ids) -> String {
    let mut by_set: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (row, value) in &t.rows {
        let (set, id, _, _) = row_parts(&row.key);
        let what = match value.verdict {
            verdict::ALLOW => "admits",
            verdict::DENY => "denies",
            _ => "?",
        };
        let by = ids
            .rule(value.rule)
            .map_or_else(|| format!("rule {}", value.rule), ToString::to_string);
        by_set.entry(set).or_default().insert(format!(
            "    {what} {}: {} by {by}",
            identity(ids, id),
            ports(row)
        ));
    }
    let mut out = String::new();
    for (ip, sets) in &t.endpoint_policy {
        for (direction, set) in [
            (Direction::Ingress, sets.ingress_set),
            (Direction::Egress, sets.egress_set),
        ] {
            let _ = write!(out, "{ip} {}", direction.name());
            if set == 0 {
                out.push_str(" open\n");
                continue;
            }
            let by = ids
                .set(set)
                .map_or_else(|| format!("set {set}"), |s| s.policies.join(", "));
            let _ = writeln!(out, " isolated by {by}");
            for line in by_set.get(&set).into_iter().flatten() {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Everything, under headings.
pub fn everything(t: &Tables, ids: &Ids) -> String {
    let mut out = String::new();
    for (heading, body) in [
        ("services", services(t)),
        ("backends", backends(t)),
        ("routes", routes(t)),
        ("peers", peers(t, ids)),
        ("policy", policy(t, ids)),
        ("isolated namespaces", format!("{}\n", t.isolated.len())),
    ] {
        let _ = write!(out, "# {heading}\n{body}");
    }
    out
}

fn text(lines: BTreeSet<String>) -> String {
    lines.into_iter().map(|l| l + "\n").collect()
}
