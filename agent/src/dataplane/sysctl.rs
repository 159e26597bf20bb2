//! Sysctls of the node's network namespace, through /proc (which shows the caller's).

use std::{fs, io, ops::RangeInclusive};

/// Source ports of masquerade: above the usual range of ephemeral ports (32768–60999).
pub const NAT_PORTS: RangeInclusive<u16> = 61000..=65535;

#[derive(Debug, thiserror::Error)]
#[error("cannot set the sysctl {name} to {value}")]
pub struct Error {
    name: String,
    value: String,
    source: io::Error,
}

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}

/// Writes only what differs. A sysctl that the kernel does not have (IPv6 switched off) is skipped.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    fs::write(&path, value).map_err(|source| Error {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// What the node needs: forwarding, no reverse-path filter on the uplink (replies of redirected
/// traffic come in asymmetrically), and the NAT ports kept from sockets.
pub fn prepare(uplink: Option<&str>) -> Result<(), Error> {
    set("net/ipv4/ip_forward", "1")?;
    set("net/ipv6/conf/all/forwarding", "1")?;
    // The kernel takes the larger of "all" and the interface's own.
    set("net/ipv4/conf/all/rp_filter", "0")?;
    if let Some(uplink) = uplink {
        set(&format!("net/ipv4/conf/{uplink}/rp_filter"), "0")?;
        // Forwarding makes the kernel ignore router advertisements otherwise.
        set(&format!("net/ipv6/conf/{uplink}/accept_ra"), "2")?;
    }
    let name = "net/ipv4/ip_local_reserved_ports";
    let now = fs::read_to_string(path(name)).unwrap_or_default();
    set(name, &reserve(now.trim(), NAT_PORTS))
}

/// Takes the NAT ports back from the reserved ones. Forwarding stays: others may rely on it.
pub fn restore() -> Result<(), Error> {
    let name = "net/ipv4/ip_local_reserved_ports";
    let now = fs::read_to_string(path(name)).unwrap_or_default();
    set(name, &release(now.trim(), NAT_PORTS))
}

fn ranges(text: &str) -> Vec<(u16, u16)> {
    text.split(',')
        .filter_map(|part| {
            let (a, b) = part.split_once('-').unwrap_or((part, part));
            Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
        })
        .collect()
}

fn text(ranges: &[(u16, u16)]) -> String {
    let parts: Vec<String> = ranges
        .iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    parts.join(",")
}

fn reserve(now: &str, ports: RangeInclusive<u16>) -> String {
    let (first, last) = ports.into_inner();
    let mut all = ranges(now);
    if all.iter().any(|(a, b)| *a <= first && last <= *b) {
        return now.to_owned();
    }
    all.retain(|(a, b)| *b < first || last < *a);
    all.push((first, last));
    all.sort_unstable();
    text(&all)
}

fn release(now: &str, ports: RangeInclusive<u16>) -> String {
    let (first, last) = ports.into_inner();
    let mut all = ranges(now);
    all.retain(|r| *r != (first, last));
    text(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_keep_what_others_reserved() {
        assert_eq!(reserve("", 61000..=65535), "61000-65535");
        assert_eq!(
            reserve("8080,9000-9010", 61000..=65535),
            "8080,9000-9010,61000-65535"
        );
        assert_eq!(reserve("61000-65535", 61000..=65535), "61000-65535");
        assert_eq!(reserve("60000-65535", 61000..=65535), "60000-65535");
        assert_eq!(release("8080,61000-65535", 61000..=65535), "8080");
        assert_eq!(release("", 61000..=65535), "");
    }
}
