//! The socket hooks, on sockets of this process in a cgroup of its own.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::CgroupAttachMode;
use rhumb_common::maps::{Service, ServiceKey, name};
use rhumb_harness::{Run, cgroup, wait_for};

use super::wire::{POD_A, POD_B, PORT, Wire, at, bind, connect, ip, listen};

/// Frontends that no other test uses: their sockets may be made while this process is in the
/// cgroup.
const VIP: [&str; 2] = ["10.96.202.1", "fd00:96::ca:1"];

/// One at a time: where a process goes back to is where it was found.
static ALONE: Mutex<()> = Mutex::new(());

/// This process in a cgroup, until dropped.
struct Inside {
    _alone: MutexGuard<'static, ()>,
    home: PathBuf,
    dir: PathBuf,
}

impl Inside {
    fn enter(run: &Run) -> Result<Inside> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = cgroup::v2_root()?;
        let path = run.cgroup("sockets")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|l| l.strip_prefix("0::"))
            .context("this process is in no cgroup2")?;
        let inside = Inside {
            _alone: alone,
            home: root.join(own.trim_start_matches('/')),
            dir: root.join(path.trim_start_matches('/')),
        };
        fs::write(inside.dir.join("cgroup.procs"), "0").context("enter the cgroup")?;
        Ok(inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(e) = fs::write(self.home.join("cgroup.procs"), "0") {
            eprintln!("leave {}: {e}", self.dir.display());
        }
    }
}

/// An IPv4 address as IPv6 sockets write it.
fn mapped(a: SocketAddr) -> SocketAddr {
    match a.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), a.port()),
        IpAddr::V6(_) => a,
    }
}

#[test]
fn services_at_the_socket() -> Result<()> {
    let mut w = Wire::new()?;
    let inside = Inside::enter(&w.run)?;
    for hook in name::SOCK_ADDR {
        w.programs
            .sock_addr(hook)
            .attach(fs::File::open(&inside.dir)?, CgroupAttachMode::Single)
            .with_context(|| format!("attach {hook}"))?;
    }
    for (family, v4_mapped) in [(0, false), (1, false), (0, true)] {
        let map = |a| if v4_mapped { mapped(a) } else { a };
        let port = 90 + 10 * v4_mapped as u16;
        w.service(VIP[family], port, &[(POD_B[family], PORT)]);
        let server = listen(&w.b, at(POD_B[family], PORT))?;
        let datagrams = bind(&w.b, at(POD_B[family], PORT))?;
        let vip = map(at(VIP[family], port));
        let any = if v4_mapped || family == 1 {
            "::"
        } else {
            "0.0.0.0"
        };

        // The node's own namespace has no other way to reach a frontend.
        for netns in [&w.node, &w.a] {
            let client = connect(netns, vip).with_context(|| format!("connect to {vip}"))?;
            let (served, _) = server.accept()?;
            ensure!(client.peer_addr()? == vip, "{}", client.peer_addr()?);
            drop(served);

            // Connected, and with an address each time.
            let mut buffer = [0; 16];
            let client = bind(netns, at(any, 0))?;
            client.connect(vip)?;
            ensure!(client.peer_addr()? == vip, "{}", client.peer_addr()?);
            client.send(b"one")?;
            let (n, peer) = datagrams.recv_from(&mut buffer)?;
            datagrams.send_to(&buffer[..n], peer)?;
            client.recv(&mut buffer).context("an answer")?;

            let client = bind(netns, at(any, 0))?;
            client.send_to(b"two", vip)?;
            let (n, peer) = datagrams.recv_from(&mut buffer)?;
            datagrams.send_to(&buffer[..n], peer)?;
            let (_, from) = client.recv_from(&mut buffer).context("an answer")?;
            ensure!(from == vip, "asked {vip}, answered by {from}");
        }
        // No packet ever had the frontend's address.
        let seen = w.programs.flows();
        ensure!(!seen.is_empty(), "no flows");
        ensure!(
            seen.keys()
                .all(|k| k.dst != ip(VIP[family]) && k.src != ip(VIP[family])),
            "a frontend in the flow table: {seen:?}"
        );

        // Without endpoints, and a port that no Service has.
        let address = ServiceKey::address(ip(VIP[family]));
        w.tables.services.insert(address, Service::default());
        w.service(VIP[family], port + 1, &[]);
        for port in [port + 1, port + 2] {
            let vip = map(at(VIP[family], port));
            let refused = connect(&w.node, vip).err().context("connected")?;
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
            let refused = bind(&w.node, at(any, 0))?.send_to(b"x", vip).err();
            let refused = refused.context("sent")?;
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
        }
    }
    Ok(())
}

/// All datagrams of one socket go to one backend, until that goes away.
#[test]
fn datagrams_stay_with_their_backend() -> Result<()> {
    let mut w = Wire::new()?;
    let inside = Inside::enter(&w.run)?;
    for hook in name::SOCK_ADDR {
        w.programs
            .sock_addr(hook)
            .attach(fs::File::open(&inside.dir)?, CgroupAttachMode::Single)
            .with_context(|| format!("attach {hook}"))?;
    }
    for family in 0..2 {
        let backends = [(POD_A[family], 7001), (POD_B[family], 7002)];
        w.service(VIP[family], 70, &backends);
        let servers = [
            bind(&w.a, at(POD_A[family], 7001))?,
            bind(&w.b, at(POD_B[family], 7002))?,
        ];
        for s in &servers {
            s.set_nonblocking(true)?;
        }
        // Which of them got the datagram that was sent last.
        let received = || {
            wait_for("the datagram", Duration::from_secs(5), || {
                let got = servers.each_ref().map(|s| s.recv(&mut [0; 8]).is_ok());
                Ok((got != [false, false]).then_some(got))
            })
        };
        let client = bind(&w.node, at(["0.0.0.0", "::"][family], 0))?;
        let vip = at(VIP[family], 70);
        client.send_to(b"first", vip)?;
        let first = received()?;
        ensure!(first[0] != first[1], "{first:?}");
        for _ in 0..30 {
            client.send_to(b"again", vip)?;
            ensure!(received()? == first);
        }
        // The chosen backend's id goes to another: both slots now name the one that is left.
        let (gone, left) = if first[0] { (0, 1) } else { (1, 0) };
        let udp = |t: &rhumb_common::maps::Backend| t.protocol == 17;
        let find = |w: &Wire, (addr, port): (&str, u16)| {
            let (id, b) = w
                .tables
                .backends
                .iter()
                .find(|(_, b)| udp(b) && b.addr == ip(addr) && b.port_be == port.to_be())
                .expect("the backend");
            (*id, *b)
        };
        let (id, mut changed) = find(&w, backends[gone]);
        changed.generation += 1;
        changed.port_be = backends[left].1.to_be();
        changed.addr = ip(backends[left].0);
        w.tables.backends.insert(id, changed);
        w.programs.write(&w.tables);
        client.send_to(b"moved", vip)?;
        let now = received()?;
        ensure!(now[left] && !now[gone], "{now:?}");
    }
    Ok(())
}
