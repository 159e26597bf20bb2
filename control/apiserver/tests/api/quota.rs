//! LimitRanges and ResourceQuotas.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const PODS: &str = "/api/v1/namespaces/default/pods";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

async fn account(admin: &Client) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "default"}});
    admin.post(accounts, &account).await.ok(201);
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

/// A quota with a status, as its controller gives it one, that the server's cache has seen.
async fn quota(admin: &Client, hard: Value, used: Value) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut quota = admin.post(QUOTAS, &quota).await.ok(201);
    quota["status"] = json!({"hard": hard, "used": used});
    let put = admin
        .put(&format!("{QUOTAS}/q/status"), &quota)
        .await
        .ok(200);
    let version = put["metadata"]["resourceVersion"].as_str().unwrap();
    let list = format!("{QUOTAS}?resourceVersion={version}");
    admin.get(&list).await.ok(200);
}

async fn used(admin: &Client) -> Value {
    admin.get(&format!("{QUOTAS}/q")).await.ok(200)["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_ranges_default_and_bound() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin).await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    let ranges = "/api/v1/namespaces/default/limitranges";
    admin.post(ranges, &range).await.ok(201);
    let made = admin.post(PODS, &pod("a", json!({}))).await.ok(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let message = admin
        .post(PODS, &pod("b", json!({"limits": {"cpu": "2"}})))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_charged_and_kept() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin).await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "count/configmaps": "1"});
    let none = json!({"pods": "0", "requests.cpu": "0", "count/configmaps": "0"});
    quota(&admin, hard, none).await;
    let message = admin
        .post(PODS, &pod("a", json!({})))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    let small = json!({"requests": {"cpu": "400m"}});
    admin.post(PODS, &pod("a", small.clone())).await.ok(201);
    // Neither a dry run nor a name that is taken uses anything.
    let dry = format!("{PODS}?dryRun=All");
    admin.post(&dry, &pod("b", small.clone())).await.ok(201);
    admin
        .post(PODS, &pod("a", small.clone()))
        .await
        .refused(409, "AlreadyExists");
    assert_eq!(
        used(&admin).await,
        json!({"pods": "1", "requests.cpu": "400m", "count/configmaps": "0"})
    );
    let message = admin
        .post(PODS, &pod("b", json!({"requests": {"cpu": "700m"}})))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=700m, used: requests.cpu=400m, limited: requests.cpu=1"
    );
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}});
    admin.post(maps, &map("a")).await.ok(201);
    let message = admin.post(maps, &map("b")).await.refused(403, "Forbidden");
    assert!(
        message.contains("exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"),
        "{message}"
    );
    // Other namespaces have other quotas.
    admin
        .post("/api/v1/namespaces/kube-system/configmaps", &map("b"))
        .await
        .ok(201);
}

/// However many come at once, no more get in than there is room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_does_not_overrun_a_quota() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let room = 7;
    quota(
        &admin,
        json!({"configmaps": room.to_string()}),
        json!({"configmaps": "0"}),
    )
    .await;
    let tasks: Vec<_> = (0..24)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(async move {
                let map = json!({"metadata": {"name": format!("m{i}")}});
                let path = "/api/v1/namespaces/default/configmaps";
                admin.post(path, &map).await.status.as_u16()
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            201 => made += 1,
            code => assert_eq!(code, 403),
        }
    }
    assert_eq!(made, room);
    assert_eq!(used(&admin).await, json!({"configmaps": "7"}));
}
