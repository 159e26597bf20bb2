//! `netprobe stream`: one connection that lives long, to see what a restart costs it.

use crate::options::Options;
use crate::probe::{kind, udp};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub fn run(arguments: Vec<String>) -> Result<bool, String> {
    let mut options = Options::parse(arguments, &[])?;
    let protocol = options.word("the protocol")?;
    let target = options.word("the target")?;
    let target: SocketAddr = target
        .parse()
        .map_err(|_| format!("`{target}` is not ADDRESS:PORT"))?;
    let seconds: f64 = options.one("for")?.unwrap_or(10.0);
    let interval = options.millis("interval", 10)?;
    let timeout = options.millis("timeout", 2000)?;
    options.end()?;

    let mut exchange: Box<dyn FnMut(u64) -> Result<Value, Error>> = match protocol.as_str() {
        "tcp" => tcp(target, timeout).map_err(|e| format!("connecting to {target}: {e}"))?,
        "udp" => datagrams(target, timeout).map_err(|e| format!("opening a socket: {e}"))?,
        other => return Err(format!("`{other}` is no protocol of a stream: tcp or udp")),
    };
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds.clamp(0.0, 1e6));
    let (mut sent, mut received, mut longest) = (0_u64, 0_u64, Duration::ZERO);
    let mut last = start;
    let mut hosts = std::collections::BTreeSet::new();
    let mut errors = Vec::new();
    while Instant::now() < end {
        sent += 1;
        match exchange(sent) {
            Ok(answer) => {
                received += 1;
                longest = longest.max(last.elapsed());
                last = Instant::now();
                hosts.insert(answer["host"].as_str().unwrap_or("?").to_owned());
            }
            Err(error) => {
                errors.push(format!("request {sent}: {} ({error})", kind(&error)));
                // A datagram may be lost; a TCP connection that failed is over.
                if protocol == "tcp" || errors.len() > 100 {
                    break;
                }
            }
        }
        std::thread::sleep(interval);
    }
    longest = longest.max(last.elapsed());
    let lost = sent - received;
    println!(
        "{}",
        json!({
            "sent": sent, "received": received, "lost": lost,
            "longest_gap_micros": longest.as_micros() as u64,
            "seconds": start.elapsed().as_secs_f64(),
            "hosts": hosts, "errors": errors,
        })
    );
    Ok(lost == 0 && received > 0)
}

type Exchange = Box<dyn FnMut(u64) -> Result<Value, Error>>;

fn tcp(target: SocketAddr, timeout: Duration) -> Result<Exchange, Error> {
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    Ok(Box::new(move |number| {
        stream.write_all(format!("{number}\n").as_bytes())?;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed by the server"));
        }
        check(number, line.as_bytes())
    }))
}

fn datagrams(target: SocketAddr, timeout: Duration) -> Result<Exchange, Error> {
    let socket = udp(target, None, timeout)?;
    Ok(Box::new(move |number| {
        socket.send(format!("{number}\n").as_bytes())?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer)?;
            // The late answer to a request already given up.
            match check(number, &buffer[..length]) {
                Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                result => return result,
            }
        }
    }))
}

fn check(number: u64, answer: &[u8]) -> Result<Value, Error> {
    let value: Value = serde_json::from_slice(answer)
        .map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    if value["echo"] != json!(number.to_string()) {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "another request's answer",
        ));
    }
    Ok(value)
}
