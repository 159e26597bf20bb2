//! get and list: versions, pages, forms.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(admin: &Client, name: &str, labels: Value) -> Value {
    let object = json!({"metadata": {"name": name, "labels": labels}});
    admin.post(MAPS, &object).await.ok(201)
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_moment() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for i in 0..7 {
        create(
            &admin,
            &format!("m{i}"),
            json!({"parity": (i % 2).to_string()}),
        )
        .await;
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = admin
            .get(&format!("{MAPS}?limit=3&continue={token}"))
            .await
            .ok(200);
        // Between pages the collection changes; the list does not.
        admin.delete(&format!("{MAPS}/m6"), None).await;
        create(&admin, &format!("m{}x", seen.len()), json!({})).await;
        seen.extend(names(&page));
        let left = 7 - seen.len();
        assert_eq!(
            page["metadata"].get("remainingItemCount"),
            (left > 0).then_some(&json!(left))
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_string(),
            None => break,
        }
    }
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);

    let odd = admin
        .get(&format!("{MAPS}?labelSelector=parity%3D1&limit=2"))
        .await
        .ok(200);
    assert_eq!(names(&odd), ["m1", "m3"]);
    assert_eq!(odd["metadata"].get("remainingItemCount"), None);
    let token = odd["metadata"]["continue"].as_str().unwrap();
    let rest = admin
        .get(&format!(
            "{MAPS}?labelSelector=parity%3D1&limit=2&continue={token}"
        ))
        .await
        .ok(200);
    assert_eq!(names(&rest), ["m5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_lists() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let a = create(&admin, "a", json!({})).await;
    let version = a["metadata"]["resourceVersion"].as_str().unwrap();
    create(&admin, "b", json!({})).await;
    let get = |query: String| {
        let admin = admin.clone();
        async move { admin.get(&format!("{MAPS}?{query}")).await }
    };
    let exact = get(format!(
        "resourceVersion={version}&resourceVersionMatch=Exact"
    ))
    .await
    .ok(200);
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(exact["metadata"]["resourceVersion"], version);
    let newer = get(format!(
        "resourceVersion={version}&resourceVersionMatch=NotOlderThan"
    ))
    .await;
    assert_eq!(names(&newer.ok(200)), ["a", "b"]);
    assert_eq!(
        names(&get(format!("resourceVersion={version}")).await.ok(200)),
        ["a", "b"]
    );
    get("resourceVersion=0".into()).await.ok(200);
    let future = get("resourceVersion=999999".into()).await;
    let message = future.refused(504, "Timeout");
    assert!(
        message.starts_with("Timeout: Too large resource version: 999999"),
        "{message}"
    );
    assert_eq!(future.headers["retry-after"], "1");
    for bad in [
        "resourceVersion=x",
        "resourceVersion=-1",
        "limit=x",
        "continue=x",
        "labelSelector=a%3D%3D%3Db",
        "fieldSelector=spec.foo%3Dx",
    ] {
        get(bad.into()).await.refused(400, "BadRequest");
    }
    // From a store that was further than this one.
    let token = "eyJydiI6OTk5OTk5LCJzdGFydCI6ImRlZmF1bHQvYSJ9";
    get(format!("continue={token}"))
        .await
        .refused(410, "Expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_answers() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    create(&admin, "a", json!({"x": "y"})).await;
    let with = |accept: &'static str, path: &'static str| {
        let admin = admin.clone();
        async move { admin.call("GET", path, &[("accept", accept)], "").await }
    };
    const ONE: &str = "/api/v1/namespaces/default/configmaps/a";
    let table = with(
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        MAPS,
    )
    .await
    .ok(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = with(
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        MAPS,
    )
    .await
    .ok(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["labels"]["x"], "y");
    let yaml = with("application/yaml", ONE).await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let object: Value = serde_saphyr::from_slice(&yaml.body).unwrap();
    assert_eq!(object["metadata"]["name"], "a");
    with("application/vnd.kubernetes.protobuf", ONE)
        .await
        .refused(406, "NotAcceptable");

    // Events are one thing under two groups.
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Tested", "type": "Normal",
        "involvedObject": {"kind": "ConfigMap", "namespace": "default", "name": "a"},
    });
    admin
        .post("/api/v1/namespaces/default/events", &event)
        .await
        .ok(201);
    let list = admin
        .get("/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name%3Da")
        .await
        .ok(200);
    assert_eq!(list["items"][0]["regarding"]["name"], "a");
    assert_eq!(list["items"][0]["apiVersion"], "events.k8s.io/v1");

    let big = json!({"metadata": {"name": "big"}, "data": {"k": "v".repeat(200_000)}});
    admin.post(MAPS, &big).await.ok(201);
    let packed = admin
        .call("GET", MAPS, &[("accept-encoding", "gzip, deflate")], "")
        .await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_string(&mut text)
        .unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(names(&list), ["a", "big"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    let a = create(&admin, "a", json!({})).await;
    create(&admin, "b", json!({})).await;
    let before = admin.get(MAPS).await.ok(200);
    cluster.stop().await;
    cluster.run().await;
    let admin = cluster.admin();
    let after = admin.get(MAPS).await.ok(200);
    assert_eq!(before["items"], after["items"]);
    // A watch from before goes on.
    let version = a["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = admin
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"))
        .await;
    assert_eq!(watch.next_name().await, "ADDED b");
}

/// Objects of a size, fifteen of them.
async fn many(admin: &Client, size: usize) {
    let filler = "x".repeat(size);
    for i in 0..15 {
        let map = json!({"metadata": {"name": format!("m{i:02}")}, "data": {"k": filler}});
        admin.post(MAPS, &map).await.ok(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_written_piece_by_piece() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    many(&admin, 100_000).await;
    let expected: Vec<String> = (0..15).map(|i| format!("m{i:02}")).collect();
    let ours = |list: &Value| -> Vec<String> {
        let all = names(list).into_iter();
        all.filter(|n| n.starts_with('m')).collect()
    };
    let plain = admin.get(MAPS).await;
    assert!(!plain.headers.contains_key("content-length"));
    let plain = plain.ok(200);
    assert_eq!(ours(&plain), expected);
    assert_eq!(plain["kind"], "ConfigMapList");
    let packed = admin
        .call("GET", MAPS, &[("accept-encoding", "gzip")], "")
        .await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
    decoder.read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin
        .call("GET", MAPS, &[("accept", table)], "")
        .await
        .ok(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert!(table["rows"].as_array().unwrap().len() >= 15);
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let metadata = admin
        .call("GET", MAPS, &[("accept", metadata)], "")
        .await
        .ok(200);
    assert_eq!(ours(&metadata), expected);
    assert_eq!(metadata["items"][0]["kind"], "PartialObjectMetadata");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_is_cut_off() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    many(&admin, 900_000).await;
    let response = admin.open("GET", MAPS, &[], bytes::Bytes::new()).await;
    // To do nothing for longer than the server waits is what is tested.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    // What it gets then ends before the list does, and says so.
    use http_body_util::BodyExt as _;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_do_not_go_together() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let invalid = |why: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {why}");
    for (query, why) in [
        (
            "resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "sendInitialEvents=true",
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "watch=true&sendInitialEvents=true",
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(answer.refused(422, "Invalid"), invalid(why), "{query}");
    }
    for (query, message) in [
        ("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "timeoutSeconds=x",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "watch=true&timeoutSeconds=99999999999999999999",
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "labelSelector=a,",
            "found '', expected: identifier after ','",
        ),
        (
            "fieldSelector=data%3Da",
            "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(answer.refused(400, "BadRequest"), message, "{query}");
    }
    let object = json!({"metadata": {"name": "x"}});
    let dry = admin.post(&format!("{MAPS}?dryRun=x"), &object).await;
    assert_eq!(
        dry.refused(422, "Invalid"),
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"x\"]: supported values: \"All\""
    );
    let strict = admin
        .post(&format!("{MAPS}?fieldValidation=x"), &object)
        .await;
    strict.refused(422, "Invalid");
    let policy = admin
        .delete(&format!("{MAPS}/x?propagationPolicy=x"), None)
        .await;
    assert_eq!(
        policy.refused(422, "Invalid"),
        "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"x\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_their_audit_id_and_people_get_lines() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let given = [("audit-id", "my-id"), ("user-agent", "curl/8.0")];
    let answer = admin.call("GET", MAPS, &given, "").await;
    assert_eq!(answer.headers["audit-id"], "my-id");
    assert!(answer.body.starts_with(b"{\n  \"kind\": \"ConfigMapList\""));
    let missing = admin.get(&format!("{MAPS}/nothing?pretty=true")).await;
    assert_eq!(missing.headers["audit-id"].len(), 36);
    assert!(missing.body.starts_with(b"{\n"));
    let plain = admin
        .call("GET", &format!("{MAPS}?pretty=false"), &given, "")
        .await;
    assert!(plain.body.starts_with(b"{\"kind\""));
}
