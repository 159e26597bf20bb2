//! The veth pair of a pod, its addresses, routes and neighbours on both sides.
//!
//! Point to point: the pod has its address alone (`/32`, `/128`) and a default route by an on-link
//! gateway that nobody has to answer for, since both sides hold permanent neighbour entries: no
//! ARP, no neighbour discovery, no duplicate address detection, nothing to wait for.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    path::Path,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
};

use super::{
    netlink::{CREATE, Netlink, REPLACE},
    netns::{self, Netns},
};
use crate::attachment::{Attachment, Key, Mac};

/// The host side of a pod's veth, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    pub name: String,
    /// From its alias, which a link has once it is up.
    pub key: Option<Key>,
    pub ifindex: u32,
    pub mtu: u32,
}

/// The host sides of pods' veths: what an alias, or else its name, says to be ours.
pub fn pod_links(netlink: &mut Netlink) -> io::Result<Vec<PodLink>> {
    let links = netlink.links()?.into_iter();
    Ok(links.filter_map(|link| pod_link(&link)).collect())
}

fn pod_link(link: &LinkMessage) -> Option<PodLink> {
    let mut found = PodLink {
        name: String::new(),
        key: None,
        ifindex: link.header.index,
        mtu: 0,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => found.key = Key::of_alias(alias),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            _ => {}
        }
    }
    let ours = match &found.key {
        Some(key) => key.host_ifname() == found.name,
        None => Key::may_name(&found.name),
    };
    ours.then_some(found)
}

/// Whether pods of ours run here, as far as their interfaces tell; not knowing counts as so.
pub fn pods_run() -> bool {
    let links = Netlink::open().and_then(|mut netlink| pod_links(&mut netlink));
    links.map_or(true, |links| links.iter().any(|l| l.key.is_some()))
}

/// Routes of ours, in the host and in pods.
pub const ROUTE_PROTOCOL: u8 = 82;

const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway that a pod sees for the family of `ip`.
pub fn gateway(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => GATEWAY4.into(),
        IpAddr::V6(_) => GATEWAY6.into(),
    }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct WireError {
    pub what: String,
    pub source: io::Error,
}

impl From<io::Error> for WireError {
    fn from(source: io::Error) -> WireError {
        WireError {
            what: "entering the pod's network namespace".into(),
            source,
        }
    }
}

pub(crate) fn at<T>(what: impl FnOnce() -> String, r: io::Result<T>) -> Result<T, WireError> {
    r.map_err(|source| WireError {
        what: what(),
        source,
    })
}

/// A random locally administered unicast address.
pub fn random_mac() -> io::Result<Mac> {
    let mut mac = [0u8; 6];
    // SAFETY: the buffer is as long as said. Six bytes are never cut short (getrandom(2)).
    let n = unsafe { libc::getrandom(mac.as_mut_ptr().cast(), mac.len(), 0) };
    if n != mac.len() as isize {
        return Err(io::Error::last_os_error());
    }
    mac[0] = mac[0] & 0xfc | 0x02;
    Ok(Mac(mac))
}

/// Makes the pair, the pod's side in the pod's namespace from the start, both down. Returns the
/// host side's index.
pub fn create(host: &mut Netlink, a: &Attachment, pod: &Netns) -> Result<u32, WireError> {
    let side = |name: &str, mac: Mac| {
        let mut m = LinkMessage::default();
        m.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(a.mtu),
            LinkAttribute::Address(mac.0.to_vec()),
        ];
        m
    };
    let mut peer = side(&a.ifname, a.pod_mac);
    peer.attributes
        .push(LinkAttribute::NetNsFd(pod.fd().as_raw_fd()));
    let mut link = side(&a.host_ifname, a.host_mac);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let made = host.change(Message::NewLink(link), CREATE);
    at(
        || {
            format!(
                "making the veth pair {} and {} in {}",
                a.host_ifname,
                a.ifname,
                a.netns.display()
            )
        },
        made,
    )?;
    let what = || format!("looking up {}", a.host_ifname);
    let link = at(what, host.link(&a.host_ifname))?;
    let link = at(
        what,
        link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV)),
    )?;
    Ok(link.header.index)
}

/// Sets an interface's value in the calling thread's namespace, unless it has it: new interfaces
/// inherit most, and some writes spin for as long as anyone holds the rtnl lock (they try it and
/// restart the system call).
fn sysctl(family: &str, ifname: &str, key: &str, value: &str) -> Result<(), WireError> {
    let path = format!("/proc/sys/net/{family}/conf/{ifname}/{key}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim_end() == value) {
        return Ok(());
    }
    match fs::write(&path, value) {
        // A kernel without IPv6; addresses of it will fail by name.
        Err(e)
            if e.kind() == io::ErrorKind::NotFound && !Path::new("/proc/sys/net/ipv6").exists() =>
        {
            Ok(())
        }
        r => at(|| format!("writing {value} to {path}"), r),
    }
}

/// Host side: up, forwarding, one route and neighbour an address.
pub fn set_up_host(host: &mut Netlink, a: &Attachment) -> Result<(), WireError> {
    // The programs look routes up for packets from here, which the kernel answers only where
    // forwarding is on; and replies may take another way than this interface.
    sysctl("ipv4", &a.host_ifname, "forwarding", "1")?;
    sysctl("ipv4", &a.host_ifname, "rp_filter", "0")?;
    sysctl("ipv6", &a.host_ifname, "forwarding", "1")?;
    sysctl("ipv6", &a.host_ifname, "accept_ra", "0")?;
    no_link_local(host, a)?;
    let alias = LinkAttribute::IfAlias(a.key().alias());
    up(host, a.ifindex, &a.host_ifname, vec![alias])?;
    for ip in &a.ips {
        let len = if ip.is_ipv4() { 32 } else { 128 };
        add_neighbour(host, a.ifindex, *ip, a.pod_mac, &a.host_ifname)?;
        let route = route(a.ifindex, *ip, len, None);
        at(
            || format!("adding the route to {ip} by {}", a.host_ifname),
            // Where there is one, some other interface has the address, whatever journal and ENDPOINTS say.
            host.change(Message::NewRoute(route), CREATE),
        )?;
    }
    Ok(())
}

