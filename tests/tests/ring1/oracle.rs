//! What should happen to a TCP or UDP packet, said as plainly as possible and without any of the
//! product's logic: lists that are searched, connections as records.

use std::net::{IpAddr, SocketAddr};

use rhumb_common::event::Reason;
use rhumb_tests::frames::{ACK, FIN, RST, SYN, TCP, UDP};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    FromPod,
    FromUplink,
    /// Whether the node itself sent it.
    ToPod(bool),
}

#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub hook: Hook,
    pub protocol: u8,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub flags: u8,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Stack,
    Pod,
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Drop(Reason),
    Answer(Reason),
    /// Goes out with these ends.
    Out(Way, SocketAddr, SocketAddr),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub set: u32,
    pub identity: u32,
    pub protocol: Option<u8>,
    /// Inclusive; with a protocol only.
    pub ports: Option<(u16, u16)>,
    pub allow: bool,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub address: IpAddr,
    /// Behind the interface that packets come from.
    pub here: bool,
    pub open: bool,
    /// Ingress, egress.
    pub sets: Option<(u32, u32)>,
    /// `sets` were those of an earlier pod at this address.
    pub earlier: bool,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Counts each time that another takes this place.
    pub version: u32,
}

#[derive(Clone, Debug)]
pub struct Frontend {
    pub address: SocketAddr,
    pub protocol: u8,
    /// Places in [`World::backends`].
    pub backends: Vec<usize>,
}

/// The cluster as it stands.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub pods: Vec<Pod>,
    pub nodes: Vec<IpAddr>,
    /// Not outside, besides the pods.
    pub cluster: Vec<IpAddr>,
    /// In the node's pod range, but nobody's.
    pub nobody: Vec<IpAddr>,
    pub frontends: Vec<Frontend>,
    pub backends: Vec<Endpoint>,
    pub identities: Vec<(IpAddr, u32)>,
    pub rules: Vec<Rule>,
    pub masquerade: bool,
    /// Whether ports of the node may lead to pods.
    pub host_ports: bool,
    pub nat: (u16, u16),
}

impl World {
    fn pod(&self, ip: IpAddr) -> Option<&Pod> {
        self.pods.iter().find(|p| p.address == ip)
    }

    fn side(
        &self,
        pod: IpAddr,
        peer: IpAddr,
        protocol: u8,
        port: u16,
        ingress: bool,
    ) -> Option<Reason> {
        let pod = self.pod(pod)?;
        let Some(sets) = pod.sets.filter(|_| !pod.earlier) else {
            return (!pod.open).then_some(Reason::PolicyPending);
        };
        let set = if ingress { sets.0 } else { sets.1 };
        if set == 0 {
            return None;
        }
        let identity = self.identities.iter().find(|(ip, _)| *ip == peer);
        let identity = identity.map_or(0, |(_, identity)| *identity);
        // The most specific rule decides.
        let decides = self
            .rules
            .iter()
            .filter(|r| r.set == set && r.identity == identity)
            .filter(|r| r.protocol.is_none_or(|p| p == protocol))
            .filter(|r| r.ports.is_none_or(|(a, b)| (a..=b).contains(&port)))
            .max_by_key(|r| match (r.protocol, r.ports) {
                (None, _) => -2,
                (Some(_), None) => -1,
                (Some(_), Some((a, b))) => 0x1_0000 - i32::from(b - a),
            });
        match decides {
            Some(rule) if rule.allow => None,
            _ if ingress => Some(Reason::PolicyIngress),
            _ => Some(Reason::PolicyEgress),
        }
    }

    fn frontend(&self, p: &Packet) -> Option<&Frontend> {
        let mut all = self.frontends.iter();
        all.find(|f| f.protocol == p.protocol && f.address == p.dst)
    }

    /// Any backend will do; without a packet to look at, all must come to the same.
    fn place(&self, f: &Frontend, chosen: Option<(SocketAddr, SocketAddr)>) -> Option<usize> {
        let legal =
            |place: &&usize| chosen.is_some_and(|(_, dst)| dst == self.backends[**place].address);
        let place = f.backends.iter().find(legal).or(f.backends.first());
        place.copied()
    }

    fn denied(&self, from: IpAddr, to: SocketAddr, protocol: u8) -> Option<Reason> {
        self.side(from, to.ip(), protocol, to.port(), false)
            .or_else(|| self.side(to.ip(), from, protocol, to.port(), true))
    }
}

