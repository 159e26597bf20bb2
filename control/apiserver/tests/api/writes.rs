//! create, update and patch.

use serde_json::{Value, json};

use crate::client::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
           "data": {"key": value}})
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_live_and_stale_writes_conflict() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/a");
    let created = admin.post(MAPS, &config_map("a", "1")).await.ok(201);
    assert!(created["metadata"]["uid"].is_string());
    let message = admin
        .post(MAPS, &config_map("a", "1"))
        .await
        .refused(409, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");

    let mut changed = created.clone();
    changed["data"]["key"] = "2".into();
    let updated = admin.put(&path, &changed).await.ok(200);
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    let message = admin.put(&path, &changed).await.refused(409, "Conflict");
    assert!(
        message.contains("the object has been modified"),
        "{message}"
    );
    // Bodies of other kinds, in the decoder's words.
    for (kind, version, why) in [
        (
            "Pod",
            "v1",
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        (
            "Pod",
            "apps/v9",
            "Pod in version \"v9\" cannot be handled as a ConfigMap: no kind \"Pod\" is registered for version \"apps/v9\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "ConfigMap",
            "v2",
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
    ] {
        let mut other = config_map("b", "1");
        other["kind"] = kind.into();
        other["apiVersion"] = version.into();
        let message = admin.post(MAPS, &other).await.refused(400, "BadRequest");
        assert_eq!(message, why);
    }
    // Without a resourceVersion the write is unconditional.
    admin.put(&path, &config_map("a", "3")).await.ok(200);

    // A write that changes nothing takes no revision.
    let before = admin.get(&path).await.ok(200);
    let after = admin.put(&path, &config_map("a", "3")).await.ok(200);
    assert_eq!(before, after);

    admin
        .put(&format!("{MAPS}/other"), &config_map("other", "1"))
        .await
        .refused(404, "NotFound");
    let message = admin
        .put(&path, &config_map("other", "1"))
        .await
        .refused(400, "BadRequest");
    assert!(
        message.contains("does not match the name on the URL"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_differ_by_kind() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let namespace = "/api/v1/namespaces/default";
    // Some are made by an update, by who may create.
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    admin.put(&format!("{roles}/r"), &role).await.ok(201);
    admin.put(&format!("{roles}/r"), &role).await.ok(200);
    let services = format!("{namespace}/services");
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = admin.put(&format!("{services}/s"), &service).await.ok(201);
    assert!(made["spec"]["clusterIP"].is_string());
    // Some are shown when they are deleted.
    let gone = admin.delete(&format!("{services}/s"), None).await.ok(200);
    assert_eq!(gone["kind"], "Service");
    admin.post(MAPS, &config_map("m", "1")).await.ok(201);
    let gone = admin.delete(&format!("{MAPS}/m"), None).await.ok(200);
    assert_eq!(
        (&gone["kind"], &gone["status"]),
        (&json!("Status"), &json!("Success"))
    );
    // Some must say which version an update replaces.
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"maxUnavailable": 1}});
    admin.post(budgets, &budget).await.ok(201);
    admin
        .put(&format!("{budgets}/b"), &budget)
        .await
        .refused(422, "Invalid");
    // Endpoints are on their way out.
    let answer = admin.get(&format!("{namespace}/endpoints")).await;
    assert_eq!(
        answer.headers["warning"],
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_way_to_bind() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let namespace = "/api/v1/namespaces/default";
    let account = json!({"metadata": {"name": "default"}});
    admin
        .post(&format!("{namespace}/serviceaccounts"), &account)
        .await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = format!("{namespace}/pods");
    admin.post(&pods, &pod).await.ok(201);
    let bindings = format!("{namespace}/bindings");
    let nobodys = json!({"target": {"kind": "Node", "name": "n1"}});
    admin
        .post(&bindings, &nobodys)
        .await
        .refused(400, "BadRequest");
    let mut binding = nobodys.clone();
    binding["metadata"]["name"] = "q".into();
    admin
        .post(&bindings, &binding)
        .await
        .refused(404, "NotFound");
    binding["metadata"]["name"] = "p".into();
    admin.post(&bindings, &binding).await.ok(201);
    let bound = admin.get(&format!("{pods}/p")).await.ok(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    admin
        .post(&bindings, &binding)
        .await
        .refused(409, "Conflict");
    admin.get(&bindings).await.refused(405, "MethodNotAllowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_patch() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let path = format!("{deployments}/web");
    admin
        .post(
            deployments,
            &json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "a", "image": "i"}]}}},
            }),
        )
        .await
        .ok(201);
    let strategic = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "b", "image": "j"}]}}}});
    let patched = admin
        .patch(&path, "strategic-merge", &strategic)
        .await
        .ok(200);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().unwrap().len(), 2, "{containers}");
    assert_eq!(patched["metadata"]["generation"], 2);
    let merge = json!({"spec": {"replicas": 3}});
    let patched = admin.patch(&path, "merge", &merge).await.ok(200);
    assert_eq!(patched["spec"]["replicas"], 3);
    let operations = json!([{"op": "test", "path": "/spec/replicas", "value": 3},
                            {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    let patched = admin.patch(&path, "json", &operations).await.ok(200);
    assert_eq!(patched["spec"]["replicas"], 4);
    let stale = admin.patch(&path, "json", &operations).await;
    assert_eq!(stale.status.as_u16(), 422, "{stale:?}");

    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}});
    admin
        .patch(&path, "merge", &stale)
        .await
        .refused(409, "Conflict");
    let scale = admin.get(&format!("{path}/scale")).await.ok(200);
    assert_eq!(scale["spec"]["replicas"], 4);
    let patched = admin
        .patch(
            &format!("{path}/scale"),
            "merge",
            &json!({"spec": {"replicas": 7}}),
        )
        .await
        .ok(200);
    assert_eq!(patched["kind"], "Scale");
    assert_eq!(admin.get(&path).await.ok(200)["spec"]["replicas"], 7);

    // Status is another door: the main one leaves it alone, and the other way round.
    let status = json!({"spec": {"replicas": 99}, "status": {"replicas": 5}});
    let patched = admin
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .ok(200);
    assert_eq!(
        (&patched["spec"]["replicas"], &patched["status"]["replicas"]),
        (&json!(7), &json!(5))
    );
    let patched = admin
        .patch(&path, "merge", &json!({"status": {"replicas": 1}}))
        .await
        .ok(200);
    assert_eq!(patched["status"]["replicas"], 5);
}

