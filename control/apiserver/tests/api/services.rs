//! Cluster IPs.

use std::collections::HashSet;

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