/// The host side gets no link-local address: it is nobody's neighbour but by permanent entry, and
/// it would only chatter.
fn no_link_local(host: &mut Netlink, a: &Attachment) -> Result<(), WireError> {
    let mut m = LinkMessage::default();
    m.header.index = a.ifindex;
    m.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
    )])];
    match host.change(Message::SetLink(m), 0) {
        // A kernel without IPv6.
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        r => at(
            || format!("switching link-local addresses off on {}", a.host_ifname),
            r,
        ),
    }
}

/// Pod side: loopback and interface up, addresses, gateway.
pub fn set_up_pod(pod: &Netns, a: &Attachment) -> Result<(), WireError> {
    pod.run(|| {
        let mut nl = at(
            || "opening netlink in the pod's namespace".into(),
            Netlink::open(),
        )?;
        up(&mut nl, 1, "lo", vec![])?;
        let name = &a.ifname;
        let link = at(|| format!("looking up {name} in the pod"), nl.link(name))?;
        let link = at(
            || format!("looking up {name} in the pod"),
            link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV)),
        )?;
        let index = link.header.index;
        if a.ips.iter().any(IpAddr::is_ipv6) {
            for (key, value) in [
                // Some runtimes switch IPv6 off in new namespaces.
                ("disable_ipv6", "0"),
                ("accept_ra", "0"),
                ("accept_dad", "0"),
                ("router_solicitations", "0"),
            ] {
                sysctl("ipv6", name, key, value)?;
            }
        }
        for ip in &a.ips {
            at(
                || format!("adding the address {ip} to {name} in the pod"),
                nl.change(Message::NewAddress(address(index, *ip)), CREATE),
            )?;
        }
        up(&mut nl, index, name, vec![])?;
        for ip in &a.ips {
            let gateway = gateway(*ip);
            let len = if ip.is_ipv4() { 32 } else { 128 };
            add_neighbour(&mut nl, index, gateway, a.host_mac, name)?;
            for r in [
                route(index, gateway, len, None),
                route(index, unspecified(*ip), 0, Some(gateway)),
            ] {
                at(
                    || format!("adding the route by {gateway} to {name} in the pod"),
                    nl.change(Message::NewRoute(r), CREATE),
                )?;
            }
        }
        Ok(())
    })
}

pub fn cookie_of(pod: &Netns) -> Result<u64, WireError> {
    pod.run(|| {
        at(
            || "reading the namespace's cookie (SO_NETNS_COOKIE, Linux 5.14)".into(),
            netns::cookie(),
        )
    })
}

fn up(nl: &mut Netlink, index: u32, name: &str, more: Vec<LinkAttribute>) -> Result<(), WireError> {
    let mut m = LinkMessage::default();
    m.header.index = index;
    m.header.flags = LinkFlags::Up;
    m.header.change_mask = LinkFlags::Up;
    m.attributes = more;
    at(
        || format!("setting {name} up"),
        nl.change(Message::SetLink(m), 0),
    )
}

fn address(index: u32, ip: IpAddr) -> AddressMessage {
    let mut m = AddressMessage::default();
    m.header.index = index;
    m.header.family = family(ip);
    m.header.scope = AddressScope::Universe;
    m.header.prefix_len = if ip.is_ipv4() { 32 } else { 128 };
    m.attributes = vec![AddressAttribute::Address(ip)];
    match ip {
        IpAddr::V4(_) => m.attributes.push(AddressAttribute::Local(ip)),
        IpAddr::V6(_) => m.header.flags = AddressHeaderFlags::Nodad,
    }
    m
}

fn add_neighbour(
    nl: &mut Netlink,
    index: u32,
    ip: IpAddr,
    mac: Mac,
    name: &str,
) -> Result<(), WireError> {
    let mut m = NeighbourMessage::default();
    m.header.family = family(ip);
    m.header.ifindex = index;
    m.header.state = NeighbourState::Permanent;
    m.header.kind = RouteType::Unicast;
    m.attributes = vec![
        NeighbourAttribute::Destination(ip.into()),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    at(
        || format!("adding the neighbour {ip} to {name}"),
        nl.change(Message::NewNeighbour(m), REPLACE),
    )
}

fn route(index: u32, to: IpAddr, len: u8, via: Option<IpAddr>) -> RouteMessage {
    let mut m = RouteMessage::default();
    m.header = RouteHeader {
        address_family: family(to),
        destination_prefix_length: len,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(ROUTE_PROTOCOL),
        scope: if via.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        },
        kind: RouteType::Unicast,
        flags: if via.is_some() {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    if len > 0 {
        m.attributes.push(RouteAttribute::Destination(to.into()));
    }
    if let Some(via) = via {
        m.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    m.attributes.push(RouteAttribute::Oif(index));
    m
}

/// Deletes the host side, and with it the pair, its routes and neighbours. Absent is fine.
pub fn delete(host: &mut Netlink, host_ifname: &str) -> Result<(), WireError> {
    let mut m = LinkMessage::default();
    m.attributes
        .push(LinkAttribute::IfName(host_ifname.to_owned()));
    match host.change(Message::DelLink(m), 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        r => at(|| format!("deleting {host_ifname}"), r),
    }
}
