//! A server of the test's own, and raw requests to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rhumb_apiserver::{Config, Server};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

pub const LIMIT: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub server: Option<Server>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            server: None,
        };
        cluster.run().await;
        cluster
    }

    pub async fn run(&mut self) {
        let config = self.config();
        self.run_with(config).await;
    }

    pub fn config(&self) -> Config {
        Config {
            data_dir: self.dir.path().join("data"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            inherited: vec![],
            advertise: None,
            service_cidrs: vec!["10.96.0.0/24".into(), "fd00:10:96::/112".into()],
            tls_sans: vec![],
            token_auth_file: None,
            service_account_signing_key: None,
            service_account_keys: vec![],
            audit: None,
        }
    }

    pub async fn run_with(&mut self, config: Config) {
        self.server = Some(Server::start(config).await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    /// A client with a certificate.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        let server = self.server.as_ref().unwrap();
        let text = server.kubeconfig(user, groups).unwrap();
        let config: Value = serde_saphyr::from_str(&text).unwrap();
        let data = |value: &Value| -> Vec<u8> {
            let text = STANDARD.decode(value.as_str().unwrap()).unwrap();
            pem::parse(text).unwrap().into_contents()
        };
        let user = &config["users"][0]["user"];
        let pair = (
            data(&user["client-certificate-data"]),
            data(&user["client-key-data"]),
        );
        self.connect(Some(pair), None)
    }

    pub fn admin(&self) -> Client {
        self.client("kubernetes-admin", &["system:masters"])
    }

    pub fn with_token(&self, token: &str) -> Client {
        self.connect(None, Some(token.into()))
    }

    pub fn anonymous(&self) -> Client {
        self.connect(None, None)
    }

    fn connect(&self, pair: Option<(Vec<u8>, Vec<u8>)>, token: Option<String>) -> Client {
        let server = self.server.as_ref().unwrap();
        let mut roots = RootCertStore::empty();
        let ca = pem::parse(server.ca_certificate()).unwrap();
        roots.add(CertificateDer::from(ca.into_contents())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = match pair {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from(certificate)],
                    PrivatePkcs8KeyDer::from(key).into(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        Client {
            address: server.loopback,
            tls: Arc::new(tls),
            token,
        }
    }
}

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The object, after a check of the code.
    pub fn ok(&self, code: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), code, "{text}");
        self.json()
    }

    /// The message, after checks of code and reason.
    pub fn refused(&self, code: u16, reason: &str) -> String {
        let status = self.ok(code);
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["reason"], reason, "{status}");
        assert_eq!(status["code"], code, "{status}");
        status["message"].as_str().unwrap().to_string()
    }
}

impl Client {
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> hyper::Response<Incoming> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "api");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).unwrap();
        sender.send_request(request).await.unwrap()
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let work = async {
            let response = self.open(method, path, headers, body.into()).await;
            let (head, body) = response.into_parts();
            Answer {
                status: head.status,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        };
        tokio::time::timeout(LIMIT, work)
            .await
            .unwrap_or_else(|_| panic!("{method} {path} takes too long"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.call("POST", path, &json, object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.call("PUT", path, &json, object.to_string()).await
    }

    /// `kind`: `merge`, `json` or `strategic-merge`.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        let media_type = format!("application/{kind}-patch+json");
        let headers = [("content-type", media_type.as_str())];
        self.call("PATCH", path, &headers, patch.to_string()).await
    }

    /// Server-side apply; `query` has the manager.
    pub async fn apply(&self, path: &str, query: &str, config: &Value) -> Answer {
        let headers = [("content-type", "application/apply-patch+yaml")];
        self.call(
            "PATCH",
            &format!("{path}?{query}"),
            &headers,
            config.to_string(),
        )
        .await
    }

    pub async fn delete(&self, path: &str, options: Option<&Value>) -> Answer {
        match options {
            Some(options) => {
                let json = [("content-type", "application/json")];
                self.call("DELETE", path, &json, options.to_string()).await
            }
            None => self.call("DELETE", path, &[], "").await,
        }
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.open("GET", path, &[], Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        Watch {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

pub struct Watch {
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(LIMIT, self.line())
            .await
            .expect("no event comes")
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }

    /// `TYPE name` of the next event.
    pub async fn next_name(&mut self) -> String {
        let event = self.next().await.expect("the watch ended");
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }
}
