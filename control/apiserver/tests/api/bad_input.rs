//! Whatever comes in, a Status goes out, and the server lives on.

use serde_json::json;

use crate::client::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn bodies() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let json_type = [("content-type", "application/json")];
    for body in [
        "",
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{} {}",
        "\u{0}",
        "{\"metadata\":1}",
    ] {
        let answer = admin.call("POST", MAPS, &json_type, body).await;
        answer.refused(400, "BadRequest");
    }
    let deep = "[".repeat(100_000);
    admin
        .call("POST", MAPS, &json_type, deep)
        .await
        .refused(400, "BadRequest");
    let not_text = bytes::Bytes::from_static(b"{\"metadata\":{\"name\":\"\xff\"}}");
    admin
        .call("POST", MAPS, &json_type, not_text)
        .await
        .refused(400, "BadRequest");
    let large = "x".repeat((3 << 20) + 1);
    admin
        .call("POST", MAPS, &json_type, large)
        .await
        .refused(413, "RequestEntityTooLarge");
    admin
        .call("POST", MAPS, &[("content-type", "text/html")], "<p>")
        .await
        .refused(415, "UnsupportedMediaType");
    for garbage in ["", "k8s", "k8s\0\u{1}\u{2}\u{3}", "x"] {
        let answer = admin
            .call(
                "POST",
                MAPS,
                &[("content-type", "application/vnd.kubernetes.protobuf")],
                garbage,
            )
            .await;
        answer.refused(400, "BadRequest");
    }
    admin
        .call(
            "POST",
            MAPS,
            &[("content-type", "application/yaml")],
            "metadata: {name: yaml}",
        )
        .await
        .ok(201);
    admin
        .call(
            "POST",
            MAPS,
            &[("content-type", "application/yaml")],
            "a: [",
        )
        .await
        .refused(400, "BadRequest");
    for patch in ["", "{", "[]", "[{\"op\":\"jump\"}]", "1"] {
        for kind in ["merge", "json", "strategic-merge"] {
            let media_type = format!("application/{kind}-patch+json");
            let headers = [("content-type", media_type.as_str())];
            let answer = admin
                .call("PATCH", &format!("{MAPS}/yaml"), &headers, patch)
                .await;
            let code = answer.status.as_u16();
            assert!(code < 500, "{kind} {patch:?}: {code}");
        }
    }
    admin.get(&format!("{MAPS}/yaml")).await.ok(200);
    admin
        .delete(&format!("{MAPS}/yaml"), Some(&json!([])))
        .await
        .refused(400, "BadRequest");
    // What isn't options deletes nothing; options of any group do.
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "yaml"}});
    admin
        .delete(&format!("{MAPS}/yaml"), Some(&map))
        .await
        .refused(400, "BadRequest");
    let nameless = json!({"metadata": {}});
    let nameless = admin.put(&format!("{MAPS}/yaml"), &nameless).await;
    assert_eq!(
        nameless.refused(400, "BadRequest"),
        "the name of the object (yaml based on URL) was undeterminable: name must be provided"
    );
    let options = json!({"kind": "DeleteOptions", "apiVersion": "apps/v1"});
    admin
        .delete(&format!("{MAPS}/yaml"), Some(&options))
        .await
        .ok(200);
    let deleted = json!({"metadata": {"name": "y", "deletionTimestamp": "2020-01-01T00:00:00Z"}});
    let created = admin.post(MAPS, &deleted).await.ok(201);
    assert!(created["metadata"].get("managedFields").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for path in [
        "/nothing",
        "/api/v2",
        "/api/v1/nothing",
        "/apis/nothing",
        "/apis/apps/v9/deployments",
        "/api/v1/pods/x",
        "/api/v1/namespaces/a/nodes",
        "/api/v1/namespaces/default/pods/x/nothing",
        "/api/v1/namespaces/default/pods/x/log/y/z",
        "/api/v1//pods",
        "/%",
        "/%00",
        "/api/v1/%ff",
        "/api/v1/namespaces/%2e%2e/pods/x",
        "/openapi/v3/apis/nothing",
        "/healthz/nothing",
        "/api/v1/namespaces/default/configmaps/..%2F..%2Fx",
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status.as_u16(), 404, "{path}: {answer:?}");
        answer.refused(404, "NotFound");
    }
    for (method, path) in [
        ("POST", "/api/v1"),
        ("POST", "/api/v1/configmaps"),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api/v1/namespaces/default/configmaps/x"),
        ("OPTIONS", MAPS),
        ("BREW", MAPS),
        ("PUT", "/api/v1/namespaces/default/pods/x/binding"),
    ] {
        let answer = admin
            .call(method, path, &[("content-type", "application/json")], "{}")
            .await;
        answer.refused(405, "MethodNotAllowed");
    }
    for query in [
        "?limit=-5&limit=%ff&&&=&=x",
        "?watch=%zz",
        "?labelSelector=%00",
        "?fieldSelector=,,,",
        "?labelSelector=a%20in%20(",
        "?resourceVersion=99999999999999999999999",
        "?continue=%00",
        "?timeoutSeconds=-1&watch=1",
        "?limit=99999999999999999999",
    ] {
        let code = admin.get(&format!("{MAPS}{query}")).await.status.as_u16();
        assert!(code < 500, "{query}: {code}");
    }
    let head = admin.call("HEAD", MAPS, &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    admin.get("/healthz").await;
    let ready = admin.get("/readyz?verbose").await;
    let text = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(
        text.contains("[+]store ok") && text.ends_with("readyz check passed\n"),
        "{text}"
    );
    let metrics = admin.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        text.contains(
            "apiserver_request_total{verb=\"list\",resource=\"configmaps\",code=\"200\"}"
        ),
        "{text}"
    );
    for document in [
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/openapi/v3/apis/apps/v1",
    ] {
        let answer = admin.get(document).await;
        assert_eq!(answer.status.as_u16(), 200, "{document}");
        let tag = answer.headers["etag"].to_str().unwrap().to_string();
        let again = admin
            .call("GET", document, &[("if-none-match", &tag)], "")
            .await;
        assert_eq!(again.status.as_u16(), 304, "{document}");
    }
}

/// Bytes that are no TLS, and TLS that carries no HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn connections() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let cluster = Cluster::start().await;
    let address = cluster.server.as_ref().unwrap().loopback;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 1000],
        &[0x16, 3, 1, 255, 255],
    ] {
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // It may be reset; it must not hang.
        let read = tokio::time::timeout(crate::client::LIMIT, tcp.read_to_end(&mut rest));
        let _ = read.await.expect("the server hangs up");
    }
    cluster.admin().get("/api/v1/nodes").await.ok(200);
}

/// What is stored is read again: nothing gets in that the reader's bound would keep from coming out.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_nest_no_deeper_than_is_read() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    for depth in [60, 110, 116, 119, 125, 127, 200] {
        let fields = format!("{}{{}}{}", "{\"f:a\":".repeat(depth), "}".repeat(depth));
        let name = format!("deep{depth}");
        let body = format!(
            r#"{{"metadata":{{"name":"{name}","managedFields":[{{"manager":"m","operation":"Update",
            "apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{fields}}}]}}}}"#
        );
        let headers = [("content-type", "application/json")];
        let answer = admin.call("POST", maps, &headers, body).await;
        match answer.json()["code"].as_u64() {
            // Stored: it can be read and removed.
            None => {
                admin.get(&format!("{maps}/{name}")).await.ok(200);
                admin.delete(&format!("{maps}/{name}"), None).await.ok(200);
            }
            Some(code) => assert_eq!(code, 400, "{depth}"),
        }
    }
}
