//! The subresource `proxy`, by way of a node's port: pods can't be dialed on loopback.

use std::convert::Infallible;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::{Client, Cluster, LIMIT};
use crate::kubelet::acceptor;

const PROXY: &str = "/api/v1/nodes/n1/proxy";

type Reply = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>>;

/// A kubelet's port that tells what it was asked, redirects, breaks off, and switches protocols.
async fn port(cluster: &Cluster) -> u16 {
    let acceptor = acceptor(cluster);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service_fn(answer))
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(mut request: hyper::Request<Incoming>) -> Result<Reply, Infallible> {
    let whole = |bytes: Bytes| Full::new(bytes).map_err(|n| match n {}).boxed_unsync();
    let path = request.uri().path().to_string();
    let mut reply = Response::new(whole(Bytes::new()));
    match path.as_str() {
        "/moved" => {
            *reply.status_mut() = StatusCode::FOUND;
            reply
                .headers_mut()
                .insert("location", "/there?x=1".parse().unwrap());
        }
        "/torn" => {
            let first = async { Ok(hyper::body::Frame::data(Bytes::from("half"))) };
            let then = async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                Err(std::io::Error::other("torn"))
            };
            let frames = futures::stream::once(first).chain(futures::stream::once(then));
            *reply.body_mut() = http_body_util::StreamBody::new(frames).boxed_unsync();
        }
        "/never" => std::future::pending().await,
        "/switch" => {
            *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for name in ["upgrade", "sec-websocket-protocol"] {
                let value = request.headers()[name].clone();
                reply
                    .headers_mut()
                    .insert(http::HeaderName::from_static(name), value);
            }
            reply
                .headers_mut()
                .insert("connection", "Upgrade".parse().unwrap());
            tokio::spawn(async move {
                let stream = hyper::upgrade::on(&mut request).await.unwrap();
                let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
        _ => {
            let (head, body) = request.into_parts();
            let headers: serde_json::Map<String, Value> = head
                .headers
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_str().unwrap().into()))
                .collect();
            let body = body.collect().await.unwrap().to_bytes();
            let told = json!({"method": head.method.as_str(), "target": head.uri.to_string(),
                "headers": headers, "body": String::from_utf8_lossy(&body)});
            *reply.status_mut() = StatusCode::IM_A_TEAPOT;
            *reply.body_mut() = whole(told.to_string().into());
            let out = reply.headers_mut();
            out.insert("x-own", "kept".parse().unwrap());
            out.insert("access-control-allow-origin", "*".parse().unwrap());
        }
    }
    Ok(reply)
}

