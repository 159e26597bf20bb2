//! Request/response (RR) and connect + request (CRR) between two namespaces.
//!
//! Client and server are pinned to one CPU: unpinned runs on two cores are bimodal.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;

/// Where a thread runs: its network namespace, and the cgroups whose socket programs it meets.
#[derive(Clone, Debug)]
pub struct Place {
    pub netns: PathBuf,
    /// A directory of the cgroup2 hierarchy.
    pub cgroup: Option<PathBuf>,
}

impl Place {
    pub fn netns(path: impl Into<PathBuf>) -> Place {
        Place {
            netns: path.into(),
            cgroup: None,
        }
    }
}

/// Moves the calling process's network namespace for this thread.
pub fn enter_netns(path: &Path) -> Result<()> {
    let ns = File::open(path).with_context(|| format!("opening namespace {}", path.display()))?;
    setns(ns, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", path.display()))
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning to a CPU")
}

/// An echo server on its own thread, one connection at a time.
pub struct Server {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    place: Place,
}

impl Server {
    /// Listens on `addr` inside `place`.
    pub fn start(place: Place, addr: SocketAddr) -> Result<Server> {
        let (tx, rx) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, at) = (stop.clone(), place.clone());
        let thread = std::thread::spawn(move || {
            let ready = (|| {
                pin(0)?;
                enter_netns(&at.netns)?;
                TcpListener::bind(addr).with_context(|| format!("listening on {addr}"))
            })();
            let listener = match ready {
                Ok(l) => {
                    let _ = tx.send(Ok(()));
                    l
                }
                Err(e) => {
                    let _ = tx.send(Err(e));
                    return;
                }
            };
            while let Ok((mut conn, _)) = listener.accept() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                let _ = conn.set_nodelay(true);
                let mut byte = [0u8; 1];
                while matches!(conn.read(&mut byte), Ok(1)) {
                    if conn.write_all(&byte).is_err() {
                        break;
                    }
                }
            }
        });
        rx.recv().context("the server thread died")??;
        Ok(Server {
            addr,
            stop,
            thread: Some(thread),
            place,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let (place, addr) = (self.place.clone(), self.addr);
        // Wakes accept(); from the server's own namespace, so that no policy is in the way.
        let _ = std::thread::spawn(move || {
            enter_netns(&place.netns)
                .map(|()| TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok())
        })
        .join();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let conn = TcpStream::connect_timeout(&addr, Duration::from_secs(3))
        .with_context(|| format!("connecting to {addr}"))?;
    conn.set_nodelay(true)?;
    conn.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(conn)
}

fn ask(conn: &mut TcpStream) -> Result<()> {
    // An empty line: netprobe's servers answer lines.
    let mut byte = *b"\n";
    conn.write_all(&byte)?;
    conn.read_exact(&mut byte).context("waiting for the answer")
}

/// A client thread that takes orders, so that namespace and cgroup are entered once.
pub struct Client {
    orders: std::sync::mpsc::Sender<Order>,
    answers: std::sync::mpsc::Receiver<Result<Vec<Duration>>>,
}

enum Order {
    Rr(SocketAddr, usize),
    Crr(SocketAddr, usize),
    Try(SocketAddr),
}

impl Client {
    /// The cgroup is entered by the thread's process: all clients of one run share it.
    pub fn start(place: Place) -> Result<Client> {
        if let Some(cgroup) = &place.cgroup {
            std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
                .with_context(|| format!("entering cgroup {}", cgroup.display()))?;
        }
        let (orders, inbox) = std::sync::mpsc::channel::<Order>();
        let (outbox, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let entered = pin(0).and_then(|()| enter_netns(&place.netns));
            if let Err(e) = entered {
                let _ = outbox.send(Err(e));
                return;
            }
            for order in inbox {
                let answer = match order {
                    Order::Rr(addr, n) => rr(addr, n),
                    Order::Crr(addr, n) => crr(addr, n),
                    Order::Try(addr) => Ok(crr(addr, 1).unwrap_or_default()),
                };
                if outbox.send(answer).is_err() {
                    return;
                }
            }
        });
        Ok(Client { orders, answers })
    }

    fn order(&self, order: Order) -> Result<Vec<Duration>> {
        self.orders.send(order).ok();
        self.answers.recv().context("the client thread died")?
    }

    /// Latencies of `n` requests over one established connection.
    pub fn rr(&self, addr: SocketAddr, n: usize) -> Result<Vec<Duration>> {
        self.order(Order::Rr(addr, n))
    }

    /// Latencies of `n` times connect, request, answer.
    pub fn crr(&self, addr: SocketAddr, n: usize) -> Result<Vec<Duration>> {
        self.order(Order::Crr(addr, n))
    }

    /// One connect and request: how long it took if it was answered.
    pub fn connects(&self, addr: SocketAddr) -> Result<Option<Duration>> {
        Ok(self.order(Order::Try(addr))?.first().copied())
    }
}

fn rr(addr: SocketAddr, n: usize) -> Result<Vec<Duration>> {
    let mut conn = connect(addr)?;
    for _ in 0..20 {
        ask(&mut conn)?;
    }
    (0..n)
        .map(|_| {
            let t = Instant::now();
            ask(&mut conn)?;
            Ok(t.elapsed())
        })
        .collect()
}

fn crr(addr: SocketAddr, n: usize) -> Result<Vec<Duration>> {
    (0..n)
        .map(|_| {
            let t = Instant::now();
            let mut conn = connect(addr)?;
            ask(&mut conn)?;
            let took = t.elapsed();
            // RST instead of TIME_WAIT: thousands of them would exhaust the local ports.
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            nix::sys::socket::setsockopt(&conn, nix::sys::socket::sockopt::Linger, &linger)?;
            Ok(took)
        })
        .collect()
}
