//! `pods/ephemeralcontainers`, as `kubectl debug` uses it.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const NAMESPACE: &str = "/api/v1/namespaces/debug";
const POD: &str = "/api/v1/namespaces/debug/pods/p";
const DOOR: &str = "/api/v1/namespaces/debug/pods/p/ephemeralcontainers";

async fn pod(admin: &Client) {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = json!({"metadata": {"name": "debug", "labels": labels}});
    admin.post("/api/v1/namespaces", &namespace).await.ok(201);
    let account = json!({"metadata": {"name": "default"}});
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    admin.post(&accounts, &account).await.ok(201);
    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [{
        "type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}]}});
    let ranges = format!("{NAMESPACE}/limitranges");
    admin.post(&ranges, &limits).await.ok(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i"}]}});
    let pods = format!("{NAMESPACE}/pods");
    admin.post(&pods, &pod).await.ok(201);
}

/// What `kubectl debug` sends.
fn patch(name: &str, more: Value) -> Value {
    let mut container = json!({"name": name, "image": "box:1", "stdin": true, "tty": true,
        "targetContainerName": "c", "resources": {}, "imagePullPolicy": "IfNotPresent"});
    for (key, value) in more.as_object().unwrap() {
        container[key.as_str()] = value.clone();
    }
    json!({"spec": {
        "$setElementOrder/ephemeralContainers": [{"name": name}],
        "ephemeralContainers": [container],
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn added_by_a_strategic_patch() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin).await;
    let strategic = "strategic-merge";
    let path = format!("{DOOR}?fieldManager=kubectl-debug");
    let one = admin
        .patch(&path, strategic, &patch("d1", json!({})))
        .await
        .ok(200);
    let added = &one["spec"]["ephemeralContainers"];
    assert_eq!(added[0]["name"], "d1");
    assert_eq!(added[0]["terminationMessagePolicy"], "File");
    // A LimitRange is no matter of theirs.
    assert_eq!(added[0]["resources"], json!({}));
    assert_eq!(one["metadata"]["generation"], 2);
    let entries = one["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries
        .iter()
        .find(|e| e["manager"] == "kubectl-debug")
        .unwrap();
    assert_eq!(entry["subresource"], "ephemeralcontainers");
    let owned = &entry["fieldsV1"]["f:spec"]["f:ephemeralContainers"];
    assert!(owned.get("k:{\"name\":\"d1\"}").is_some(), "{entry}");
    let two = admin
        .patch(DOOR, strategic, &patch("d2", json!({})))
        .await
        .ok(200);
    let names = two["spec"]["ephemeralContainers"].as_array().unwrap();
    assert_eq!(names.len(), 2);
    let got = admin.get(DOOR).await.ok(200);
    assert_eq!(got["kind"], "Pod");
    assert_eq!(got["spec"], admin.get(POD).await.ok(200)["spec"]);

    let message = admin
        .patch(DOOR, strategic, &patch("d1", json!({"image": "other"})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("existing ephemeral containers \"d1\" may not be changed"),
        "{message}"
    );
    let message = admin
        .patch(DOOR, strategic, &patch("c", json!({})))
        .await
        .refused(422, "Invalid");
    assert!(message.contains("Duplicate value: \"c\""), "{message}");
    let merge = json!({"spec": {"ephemeralContainers": []}});
    let message = admin
        .patch(DOOR, "merge", &merge)
        .await
        .refused(422, "Invalid");
    assert!(message.contains("may not be removed"), "{message}");
    let privileged = patch("d3", json!({"securityContext": {"privileged": true}}));
    let message = admin
        .patch(DOOR, strategic, &privileged)
        .await
        .refused(403, "Forbidden");
    assert!(
        message.contains("violates PodSecurity \"baseline:latest\": privileged"),
        "{message}"
    );
    let dry = format!("{DOOR}?dryRun=All");
    admin
        .patch(&dry, strategic, &patch("d4", json!({})))
        .await
        .ok(200);
    assert_eq!(admin.get(POD).await.ok(200)["spec"], two["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_who_may() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    pod(&admin).await;
    let mut object = admin.get(POD).await.ok(200);
    object["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
    // By the pod itself it is no change that one may make.
    let message = admin.put(POD, &object).await.refused(422, "Invalid");
    assert!(
        message.contains("pod updates may not change fields"),
        "{message}"
    );
    let put = admin.put(DOOR, &object).await.ok(200);
    assert_eq!(put["spec"]["ephemeralContainers"][0]["name"], "d");
    // The resourceVersion counts.
    admin.put(DOOR, &object).await.refused(409, "Conflict");

    let roles = "/apis/rbac.authorization.k8s.io/v1";
    let role = |resource: &str| {
        json!({"metadata": {"name": "r"}, "rules": [{
            "apiGroups": [""], "resources": [resource], "verbs": ["get", "patch", "update"]}]})
    };
    admin
        .post(&format!("{roles}/clusterroles"), &role("pods"))
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
    let body = patch("e", json!({}));
    let message = anna
        .patch(DOOR, "strategic-merge", &body)
        .await
        .refused(403, "Forbidden");
    assert!(
        message.contains("cannot patch resource \"pods/ephemeralcontainers\""),
        "{message}"
    );
    let wider = role("pods/ephemeralcontainers");
    admin
        .put(&format!("{roles}/clusterroles/r"), &wider)
        .await
        .ok(200);
    anna.patch(DOOR, "strategic-merge", &body).await.ok(200);
    anna.get(POD).await.refused(403, "Forbidden");
    admin
        .get(&format!("{NAMESPACE}/pods/x/ephemeralcontainers"))
        .await
        .refused(404, "NotFound");
    admin
        .post(DOOR, &object)
        .await
        .refused(405, "MethodNotAllowed");
}
