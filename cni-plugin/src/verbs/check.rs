//! CHECK: compares what the kernel has with the journal and with ADD's result.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use crate::{
    attachment::{Attachment, Key, Mac, Phase},
    attachments::Attachments,
    kernel::{
        attach::{self, Endpoints, Programs},
        netlink::Netlink,
        netns::{self, Netns},
        wire::{self, WireError},
    },
    node::Paths,
    spec::{
        config::Config,
        env::Target,
        error::{CniError, Code},
        result,
    },
};

pub fn check(config: &Config, target: &Target) -> Result<(), CniError> {
    let attachments = Attachments::open(&config.paths)?;
    let key = Key::new(&*target.container_id, &*target.ifname);
    let pod = Netns::open(target.netns.as_deref().unwrap_or("".as_ref()))?;
    let state = attachments.store().snapshot()?;
    let a = state
        .attachments
        .get(&key)
        .filter(|a| a.phase == Phase::Attached)
        .ok_or_else(|| {
            CniError::new(
                Code::UnknownContainer,
                format!(
                    "{key} is not attached on this node; delete the pod, so that it is made anew"
                ),
            )
        })?;
    let mut found = differences(&config.paths, &pod, a)?;
    if let Some(prev) = &config.prev_result {
        let mut said = result::addresses_of(prev, &a.ifname);
        let mut has = a.ips.clone();
        said.sort();
        has.sort();
        if said != has {
            found.push(format!(
                "prevResult has the addresses {said:?}, the journal {has:?}"
            ));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(
            Code::NotAsAdded,
            format!("{key} is not as ADD left it; delete the pod, so that it is made anew"),
        )
        .details(found.join("; "))),
    }
}

/// All that differs from what the journal says.
pub fn differences(paths: &Paths, pod: &Netns, a: &Attachment) -> Result<Vec<String>, CniError> {
    let mut found = on_host(a)?;
    found.extend(in_pod(pod, a)?);
    let endpoints = Endpoints::open(paths)?;
    let expected = attach::endpoint(a);
    for ip in &a.ips {
        match endpoints.get(*ip)? {
            None => found.push(format!("ENDPOINTS has no {ip}")),
            Some(e) if e != expected => {
                found.push(format!("ENDPOINTS has {e:?} for {ip}, not {expected:?}"))
            }
            Some(_) => {}
        }
    }
    let mut nl = wire::at(|| "opening netlink".into(), Netlink::open())?;
    found.extend(Programs::open(paths)?.differences(&mut nl, a)?);
    Ok(found)
}

fn on_host(a: &Attachment) -> Result<Vec<String>, WireError> {
    let name = &a.host_ifname;
    let mut found = Vec::new();
    let mut nl = wire::at(|| "opening netlink".into(), Netlink::open())?;
    let link = wire::at(|| format!("looking up {name}"), nl.link(name))?;
    let Some(link) = link.filter(|l| l.header.index == a.ifindex) else {
        return Ok(vec![format!(
            "the host side {name} (index {}) is gone",
            a.ifindex
        )]);
    };
    link_differences(&link, name, a.host_mac, a.mtu, &mut found);
    let alias = a.key().alias();
    if !link
        .attributes
        .contains(&LinkAttribute::IfAlias(alias.clone()))
    {
        found.push(format!("{name} has lost its alias {alias}"));
    }
    for ip in &a.ips {
        let len = if ip.is_ipv4() { 32 } else { 128 };
        let list = |e: io::Result<_>| wire::at(|| format!("listing routes of {name}"), e);
        let routes = list(nl.routes(wire::family(*ip), a.ifindex))?;
        if !routes.iter().any(|r| is_route(r, Some(*ip), len, None)) {
            found.push(format!("the host has no route to {ip} by {name}"));
        }
        let neighbours = nl.neighbours(wire::family(*ip), a.ifindex);
        let neighbours = wire::at(|| format!("listing neighbours of {name}"), neighbours)?;
        if !neighbours.iter().any(|n| is_neighbour(n, *ip, a.pod_mac)) {
            found.push(format!(
                "the host has no permanent neighbour {ip} on {name}"
            ));
        }
    }
    Ok(found)
}

fn in_pod(pod: &Netns, a: &Attachment) -> Result<Vec<String>, WireError> {
    let name = &a.ifname;
    pod.run(|| {
        let mut found = Vec::new();
        let mut nl = wire::at(|| "opening netlink in the pod's namespace".into(), Netlink::open())?;
        let cookie = wire::at(|| "reading the namespace's cookie".into(), netns::cookie())?;
        if cookie != a.netns_cookie {
            found.push(format!("the network namespace is another than at ADD ({})", a.netns.display()));
        }
        let link = wire::at(|| format!("looking up {name} in the pod"), nl.link(name))?;
        let Some(link) = link else {
            found.push(format!("the pod has no interface {name}"));
            return Ok(found);
        };
        link_differences(&link, name, a.pod_mac, a.mtu, &mut found);
        let index = link.header.index;
        let addresses = wire::at(|| format!("listing addresses of {name}"), nl.addresses(index))?;
        for ip in &a.ips {
            let is_it = |attribute: &AddressAttribute| {
                matches!(attribute, AddressAttribute::Address(x) if x == ip)
            };
            if !addresses.iter().any(|m| m.attributes.iter().any(is_it)) {
                found.push(format!("{name} has no address {ip}"));
            }
            let gateway = wire::gateway(*ip);
            let routes = nl.routes(wire::family(*ip), index);
            let routes = wire::at(|| format!("listing routes of {name}"), routes)?;
            if !routes.iter().any(|r| is_route(r, None, 0, Some(gateway))) {
                found.push(format!("the pod has no default route by {gateway}"));
            }
            let neighbours = nl.neighbours(wire::family(*ip), index);
            let neighbours = wire::at(|| format!("listing neighbours of {name}"), neighbours)?;
            if !neighbours.iter().any(|n| is_neighbour(n, gateway, a.host_mac)) {
                found.push(format!("the pod has no permanent neighbour {gateway}"));
            }
        }
        Ok(found)
    })
}

fn link_differences(link: &LinkMessage, name: &str, mac: Mac, mtu: u32, found: &mut Vec<String>) {
    if !link.header.flags.contains(LinkFlags::Up) {
        found.push(format!("{name} is down"));
    }
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(x) if *x != mac.0 => {
                found.push(format!("{name} has another hardware address than {mac}"));
            }
            LinkAttribute::Mtu(x) if *x != mtu => {
                found.push(format!("{name} has MTU {x}, not {mtu}"));
            }
            _ => {}
        }
    }
}

fn is_route(r: &RouteMessage, to: Option<IpAddr>, len: u8, via: Option<IpAddr>) -> bool {
    let has = |a: RouteAttribute| r.attributes.contains(&a);
    r.header.destination_prefix_length == len
        && to.is_none_or(|to| has(RouteAttribute::Destination(RouteAddress::from(to))))
        && via.is_none_or(|via| has(RouteAttribute::Gateway(RouteAddress::from(via))))
}

fn is_neighbour(n: &NeighbourMessage, ip: IpAddr, mac: Mac) -> bool {
    n.header.state == NeighbourState::Permanent
        && n.attributes
            .contains(&NeighbourAttribute::Destination(NeighbourAddress::from(ip)))
        && n.attributes
            .contains(&NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()))
}
