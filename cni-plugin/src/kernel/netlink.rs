//! Blocking route netlink: one request, its answers. The plugin is executed for each pod, and a
//! runtime would cost more than what it does.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::NeighbourMessage,
    route::RouteMessage,
    tc::TcMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
pub const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket of the calling thread's network namespace; it stays there.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Dumps filtered by the kernel, instead of every route of the node.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Sends one request and collects the answers up to its end or acknowledgement.
    pub fn request(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut buf = vec![0; request.buffer_len()];
        request.serialize(&mut buf);
        self.socket.send(&buf, 0)?;

        let mut answers = Vec::new();
        loop {
            let (data, _) = self.socket.recv_from_full()?;
            let mut rest = &data[..];
            while !rest.is_empty() {
                let answer =
                    NetlinkMessage::<Message>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are padded to four bytes.
                let step = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(step.max(16)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(e) => {
                        return match e.code {
                            None => Ok(answers),
                            Some(_) => Err(e.to_io()),
                        };
                    }
                    NetlinkPayload::InnerMessage(m) => {
                        answers.push(m);
                        // A plain get without acknowledgement is answered by one message.
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// A request that changes something.
    pub fn change(&mut self, message: Message, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags).map(drop)
    }

    pub fn link(&mut self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut get = LinkMessage::default();
        get.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(Message::GetLink(get), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(|m| match m {
                Message::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let get = Message::GetLink(LinkMessage::default());
        let answers = self.request(get, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                Message::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// Filters with the header's interface, parent, priority and protocol.
    pub fn filters(&mut self, get: TcMessage) -> io::Result<Vec<TcMessage>> {
        let answers = self.request(Message::GetTrafficFilter(get), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                Message::NewTrafficFilter(filter) => Some(filter),
                _ => None,
            })
            .collect())
    }

    pub fn addresses(&mut self, ifindex: u32) -> io::Result<Vec<AddressMessage>> {
        let mut get = AddressMessage::default();
        get.header.index = ifindex;
        let answers = self.request(Message::GetAddress(get), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                Message::NewAddress(a) if a.header.index == ifindex => Some(a),
                _ => None,
            })
            .collect())
    }

    /// Routes out of an interface.
    pub fn routes(&mut self, family: AddressFamily, ifindex: u32) -> io::Result<Vec<RouteMessage>> {
        let mut get = RouteMessage::default();
        get.header.address_family = family;
        let oif = netlink_packet_route::route::RouteAttribute::Oif(ifindex);
        get.attributes.push(oif);
        let answers = self.request(Message::GetRoute(get), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                Message::NewRoute(r) => Some(r),
                _ => None,
            })
            .collect())
    }

    pub fn neighbours(
        &mut self,
        family: AddressFamily,
        ifindex: u32,
    ) -> io::Result<Vec<NeighbourMessage>> {
        let mut get = NeighbourMessage::default();
        get.header.family = family;
        let index = netlink_packet_route::neighbour::NeighbourAttribute::IfIndex(ifindex);
        get.attributes.push(index);
        let answers = self.request(Message::GetNeighbour(get), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                Message::NewNeighbour(n) if n.header.ifindex == ifindex => Some(n),
                _ => None,
            })
            .collect())
    }
}