async fn node(cluster: &Cluster) -> Client {
    let admin = cluster.admin();
    let node = json!({
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port(cluster).await}},
        },
    });
    admin.post("/api/v1/nodes", &node).await.ok(201);
    // Objects are looked up in the cache: wait for it as a read of now does.
    admin.get("/api/v1/nodes/n1").await.ok(200);
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_handed_on() {
    let cluster = Cluster::start().await;
    let admin = node(&cluster).await;
    let headers = [
        ("authorization", "Bearer secret"),
        ("impersonate-user", "kubernetes-admin"),
        ("impersonate-group", "system:masters"),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-other", "2"),
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let path = format!("{PROXY}/a//b%2Fc/%zz?q=%20&q=2");
        let body = if method == "GET" { "" } else { "any body" };
        let answer = admin.call(method, &path, &headers, body).await;
        assert_eq!(
            answer.status,
            StatusCode::IM_A_TEAPOT,
            "{method} {answer:?}"
        );
        assert_eq!(answer.headers["x-own"], "kept");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let told = answer.json();
        assert_eq!(told["method"], method);
        assert_eq!(told["target"], "/a//b%2Fc/%zz?q=%20&q=2");
        assert_eq!(told["body"], body);
        let got = &told["headers"];
        assert_eq!(got["x-other"], "2");
        assert_eq!(got["host"], "api");
        assert_eq!(got["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
        assert_eq!(got["x-forwarded-uri"], format!("{PROXY}/a//b%2Fc/%zz"));
        for gone in [
            "authorization",
            "impersonate-user",
            "impersonate-group",
            "x-mine",
        ] {
            assert!(got.get(gone).is_none(), "{gone}: {got}");
        }
    }
    // More than a body of ours may have goes through.
    let large = "x".repeat(5 << 20);
    let answer = admin
        .call("POST", &format!("{PROXY}/"), &[], large.clone())
        .await;
    assert_eq!(answer.json()["body"], large);

    let moved = admin.get(&format!("{PROXY}/moved")).await;
    assert_eq!(moved.status, StatusCode::FOUND);
    assert_eq!(moved.headers["location"], format!("{PROXY}/there?x=1"));
    // Links that are relative to "proxy" would miss it.
    let slash = admin.get(&format!("{PROXY}?a=b")).await;
    assert_eq!(slash.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(slash.headers["location"], format!("{PROXY}/?a=b"));
    let told = admin.post(PROXY, &json!({})).await.json();
    assert_eq!(told["target"], "/");
    // What breaks off isn't taken for whole.
    let torn = admin
        .open("GET", &format!("{PROXY}/torn"), &[], Bytes::new())
        .await;
    assert_eq!(torn.status(), StatusCode::OK);
    assert!(torn.into_body().collect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_are_switched() {
    let cluster = Cluster::start().await;
    let admin = node(&cluster).await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-protocol", "mine"),
    ];
    let path = format!("{PROXY}/switch");
    let response = admin.open("GET", &path, &headers, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "mine");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"any bytes").await.unwrap();
    let mut back = [0; 9];
    let read = stream.read_exact(&mut back);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    assert_eq!(&back, b"any bytes");
    // An answer that isn't a switch comes as it is.
    let other = format!("{PROXY}/other");
    let answer = admin.call("GET", &other, &headers, "").await;
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_and_where() {
    let mut cluster = Cluster::start().await;
    let admin = node(&cluster).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "r"}, "rules": [{
        "apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]});
    admin
        .post(&format!("{roles}/clusterroles"), &role)
        .await
        .ok(201);
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": "anna", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin
        .post(&format!("{roles}/clusterrolebindings"), &binding)
        .await
        .ok(201);
    let anna = cluster.client("anna", &[]);
    let path = format!("{PROXY}/x");
    assert_eq!(anna.get(&path).await.status, StatusCode::IM_A_TEAPOT);
    let message = anna.post(&path, &json!({})).await.refused(403, "Forbidden");
    assert!(
        message.contains("cannot create resource \"nodes/proxy\""),
        "{message}"
    );
    anna.call("OPTIONS", &path, &[], "")
        .await
        .refused(403, "Forbidden");
    // What could run commands is no reading.
    let switch = [("connection", "upgrade"), ("upgrade", "websocket")];
    anna.call("GET", &path, &switch, "")
        .await
        .refused(403, "Forbidden");
    cluster
        .anonymous()
        .get(&path)
        .await
        .refused(401, "Unauthorized");

    let refused = |id: &'static str| {
        let admin = admin.clone();
        async move {
            admin
                .get(&format!("/api/v1/nodes/{id}/proxy/"))
                .await
                .json()
        }
    };
    for (id, code, message) in [
        ("n1:22", 400, "address not allowed"),
        ("x", 404, "nodes \"x\" not found"),
        ("a:b:c:d", 400, "invalid node request \"a:b:c:d\""),
        ("ftp:n1:1", 400, "invalid node request \"ftp:n1:1\""),
    ] {
        let status = refused(id).await;
        assert_eq!(
            (&status["code"], &status["message"]),
            (&json!(code), &json!(message)),
            "{id}"
        );
    }
    let namespace = "/api/v1/namespaces/default";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    admin
        .post(&format!("{namespace}/services"), &service)
        .await
        .ok(201);
    admin.get(&format!("{namespace}/services/s")).await.ok(200);
    for (id, message) in [
        ("s", "no endpoints available for service \"s\""),
        ("s:81", "no service port 81 found for service \"s\""),
    ] {
        let path = format!("{namespace}/services/{id}/proxy/");
        assert_eq!(
            admin.get(&path).await.refused(503, "ServiceUnavailable"),
            message
        );
    }
    // A slice that names the server's own machine gets nobody there.
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 10250}],
        "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    admin.post(slices, &slice).await.ok(201);
    admin.get(&format!("{slices}/s-1")).await.ok(200);
    let path = format!("{namespace}/services/s/proxy/");
    let message = admin.get(&path).await.refused(503, "ServiceUnavailable");
    assert_eq!(message, "no endpoints available for service \"s\"");

    // Nobody answers there; and one that never does holds up no stop.
    let (dead, live) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        format!("{PROXY}/never"),
    );
    let number = dead.local_addr().unwrap().port();
    drop(dead);
    let waiting = {
        let admin = admin.clone();
        tokio::spawn(async move { admin.get(&live).await })
    };
    let mut other = admin.get("/api/v1/nodes/n1").await.ok(200);
    other["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = json!(number);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    admin.put("/api/v1/nodes/n1/status", &other).await.ok(200);
    admin.get("/api/v1/nodes/n1").await.ok(200);
    let message = admin
        .get(&format!("{PROXY}/x"))
        .await
        .refused(503, "ServiceUnavailable");
    assert_eq!(
        message,
        format!(
            "error trying to reach service: dial tcp 127.0.0.1:{number}: connect: connection refused"
        )
    );
    let message = admin
        .call("GET", &format!("{PROXY}/x"), &switch, "")
        .await
        .json();
    assert_eq!(message["code"], 500);
    assert!(
        message["message"]
            .as_str()
            .unwrap()
            .starts_with("error dialing backend: dial tcp")
    );
    cluster.stop().await;
    let answer = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
    answer.refused(503, "ServiceUnavailable");
}
