//! An admission webhook of the test's own: HTTPS with a certificate of its own authority. Ring 4 has
//! it too.

#![expect(clippy::unwrap_used, reason = "a test says what failed by its line")]

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{self, ServerConfig};

/// What is answered to a path and the `request` of a review: the `response`, without uid.
pub type Decide = fn(&str, &Value) -> Value;

pub struct Webhook {
    pub port: u16,
    /// base64 of PEM, for `caBundle`.
    pub ca: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Webhook {
    /// Serves on a listener under these names, with a certificate of an authority of its own.
    pub fn serve(listener: std::net::TcpListener, names: &[&str], decide: Decide) -> Webhook {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        Webhook::with(listener, &leaf, &key, ca, decide)
    }

    /// Serves with a certificate, which `ca` (PEM) vouches for.
    pub fn with(
        listener: std::net::TcpListener,
        certificate: &Certificate,
        key: &KeyPair,
        ca: String,
        decide: Decide,
    ) -> Webhook {
        let certificate = certificate.der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |r| answer(r, seen.clone(), decide));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Webhook {
            port,
            ca: STANDARD.encode(ca),
            seen,
        }
    }

    /// Path and `request` of the reviews since the last call.
    pub fn seen(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    decide: Decide,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let asked = review["request"].clone();
    let mut response = decide(&path, &asked);
    if let Some(seconds) = response.get("sleep").and_then(Value::as_u64) {
        tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    }
    let code = response.get("http").and_then(Value::as_u64).unwrap_or(200);
    if response.get("uid").is_none() {
        response["uid"] = asked["uid"].clone();
    }
    seen.lock().unwrap().push((path, asked));
    let review = json!({
        "apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response,
    });
    let mut answer = Response::new(Full::from(review.to_string()));
    *answer.status_mut() = http::StatusCode::from_u16(code as u16).unwrap();
    Ok(answer)
}

/// A JSON patch as a response has it.
pub fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}
