//! A server of the benchmark's own, and plain HTTP/2 to it: what is measured is the server, not a
//! client library.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// A process that is ended with the value.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Server {
    pub process: Ended,
    pub address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A port of loopback that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    /// Starts `rhumb-control server` on a directory, and waits until it is ready.
    pub async fn start(binary: &Path, dir: &Path) -> Result<Server> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let log = std::fs::File::create(dir.join("log"))?;
        let child = Command::new(binary)
            .args(["server", "--log", "warn", "--data-dir"])
            .arg(dir.join("data"))
            .args(["--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let process = Ended(child);
        let kubeconfig = dir.join("data/admin.kubeconfig");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(text) = std::fs::read_to_string(&kubeconfig)
                && let Ok(tls) = trust(&text)
            {
                let server = Server {
                    process,
                    address,
                    tls,
                };
                return server.when_ready(deadline).await;
            }
            ensure!(Instant::now() < deadline, "the server wrote no kubeconfig");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn when_ready(self, deadline: Instant) -> Result<Server> {
        loop {
            if let Ok(mut client) = self.connect().await
                && client.call(Method::GET, "/readyz", "", "").await.is_ok()
            {
                return Ok(self);
            }
            ensure!(Instant::now() < deadline, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// One connection of the administrator's.
    pub async fn connect(&self) -> Result<Client> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(tls))
            .await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            authority: self.address.to_string(),
        })
    }
}

fn trust(kubeconfig: &str) -> Result<Arc<ClientConfig>> {
    let field = |name: &str| -> Result<Vec<u8>> {
        let line = kubeconfig
            .lines()
            .find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(':'))
            .with_context(|| format!("the kubeconfig has no {name}"))?;
        let text = STANDARD.decode(line.trim().trim_matches('"'))?;
        Ok(pem::parse(text)?.into_contents())
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(field("certificate-authority-data")?))?;
    let certificate = CertificateDer::from(field("client-certificate-data")?);
    let key = PrivateKeyDer::Pkcs8(field("client-key-data")?.into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Clone)]
pub struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
}

impl Client {
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<hyper::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority));
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        let request = request.body(Full::new(body.into()))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// The body of an answer that is no refusal.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes> {
        let response = self.open(method, path, media_type, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    pub async fn post(&mut self, path: &str, object: &Value) -> Result<Bytes> {
        self.call(Method::POST, path, "application/json", object.to_string())
            .await
    }
}
