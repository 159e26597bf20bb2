//! A node between two pods and the world, with our programs on its veths: real sockets.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TcAttachType, tc::TcAttachOptions};
use rhumb_common::addr::{Ip, prefix_len};
use rhumb_common::logic::host::HostTables;
use rhumb_common::maps::{
    Backend, Config, Endpoint, Route, Service, ServiceKey, SlotKey, config_flag, endpoint_flag,
    name, route_class,
};
use rhumb_harness::{Netns, Run, link};

use rhumb_tests::kernel::Programs;

pub const POD_A: [&str; 2] = ["10.201.1.10", "fd00:201:1::a"];
pub const POD_B: [&str; 2] = ["10.201.1.11", "fd00:201:1::b"];
/// A pod of another node, behind the far side.
pub const POD_C: [&str; 2] = ["10.201.2.10", "fd00:201:2::a"];
pub const NODE: [&str; 2] = ["172.31.201.1", "fd00:31::1"];
pub const FAR: [&str; 2] = ["172.31.201.2", "fd00:31::2"];
/// Beyond the far side, outside of the cluster.
pub const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
pub const VIP: [&str; 2] = ["10.96.201.1", "fd00:96::c9:1"];
pub const PORT: u16 = 8080;
const DEADLINE: Duration = Duration::from_secs(5);

pub fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

pub fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().expect("an address"), port)
}

/// The whole prefix of an address' family.
pub fn whole(ip: &Ip) -> u32 {
    prefix_len(ip.is_v4(), if ip.is_v4() { 32 } else { 128 })
}

pub struct Wire {
    pub programs: Programs,
    pub tables: HostTables,
    pub node: Netns,
    pub a: Netns,
    pub b: Netns,
    pub far: Netns,
    pub run: Run,
}

fn mac(bytes: &[u8]) -> u64 {
    let mut out = [0; 8];
    out[..6].copy_from_slice(bytes);
    u64::from_ne_bytes(out)
}

impl Wire {
    pub fn new() -> Result<Wire> {
        let run = Run::new("ebpf-r1")?;
        let node = run.netns("node")?;
        let (a, b, far) = (run.netns("a")?, run.netns("b")?, run.netns("far")?);
        for netns in [&node, &a, &b, &far] {
            netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
            netns.sysctl("net/ipv4/ip_forward", "1")?;
            netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        let mut wire = Wire {
            programs: Programs::load(),
            tables: HostTables::default(),
            node,
            a,
            b,
            far,
            run,
        };
        wire.uplink()?;
        wire.pod("va", POD_A)?;
        wire.pod("vb", POD_B)?;
        wire.config()?;
        wire.attach_all()?;
        Ok(wire)
    }

    fn attach_all(&mut self) -> Result<()> {
        self.programs.write(&self.tables);
        self.attach("up", name::FROM_UPLINK, TcAttachType::Ingress)?;
        for host in ["va", "vb"] {
            self.attach(host, name::FROM_POD, TcAttachType::Ingress)?;
            self.attach(host, name::TO_POD, TcAttachType::Egress)?;
        }
        Ok(())
    }

    /// The programs once more, with new maps that hold what the tables hold now.
    pub fn start_anew(&mut self) -> Result<()> {
        self.programs = Programs::load();
        self.attach_all()
    }

    fn uplink(&mut self) -> Result<()> {
        link::veth(&self.node, "up", &self.far, "eth0")?;
        for (netns, name, addresses) in [(&self.node, "up", NODE), (&self.far, "eth0", FAR)] {
            link::up(netns, name)?;
            link::address(netns, name, addresses[0].parse()?, 24)?;
            link::address(netns, name, addresses[1].parse()?, 64)?;
        }
        for i in 0..2 {
            for addresses in [POD_C, OUTSIDE] {
                let (address, whole) = (addresses[i].parse()?, [32, 128][i]);
                link::address(&self.far, "lo", address, whole)?;
                link::route(&self.node, (address, whole), Some(FAR[i].parse()?), "up")?;
            }
            let pods = [("10.201.1.0", 24), ("fd00:201:1::", 64)][i];
            let to = (pods.0.parse()?, pods.1);
            link::route(&self.far, to, Some(NODE[i].parse()?), "eth0")?;
        }
        Ok(())
    }

    fn pod(&mut self, host: &str, addresses: [&str; 2]) -> Result<()> {
        let netns = if host == "va" { &self.a } else { &self.b };
        link::veth(&self.node, host, netns, "eth0")?;
        link::up(&self.node, host)?;
        link::up(netns, "eth0")?;
        let outer = link::get(&self.node, host)?;
        let inner = link::get(netns, "eth0")?;
        for (i, gateway) in ["169.254.1.1", "fe80::1"].into_iter().enumerate() {
            let (address, gateway): (IpAddr, IpAddr) = (addresses[i].parse()?, gateway.parse()?);
            let whole = [32, 128][i];
            link::address(netns, "eth0", address, whole)?;
            link::route(netns, (gateway, whole), None, "eth0")?;
            link::neighbour(netns, "eth0", gateway, &outer.mac)?;
            let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])][i];
            link::route(netns, (all, 0), Some(gateway), "eth0")?;
            link::route(&self.node, (address, whole), None, host)?;
            link::neighbour(&self.node, host, address, &inner.mac)?;
            self.tables.endpoints.insert(
                address.into(),
                Endpoint {
                    ifindex: outer.index,
                    flags: endpoint_flag::OPEN,
                    pod_mac: mac(&inner.mac),
                    host_mac: mac(&outer.mac),
                    ..Endpoint::default()
                },
            );
        }
        Ok(())
    }

    fn config(&mut self) -> Result<()> {
        self.tables.config = Config {
            abi: rhumb_common::ABI_VERSION,
            flags: config_flag::MASQUERADE_V4 | config_flag::MASQUERADE_V6,
            uplink_ifindex: link::get(&self.node, "up")?.index,
            mtu: 1500,
            node_ip4: ip(NODE[0]),
            node_ip6: ip(NODE[1]),
            nat_port_min: 50_000,
            nat_port_max: 59_999,
            policy_epoch: 1,
            host_netns: 0,
        };
        for (cidr, len, class) in [
            ("10.201.0.0", 16, route_class::CLUSTER),
            ("fd00:201::", 32, route_class::CLUSTER),
            ("10.201.1.0", 24, route_class::LOCAL_PODS),
            ("fd00:201:1::", 64, route_class::LOCAL_PODS),
            ("172.31.201.0", 24, route_class::CLUSTER),
            ("fd00:31::", 64, route_class::CLUSTER),
            (NODE[0], 32, route_class::THIS_NODE),
            (NODE[1], 128, route_class::THIS_NODE),
        ] {
            let to = ip(cidr);
            let route = Route { class, _pad: 0 };
            let length = prefix_len(to.is_v4(), len);
            self.tables.routes.insert(length, &to.octets(), route);
        }
        Ok(())
    }

    fn attach(&mut self, interface: &str, program: &str, side: TcAttachType) -> Result<()> {
        let program = self.programs.classifier(program);
        self.node
            .run(|| {
                let options = TcAttachOptions::TcxOrder(aya::programs::LinkOrder::default());
                program.attach_with_options(interface, side, options)
            })?
            .with_context(|| format!("attach to {interface}"))?;
        Ok(())
    }

    /// A Service with these backends, for TCP and UDP, at once in the kernel.
    pub fn service(&mut self, vip: &str, port: u16, backends: &[(&str, u16)]) {
        for protocol in [6u8, 17] {
            let id = self.tables.services.len() as u32 + 1;
            for (slot, (address, backend_port)) in backends.iter().enumerate() {
                let backend = self.tables.backends.len() as u32 + 1;
                self.tables.backends.insert(
                    backend,
                    Backend {
                        addr: ip(address),
                        port_be: backend_port.to_be(),
                        protocol,
                        flags: 0,
                        generation: 1,
                    },
                );
                let key = SlotKey {
                    service: id,
                    slot: slot as u32,
                };
                self.tables.slots.insert(key, backend);
            }
            self.tables.services.insert(
                ServiceKey {
                    vip: ip(vip),
                    port_be: port.to_be(),
                    protocol,
                    scope: 0,
                    _pad: 0,
                },
                Service {
                    id,
                    count: backends.len() as u32,
                    flags: 0,
                    affinity: 0,
                },
            );
        }
        self.programs.write(&self.tables);
    }
}

