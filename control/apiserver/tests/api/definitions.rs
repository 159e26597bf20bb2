//! CustomResourceDefinitions and the kinds that they define.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "replicas": {"type": "integer", "default": 1},
                        "colour": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "additionalPrinterColumns": [
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}],
            }],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn established(admin: &Client) {
    let crd = admin
        .get(&format!("{CRDS}/widgets.example.com"))
        .await
        .ok(200);
    for condition in ["NamesAccepted", "Established"] {
        let found = crd["status"]["conditions"].as_array().unwrap();
        let found = found.iter().find(|c| c["type"] == condition).unwrap();
        assert_eq!(found["status"], "True", "{crd}");
    }
}

async fn resources(admin: &Client) -> Option<Vec<String>> {
    let answer = admin.get("/apis/example.com/v1").await;
    (answer.status.as_u16() == 200).then(|| {
        let list = answer.json();
        let rows = list["resources"].as_array().unwrap();
        rows.iter()
            .map(|r| r["name"].as_str().unwrap().to_string())
            .collect()
    })
}

async fn eventually<F: std::future::Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) {
    for _ in 0..100 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{what} does not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_comes_lives_over_a_restart_and_goes() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    assert!(resources(&admin).await.is_none());
    admin.get(WIDGETS).await.refused(404, "NotFound");
    let index = admin.get("/openapi/v3").await.ok(200);
    assert!(index["paths"].get("apis/example.com/v1").is_none());

    admin.post(CRDS, &definition()).await.ok(201);
    established(&admin).await;
    assert_eq!(
        resources(&admin).await.unwrap(),
        ["widgets", "widgets/scale", "widgets/status"]
    );
    let index = admin.get("/openapi/v3").await.ok(200);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_string();
    let document = admin.get(&url).await.ok(200);
    assert!(document["components"]["schemas"]["com.example.v1.Widget"].is_object());

    let list = admin.get(WIDGETS).await.ok(200);
    let before = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1")).await;
    let made = admin
        .post(WIDGETS, &widget("a", json!({"colour": "red", "odd": 1})))
        .await;
    let warning = made.headers["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"unknown field \\\"spec.odd\\\"\"");
    let made = made.ok(201);
    assert_eq!(made["spec"], json!({"colour": "red", "replicas": 1}));
    assert_eq!(watch.next_name().await, "ADDED a");

    cluster.stop().await;
    cluster.run().await;
    let admin = cluster.admin();
    assert_eq!(admin.get(&format!("{WIDGETS}/a")).await.ok(200), made);

    // Watches of before the restart go on.
    let mut watch = admin
        .watch(&format!("{WIDGETS}?watch=1&resourceVersion={before}"))
        .await;
    assert_eq!(watch.next_name().await, "ADDED a");
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!(watch.next_name().await, "ADDED a");
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let path = format!("{WIDGETS}/a");
    admin.patch(&path, "merge", &held).await.ok(200);
    assert_eq!(watch.next_name().await, "MODIFIED a");
    let crd = format!("{CRDS}/widgets.example.com");
    let deleted = admin.delete(&crd, None).await.ok(200);
    assert_eq!(
        deleted["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    // The object's finalizer holds up everything; nothing new may come meanwhile.
    let refused = admin.post(WIDGETS, &widget("b", json!({}))).await;
    assert_eq!(
        refused.refused(405, "MethodNotAllowed"),
        "create not allowed while custom resource definition is terminating"
    );
    assert!(admin.get(&path).await.ok(200)["metadata"]["deletionTimestamp"].is_string());
    let free = json!({"metadata": {"finalizers": null}});
    admin.patch(&path, "merge", &free).await.ok(200);
    eventually("the end of the definition", || async {
        admin.get(&crd).await.status.as_u16() == 404 && resources(&admin).await.is_none()
    })
    .await;
    admin.get(WIDGETS).await.refused(404, "NotFound");
    // The watch has ended by itself.
    while watch.next().await.is_some() {}
    // Made anew it has nothing of the old one.
    admin.post(CRDS, &definition()).await.ok(201);
    let list = admin.get(WIDGETS).await.ok(200);
    assert_eq!(
        (&list["kind"], &list["items"]),
        (&json!("WidgetList"), &json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_name_a_version_and_numbers_are_gos() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(CRDS, &definition()).await.ok(201);
    admin.post(WIDGETS, &widget("n", json!({}))).await.ok(201);
    let other = format!("{WIDGETS}/n");
    let message = admin
        .put(&other, &widget("n", json!({})))
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "Widget.example.com \"n\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
    // Integers, as Go writes and bounds them.
    for (given, expected) in [
        ("2.0", Some("2")),
        ("1e2", Some("100")),
        ("1e300", None),
        ("9223372036854775808", None),
    ] {
        let patch = format!("{{\"spec\":{{\"replicas\":{given}}}}}");
        let headers = [("content-type", "application/merge-patch+json")];
        let answer = admin.call("PATCH", &other, &headers, patch).await;
        match expected {
            Some(expected) => {
                assert_eq!(answer.ok(200)["spec"]["replicas"].to_string(), expected);
            }
            None => drop(answer.refused(422, "Invalid")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_custom_kind_are_like_others() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(CRDS, &definition()).await.ok(201);
    admin
        .post(WIDGETS, &widget("a", json!({"colour": "red"})))
        .await
        .ok(201);
    admin
        .post(
            WIDGETS,
            &widget("b", json!({"colour": "blue", "replicas": 2})),
        )
        .await
        .ok(201);
    let path = format!("{WIDGETS}/a");

    let wrong = widget("c", json!({"replicas": "x"}));
    let status = admin.post(WIDGETS, &wrong).await.ok(422);
    assert_eq!(
        status["message"],
        "Widget.example.com \"c\" is invalid: spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""
    );
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "FieldValueTypeInvalid"
    );
    let strict = admin
        .post(
            &format!("{WIDGETS}?fieldValidation=Strict"),
            &widget("c", json!({"odd": 1})),
        )
        .await;
    assert!(
        strict
            .refused(400, "BadRequest")
            .contains("unknown field \"spec.odd\"")
    );

    let list = admin
        .get(&format!("{WIDGETS}?fieldSelector=spec.colour=blue"))
        .await
        .ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let refused = admin
        .get(&format!("{WIDGETS}?fieldSelector=spec.replicas=1"))
        .await;
    assert!(
        refused
            .refused(400, "BadRequest")
            .contains("field label not supported")
    );

    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.call("GET", WIDGETS, &headers, "").await.ok(200);
    assert_eq!(table["columnDefinitions"][1]["name"], "Replicas");
    assert_eq!(table["rows"][1]["cells"], json!(["b", 2]));

    let merged = admin
        .patch(&path, "merge", &json!({"spec": {"replicas": 3}}))
        .await
        .ok(200);
    assert_eq!(merged["metadata"]["generation"], 2);
    let operations = json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]);
    admin.patch(&path, "json", &operations).await.ok(200);
    let refused = admin.patch(&path, "strategic-merge", &json!({})).await;
    assert!(
        refused
            .refused(415, "UnsupportedMediaType")
            .contains("merge-patch+json")
    );

    let scaled = admin
        .patch(
            &format!("{path}/scale"),
            "merge",
            &json!({"spec": {"replicas": 7}}),
        )
        .await
        .ok(200);
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(7))
    );
    let status = json!({"spec": {"replicas": 99}, "status": {"replicas": 5}});
    let patched = admin
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .ok(200);
    assert_eq!(
        (&patched["spec"]["replicas"], &patched["status"]["replicas"]),
        (&json!(7), &json!(5))
    );
    assert_eq!(patched["metadata"]["generation"], 4);
    let wrong = json!({"status": {"replicas": "x"}});
    let refused = admin
        .patch(&format!("{path}/status"), "merge", &wrong)
        .await;
    assert!(refused.refused(422, "Invalid").contains("status.replicas"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schema_applies_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(CRDS, &definition()).await.ok(201);
    admin
        .post(WIDGETS, &widget("a", json!({"colour": "red"})))
        .await
        .ok(201);
    let crd = format!("{CRDS}/widgets.example.com");
    let place = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let operations = json!([
        {"op": "add", "path": format!("{place}/size"), "value": {"type": "string", "default": "small"}},
        {"op": "add", "path": format!("{place}/colour/maxLength"), "value": 4},
    ]);
    admin.patch(&crd, "json", &operations).await.ok(200);
    // What is stored gets the default when it is read.
    let read = admin.get(&format!("{WIDGETS}/a")).await.ok(200);
    assert_eq!(read["spec"]["size"], "small");
    let refused = admin
        .post(WIDGETS, &widget("b", json!({"colour": "green"})))
        .await;
    assert!(
        refused
            .refused(422, "Invalid")
            .contains("spec.colour: Too long")
    );

    // A second version, stored from now on; both are the same objects.
    let versions = admin.get(&crd).await.ok(200)["spec"]["versions"].clone();
    let mut second = versions[0].clone();
    second["name"] = "v2".into();
    let operations = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "add", "path": "/spec/versions/0/deprecated", "value": true},
        {"op": "add", "path": "/spec/versions/-", "value": second},
    ]);
    let changed = admin.patch(&crd, "json", &operations).await.ok(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let newer = WIDGETS.replace("/v1/", "/v2/");
    let list = admin.get(&newer).await.ok(200);
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v2");
    let older = admin.get(WIDGETS).await;
    assert_eq!(
        older.headers["warning"],
        "299 - \"example.com/v1 Widget is deprecated\""
    );
    assert_eq!(older.ok(200)["items"][0]["apiVersion"], "example.com/v1");
    let group = admin.get("/apis/example.com").await.ok(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    // A version in which objects may be stored can't go.
    let refused = admin
        .patch(
            &crd,
            "json",
            &json!([{"op": "remove", "path": "/spec/versions/0"}]),
        )
        .await;
    assert!(
        refused
            .refused(422, "Invalid")
            .contains("missing from spec.versions")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_taken_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(CRDS, &definition()).await.ok(201);
    let mut other = definition();
    other["metadata"]["name"] = "whales.example.com".into();
    other["spec"]["names"] = json!({"plural": "whales", "kind": "Whale", "shortNames": ["wd"]});
    admin.post(CRDS, &other).await.ok(201);
    let whales = format!("{CRDS}/whales.example.com");
    let crd = admin.get(&whales).await.ok(200);
    let accepted = &crd["status"]["conditions"][0];
    assert_eq!(
        (&accepted["reason"], &accepted["message"]),
        (
            &json!("ShortNamesConflict"),
            &json!("\"wd\" is already in use")
        )
    );
    admin
        .get(&WIDGETS.replace("widgets", "whales"))
        .await
        .refused(404, "NotFound");
    // Free names make it a kind.
    let names = json!({"spec": {"names": {"shortNames": ["wh"]}}});
    admin.patch(&whales, "merge", &names).await.ok(200);
    admin
        .get(&WIDGETS.replace("widgets", "whales"))
        .await
        .ok(200);
    let status = admin
        .post(CRDS, &json!({"metadata": {"name": "x"}}))
        .await
        .ok(422);
    assert_eq!(status["reason"], "Invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_objects_and_changes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut crd = definition();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] =
        json!([{"rule": "self.replicas <= self.limit", "message": "too many replicas"}]);
    let message = admin.post(CRDS, &crd).await.refused(422, "Invalid");
    assert!(message.contains("undefined field 'limit'"), "{message}");
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["limit"] = json!({"type": "integer", "default": 5});
    spec["properties"]["colour"]["x-kubernetes-validations"] =
        json!([{"rule": "self == oldSelf", "message": "Value is immutable"}]);
    admin.post(CRDS, &crd).await.ok(201);
    let message = admin
        .post(WIDGETS, &widget("a", json!({"replicas": 6})))
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "Widget.example.com \"a\" is invalid: spec: Invalid value: \"object\": too many replicas"
    );
    admin
        .post(WIDGETS, &widget("a", json!({"colour": "red"})))
        .await
        .ok(201);
    let path = format!("{WIDGETS}/a");
    let change = json!({"spec": {"colour": "blue"}});
    let message = admin
        .patch(&path, "merge", &change)
        .await
        .refused(422, "Invalid");
    assert!(message.ends_with("spec.colour: Invalid value: \"string\": Value is immutable"));
    let scaled = admin
        .patch(
            &format!("{path}/scale"),
            "merge",
            &json!({"spec": {"replicas": 9}}),
        )
        .await;
    assert!(scaled.refused(422, "Invalid").contains("too many replicas"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_knows_a_custom_kinds_protobuf() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(CRDS, &definition()).await.ok(201);
    let protobuf = "application/vnd.kubernetes.protobuf";
    let one = format!("{WIDGETS}/a");
    admin.post(WIDGETS, &widget("a", json!({}))).await.ok(201);
    let message = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml";
    // Definitions aren't taken so either.
    for (method, path) in [("POST", WIDGETS), ("PUT", one.as_str()), ("POST", CRDS)] {
        let sent = [("content-type", protobuf)];
        let answer = admin.call(method, path, &sent, "k8s\0any").await;
        assert_eq!(answer.refused(415, "UnsupportedMediaType"), message);
    }
    // A patch isn't one in protobuf, of whatever kind.
    for path in [one.as_str(), "/api/v1/namespaces/default"] {
        let sent = [("content-type", protobuf)];
        let answer = admin.call("PATCH", path, &sent, "k8s\0any").await;
        answer.refused(415, "UnsupportedMediaType");
    }
    // Whoever lists JSON too gets it: objects, lists, tables, watches, errors.
    let both = format!("{protobuf}, application/json");
    let table = format!(
        "{protobuf};as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1"
    );
    for (path, accept, code, kind) in [
        (one.as_str(), &both, 200, "Widget"),
        (WIDGETS, &both, 200, "WidgetList"),
        (WIDGETS, &table, 200, "Table"),
        ("/api/v1/namespaces", &both, 200, "NamespaceList"),
        ("/api/v1/namespaces", &table, 200, "Table"),
        ("/api/v1/namespaces/none", &both, 404, "Status"),
    ] {
        let answer = admin
            .call("GET", path, &[("accept", accept.as_str())], "")
            .await;
        assert_eq!(answer.headers["content-type"], "application/json", "{path}");
        assert_eq!(answer.ok(code)["kind"], kind, "{path}");
    }
    for path in [WIDGETS, "/api/v1/namespaces"] {
        let answer = admin.call("GET", path, &[("accept", protobuf)], "").await;
        answer.refused(406, "NotAcceptable");
    }
    let path = "/api/v1/namespaces?watch=true&timeoutSeconds=1";
    let answer = admin
        .call("GET", path, &[("accept", both.as_str())], "")
        .await;
    assert_eq!(answer.headers["content-type"], "application/json");
}
