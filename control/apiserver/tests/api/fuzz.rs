//! Requests of all verbs and kinds with everything about them changed: what comes back is an object
//! or a Status, never the server's fault, and the next request works.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use rhumb_api::registry::{KINDS, Kind};
use rhumb_fuzz::{Dice, bytes, soup, value};
use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const CASES: u64 = 500;
const NAMES: &[&str] = &[
    "a",
    "b",
    "default",
    "kubernetes",
    "cluster-admin",
    "A_",
    "é",
    "%2f",
    "x%00",
];
const QUERIES: &[&str] = &[
    "limit=1",
    "limit=-1",
    "limit=x",
    "continue=",
    "continue=eyJydiI6MSwic3RhcnQiOiJhIn0",
    "resourceVersion=0",
    "resourceVersion=1",
    "resourceVersion=-1",
    "resourceVersion=x",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "labelSelector=a%20in%20(b",
    "labelSelector=a%3Db",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=spec.nodeName%21%3D",
    "sendInitialEvents=true",
    "allowWatchBookmarks=true",
    "watch=true&timeoutSeconds=1",
    "timeoutSeconds=-1",
    "dryRun=All",
    "dryRun=x",
    "fieldValidation=Strict",
    "fieldValidation=x",
    "fieldManager=fuzz",
    "fieldManager=%00",
    "force=true",
    "gracePeriodSeconds=-1",
    "gracePeriodSeconds=9223372036854775807",
    "propagationPolicy=Orphan",
    "propagationPolicy=x",
    "orphanDependents=true",
    "includeObject=Object",
    "includeObject=x",
    "pretty=true",
    "%",
    "&",
    "=",
];
const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/json; charset=utf-8",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/cbor",
    "text/plain",
    "",
];
const ACCEPTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/vnd.kubernetes.protobuf",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "*/*",
    ";;,",
    "",
];

struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn collection(kind: &Kind, object: &Value, dice: &mut Dice) -> String {
    let root = match &*kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    if !kind.namespaced {
        return format!("{root}/{}", kind.plural);
    }
    let namespace = match object["metadata"]["namespace"].as_str() {
        Some(namespace) if !dice.one_in(8) => namespace,
        _ => dice.pick(&["default", "default", "default", "nowhere", "a%20b"]),
    };
    format!("{root}/namespaces/{namespace}/{}", kind.plural)
}

/// Objects that are right, to begin with.
fn sample(kind: &Kind, stored: &[Value], dice: &mut Dice) -> Value {
    let of_kind: Vec<&Value> = stored
        .iter()
        .filter(|o| o["kind"] == *kind.kind && o["apiVersion"] == kind.api_version())
        .collect();
    if !of_kind.is_empty() && !dice.one_in(4) {
        return of_kind[dice.index(of_kind.len())].clone();
    }
    let name = dice.pick(NAMES);
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = match &*kind.kind {
        "Pod" => template["spec"].clone(),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            json!({"selector": {"matchLabels": {"a": "b"}}, "template": template})
        }
        "Service" => json!({"ports": [{"port": 80}], "selector": {"a": "b"}}),
        "CustomResourceDefinition" => json!({"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1",
            "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}),
        _ => json!({"x": 1}),
    };
    json!({"apiVersion": kind.api_version(), "kind": *kind.kind,
        "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec, "data": {"a": "eA=="}})
}

fn request(stored: &[Value], dice: &mut Dice) -> Request {
    // What is there already is asked for more often than its kinds' share.
    let known = &stored[dice.index(stored.len())];
    let same = |k: &&Arc<Kind>| known["kind"] == *k.kind && known["apiVersion"] == k.api_version();
    let kind = match KINDS.iter().find(same) {
        Some(kind) if !dice.one_in(3) => kind,
        _ => &KINDS[dice.index(KINDS.len())],
    };
    let object = sample(kind, stored, dice);
    let method: &'static str = match dice.roll(16) {
        0..4 => "GET",
        4..8 => "POST",
        8..10 => "PUT",
        10..13 => "PATCH",
        13..15 => "DELETE",
        _ => match dice.roll(4) {
            0 => "HEAD",
            1 => "OPTIONS",
            2 => "PROPFIND",
            _ => "TRACE",
        },
    };
    let mut path = collection(kind, &object, dice);
    let item = match method {
        "POST" => dice.one_in(8),
        "GET" => dice.one_in(2),
        _ => true,
    };
    if item {
        path += "/";
        path += match object["metadata"]["name"].as_str() {
            Some(name) if name.is_ascii() && !dice.one_in(8) => name,
            _ => dice.pick(NAMES),
        };
        if dice.one_in(4) {
            path += dice.pick(&[
                "/status",
                "/scale",
                "/log",
                "/eviction",
                "/binding",
                "/token",
                "/finalize",
                "/approval",
                "/ephemeralcontainers",
                "/resize",
                "/x",
                "/",
            ]);
        }
    }
    if dice.one_in(8) {
        let odd = bytes(path.as_bytes(), &["/watch", "/api", "//", "%2e%2e"], dice);
        // What is no URL is refused before it gets here.
        path = String::from_utf8_lossy(&odd)
            .chars()
            .filter(|c| {
                c.is_ascii_graphic() && !matches!(c, '#' | '"' | '<' | '>' | '`' | '{' | '}')
            })
            .collect();
        path.insert(0, '/');
    }
    if dice.one_in(3) {
        let query = soup(QUERIES, dice).replace(' ', "&");
        path += if path.contains('?') { "&" } else { "?" };
        path += &query;
    }
    let body = match method {
        "PATCH" if dice.one_in(3) => {
            json!([{"op": dice.pick(&["add", "replace", "remove", "test"]),
            "path": dice.pick(&["/metadata/labels", "/spec", "/data/a", "/metadata/name", ""]),
            "value": value(&json!({"a": "b"}), dice)}])
        }
        "DELETE" => json!({"preconditions": {"uid": "x"}, "dryRun": ["All"]}),
        _ => object,
    };
    let mut body = body;
    if method == "POST" && dice.one_in(2) {
        body["metadata"] = json!({"generateName": "fuzz-"});
    }
    if method == "PATCH" && body.is_object() && dice.one_in(2) {
        body["metadata"] = json!({"labels": {"fuzz": "x"}});
    }
    let body = match dice.one_in(2) {
        true => body,
        false => value(&body, dice),
    };
    let body = body.to_string().into_bytes();
    let body = match dice.one_in(8) {
        true => bytes(&body, &[], dice),
        false => body,
    };
    let content_type = match (method, dice.one_in(8)) {
        (_, true) => dice.pick(CONTENT_TYPES),
        ("PATCH", _) => match body.first() {
            Some(b'[') => CONTENT_TYPES[4],
            _ => dice.pick(&CONTENT_TYPES[5..8]),
        },
        _ => CONTENT_TYPES[0],
    };
    let mut headers = vec![("content-type", content_type.to_string())];
    if dice.one_in(4) {
        headers.push(("accept", dice.pick(ACCEPTS).to_string()));
    }
    if dice.one_in(4) {
        headers.push(("accept-encoding", "gzip".into()));
    }
    if dice.one_in(10) {
        let names = [
            "impersonate-user",
            "impersonate-group",
            "impersonate-uid",
            "impersonate-extra-a%2fb",
            "authorization",
            "upgrade",
            "audit-id",
            "user-agent",
        ];
        let name = names[dice.index(names.len())];
        headers.push((
            name,
            dice.pick(&["", "x", "system:admin", "websocket", "Bearer a.b.c"])
                .into(),
        ));
    }
    Request {
        method,
        path,
        headers,
        body,
    }
}

/// What came of it, or what is wrong with the answer.
async fn judge(client: &Client, request: &Request) -> Result<u16, String> {
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(k, v)| (*k, &**v)).collect();
    let body = Bytes::from(request.body.clone());
    let opened = client.open(request.method, &request.path, &headers, body);
    let opened = tokio::time::timeout(Duration::from_secs(10), opened).await;
    let response = opened.map_err(|_| "no answer comes")?;
    let code = response.status().as_u16();
    if code >= 500 && !matches!(code, 503 | 504) {
        return Err(format!("the server blames itself: {code}"));
    }
    let typed = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
            .to_string()
    };
    let (content_type, encoding) = (typed("content-type"), typed("content-encoding"));
    // A watch may go on for longer than there is patience for.
    let whole = response.into_body().collect();
    let Ok(whole) = tokio::time::timeout(Duration::from_secs(3), whole).await else {
        return Ok(code);
    };
    let whole = whole
        .map_err(|e| format!("the answer breaks off: {e}"))?
        .to_bytes();
    if request.method == "HEAD" || !encoding.is_empty() || content_type != "application/json" {
        return Ok(code);
    }
    let text = String::from_utf8_lossy(&whole).into_owned();
    let lines: Vec<Result<Value, _>> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect();
    if let Some(Err(error)) = lines.iter().find(|line| line.is_err()) {
        return Err(format!("the answer is no JSON: {error}: {text}"));
    }
    if let (400.., [Ok(status)]) = (code, lines.as_slice()) {
        let complete = status["kind"] == "Status"
            && status["status"] == "Failure"
            && status["code"] == code
            && status["message"].as_str().is_some_and(|m| !m.is_empty())
            && status["reason"].is_string();
        if !complete {
            return Err(format!("the refusal is no Status: {code} {text}"));
        }
    }
    Ok(code)
}

/// Some of what is there at first: what can be changed, too.
async fn stored(admin: &Client) -> Vec<Value> {
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    for (path, object) in [
        ("/api/v1/namespaces/default/serviceaccounts", json!({})),
        (
            "/api/v1/namespaces/default/pods",
            json!({"spec": template["spec"]}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"data": {"a": "b"}}),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"stringData": {"a": "b"}}),
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"spec": {"ports": [{"port": 80}]}}),
        ),
        ("/api/v1/nodes", json!({})),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"spec": workload}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"spec": workload}),
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"spec": {"template": {"spec":
            {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"spec": {"podSelector": {}}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"spec": {"holderIdentity": "x"}}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1}}),
        ),
    ] {
        let mut object = object;
        // No controller runs here that would make the account of that name.
        let account = path.ends_with("serviceaccounts");
        object["metadata"] = json!({"name": if account { "default" } else { "fuzzed" }});
        admin.post(path, &object).await.ok(201);
    }
    let mut all = Vec::new();
    for path in [
        "/api/v1/namespaces",
        "/api/v1/services",
        "/api/v1/configmaps",
        "/api/v1/pods",
        "/api/v1/secrets",
        "/api/v1/nodes",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/daemonsets",
        "/apis/batch/v1/jobs",
        "/apis/networking.k8s.io/v1/networkpolicies",
        "/apis/coordination.k8s.io/v1/leases",
        "/apis/policy/v1/poddisruptionbudgets",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles?limit=5",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
    ] {
        let list = admin.get(path).await.ok(200);
        let (kind, version) = (list["kind"].as_str().unwrap(), &list["apiVersion"]);
        for item in list["items"].as_array().unwrap() {
            let mut item = item.clone();
            item["kind"] = kind.trim_end_matches("List").into();
            item["apiVersion"] = version.clone();
            all.push(item);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn any_request_gets_an_answer() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let stranger = cluster.client("stranger", &[]);
    let stored = stored(&admin).await;
    let (mut tried, mut done) = (0, 0);
    for seed in rhumb_fuzz::seeds(CASES) {
        let _case = rhumb_fuzz::watch("any_request_gets_an_answer", seed);
        let mut dice = Dice::new(seed);
        let client = if dice.one_in(8) { &stranger } else { &admin };
        let request = request(&stored, &mut dice);
        tried += 1;
        match judge(client, &request).await {
            Ok(code) => done += usize::from(code < 300),
            Err(why) => panic!(
                "{why}\n{} {} {:?}\n{}",
                request.method,
                request.path,
                request.headers,
                String::from_utf8_lossy(&request.body)
            ),
        }
    }
    admin.get("/readyz").await;
    let map = json!({"metadata": {"generateName": "after-"}});
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    admin.post(maps, &map).await.ok(201);
    // It would say little if next to nothing was accepted.
    if tried > 50 {
        assert!(
            done * 10 > tried,
            "{done} of {tried} requests were carried out"
        );
    }
}