/// Answered at once; a reset never is.
fn refused(p: &Packet, reason: Reason) -> Expect {
    if p.protocol == UDP || p.flags & RST == 0 {
        Expect::Answer(reason)
    } else {
        Expect::Drop(reason)
    }
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub protocol: u8,
    pub client: SocketAddr,
    /// What the client asked for.
    pub asked: SocketAddr,
    /// The client as the server sees it.
    pub shown: SocketAddr,
    pub server: SocketAddr,
    opened_at: Hook,
    to_node: bool,
    exempt: bool,
    replied: bool,
    /// Of the client, of the server.
    fin: [bool; 2],
    rst: bool,
    backend: Option<(usize, u32)>,
}

impl Connection {
    /// The ends of packets as they arrive: from the client, from the server.
    fn arrivals(&self) -> [(u8, SocketAddr, SocketAddr); 2] {
        [
            (self.protocol, self.client, self.asked),
            (self.protocol, self.server, self.shown),
        ]
    }
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub connections: Vec<Connection>,
}

impl Oracle {
    /// What must come of `p`. Where chance decides, `chosen` (the ends that the packet came out
    /// with) is taken if it is a legal choice.
    pub fn step(
        &mut self,
        w: &World,
        p: &Packet,
        chosen: Option<(SocketAddr, SocketAddr)>,
    ) -> Expect {
        let same = Expect::Out(Way::Stack, p.src, p.dst);
        let from_pod = w.pod(p.src.ip());
        let to_pod = w.pod(p.dst.ip());
        match p.hook {
            Hook::FromPod if !from_pod.is_some_and(|pod| pod.here) => {
                return Expect::Drop(Reason::SpoofedSource);
            }
            Hook::FromUplink => {
                if from_pod.is_some() {
                    return Expect::Drop(Reason::SpoofedLocalPod);
                }
                let ours =
                    w.nodes.contains(&p.dst.ip()) && (w.nat.0..=w.nat.1).contains(&p.dst.port());
                if to_pod.is_none() && !ours && !w.host_ports {
                    return same;
                }
            }
            _ => {}
        }
        if let Some(known) = self.known(w, p) {
            return known;
        }
        match p.hook {
            Hook::FromPod => self.open_from_pod(w, p, chosen),
            Hook::FromUplink if to_pod.is_none() => match w.frontend(p) {
                Some(f) if w.host_ports => self.open_host_port(w, p, f, chosen),
                _ => same,
            },
            Hook::FromUplink => match w.denied(p.src.ip(), p.dst, p.protocol) {
                Some(reason) => Expect::Drop(reason),
                None => self.open(w, p, p.src, p.dst, None, false, Way::Pod, chosen),
            },
            Hook::ToPod(true) => self.open(w, p, p.src, p.dst, None, true, Way::Stack, chosen),
            Hook::ToPod(false) if !to_pod.is_some_and(|pod| pod.here) => {
                Expect::Drop(Reason::NoEndpoint)
            }
            Hook::ToPod(false) => match w.denied(p.src.ip(), p.dst, p.protocol) {
                Some(reason) => Expect::Drop(reason),
                None => self.open(w, p, p.src, p.dst, None, false, Way::Stack, chosen),
            },
        }
    }

    /// A packet of a connection that is open.
    fn known(&mut self, w: &World, p: &Packet) -> Option<Expect> {
        let arrival = (p.protocol, p.src, p.dst);
        let at = self
            .connections
            .iter()
            .position(|c| c.arrivals().contains(&arrival))?;
        let c = &mut self.connections[at];
        let by_client = c.arrivals()[0] == arrival;
        let opening = p.protocol == TCP && p.flags & (SYN | ACK | RST) == SYN;
        let closed = c.rst || c.fin[usize::from(!by_client)];
        let gone = match c.backend {
            Some((place, version)) => w.backends[place].version != version,
            None => false,
        };
        let settled = p.protocol == TCP && (c.replied || p.flags & (SYN | ACK) != SYN);
        if opening && closed || by_client && gone && !settled {
            self.connections.remove(at);
            return None;
        }
        let judged = !c.exempt && p.hook != Hook::ToPod(true);
        if judged && let Some(reason) = w.denied(c.client.ip(), c.server, c.protocol) {
            return Some(Expect::Drop(reason));
        }
        c.replied |= !by_client;
        if p.protocol == TCP {
            c.rst = p.flags & RST != 0;
            c.fin[usize::from(!by_client)] |= p.flags & FIN != 0;
        }
        let (src, dst) = if by_client {
            (c.shown, c.server)
        } else {
            (c.asked, c.client)
        };
        let through_stack = if by_client {
            c.to_node
        } else {
            matches!(c.opened_at, Hook::ToPod(_))
        };
        let way = match p.hook {
            Hook::ToPod(_) => Way::Stack,
            Hook::FromPod if through_stack => Way::Stack,
            // The stack has brought a packet with these ends before: by the host's routes.
            Hook::FromPod if by_client && matches!(c.opened_at, Hook::ToPod(_)) => Way::Route,
            Hook::FromPod if w.pod(dst.ip()).is_some() => Way::Pod,
            Hook::FromPod => Way::Route,
            // What the stack has opened stays with the stack, untouched.
            Hook::FromUplink if matches!(c.opened_at, Hook::ToPod(_)) => {
                return Some(Expect::Out(Way::Stack, p.src, p.dst));
            }
            Hook::FromUplink => Way::Pod,
        };
        Some(Expect::Out(way, src, dst))
    }

