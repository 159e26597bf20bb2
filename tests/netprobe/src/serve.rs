//! Echo servers that tell who answered whom.

use crate::options::Options;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;

/// Longest line or header that is read; the rest of the world may send anything.
const LINE: u64 = 64 * 1024;

pub fn run(arguments: Vec<String>) -> Result<bool, String> {
    let mut options = Options::parse(arguments, &[])?;
    let tcp: Vec<u16> = options.all("tcp")?;
    let udp: Vec<u16> = options.all("udp")?;
    let http: Vec<u16> = options.all("http")?;
    let name = options.one::<String>("name")?.unwrap_or_else(host_name);
    options.end()?;
    if tcp.is_empty() && udp.is_empty() && http.is_empty() {
        return Err("nothing to serve: give --tcp, --udp or --http".to_owned());
    }
    let name: Arc<str> = name.into();
    let mut threads = Vec::new();
    for port in tcp {
        let (listener, name) = (listen(port)?, name.clone());
        threads.push(thread::spawn(move || accept(&listener, &name, echo)));
    }
    for port in http {
        let (listener, name) = (listen(port)?, name.clone());
        threads.push(thread::spawn(move || accept(&listener, &name, answer_http)));
    }
    for port in udp {
        let socket = on_every_address(port, UdpSocket::bind)
            .map_err(|error| format!("listening on UDP port {port}: {error}"))?;
        let name = name.clone();
        threads.push(thread::spawn(move || echo_datagrams(&socket, &name)));
    }
    end_on_signal();
    println!("{}", json!({"serving": &*name}));
    for thread in threads {
        let _ = thread.join();
    }
    Ok(false)
}

/// The first process of a container has no default reaction to signals: without a handler a pod
/// that is deleted would use up its whole grace period.
fn end_on_signal() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler calls nothing but _exit(2).
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

/// The pod's name, as the runtime gave it to the host name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Binds to `[::]`, which takes IPv4 too, or to `0.0.0.0` where there is no IPv6.
fn on_every_address<T>(
    port: u16,
    bind: impl Fn(SocketAddr) -> std::io::Result<T>,
) -> std::io::Result<T> {
    bind((Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into()))
}

fn listen(port: u16) -> Result<TcpListener, String> {
    on_every_address(port, TcpListener::bind)
        .map_err(|error| format!("listening on TCP port {port}: {error}"))
}

fn accept(
    listener: &TcpListener,
    name: &Arc<str>,
    serve: fn(&TcpStream, &str) -> std::io::Result<()>,
) {
    for stream in listener.incoming() {
        // Out of file descriptors, say: the next client may have better luck.
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let name = name.clone();
        thread::spawn(move || serve(&stream, &name));
    }
}

/// IPv4 clients of an IPv6 socket show as mapped addresses; people know them by the short form.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

fn answer(name: &str, local: Option<SocketAddr>, client: SocketAddr) -> Value {
    json!({
        "host": name,
        "local": local.map(|a| plain(a).to_string()),
        "client": plain(client).to_string(),
    })
}

fn echo(stream: &TcpStream, name: &str) -> std::io::Result<()> {
    let mut out = stream;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut value = answer(name, stream.local_addr().ok(), stream.peer_addr()?);
        value["echo"] = line.trim_end().into();
        out.write_all(format!("{value}\n").as_bytes())?;
    }
}

fn echo_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut value = answer(name, None, client);
        value["echo"] = String::from_utf8_lossy(&buffer[..length]).trim_end().into();
        let _ = socket.send_to(format!("{value}\n").as_bytes(), client);
    }
}

fn answer_http(stream: &TcpStream, name: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let status = request
            .path
            .strip_prefix("/status/")
            .and_then(|code| code.parse::<u16>().ok())
            .filter(|code| (200..600).contains(code))
            .unwrap_or(200);
        let mut value = answer(name, stream.local_addr().ok(), stream.peer_addr()?);
        value["path"] = request.path.into();
        let body = format!("{value}\n");
        let mut out = stream;
        let head = format!(
            "HTTP/1.1 {status} netprobe\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        out.write_all(head.as_bytes())?;
        if request.method != "HEAD" {
            out.write_all(body.as_bytes())?;
        }
        if request.close {
            return Ok(());
        }
    }
    Ok(())
}

/// The head of an HTTP request; a body is not read.
pub struct Request {
    pub method: String,
    pub path: String,
    pub close: bool,
}

/// Reads one request's head; `None` at the end of the connection.
pub fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut first = String::new();
    if reader.by_ref().take(LINE).read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        close: words.next() == Some("HTTP/1.0"),
    };
    let mut headers = reader.take(LINE);
    loop {
        let mut line = String::new();
        if headers.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(request));
        }
        if line.starts_with("connection:") && line.contains("close") {
            request.close = true;
        }
    }
}
