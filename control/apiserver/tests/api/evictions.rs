//! pods/eviction: what disruption budgets allow.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs and is ready.
async fn pod(admin: &Client, name: &str) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    });
    admin.post(PODS, &pod).await.ok(201);
    status(admin, name, "Running", "True").await;
}

async fn status(admin: &Client, name: &str, phase: &str, ready: &str) {
    let status = json!({"status": {
        "phase": phase, "conditions": [{"type": "Ready", "status": ready}],
    }});
    admin
        .patch(&format!("{PODS}/{name}/status"), "merge", &status)
        .await
        .ok(200);
}

async fn evict(admin: &Client, name: &str) -> crate::client::Answer {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    admin
        .post(&format!("{PODS}/{name}/eviction"), &eviction)
        .await
}

async fn budget(admin: &Client, name: &str, status: Value) {
    let budget = json!({"metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    admin.post(BUDGETS, &budget).await.ok(201);
    let path = format!("{BUDGETS}/{name}/status");
    admin
        .patch(&path, "merge", &json!({"status": status}))
        .await
        .ok(200);
}

async fn is_going(admin: &Client, name: &str) -> bool {
    let pod = admin.get(&format!("{PODS}/{name}")).await;
    pod.status.as_u16() == 404 || pod.json()["metadata"]["deletionTimestamp"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_budget_a_pod_goes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin, "a").await;
    let answer = evict(&admin, "a").await.ok(201);
    assert_eq!(answer["status"], "Success");
    assert!(is_going(&admin, "a").await);
    evict(&admin, "missing").await.refused(404, "NotFound");
    let other = json!({"metadata": {"name": "other"}});
    admin
        .post(&format!("{PODS}/a/eviction"), &other)
        .await
        .refused(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_allows_as_many_as_it_says() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["a", "b"] {
        pod(&admin, name).await;
    }
    let open = json!({"observedGeneration": 1, "disruptionsAllowed": 1,
                      "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    budget(&admin, "web", open).await;
    // A dry run takes nothing.
    let dry = admin
        .post(
            &format!("{PODS}/a/eviction?dryRun=All"),
            &json!({"metadata": {"name": "a"}}),
        )
        .await;
    dry.ok(201);
    assert!(!is_going(&admin, "a").await);
    evict(&admin, "a").await.ok(201);
    assert!(is_going(&admin, "a").await);
    let left = admin.get(&format!("{BUDGETS}/web")).await.ok(200);
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["a"].is_string());
    assert_eq!(
        left["status"]["conditions"][0]["reason"],
        "InsufficientPods"
    );

    let refused = evict(&admin, "b").await;
    let message = refused.refused(429, "TooManyRequests");
    assert_eq!(
        message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        refused.json()["details"]["causes"],
        json!([{"reason": "DisruptionBudget",
                "message": "The disruption budget web needs 1 healthy pods and has 2 currently"}])
    );
    assert!(!is_going(&admin, "b").await);
    // One that doesn't run is nobody's loss.
    status(&admin, "b", "Failed", "False").await;
    evict(&admin, "b").await.ok(201);
    assert!(is_going(&admin, "b").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_was_not_looked_at_yet_allows_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin, "a").await;
    budget(&admin, "web", json!({"disruptionsAllowed": 1})).await;
    let refused = evict(&admin, "a").await;
    refused.refused(429, "TooManyRequests");
    assert_eq!(refused.headers["retry-after"], "10");
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "The disruption budget web is still being processed by the server."
    );
    budget(&admin, "more", json!({})).await;
    let two = evict(&admin, "a").await.ok(500);
    assert_eq!(
        two["message"],
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_not_ready_go_without_being_counted() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin, "a").await;
    status(&admin, "a", "Running", "False").await;
    let enough = json!({"observedGeneration": 1, "disruptionsAllowed": 0,
                        "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 3});
    budget(&admin, "web", enough).await;
    evict(&admin, "a").await.ok(201);
    assert!(is_going(&admin, "a").await);
    let left = admin.get(&format!("{BUDGETS}/web")).await.ok(200);
    assert!(left["status"].get("disruptedPods").is_none());
}