/// Writers without a resourceVersion never lose each other's changes.
#[tokio::test(flavor = "multi_thread")]
async fn patches_that_race_all_land() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(MAPS, &config_map("a", "1")).await.ok(201);
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(async move {
                let patch = json!({"data": {format!("k{i}"): "v"}});
                admin
                    .patch(&format!("{MAPS}/a"), "merge", &patch)
                    .await
                    .ok(200);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = admin.get(&format!("{MAPS}/a")).await.ok(200);
    assert_eq!(now["data"].as_object().unwrap().len(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_dry_runs_and_field_validation() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let generated = json!({"metadata": {"generateName": "g-"}});
    let a = admin.post(MAPS, &generated).await.ok(201);
    let b = admin.post(MAPS, &generated).await.ok(201);
    assert_ne!(a["metadata"]["name"], b["metadata"]["name"]);
    assert!(a["metadata"]["name"].as_str().unwrap().starts_with("g-"));

    admin
        .post(&format!("{MAPS}?dryRun=All"), &config_map("dry", "1"))
        .await
        .ok(201);
    admin
        .get(&format!("{MAPS}/dry"))
        .await
        .refused(404, "NotFound");
    admin.post(MAPS, &config_map("a", "1")).await.ok(201);
    let path = format!("{MAPS}/a");
    admin
        .put(&format!("{path}?dryRun=All"), &config_map("a", "2"))
        .await
        .ok(200);
    admin
        .delete(&format!("{path}?dryRun=All"), None)
        .await
        .ok(200);
    assert_eq!(admin.get(&path).await.ok(200)["data"]["key"], "1");

    let unknown = json!({"metadata": {"name": "u"}, "dat": {}});
    let message = admin
        .post(&format!("{MAPS}?fieldValidation=Strict"), &unknown)
        .await
        .refused(400, "BadRequest");
    assert!(message.contains("unknown field \"dat\""), "{message}");
    let warned = admin
        .post(&format!("{MAPS}?fieldValidation=Warn"), &unknown)
        .await;
    assert_eq!(warned.status.as_u16(), 201);
    let warning = warned.headers["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"unknown field \\\"dat\\\"\"");
    admin
        .post(&format!("{MAPS}?fieldValidation=Loud"), &unknown)
        .await
        .refused(422, "Invalid");

    let bad = json!({"metadata": {"name": "NO"}});
    let status = admin.post(MAPS, &bad).await.ok(422);
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_admitted_and_bound_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let message = admin.post(pods, &pod).await.refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"p\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await
        .ok(201);
    let created = admin.post(pods, &pod).await.ok(201);
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert!(
        created["spec"]["volumes"][0]["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access-")
    );
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{pods}/p/binding");
    admin.post(&path, &binding).await.ok(201);
    assert_eq!(
        admin.get(&format!("{pods}/p")).await.ok(200)["spec"]["nodeName"],
        "n1"
    );
    admin.post(&path, &binding).await.refused(409, "Conflict");
}
