//! The wire: a bridge in a namespace of its own, and every host of the cluster on it.

use super::layout::{BRIDGE, CONTROL, Layout, OUTSIDE, ip4, ip6};
use crate::{Netns, link};
use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The uplink's name in every host.
pub const UPLINK: &str = "eth0";
const BRIDGE_LINK: &str = "wire0";
const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 64;

/// Makes the wire, the control plane's namespace, the nodes' and the outside client's.
pub fn make(layout: &Layout, nodes: usize) -> anyhow::Result<()> {
    let wire = Netns::create(&layout.netns("wire"))?.keep();
    link::bridge(&wire, BRIDGE_LINK)?;
    addresses(&wire, BRIDGE_LINK, BRIDGE)?;
    host(layout, &wire, "control", CONTROL)?;
    host(layout, &wire, "outside", OUTSIDE)?;
    for number in 1..=nodes {
        let node = layout.node(number);
        let netns = host(layout, &wire, &node.name, 10 + number as u8)?;
        // What a node's network set-up has done before any Kubernetes comes.
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn host(layout: &Layout, wire: &Netns, role: &str, number: u8) -> anyhow::Result<Netns> {
    let netns = Netns::create(&layout.netns(role))?.keep();
    link::veth(&netns, UPLINK, wire, role)?;
    link::attach(wire, role, BRIDGE_LINK)?;
    addresses(&netns, UPLINK, number)?;
    // A default route as any host has one. It ends at the bridge, which forwards nothing.
    let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    link::route(&netns, (any4, 0), Some(ip4(BRIDGE)), UPLINK)?;
    link::route(&netns, (any6, 0), Some(ip6(BRIDGE)), UPLINK)
        .with_context(|| format!("wiring {role}"))?;
    Ok(netns)
}

fn addresses(netns: &Netns, link: &str, number: u8) -> anyhow::Result<()> {
    link::address(netns, link, ip4(number), V4_PREFIX)?;
    link::address(netns, link, ip6(number), V6_PREFIX)
}
