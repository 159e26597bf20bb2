//! watch.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(admin: &Client, name: &str, label: &str) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
    let answer = admin.put(&format!("{MAPS}/{name}"), &object).await;
    match answer.status.as_u16() {
        404 => admin.post(MAPS, &object).await.ok(201),
        _ => answer.ok(200),
    }
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_order_and_selectors() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let list = admin.get(MAPS).await.ok(200);
    let from = version(&list);
    let mut all = admin
        .watch(&format!("{MAPS}?watch=true&resourceVersion={from}"))
        .await;
    let mut some = admin
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={from}&labelSelector=l%3Din"
        ))
        .await;
    let mut one = admin
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={from}&fieldSelector=metadata.name%3Db"
        ))
        .await;
    let mut elsewhere = admin
        .watch(&format!("/api/v1/namespaces/kube-system/configmaps?watch=true&resourceVersion={from}&timeoutSeconds=2"))
        .await;
    put(&admin, "a", "out").await;
    put(&admin, "a", "in").await;
    put(&admin, "b", "in").await;
    let left = put(&admin, "a", "out").await;
    admin.delete(&format!("{MAPS}/a"), None).await.ok(200);
    for expected in [
        "ADDED a",
        "MODIFIED a",
        "ADDED b",
        "MODIFIED a",
        "DELETED a",
    ] {
        assert_eq!(all.next_name().await, expected);
    }
    assert_eq!(some.next_name().await, "ADDED a");
    assert_eq!(some.next_name().await, "ADDED b");
    let gone = some.next().await.unwrap();
    assert_eq!(
        (&gone["type"], version(&gone["object"])),
        (&json!("DELETED"), version(&left))
    );
    assert_eq!(one.next_name().await, "ADDED b");
    // The time limit ends a watch in order.
    assert_eq!(elsewhere.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_lists_and_bookmarks() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    put(&admin, "b", "x").await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = admin
        .watch(&format!("{MAPS}?{query}&timeoutSeconds=3"))
        .await;
    assert_eq!(watch.next_name().await, "ADDED a");
    assert_eq!(watch.next_name().await, "ADDED b");
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    put(&admin, "c", "x").await;
    assert_eq!(watch.next_name().await, "ADDED c");
    // Another kind changes; the last bookmark says how far the watch has seen.
    let secret = json!({"metadata": {"name": "s"}});
    let secret = admin
        .post("/api/v1/namespaces/default/secrets", &secret)
        .await
        .ok(201);
    let last = watch.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    let number = |v: &str| v.parse::<u64>().unwrap();
    assert!(number(version(&last["object"])) >= number(version(&secret)));
    assert_eq!(watch.next().await, None);

    for (bad, code, reason) in [
        ("sendInitialEvents=true", 422, "Invalid"),
        ("resourceVersionMatch=NotOlderThan", 422, "Invalid"),
        (
            "sendInitialEvents=true&resourceVersionMatch=Exact",
            422,
            "Invalid",
        ),
        ("timeoutSeconds=x", 400, "BadRequest"),
        ("resourceVersion=x", 400, "BadRequest"),
    ] {
        admin
            .get(&format!("{MAPS}?watch=1&{bad}"))
            .await
            .refused(code, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_any_version_and_none() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let a = put(&admin, "a", "x").await;
    put(&admin, "b", "x").await;
    for any in ["", "&resourceVersion=0"] {
        let mut watch = admin.watch(&format!("{MAPS}?watch=true{any}")).await;
        assert_eq!(watch.next_name().await, "ADDED a");
        assert_eq!(watch.next_name().await, "ADDED b");
    }
    let mut watch = admin
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={}",
            version(&a)
        ))
        .await;
    assert_eq!(watch.next_name().await, "ADDED b");
    // A name in the path is one object.
    let mut watch = admin
        .watch(&format!(
            "{MAPS}?watch=true&fieldSelector=metadata.name%3Db"
        ))
        .await;
    assert_eq!(watch.next_name().await, "ADDED b");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_the_end_of_the_server() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    let response = admin
        .open(
            "GET",
            &format!("{MAPS}?watch=true"),
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
            "".into(),
        )
        .await;
    assert_eq!(response.status().as_u16(), 200);
    let mut plain = admin.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(plain.next_name().await, "ADDED a");
    let began = std::time::Instant::now();
    cluster.stop().await;
    assert!(
        began.elapsed().as_secs() < 8,
        "open watches held the server up"
    );
    assert_eq!(plain.next().await, None);
}

/// Many watches, and a client that never reads.
#[tokio::test(flavor = "multi_thread")]
async fn slow_watchers_hold_nobody_up() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let _slow = admin.watch(&format!("{MAPS}?watch=true")).await;
    let mut fast = admin.watch(&format!("{MAPS}?watch=true")).await;
    let big = "v".repeat(100_000);
    for i in 0..100 {
        let object = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": big}});
        admin.post(MAPS, &object).await.ok(201);
        assert_eq!(fast.next_name().await, format!("ADDED m{i}"));
    }
    // Who asks for what is held no longer is told so by the watch's first and last event.
    let path = format!("{MAPS}/m0");
    let old = admin.get(&path).await.ok(200);
    for i in 0..40 {
        let patch = json!({"metadata": {"labels": {"i": i.to_string()}}});
        admin.patch(&path, "merge", &patch).await.ok(200);
    }
    let from = version(&old);
    let mut watch = admin
        .watch(&format!("{MAPS}?watch=true&resourceVersion={from}"))
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_paths_watch() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    put(&admin, "b", "x").await;
    const OLD: &str = "/api/v1/watch/namespaces/default/configmaps";
    let mut all = admin.watch(&format!("{OLD}?labelSelector=l")).await;
    assert_eq!(all.next_name().await, "ADDED a");
    assert_eq!(all.next_name().await, "ADDED b");
    let mut one = admin.watch(&format!("{OLD}/b")).await;
    assert_eq!(one.next_name().await, "ADDED b");
    put(&admin, "a", "y").await;
    put(&admin, "b", "y").await;
    assert_eq!(one.next_name().await, "MODIFIED b");
    let other = admin
        .get(&format!("{OLD}/b?fieldSelector=metadata.name%3Da"))
        .await;
    assert_eq!(
        other.refused(400, "BadRequest"),
        "fieldSelector metadata.name doesn't match requested name"
    );
    admin
        .delete(OLD, None)
        .await
        .refused(405, "MethodNotAllowed");
    admin
        .get(&format!("{OLD}/b/status"))
        .await
        .refused(404, "NotFound");
}
