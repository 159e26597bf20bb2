//! delete: finalizers, grace, preconditions, collections and namespaces.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(admin: &Client, name: &str) -> Value {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await;
    let pod =
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post(PODS, &pod).await.ok(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_and_preconditions() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/a");
    let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}});
    let created = admin.post(MAPS, &object).await.ok(201);
    let wrong = json!({"preconditions": {"uid": "other"}});
    admin
        .delete(&path, Some(&wrong))
        .await
        .refused(409, "Conflict");
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    admin
        .delete(&path, Some(&wrong))
        .await
        .refused(409, "Conflict");
    // What has the wrong type is refused, not left aside.
    for wrong in [
        json!({"dryRun": "All"}),
        json!({"dryRun": [1]}),
        json!({"preconditions": {"uid": 5}}),
        json!({"preconditions": "x"}),
        json!({"gracePeriodSeconds": "0"}),
        json!({"orphanDependents": "true"}),
    ] {
        admin
            .delete(&path, Some(&wrong))
            .await
            .refused(400, "BadRequest");
    }
    // The query counts only where there is no body.
    let stays = admin
        .delete(
            &format!("{path}?dryRun=All&gracePeriodSeconds=x"),
            Some(&wrong),
        )
        .await;
    stays.refused(409, "Conflict");
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    let marked = admin.delete(&path, Some(&right)).await.ok(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    // Once more changes nothing.
    let again = admin.delete(&path, None).await.ok(200);
    assert_eq!(again["metadata"], marked["metadata"]);
    let patch = json!({"metadata": {"finalizers": null}});
    admin.patch(&path, "merge", &patch).await.ok(200);
    admin.get(&path).await.refused(404, "NotFound");
    admin.delete(&path, None).await.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn propagation() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (query, finalizer) in [
        ("propagationPolicy=Foreground", "foregroundDeletion"),
        ("propagationPolicy=Orphan", "orphan"),
        ("orphanDependents=true", "orphan"),
    ] {
        let name = query.to_lowercase().replace('=', "-");
        admin
            .post(MAPS, &json!({"metadata": {"name": name}}))
            .await
            .ok(201);
        let path = format!("{MAPS}/{name}");
        let marked = admin.delete(&format!("{path}?{query}"), None).await.ok(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    admin
        .post(MAPS, &json!({"metadata": {"name": "b"}}))
        .await
        .ok(201);
    let status = admin
        .delete(
            &format!("{MAPS}/b"),
            Some(&json!({"propagationPolicy": "Background"})),
        )
        .await
        .ok(200);
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    admin
        .delete(&format!("{MAPS}/b?propagationPolicy=Sideways"), None)
        .await
        .refused(422, "Invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_when_their_kubelet_says_so() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin, "unbound").await;
    admin.delete(&format!("{PODS}/unbound"), None).await.ok(200);
    admin
        .get(&format!("{PODS}/unbound"))
        .await
        .refused(404, "NotFound");

    pod(&admin, "bound").await;
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    admin
        .post(&format!("{PODS}/bound/binding"), &binding)
        .await
        .ok(201);
    let path = format!("{PODS}/bound");
    let marked = admin
        .delete(&path, Some(&json!({"gracePeriodSeconds": 5})))
        .await
        .ok(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
    admin.get(&path).await.ok(200);
    let kubelet = cluster.client("system:node:n1", &["system:nodes"]);
    kubelet
        .delete(&path, Some(&json!({"gracePeriodSeconds": 0})))
        .await
        .ok(200);
    admin.get(&path).await.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn collections() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
        admin.post(MAPS, &object).await.ok(201);
    }
    admin
        .delete(&format!("{MAPS}?labelSelector=l%3D1"), None)
        .await
        .ok(200);
    let left = admin.get(MAPS).await.ok(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    // Not over all namespaces at once, and namespaces not at all.
    admin
        .delete("/api/v1/configmaps", None)
        .await
        .refused(405, "MethodNotAllowed");
    admin
        .delete("/api/v1/namespaces", None)
        .await
        .refused(405, "MethodNotAllowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_end_in_two_steps() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let maps = "/api/v1/namespaces/x/configmaps";
    let object = json!({"metadata": {"name": "a"}});
    let message = admin.post(maps, &object).await.refused(404, "NotFound");
    assert_eq!(message, "namespaces \"x\" not found");
    admin
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "x"}}))
        .await
        .ok(201);
    admin.post(maps, &object).await.ok(201);
    let marked = admin.delete("/api/v1/namespaces/x", None).await.ok(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let status = admin
        .post(maps, &json!({"metadata": {"name": "b"}}))
        .await
        .ok(403);
    assert_eq!(
        status["message"],
        "configmaps \"b\" is forbidden: unable to create new content in namespace x because it is being terminated"
    );
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    admin
        .put("/api/v1/namespaces/x/finalize", &finalized)
        .await
        .ok(200);
    admin
        .get("/api/v1/namespaces/x")
        .await
        .refused(404, "NotFound");
    admin
        .delete("/api/v1/namespaces/kube-system", None)
        .await
        .refused(403, "Forbidden");
}