    fn open_from_pod(
        &mut self,
        w: &World,
        p: &Packet,
        chosen: Option<(SocketAddr, SocketAddr)>,
    ) -> Expect {
        let mut server = p.dst;
        let mut backend = None;
        let frontend = w.frontend(p);
        if let Some(f) = frontend {
            let Some(place) = w.place(f, chosen) else {
                return refused(p, Reason::NoBackend);
            };
            server = w.backends[place].address;
            backend = Some((place, w.backends[place].version));
        }
        let mut client = p.src;
        if server.ip() == p.src.ip() {
            if frontend.is_some() {
                client.set_ip(p.dst.ip());
            }
            return self.open(w, p, client, server, backend, true, Way::Pod, chosen);
        }
        if w.nodes.contains(&server.ip()) {
            return self.open(w, p, client, server, backend, true, Way::Stack, chosen);
        }
        if w.nobody.contains(&server.ip()) {
            return refused(p, Reason::NoEndpoint);
        }
        if w.frontends.iter().any(|f| f.address.ip() == server.ip()) {
            return refused(p, Reason::NoServicePort);
        }
        if let Some(reason) = w.denied(p.src.ip(), server, p.protocol) {
            return Expect::Drop(reason);
        }
        let local = w.pod(server.ip()).is_some();
        if !local && !w.cluster.contains(&server.ip()) && w.masquerade {
            let v4 = server.is_ipv4();
            let node = w.nodes.iter().find(|n| n.is_ipv4() == v4);
            client.set_ip(*node.expect("a node of each family"));
        }
        let way = if local { Way::Pod } else { Way::Route };
        self.open(w, p, client, server, backend, false, way, chosen)
    }

    /// From outside to a port of the node.
    fn open_host_port(
        &mut self,
        w: &World,
        p: &Packet,
        f: &Frontend,
        chosen: Option<(SocketAddr, SocketAddr)>,
    ) -> Expect {
        let Some(place) = w.place(f, chosen) else {
            return Expect::Drop(Reason::NoBackend);
        };
        let server = w.backends[place].address;
        if w.pod(server.ip()).is_none() {
            return Expect::Drop(Reason::NoEndpoint);
        }
        if let Some(reason) = w.denied(p.src.ip(), server, p.protocol) {
            return Expect::Drop(reason);
        }
        let backend = Some((place, w.backends[place].version));
        self.open(w, p, p.src, server, backend, false, Way::Pod, chosen)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a fact about the connection"
    )]
    fn open(
        &mut self,
        w: &World,
        p: &Packet,
        mut shown: SocketAddr,
        server: SocketAddr,
        backend: Option<(usize, u32)>,
        exempt: bool,
        way: Way,
        chosen: Option<(SocketAddr, SocketAddr)>,
    ) -> Expect {
        let range = w.nat.0..=w.nat.1;
        // A pod that reaches itself by a port of its node sees the node's address, and no other port for that.
        let to_itself = server.ip() == p.src.ip();
        let masqueraded = !to_itself && shown.ip() != p.src.ip() && w.nodes.contains(&shown.ip());
        let taken = |shown: SocketAddr| {
            let reply = (p.protocol, server, shown);
            self.connections
                .iter()
                .any(|c| c.arrivals().contains(&reply))
        };
        if taken(shown) || masqueraded && !range.contains(&shown.port()) {
            // Some free port of the range.
            let port = chosen.map_or(0, |(src, _)| src.port());
            shown.set_port(port);
            if !range.contains(&port) || taken(shown) {
                // No legal choice was made: let the comparison fail.
                shown.set_port(0);
            }
        }
        self.connections.push(Connection {
            protocol: p.protocol,
            client: p.src,
            asked: p.dst,
            shown,
            server,
            opened_at: p.hook,
            to_node: way == Way::Stack && p.hook == Hook::FromPod,
            exempt,
            replied: false,
            fin: [false; 2],
            rst: false,
            backend,
        });
        Expect::Out(way, shown, server)
    }
}
