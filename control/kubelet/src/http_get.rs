//! The HTTP requests of probes and hooks.

use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest part of an answer that is read and shown.
const BODY_LIMIT: usize = 10 << 10;
const REDIRECTS: usize = 10;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// A port by number, or by the name of one of the container's ports.
pub fn port(c: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => match name.parse() {
            Ok(n) => Some(n),
            Err(_) => c
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port),
        },
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("couldn't find port: {port:?} in container {}", c.name))
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Sends the request, following redirects on the same host. Probes don't check certificates.
pub async fn get(
    c: &Container,
    action: &HTTPGetAction,
    pod_ip: Option<&str>,
) -> Result<Answer, String> {
    let host = action
        .host
        .as_deref()
        .filter(|h| !h.is_empty())
        .or(pod_ip)
        .ok_or("the pod has no address")?;
    let port = port(c, &action.port)?;
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let mut path = action
        .path
        .clone()
        .filter(|p| !p.is_empty())
        .unwrap_or_else(|| "/".into());
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    for _ in 0..=REDIRECTS {
        let (answer, location) = once(host, port, tls, &path, action).await?;
        let next = location
            .as_deref()
            .and_then(|l| same_host_path(l, host, port));
        match next {
            Some(p) if (300..400).contains(&answer.code) => path = p,
            _ => return Ok(answer),
        }
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

/// The path of a redirect that stays on this host; others count as success without being followed.
fn same_host_path(location: &str, host: &str, port: u16) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_string());
    }
    let uri: http::Uri = location.parse().ok()?;
    let a = uri.authority()?;
    let here = a.host().trim_matches(['[', ']']) == host && a.port_u16().is_none_or(|p| p == port);
    here.then(|| uri.path_and_query().map_or("/".into(), ToString::to_string))
}

async fn once(
    host: &str,
    port: u16,
    tls: bool,
    path: &str,
    action: &HTTPGetAction,
) -> Result<(Answer, Option<String>), String> {
    let target = authority(host, port);
    let stream = TcpStream::connect(&target)
        .await
        .map_err(|e| format!("dial tcp {target}: {e}"))?;
    let mut request = http::Request::builder()
        .uri(path)
        .header("Accept", "*/*")
        .header("Connection", "close");
    let headers = action.http_headers.iter().flatten();
    let mut host_header = target.clone();
    let mut agent = "kube-probe/1.36".to_string();
    for h in headers {
        match h.name.to_ascii_lowercase().as_str() {
            "host" => host_header = h.value.clone(),
            "user-agent" => agent = h.value.clone(),
            _ => request = request.header(&h.name, &h.value),
        }
    }
    let request = request
        .header("Host", host_header)
        .header("User-Agent", agent)
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("making the request for {path:?}: {e}"))?;
    if tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        let name =
            rustls::pki_types::ServerName::try_from(host.to_string()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| format!("TLS with {target}: {e}"))?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Empty<Bytes>>,
) -> Result<(Answer, Option<String>), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let result = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let location = response
            .headers()
            .get("location")
            .and_then(|l| l.to_str().ok())
            .map(str::to_string);
        let mut body = vec![];
        let mut stream = response.into_body();
        while body.len() < BODY_LIMIT {
            match stream.frame().await {
                Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
                Some(Err(e)) => return Err(e.to_string()),
                None => break,
            }
        }
        body.truncate(BODY_LIMIT);
        Ok((
            Answer {
                code,
                body: String::from_utf8_lossy(&body).into_owned(),
            },
            location,
        ))
    }
    .await;
    driver.abort();
    result
}

/// Probes only ask whether something answers; Kubernetes skips verification too.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_name_and_number() {
        let c: Container = serde_json::from_value(
            json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(port(&c, &IntOrString::Int(80)), Ok(80));
        assert_eq!(port(&c, &IntOrString::String("web".into())), Ok(8080));
        assert_eq!(port(&c, &IntOrString::String("81".into())), Ok(81));
        assert!(port(&c, &IntOrString::String("none".into())).is_err());
        assert!(port(&c, &IntOrString::Int(70000)).is_err());
    }

    #[test]
    fn redirects_stay_here() {
        assert_eq!(same_host_path("/x?y", "10.0.0.1", 80), Some("/x?y".into()));
        assert_eq!(
            same_host_path("http://10.0.0.1:80/z", "10.0.0.1", 80),
            Some("/z".into())
        );
        assert_eq!(same_host_path("http://other/z", "10.0.0.1", 80), None);
        assert_eq!(same_host_path("//other/z", "10.0.0.1", 80), None);
        assert_eq!(authority("fd00::1", 80), "[fd00::1]:80");
    }

    #[tokio::test]
    async fn reads_an_answer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let l = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = l.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut s, _) = l.accept().await.unwrap();
            let mut buf = [0u8; 2048];
            let n = s.read(&mut buf).await.unwrap();
            s.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad")
                .await
                .unwrap();
            String::from_utf8_lossy(&buf[..n]).into_owned()
        });
        let c = Container::default();
        let action = serde_json::from_value(json!({"port": at, "path": "healthz",
            "httpHeaders": [{"name": "Host", "value": "me"}, {"name": "X-A", "value": "b"}]}))
        .unwrap();
        let a = get(&c, &action, Some("127.0.0.1")).await.unwrap();
        assert_eq!((a.code, a.body.as_str()), (503, "bad"));
        let seen = server.await.unwrap().to_ascii_lowercase();
        assert!(seen.starts_with("get /healthz http/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("host: me\r\n") && seen.contains("x-a: b\r\n"),
            "{seen}"
        );
    }
}
