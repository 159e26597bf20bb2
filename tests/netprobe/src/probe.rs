//! `netprobe connect`: one try after the other, each with a socket of its own.

use crate::options::Options;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
    Http,
}

struct Plan {
    protocol: Protocol,
    target: SocketAddr,
    timeout: Duration,
    bind: Option<IpAddr>,
    path: String,
}

pub fn run(arguments: Vec<String>) -> Result<bool, String> {
    let mut options = Options::parse(arguments, &["summary"])?;
    let protocol = match options.word("the protocol")?.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "http" => Protocol::Http,
        other => return Err(format!("`{other}` is no protocol: tcp, udp or http")),
    };
    let target = options.word("the target")?;
    let plan = Plan {
        protocol,
        target: target
            .parse()
            .map_err(|_| format!("`{target}` is not ADDRESS:PORT"))?,
        timeout: options.millis("timeout", 1000)?,
        bind: options.one("bind")?,
        path: options.one("path")?.unwrap_or_else(|| "/".to_owned()),
    };
    let count: Option<u64> = options.one("count")?;
    let seconds: Option<f64> = options.one("for")?;
    let interval = options.millis("interval", if seconds.is_some() { 100 } else { 0 })?;
    let summary = options.flag("summary")?;
    options.end()?;
    let end = seconds.map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 1e6)));
    let count = match (count, end) {
        (Some(count), _) => count,
        (None, Some(_)) => u64::MAX,
        (None, None) => 1,
    };

    let mut totals = Totals::default();
    for number in 0..count {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        if number > 0 {
            std::thread::sleep(interval);
        }
        let start = Instant::now();
        let result = attempt(&plan, number);
        let micros = start.elapsed().as_micros() as u64;
        totals.count(&result, micros);
        if !summary {
            println!("{}", shown(number, micros, &result));
        }
    }
    if summary {
        println!("{}", totals.shown());
    }
    Ok(totals.failed == 0)
}

#[derive(Default)]
struct Totals {
    ok: u64,
    failed: u64,
    slowest: u64,
    kinds: serde_json::Map<String, Value>,
    hosts: serde_json::Map<String, Value>,
}

impl Totals {
    fn count(&mut self, result: &Result<Value, Error>, micros: u64) {
        self.slowest = self.slowest.max(micros);
        let (map, key) = match result {
            Ok(answer) => {
                self.ok += 1;
                let host = answer["host"].as_str().unwrap_or("?");
                (&mut self.hosts, host.to_owned())
            }
            Err(error) => {
                self.failed += 1;
                (&mut self.kinds, kind(error).to_owned())
            }
        };
        let entry = map.entry(key).or_insert(json!(0));
        *entry = json!(entry.as_u64().unwrap_or(0) + 1);
    }

    fn shown(&self) -> Value {
        json!({
            "ok": self.ok, "failed": self.failed, "slowest_micros": self.slowest,
            "hosts": self.hosts, "errors": self.kinds,
        })
    }
}

fn shown(number: u64, micros: u64, result: &Result<Value, Error>) -> Value {
    match result {
        Ok(answer) => json!({"n": number, "ok": true, "micros": micros, "answer": answer}),
        Err(error) => json!({
            "n": number, "ok": false, "micros": micros,
            "error": kind(error), "detail": error.to_string(),
        }),
    }
}

/// The kind of a failure, as a test asks for it.
pub fn kind(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
        ErrorKind::PermissionDenied => "denied",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionAborted => "closed",
        _ => "other",
    }
}

fn attempt(plan: &Plan, number: u64) -> Result<Value, Error> {
    match plan.protocol {
        Protocol::Tcp => {
            let mut stream = connect(plan)?;
            stream.write_all(format!("{number}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            parse(&line)
        }
        Protocol::Udp => {
            let socket = udp(plan.target, plan.bind, plan.timeout)?;
            socket.send(format!("{number}\n").as_bytes())?;
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer)?;
            parse(&String::from_utf8_lossy(&buffer[..length]))
        }
        Protocol::Http => {
            let mut stream = connect(plan)?;
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                plan.path, plan.target
            );
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.take(1 << 20).read_to_string(&mut text)?;
            let (head, body) = text
                .split_once("\r\n\r\n")
                .ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "no whole HTTP answer"))?;
            let status = head.split(' ').nth(1).unwrap_or_default();
            let mut value =
                serde_json::from_str(body).unwrap_or_else(|_| json!({ "body": body.trim() }));
            if let Some(object) = value.as_object_mut() {
                object.insert("status".to_owned(), json!(status.parse::<u16>().ok()));
            }
            Ok(value)
        }
    }
}

fn parse(line: &str) -> Result<Value, Error> {
    if line.is_empty() {
        return Err(Error::new(
            ErrorKind::UnexpectedEof,
            "closed without an answer",
        ));
    }
    Ok(serde_json::from_str(line.trim()).unwrap_or_else(|_| json!({ "text": line.trim() })))
}

fn connect(plan: &Plan) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect_timeout(&plan.target, plan.timeout)?;
    stream.set_read_timeout(Some(plan.timeout))?;
    stream.set_write_timeout(Some(plan.timeout))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connected UDP socket, so that refusals are heard.
pub fn udp(
    target: SocketAddr,
    bind: Option<IpAddr>,
    timeout: Duration,
) -> Result<UdpSocket, Error> {
    let from = bind.unwrap_or(match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(target)?;
    Ok(socket)
}
