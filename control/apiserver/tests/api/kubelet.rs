//! Logs, exec, attach and port-forward: what the server asks of a node's port, and what it hands on.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rhumb_apiserver::pki::{Authority, Identity};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::client::{Client, Cluster, LIMIT};

type Reply = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

/// A kubelet's side of TLS: it takes clients of the cluster's authority only.
pub fn acceptor(cluster: &Cluster) -> TlsAcceptor {
    let authority = Authority::open(&cluster.dir.path().join("data/pki")).unwrap();
    let identity = Identity {
        user: "system:node:n1".into(),
        groups: vec!["system:nodes".into()],
    };
    let pair = authority.issue(&identity, &["127.0.0.1".into()]).unwrap();
    let der = |text: &str| pem::parse(text).unwrap().into_contents();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(der(&authority.certificate)))
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(der(&pair.certificate))],
            PrivatePkcs8KeyDer::from(der(&pair.key)).into(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(tls))
}

/// A port like a kubelet's. Each request's path goes to the channel; logs never end, exec echoes.
async fn node_port(cluster: &Cluster, seen: mpsc::UnboundedSender<String>) -> u16 {
    let acceptor = acceptor(cluster);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                let service = service_fn(move |request| answer(request, seen.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(
    mut request: hyper::Request<Incoming>,
    seen: mpsc::UnboundedSender<String>,
) -> Result<Reply, Infallible> {
    let path = request.uri().to_string();
    seen.send(path.clone()).unwrap();
    if !path.starts_with("/containerLogs/") {
        let mut reply = Response::new(Full::new(Bytes::new()).boxed_unsync());
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        reply
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        reply
            .headers_mut()
            .insert("connection", "upgrade".parse().unwrap());
        reply
            .headers_mut()
            .insert("upgrade", "websocket".parse().unwrap());
        tokio::spawn(async move {
            let stream = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        return Ok(reply);
    }
    if path.contains("gone") {
        let mut reply = Response::new(Full::new("no such container".into()).boxed_unsync());
        *reply.status_mut() = StatusCode::NOT_FOUND;
        return Ok(reply);
    }
    let first = futures::stream::once(async { Ok(Frame::data(Bytes::from("line 1\n"))) });
    let body = futures::StreamExt::chain(first, futures::stream::pending());
    Ok(Response::new(StreamBody::new(body).boxed_unsync()))
}

async fn pod_on_node(admin: &Client, port: u16) {
    let node = json!({
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    });
    admin.post("/api/v1/nodes", &node).await.ok(201);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await
        .ok(201);
    let pods = "/api/v1/namespaces/default/pods";
    let containers = json!([{"name": "c", "image": "i"}, {"name": "gone", "image": "i"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    admin.post(pods, &pod).await.ok(201);
    let log = format!("{pods}/p/log?container=c");
    // Before it is anywhere it has logged nothing, and runs nothing.
    let nothing = admin.get(&log).await;
    assert_eq!(
        (nothing.status.as_u16(), nothing.body.as_ref()),
        (200, "".as_bytes())
    );
    let exec = format!("{pods}/p/exec?container=c&command=ls&stdout=true");
    let message = admin.get(&exec).await.refused(400, "BadRequest");
    assert_eq!(message, "pod p does not have a host assigned");
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    admin
        .post(&format!("{pods}/p/binding"), &binding)
        .await
        .ok(201);
    // Logs are looked up in the cache: wait for it as a read of now does.
    admin.get(&format!("{pods}/p")).await.ok(200);
}

const POD: &str = "/api/v1/namespaces/default/pods/p";

#[tokio::test(flavor = "multi_thread")]
async fn logs_stream_through() {
    let mut cluster = Cluster::start().await;
    let (seen, mut asked) = mpsc::unbounded_channel();
    let port = node_port(&cluster, seen).await;
    let admin = cluster.admin();
    pod_on_node(&admin, port).await;
    let path = format!("{POD}/log?container=c&follow=true&tailLines=5&timestamps=true&pretty=x");
    let response = admin.open("GET", &path, &[], Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/plain");
    let mut body = response.into_body();
    let first = tokio::time::timeout(LIMIT, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.into_data().unwrap(), "line 1\n");
    assert_eq!(
        asked.recv().await.unwrap(),
        "/containerLogs/default/p/c?follow=true&tailLines=5&timestamps=true"
    );
    let message = admin
        .get(&format!("{POD}/log?container=gone"))
        .await
        .refused(400, "BadRequest");
    assert_eq!(message, "no such container");
    let message = admin
        .get(&format!("{POD}/log"))
        .await
        .refused(400, "BadRequest");
    assert!(message.contains("choose one of: [c gone]"), "{message}");
    admin
        .get(&format!("{POD}/log?container=c&tailLines=-1"))
        .await
        .refused(400, "BadRequest");
    // A stream that goes on does not hold the server's stop up.
    cluster.stop().await;
    let end = tokio::time::timeout(LIMIT, body.frame()).await.unwrap();
    assert!(end.is_none_or(|frame| frame.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_websockets_through_and_through() {
    let cluster = Cluster::start().await;
    let (seen, mut asked) = mpsc::unbounded_channel();
    let port = node_port(&cluster, seen).await;
    let admin = cluster.admin();
    pod_on_node(&admin, port).await;
    let path = format!(
        "{POD}/exec?container=c&command=sh&command=-c&command=echo+%26&stdin=true&stdout=true&tty=true"
    );
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let response = admin.open("GET", &path, &headers, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        response.headers()["sec-websocket-protocol"],
        "v5.channel.k8s.io"
    );
    let stream = hyper::upgrade::on(response).await.unwrap();
    let mut stream = TokioIo::new(stream);
    stream.write_all(b"any bytes").await.unwrap();
    let mut back = [0; 9];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"any bytes");
    assert_eq!(
        asked.recv().await.unwrap(),
        "/exec/default/p/c?command=sh&command=-c&command=echo%20%26&input=1&output=1&tty=1"
    );
    let message = admin.get(&path).await.refused(400, "BadRequest");
    assert!(message.contains("WebSocket"), "{message}");
    let none = format!("{POD}/exec?container=c&command=sh");
    let refused = admin
        .call("GET", &none, &headers, "")
        .await
        .refused(400, "BadRequest");
    assert_eq!(
        refused,
        "you must specify at least 1 of stdin, stdout, stderr"
    );
    // The other streams, by their paths at the kubelet.
    for (ours, kubelets) in [
        (
            "attach?container=c&stdin=true&stderr=true",
            "/attach/default/p/c?input=1&error=1",
        ),
        (
            "portforward?ports=80&ports=443",
            "/portForward/default/p?port=80&port=443",
        ),
        ("portforward", "/portForward/default/p"),
    ] {
        let path = format!("{POD}/{ours}");
        let response = admin.open("GET", &path, &headers, Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{ours}");
        assert_eq!(asked.recv().await.unwrap(), kubelets);
        let message = admin.get(&path).await.refused(400, "BadRequest");
        assert!(message.contains("WebSocket"), "{message}");
    }
    // Nobody but system:masters.
    let kubelet = cluster.client("system:node:n1", &["system:nodes"]);
    kubelet.get(&path).await.refused(403, "Forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    // Bound and closed again: nobody listens there.
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    pod_on_node(&admin, port).await;
    let message = admin
        .get(&format!("{POD}/log?container=c"))
        .await
        .refused(503, "ServiceUnavailable");
    assert!(
        message.starts_with("the kubelet of node n1 at 127.0.0.1:"),
        "{message}"
    );
}
