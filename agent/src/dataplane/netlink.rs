//! Interfaces, addresses and routes of the host's stack, by rtnetlink.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use rhumb_core::{
    Synced,
    routes::{Hop, HostRoute},
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// Route protocol number of everything that is Rhumb's (ARCHITECTURE.md, "Kernel objects").
pub const PROTOCOL: u8 = 82;

/// Metric of the routes that lead nowhere: the last in their prefix, a pod CIDR of one address
/// included.
const LAST: u32 = 4_278_198_272;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
    #[error("cannot list {what}")]
    List {
        what: &'static str,
        source: rtnetlink::Error,
    },
    #[error("cannot set the route to {cidr} via {via}: is the other node on this node's link?")]
    Add {
        cidr: IpNetwork,
        via: IpAddr,
        source: rtnetlink::Error,
    },
    #[error("cannot set the unreachable route to this node's pod CIDR {cidr}")]
    AddUnreachable {
        cidr: IpNetwork,
        source: rtnetlink::Error,
    },
    #[error("cannot remove the route to {cidr}")]
    Remove {
        cidr: IpNetwork,
        source: rtnetlink::Error,
    },
    #[error(
        "no uplink found: there is no default route and no interface has the node's address; name it with --uplink"
    )]
    NoUplink,
    #[error("no network interface {0}: name the node's uplink with --uplink")]
    NoInterface(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
}

#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the caller's network namespace; needs a tokio runtime.
    pub fn open() -> Result<Netlink, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let list = |source| Error::List {
            what: "interfaces",
            source,
        };
        let mut out = Vec::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(list)? {
            let mut interface = Interface {
                index: link.header.index,
                name: String::new(),
                mtu: 0,
            };
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => interface.name = name,
                    LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                    _ => {}
                }
            }
            out.push(interface);
        }
        Ok(out)
    }

    /// Interface index and address of every address but the loopback's own and link-local ones.
    pub async fn addresses(&self) -> Result<BTreeSet<(u32, IpAddr)>, Error> {
        let list = |source| Error::List {
            what: "addresses",
            source,
        };
        let mut out = BTreeSet::new();
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(list)? {
            // IFA_LOCAL is ours on point-to-point links, where IFA_ADDRESS is the peer's.
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(a) => address = Some(*a),
                    AddressAttribute::Address(a) => address = address.or(Some(*a)),
                    _ => {}
                }
            }
            if let Some(a) = address
                && !a.is_loopback()
                && !is_link_local(a)
            {
                out.insert((message.header.index, a));
            }
        }
        Ok(out)
    }

    async fn routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let list = |source| Error::List {
            what: "routes",
            source,
        };
        let mut out = Vec::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle.route().get(query).execute();
            while let Some(route) = routes.try_next().await.map_err(list)? {
                out.push(route);
            }
        }
        Ok(out)
    }

    /// The named interface; or that of the default route, or that of one of `node` (the Node's
    /// addresses).
    pub async fn uplink(&self, name: Option<&str>, node: &[IpAddr]) -> Result<Interface, Error> {
        let interfaces = self.interfaces().await?;
        let by_index = |index: u32| interfaces.iter().find(|i| i.index == index).cloned();
        if let Some(name) = name {
            return interfaces
                .iter()
                .find(|i| i.name == name)
                .cloned()
                .ok_or_else(|| Error::NoInterface(name.to_owned()));
        }
        for (index, address) in self.addresses().await? {
            if node.contains(&address)
                && let Some(found) = by_index(index)
            {
                return Ok(found);
            }
        }
        for route in self.routes().await? {
            if route.header.destination_prefix_length == 0
                && is_main_table(&route)
                && let Some(found) = oif(&route).and_then(by_index)
            {
                return Ok(found);
            }
        }
        Err(Error::NoUplink)
    }

    /// Routes of ours to pod CIDRs (and not those to a single pod, which are the plugin's).
    async fn host_routes(&self) -> Result<Vec<(HostRoute, RouteMessage)>, Error> {
        Ok(self
            .routes()
            .await?
            .into_iter()
            .filter_map(|r| Some((ours(&r)?, r)))
            .collect())
    }

    /// Makes the host's routes to pods what `desired` says; goes on after an error and returns them
    /// all.
    pub async fn sync_routes(&self, desired: &BTreeSet<HostRoute>, _proof: &Synced) -> Vec<Error> {
        let actual = match self.host_routes().await {
            Ok(actual) => actual,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        for route in desired {
            if actual.iter().any(|(a, _)| a == route) {
                continue;
            }
            let Some(message) = message(route) else {
                // `host_routes` of the core pairs equal families only.
                continue;
            };
            if let Err(source) = self.handle.route().add(message).replace().execute().await {
                let cidr = route.cidr;
                errors.push(match route.to {
                    Hop::Via(via) => Error::Add { cidr, via, source },
                    Hop::Unreachable => Error::AddUnreachable { cidr, source },
                });
            }
        }
        for (route, message) in actual {
            // A replaced IPv4 route is gone already; an IPv6 one stands beside the new one, as do
            // routes of another metric.
            let via = |r: &HostRoute| matches!(r.to, Hop::Via(_));
            let replaces = |d: &HostRoute| d.cidr == route.cidr && via(d) && via(&route);
            let replaced = route.cidr.is_ipv4() && desired.iter().any(replaces);
            if desired.contains(&route) || replaced {
                continue;
            }
            self.remove(route.cidr, message, &mut errors).await;
        }
        errors
    }

    async fn remove(&self, cidr: IpNetwork, message: RouteMessage, errors: &mut Vec<Error>) {
        match self.handle.route().del(message).execute().await {
            Ok(()) => {}
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => {}
            Err(source) => errors.push(Error::Remove { cidr, source }),
        }
    }

    /// For uninstall: every route of ours, the pods' among them.
    pub async fn remove_all_routes(&self) -> Result<Vec<Error>, Error> {
        let mut errors = Vec::new();
        for message in self.routes().await? {
            if message.header.protocol == RouteProtocol::from(PROTOCOL)
                && let Some(cidr) = destination(&message)
            {
                self.remove(cidr, message, &mut errors).await;
            }
        }
        Ok(errors)
    }

    /// For uninstall: host-side veths of ours, by their alias. Pods lose their network with them.
    pub async fn remove_veths(&self) -> Result<usize, Error> {
        let list = |source| Error::List {
            what: "interfaces",
            source,
        };
        let mut found = Vec::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(list)? {
            let ours = link
                .attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::IfAlias(alias) if alias.starts_with("rhumb:")));
            if ours {
                found.push(link.header.index);
            }
        }
        for index in &found {
            // One that goes away meanwhile is gone as well.
            let _ = self.handle.link().del(*index).execute().await;
        }
        Ok(found.len())
    }
}

