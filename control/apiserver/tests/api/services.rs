//! Cluster IPs.

use std::collections::HashSet;

use rhumb_store::{Change, Condition, Embedded, Options, Store as _, Write};
use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

async fn ips(admin: &Client, name: &str) -> Value {
    admin.get(&format!("{SERVICES}/{name}")).await.ok(200)["spec"]["clusterIPs"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_given_checked_and_returned() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    assert_eq!(ips(&admin, "kubernetes").await, json!(["10.96.0.1"]));
    let a = admin.post(SERVICES, &service("a", json!({}))).await.ok(201);
    let given = a["spec"]["clusterIP"].as_str().unwrap().to_string();
    assert!(given.starts_with("10.96.0."), "{given}");
    assert_eq!(a["spec"]["ipFamilies"], json!(["IPv4"]));

    let message = admin
        .post(SERVICES, &service("b", json!({"clusterIP": given})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("provided IP is already allocated"),
        "{message}"
    );
    let message = admin
        .post(SERVICES, &service("b", json!({"clusterIP": "10.97.0.1"})))
        .await
        .refused(422, "Invalid");
    assert!(message.contains("not in the valid range"), "{message}");

    let both = admin
        .post(
            SERVICES,
            &service("both", json!({"ipFamilyPolicy": "RequireDualStack"})),
        )
        .await
        .ok(201);
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let addresses = both["spec"]["clusterIPs"].as_array().unwrap();
    assert!(
        addresses[1].as_str().unwrap().starts_with("fd00:10:96::"),
        "{addresses:?}"
    );

    // A plain update without addresses keeps them, and they can't change.
    let kept = admin
        .put(
            &format!("{SERVICES}/a"),
            &service("a", json!({"selector": {"x": "y"}})),
        )
        .await
        .ok(200);
    assert_eq!(kept["spec"]["clusterIP"], *given);
    admin
        .patch(
            &format!("{SERVICES}/a"),
            "merge",
            &json!({"spec": {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}}),
        )
        .await
        .refused(422, "Invalid");
    // Growing to two families adds one.
    let grown = admin
        .patch(
            &format!("{SERVICES}/a"),
            "merge",
            &json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
        )
        .await
        .ok(200);
    assert_eq!(
        grown["spec"]["clusterIPs"].as_array().unwrap().len(),
        2,
        "{grown}"
    );
    assert_eq!(grown["spec"]["clusterIPs"][0], *given);

    // A restart knows what is taken.
    cluster.stop().await;
    cluster.run().await;
    let admin = cluster.admin();
    admin
        .post(SERVICES, &service("b", json!({"clusterIP": given})))
        .await
        .refused(422, "Invalid");
    admin.delete(&format!("{SERVICES}/a"), None).await.ok(200);
    admin
        .post(SERVICES, &service("b", json!({"clusterIP": given})))
        .await
        .ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_twice_under_load() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(async move {
                let made = admin
                    .post(SERVICES, &service(&format!("s{i}"), json!({})))
                    .await
                    .ok(201);
                made["spec"]["clusterIP"].as_str().unwrap().to_string()
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in tasks {
        let ip = task.await.unwrap();
        assert!(seen.insert(ip.clone()), "{ip} twice");
    }
}

/// Refused, dry-run and duplicate creates give their address back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(SERVICES, &service("a", json!({}))).await.ok(201);
    for _ in 0..300 {
        admin
            .post(SERVICES, &service("a", json!({})))
            .await
            .refused(409, "AlreadyExists");
    }
    for _ in 0..10 {
        admin
            .post(&format!("{SERVICES}?dryRun=All"), &service("d", json!({})))
            .await
            .ok(201);
    }
    admin.post(SERVICES, &service("z", json!({}))).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_have_objects() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    let services = "/api/v1/namespaces/default/services";
    let objects = "/apis/networking.k8s.io/v1/ipaddresses";
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_string())
            .collect()
    };
    // The API's own.
    let first = admin.get(objects).await.ok(200);
    assert_eq!(names(&first), ["10.96.0.1"]);
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = admin
        .watch(&format!("{objects}?watch=true&resourceVersion={from}"))
        .await;
    let service = json!({"metadata": {"name": "s"}, "spec": {
        "ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.96.0.77", "fd00:10:96::77"],
        "ports": [{"port": 80}]}});
    admin
        .post(&format!("{services}?dryRun=All"), &service)
        .await
        .ok(201);
    admin.post(services, &service).await.ok(201);
    let mut seen = [watch.next_name().await, watch.next_name().await];
    seen.sort();
    assert_eq!(seen, ["ADDED 10.96.0.77", "ADDED fd00:10:96::77"]);
    let six = format!("{objects}/fd00:10:96::77");
    let object = admin.get(&six).await.ok(200);
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv6",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "s"});
    assert_eq!(object["spec"], json!({"parentRef": parent}));
    admin
        .delete(&six, None)
        .await
        .refused(405, "MethodNotAllowed");
    // What isn't made takes nothing and leaves nothing.
    let mut twice = service.clone();
    twice["spec"]["clusterIPs"] = json!(["10.96.0.78", "fd00:10:96::78"]);
    admin
        .post(services, &twice)
        .await
        .refused(409, "AlreadyExists");
    assert_eq!(names(&admin.get(objects).await.ok(200)).len(), 3);
    twice["metadata"]["name"] = "t".into();
    admin.post(services, &twice).await.ok(201);
    assert_eq!(names(&admin.get(objects).await.ok(200)).len(), 5);
    // One that goes back to one family gives the other's address back.
    let single = json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
        "clusterIPs": ["10.96.0.78"]}});
    let one = format!("{services}/t");
    admin.patch(&one, "merge", &single).await.ok(200);
    assert_eq!(names(&admin.get(objects).await.ok(200)).len(), 4);
    admin.delete(&one, None).await.ok(200);
    admin.delete(&format!("{services}/s"), None).await.ok(200);
    assert_eq!(names(&admin.get(objects).await.ok(200)), ["10.96.0.1"]);
    twice["metadata"]["name"] = "u".into();
    admin.post(services, &twice).await.ok(201);

    // What a crash may leave is mended at start.
    cluster.stop().await;
    {
        let path = cluster.dir.path().join("data/store.db");
        let store = Embedded::open(&path, Options::default()).unwrap();
        let key = |ip: &str| bytes::Bytes::from(format!("networking.k8s.io/ipaddresses/{ip}"));
        let held = store.get(&key("10.96.0.78")).await.unwrap().unwrap();
        let write = |key, condition, change| Write {
            key,
            condition,
            change,
        };
        let stray = Change::Put {
            value: held.value.clone(),
            ttl: None,
        };
        let stray = write(key("10.96.0.99"), Condition::Absent, stray);
        store.write(stray).await.unwrap();
        let condition = Condition::ModRevision(held.mod_revision);
        store
            .write(write(key("10.96.0.78"), condition, Change::Delete))
            .await
            .unwrap();
        let other = store.get(&key("fd00:10:96::78")).await.unwrap().unwrap();
        let text = String::from_utf8(other.value.to_vec()).unwrap();
        let value = text.replace("\"name\":\"u\"", "\"name\":\"gone\"").into();
        let condition = Condition::ModRevision(other.mod_revision);
        let change = Change::Put { value, ttl: None };
        store
            .write(write(key("fd00:10:96::78"), condition, change))
            .await
            .unwrap();
    }
    cluster.run().await;
    let admin = cluster.admin();
    let list = admin.get(objects).await.ok(200);
    assert_eq!(names(&list), ["10.96.0.1", "10.96.0.78", "fd00:10:96::78"]);
    for object in &list["items"].as_array().unwrap()[1..] {
        assert_eq!(object["spec"]["parentRef"]["name"], "u");
    }
}
