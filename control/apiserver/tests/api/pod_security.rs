//! The Pod Security Standards.

use serde_json::{Value, json};

use crate::client::{Answer, Client, Cluster};

const PODS: &str = "/api/v1/namespaces/secure/pods";
const NAMESPACE: &str = "/api/v1/namespaces/secure";

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|w| {
        let text = w.to_str().unwrap();
        let text = text.strip_prefix("299 - \"").unwrap();
        text.strip_suffix('"').unwrap().replace("\\\"", "\"")
    })
    .collect()
}

async fn namespace(admin: &Client, labels: Value) {
    let namespace = json!({"metadata": {"name": "secure", "labels": labels}});
    admin.post("/api/v1/namespaces", &namespace).await.ok(201);
    let account = json!({"metadata": {"name": "default"}});
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    admin.post(&accounts, &account).await.ok(201);
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_held_to_the_namespaces_level() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "v1.36",
    });
    namespace(&admin, labels).await;
    let message = admin
        .post(PODS, &pod("x", json!({"hostNetwork": true})))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let answer = admin.post(PODS, &pod("y", json!({}))).await;
    answer.ok(201);
    let warned = warnings(&answer);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].starts_with(
            "would violate PodSecurity \"restricted:v1.36\": allowPrivilegeEscalation != false (container \"c\" must set"
        ),
        "{warned:?}"
    );
    // Labels change nothing that the standards look at; an image might be anything.
    let path = format!("{PODS}/y");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let answer = admin.patch(&path, "merge", &labelled).await;
    answer.ok(200);
    assert!(warnings(&answer).is_empty());
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let answer = admin.patch(&path, "strategic-merge", &image).await;
    answer.ok(200);
    assert_eq!(warnings(&answer).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_warned_about_and_not_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "baseline",
    });
    namespace(&admin, labels).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]}}}});
    let answer = admin
        .post("/apis/apps/v1/namespaces/secure/deployments", &deployment)
        .await;
    answer.ok(201);
    assert_eq!(
        warnings(&answer),
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_namespaces_are_checked_and_pods_are_named() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let bad = json!({"metadata": {"name": "secure",
        "labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    let message = admin
        .post("/api/v1/namespaces", &bad)
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"),
        "{message}"
    );
    namespace(&admin, json!({})).await;
    let host = pod("host", json!({"hostNetwork": true}));
    let answer = admin.post(PODS, &host).await;
    answer.ok(201);
    assert!(warnings(&answer).is_empty());
    // The cache, from which the pods are read, has seen the pod when a watch from there has.
    let mut watch = admin
        .watch(&format!("{PODS}?watch=true&resourceVersion=0"))
        .await;
    assert_eq!(watch.next_name().await, "ADDED host");
    let stricter =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let answer = admin.patch(NAMESPACE, "merge", &stricter).await;
    answer.ok(200);
    assert_eq!(
        warnings(&answer),
        [
            "existing pods in namespace \"secure\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "host: host namespaces",
        ]
    );
    // From the very next request on.
    admin
        .post(PODS, &pod("other", json!({"hostPID": true})))
        .await
        .refused(403, "Forbidden");
    let message = admin
        .patch(
            NAMESPACE,
            "merge",
            &json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn-version": "1.36"}}}),
        )
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("must be \"latest\" or \"v1.x\""),
        "{message}"
    );
}
