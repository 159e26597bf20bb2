//! `netprobe registry`: an OCI image layout, served read-only as the distribution API has it.
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pull>
//!
//! Images are found by the annotation `org.opencontainers.image.ref.name` = `name:tag`.

use crate::options::Options;
use crate::serve::{Request, read_request};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

pub fn run(arguments: Vec<String>) -> Result<bool, String> {
    let mut options = Options::parse(arguments, &[])?;
    let dir = PathBuf::from(options.word("the layout's directory")?);
    let listen: SocketAddr = options
        .one("listen")?
        .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 5000)));
    options.end()?;
    let listener =
        TcpListener::bind(listen).map_err(|error| format!("listening on {listen}: {error}"))?;
    println!("{}", json!({"registry": dir, "listen": listen.to_string()}));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let dir = dir.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve(&stream, &dir) {
                eprintln!("{error}");
            }
        });
    }
    Ok(false)
}

fn serve(stream: &TcpStream, dir: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let reply = reply(&request, dir);
        let status = reply.as_ref().map_or_else(|status| *status, |_| 200);
        println!(
            "{}",
            json!({"method": request.method, "path": request.path, "status": status})
        );
        let mut out = stream;
        match reply {
            Ok(found) => {
                let length = found.file.metadata()?.len();
                let mut head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {length}\r\n",
                    found.media_type
                );
                if let Some(digest) = found.digest {
                    head.push_str(&format!("Docker-Content-Digest: {digest}\r\n"));
                }
                out.write_all(format!("{head}\r\n").as_bytes())?;
                if request.method != "HEAD" {
                    std::io::copy(&mut &found.file, &mut out)?;
                }
            }
            Err(status) => {
                let code = match status {
                    200 => None,
                    404 => Some("MANIFEST_UNKNOWN"),
                    _ => Some("UNSUPPORTED"),
                };
                let body = code.map_or_else(
                    || "{}".to_owned(),
                    |code| json!({"errors": [{"code": code, "message": request.path}]}).to_string(),
                );
                let head = format!(
                    "HTTP/1.1 {status} netprobe\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                out.write_all(head.as_bytes())?;
                if request.method != "HEAD" {
                    out.write_all(body.as_bytes())?;
                }
            }
        }
        if request.close {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Found {
    file: File,
    media_type: String,
    digest: Option<String>,
}

/// The file that answers, or the status.
fn reply(request: &Request, dir: &Path) -> Result<Found, u16> {
    if request.method != "GET" && request.method != "HEAD" {
        return Err(405);
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let Some(path) = path.strip_prefix("/v2/") else {
        return Err(404);
    };
    if path.is_empty() {
        return Err(200);
    }
    if let Some((_, digest)) = path.split_once("/blobs/") {
        return Ok(Found {
            file: blob(dir, digest)?,
            media_type: "application/octet-stream".to_owned(),
            digest: Some(digest.to_owned()),
        });
    }
    let (name, reference) = path.split_once("/manifests/").ok_or(404_u16)?;
    let manifest = manifest(dir, name, reference).ok_or(404_u16)?;
    let digest = manifest["digest"].as_str().ok_or(404_u16)?;
    Ok(Found {
        file: blob(dir, digest)?,
        media_type: manifest["mediaType"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        digest: Some(digest.to_owned()),
    })
}

/// The layout's index entry of an image, by tag or by digest.
fn manifest(dir: &Path, name: &str, reference: &str) -> Option<Value> {
    let index = std::fs::read(dir.join("index.json")).ok()?;
    let index: Value = serde_json::from_slice(&index).ok()?;
    let wanted = format!("{name}:{reference}");
    index["manifests"].as_array()?.iter().find_map(|entry| {
        let tag = &entry["annotations"]["org.opencontainers.image.ref.name"];
        (entry["digest"] == reference || *tag == wanted.as_str()).then(|| entry.clone())
    })
}

fn blob(dir: &Path, digest: &str) -> Result<File, u16> {
    let hash = digest.strip_prefix("sha256:").ok_or(404_u16)?;
    // Nothing but a hash: the name becomes a path.
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(404);
    }
    File::open(dir.join("blobs/sha256").join(hash)).map_err(|_| 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            close: false,
        }
    }

    #[test]
    fn nothing_outside_the_layout() {
        let dir = Path::new("/");
        assert_eq!(reply(&get("/v2/"), dir).unwrap_err(), 200);
        assert_eq!(reply(&get("/etc/passwd"), dir).unwrap_err(), 404);
        assert_eq!(
            reply(&get("/v2/x/blobs/sha256:../../etc/passwd"), dir).unwrap_err(),
            404
        );
        assert_eq!(reply(&get("/v2/x/manifests/latest"), dir).unwrap_err(), 404);
    }
}
