//! URLs, addresses and networks. Source: Kubernetes `pkg/cel/library/{urls,ip,cidr}.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::eval::{Evaluated, failed};
use super::value::{Key, Value};

/// Scheme, authority, path and query of a URL.
fn parts(url: &str) -> (&str, &str, &str, &str) {
    let url = url.split('#').next().unwrap_or(url);
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if !url.starts_with('/') => (scheme, rest),
        _ => ("", url),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return (scheme, "", rest, query);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    (scheme, host, &rest[end..], query)
}

pub fn url_part(name: &str, url: &str) -> Option<Evaluated> {
    let (scheme, host, path, query) = parts(url);
    let (hostname, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((inner, rest)) => (inner, rest.strip_prefix(':').unwrap_or("")),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    let text = match name {
        "getScheme" => scheme,
        "getHost" => host,
        "getHostname" => hostname,
        "getPort" => port,
        "getEscapedPath" => path,
        "getQuery" => {
            let mut found: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let key = Key::String(unescaped(key).into());
                found
                    .entry(key)
                    .or_default()
                    .push(Value::text(unescaped(value)));
            }
            let lists = found
                .into_iter()
                .map(|(key, list)| (key, Value::list(list)));
            return Some(Ok(Value::Map(Arc::new(lists.collect()))));
        }
        _ => return None,
    };
    Some(Ok(Value::text(text)))
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An address without zone, and no IPv4 in IPv6's clothes.
pub fn address(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

pub fn network(text: &str) -> Option<IpNetwork> {
    let (ip, prefix) = text.split_once('/')?;
    let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    address(ip).filter(|_| plain)?;
    text.parse().ok()
}

pub fn ip_part(name: &str, ip: IpAddr) -> Option<Evaluated> {
    let unicast_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Some(Ok(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        }),
        "isLinkLocalUnicast" => Value::Bool(unicast_link_local),
        "isGlobalUnicast" => Value::Bool(
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || unicast_link_local
                || broadcast),
        ),
        _ => return None,
    }))
}

pub fn cidr_part(name: &str, cidr: &IpNetwork, args: &[Value]) -> Option<Evaluated> {
    let masked = |cidr: &IpNetwork| IpNetwork::new(cidr.network(), cidr.prefix());
    Some(match (name, args) {
        ("containsIP", [value]) => {
            let ip = match value {
                Value::Ip(ip) => Some(*ip),
                Value::String(text) => address(text),
                _ => return None,
            };
            match ip {
                Some(ip) => Ok(Value::Bool(cidr.contains(ip))),
                None => failed("IP Address parse error during conversion from string"),
            }
        }
        ("containsCIDR", [value]) => {
            let other = match value {
                Value::Cidr(other) => Some(*other),
                Value::String(text) => network(text),
                _ => return None,
            };
            match other {
                Some(other) => Ok(Value::Bool(
                    cidr.contains(other.network()) && cidr.prefix() <= other.prefix(),
                )),
                None => failed("CIDR parse error during conversion from string"),
            }
        }
        ("ip", []) => Ok(Value::Ip(cidr.ip())),
        ("masked", []) => match masked(cidr) {
            Ok(masked) => Ok(Value::Cidr(masked)),
            Err(error) => failed(error.to_string()),
        },
        ("prefixLength", []) => Ok(Value::Int(i64::from(cidr.prefix()))),
        _ => return None,
    })
}