pub fn listen(netns: &Netns, address: SocketAddr) -> Result<TcpListener> {
    netns
        .run(|| TcpListener::bind(address))?
        .with_context(|| format!("listen on {address}"))
}

pub fn bind(netns: &Netns, address: SocketAddr) -> Result<UdpSocket> {
    let socket = netns
        .run(|| UdpSocket::bind(address))?
        .with_context(|| format!("bind {address}"))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

pub fn connect(netns: &Netns, to: SocketAddr) -> std::io::Result<TcpStream> {
    connect_within(netns, to, DEADLINE)
}

pub fn connect_within(
    netns: &Netns,
    to: SocketAddr,
    within: Duration,
) -> std::io::Result<TcpStream> {
    let stream = netns
        .run(|| TcpStream::connect_timeout(&to, within))
        .map_err(std::io::Error::other)??;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Connects, sends a block larger than any segment there and back, and gives the client as the
/// server sees it.
pub fn tcp(netns: &Netns, to: SocketAddr, server: &TcpListener) -> Result<SocketAddr> {
    let mut client = connect(netns, to).with_context(|| format!("connect to {to}"))?;
    let (mut served, peer) = server.accept()?;
    served.set_read_timeout(Some(DEADLINE))?;
    let block: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    exchange(&mut client, &mut served, &block)?;
    exchange(&mut served, &mut client, &block)?;
    Ok(peer)
}

fn exchange(from: &mut TcpStream, into: &mut TcpStream, block: &[u8]) -> Result<()> {
    let mut sender = from.try_clone()?;
    let mut got = vec![0; block.len()];
    std::thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(move || sender.write_all(block));
        into.read_exact(&mut got).context("receive")?;
        sending.join().expect("no panic").context("send")?;
        Ok(())
    })?;
    ensure!(got == block, "the bytes changed on the way");
    Ok(())
}

/// A datagram there and its answer back; gives the client as the server sees it.
pub fn udp(netns: &Netns, to: SocketAddr, server: &UdpSocket) -> Result<SocketAddr> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let client = bind(netns, at(any, 0))?;
    client.send_to(b"there", to)?;
    let mut buffer = [0; 64];
    let (n, peer) = server
        .recv_from(&mut buffer)
        .with_context(|| format!("serve a datagram to {to}"))?;
    server.send_to(b"back", peer)?;
    ensure!(&buffer[..n] == b"there");
    let (n, from) = client
        .recv_from(&mut buffer)
        .with_context(|| format!("an answer from {to}"))?;
    ensure!(&buffer[..n] == b"back");
    ensure!(from == to, "asked {to}, answered by {from}");
    Ok(peer)
}