fn is_link_local(a: IpAddr) -> bool {
    match a {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

fn is_main_table(r: &RouteMessage) -> bool {
    r.header.table == RouteHeader::RT_TABLE_MAIN
}

fn oif(r: &RouteMessage) -> Option<u32> {
    r.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn address(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn destination(r: &RouteMessage) -> Option<IpNetwork> {
    let unspecified: IpAddr = match r.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let network = r
        .attributes
        .iter()
        .find_map(|a| match a {
            RouteAttribute::Destination(d) => address(d),
            _ => None,
        })
        .unwrap_or(unspecified);
    IpNetwork::new(network, r.header.destination_prefix_length).ok()
}

fn message(route: &HostRoute) -> Option<RouteMessage> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.cidr.network(), route.cidr.prefix())
        .ok()?
        .protocol(RouteProtocol::from(PROTOCOL));
    Some(match route.to {
        Hop::Via(via) => builder.gateway(via).ok()?.build(),
        Hop::Unreachable => builder.kind(RouteType::Unreachable).priority(LAST).build(),
    })
}

fn ours(r: &RouteMessage) -> Option<HostRoute> {
    if r.header.protocol != RouteProtocol::from(PROTOCOL) {
        return None;
    }
    let gateway = || {
        r.attributes.iter().find_map(|a| match a {
            RouteAttribute::Gateway(g) => address(g),
            _ => None,
        })
    };
    let to = match r.header.kind {
        RouteType::Unreachable => Hop::Unreachable,
        _ => Hop::Via(gateway()?),
    };
    Some(HostRoute {
        cidr: destination(r)?,
        to,
    })
}
