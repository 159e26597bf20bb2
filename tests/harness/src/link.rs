//! Links, addresses, routes and neighbours of namespaces, by netlink.

use crate::netns::Netns;
use anyhow::{Context, anyhow};
use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Link-layer address.
    pub mac: Vec<u8>,
    /// Alias, if one was set.
    pub alias: Option<String>,
    /// MTU.
    pub mtu: u32,
}

/// Runs a conversation with the namespace's netlink.
pub fn netlink<T, F>(netns: &Netns, talk: impl FnOnce(Handle) -> F + Send) -> anyhow::Result<T>
where
    T: Send,
    F: Future<Output = anyhow::Result<T>>,
{
    netns.block_on(|| async {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("opening a netlink socket")?;
        let serving = tokio::spawn(connection);
        let result = talk(handle).await;
        serving.abort();
        result
    })?
}

/// The index of a link.
pub async fn index_of(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link = found
        .try_next()
        .await
        .with_context(|| format!("looking up link {name}"))?
        .ok_or_else(|| anyhow!("no link {name}"))?;
    Ok(link.header.index)
}

/// Makes a veth pair with one end in each namespace, both up.
pub fn veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> anyhow::Result<()> {
    let b_file = b.file()?;
    netlink(a, |handle| async move {
        // The peer gets its real name when it moves: here the name may be taken.
        let passing = format!("p{:x}", std::process::id() ^ b_file.as_raw_fd() as u32);
        handle
            .link()
            .add(LinkVeth::new(a_name, &passing).build())
            .execute()
            .await
            .with_context(|| format!("making veth {a_name}"))?;
        let peer = index_of(&handle, &passing).await?;
        handle
            .link()
            .set(
                LinkUnspec::new_with_index(peer)
                    .setns_by_fd(b_file.as_raw_fd())
                    .name(b_name)
                    .build(),
            )
            .execute()
            .await
            .with_context(|| format!("moving {b_name} into {}", b.name()))
    })?;
    up(a, a_name)?;
    up(b, b_name)
}

/// Makes a bridge, up.
pub fn bridge(netns: &Netns, name: &str) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        handle
            .link()
            .add(LinkBridge::new(name).up().build())
            .execute()
            .await
            .with_context(|| format!("making bridge {name}"))
    })
}

/// Makes a link a port of a bridge.
pub fn attach(netns: &Netns, name: &str, bridge: &str) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        let port = index_of(&handle, name).await?;
        let bridge_index = index_of(&handle, bridge).await?;
        handle
            .link()
            .set(
                LinkUnspec::new_with_index(port)
                    .controller(bridge_index)
                    .build(),
            )
            .execute()
            .await
            .with_context(|| format!("attaching {name} to {bridge}"))
    })
}

/// Sets a link up.
pub fn up(netns: &Netns, name: &str) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        let index = index_of(&handle, name).await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
            .with_context(|| format!("setting {name} up"))
    })
}

/// Deletes a link; that it does not exist is success.
pub fn delete(netns: &Netns, name: &str) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        let Ok(index) = index_of(&handle, name).await else {
            return Ok(());
        };
        handle
            .link()
            .del(index)
            .execute()
            .await
            .with_context(|| format!("deleting {name}"))
    })
}

/// The links of a namespace.
pub fn list(netns: &Netns) -> anyhow::Result<Vec<Link>> {
    netlink(netns, |handle| async move {
        let messages: Vec<LinkMessage> = handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing links")?;
        Ok(messages.into_iter().map(read).collect())
    })
}

/// One link of a namespace.
pub fn get(netns: &Netns, name: &str) -> anyhow::Result<Link> {
    list(netns)?
        .into_iter()
        .find(|link| link.name == name)
        .ok_or_else(|| anyhow!("no link {name} in {}", netns.name()))
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        alias: None,
        mtu: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    link
}

/// Adds an address, usable at once (no duplicate address detection).
pub fn address(netns: &Netns, link: &str, address: IpAddr, prefix: u8) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        let index = index_of(&handle, link).await?;
        let mut request = handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .with_context(|| format!("adding {address}/{prefix} to {link}"))
    })
}

/// The addresses of a link, link-local ones among them.
pub fn addresses(netns: &Netns, link: &str) -> anyhow::Result<Vec<(IpAddr, u8)>> {
    netlink(netns, |handle| async move {
        let index = index_of(&handle, link).await?;
        let messages: Vec<_> = handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .with_context(|| format!("listing the addresses of {link}"))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| {
                let prefix = message.header.prefix_len;
                message.attributes.into_iter().find_map(|a| match a {
                    AddressAttribute::Address(address) => Some((address, prefix)),
                    _ => None,
                })
            })
            .collect())
    })
}

/// Adds a route to `destination/prefix` by a gateway, or on-link without one.
pub fn route(
    netns: &Netns,
    (destination, prefix): (IpAddr, u8),
    gateway: Option<IpAddr>,
    link: &str,
) -> anyhow::Result<()> {
    let what = format!(
        "adding a route to {destination}/{prefix} in {}",
        netns.name()
    );
    netlink(netns, |handle| async move {
        let index = index_of(&handle, link).await?;
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .output_interface(index)
            .destination_prefix(destination, prefix)
            .with_context(|| what.clone())?;
        builder = match gateway {
            Some(gateway) => builder.gateway(gateway).with_context(|| what.clone())?,
            // As `ip route` does: only such a route may lead to a gateway.
            None => builder.scope(RouteScope::Link),
        };
        let request = handle.route().add(builder.build()).replace();
        request.execute().await.context(what)
    })
}

/// The routes of one address family in the main table.
pub fn routes(netns: &Netns, v6: bool) -> anyhow::Result<Vec<RouteMessage>> {
    netlink(netns, |handle| async move {
        let filter = if v6 {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build()
        };
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .context("listing routes")?;
        Ok(routes
            .into_iter()
            .filter(|route| route.header.table == 254)
            .collect())
    })
}

/// Adds a permanent neighbour.
pub fn neighbour(netns: &Netns, link: &str, address: IpAddr, mac: &[u8]) -> anyhow::Result<()> {
    netlink(netns, |handle| async move {
        let index = index_of(&handle, link).await?;
        handle
            .neighbours()
            .add(index, address)
            .link_layer_address(mac)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .with_context(|| format!("adding neighbour {address} on {link}"))
    })
}
