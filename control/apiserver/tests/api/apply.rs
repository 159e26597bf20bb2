//! Server-side apply, and who manages which fields.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(replicas: Option<u32>) -> Value {
    let mut out = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        },
    });
    if let Some(replicas) = replicas {
        out["spec"]["replicas"] = replicas.into();
    }
    out
}

/// `manager operation subresource` of each entry.
/// Sorted, since entries stand in the order of their times, which are whole seconds.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    let mut found: Vec<String> = entries
        .into_iter()
        .flatten()
        .map(|e| {
            let part = |key: &str| e[key].as_str().unwrap_or("").to_string();
            let shown = [part("manager"), part("operation"), part("subresource")].join(" ");
            shown.trim_end().to_string()
        })
        .collect();
    found.sort();
    found
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|e| e["manager"] == manager);
    &entry.unwrap_or_else(|| panic!("no {manager} in {object}"))["fieldsV1"]
}

async fn version(admin: &Client, path: &str) -> String {
    let object = admin.get(path).await.ok(200);
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_creates_updates_and_prunes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/m");
    let both = config_map(json!({"a": "1", "b": "2"}));
    // A dry run leaves nothing behind.
    let query = "fieldManager=me&dryRun=All";
    admin.apply(&path, query, &both).await.ok(201);
    admin.get(&path).await.refused(404, "NotFound");
    let created = admin.apply(&path, "fieldManager=me", &both).await.ok(201);
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(managers(&created), ["me Apply"]);
    assert_eq!(
        *fields(&created, "me"),
        json!({"f:data": {"f:a": {}, "f:b": {}}})
    );
    // The same again is no write.
    let before = version(&admin, &path).await;
    let again = admin.apply(&path, "fieldManager=me", &both).await.ok(200);
    assert_eq!(again, created);
    assert_eq!(version(&admin, &path).await, before);
    let less = config_map(json!({"a": "1"}));
    admin
        .apply(&path, "fieldManager=me&dryRun=All", &less)
        .await
        .ok(200);
    assert_eq!(version(&admin, &path).await, before);
    let pruned = admin.apply(&path, "fieldManager=me", &less).await.ok(200);
    assert_eq!(pruned["data"], json!({"a": "1"}));
    // YAML is what the media type says.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  c: \"3\"\n";
    let headers = [("content-type", "application/apply-patch+yaml")];
    let answer = admin
        .call("PATCH", &format!("{path}?fieldManager=you"), &headers, yaml)
        .await;
    assert_eq!(answer.ok(200)["data"], json!({"a": "1", "c": "3"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_and_force() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{DEPLOYMENTS}/d");
    let query = "?fieldManager=kubectl-client-side-apply";
    admin
        .post(&format!("{DEPLOYMENTS}{query}"), &deployment(Some(1)))
        .await
        .ok(201);
    let mine = deployment(Some(3));
    let refused = admin.apply(&path, "fieldManager=me", &mine).await;
    let message = refused.refused(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let causes = &refused.json()["details"]["causes"];
    assert_eq!(causes[0]["reason"], "FieldManagerConflict");
    assert_eq!(causes[0]["field"], ".spec.replicas");
    let forced = admin
        .apply(&path, "fieldManager=me&force=true", &mine)
        .await
        .ok(200);
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(forced["metadata"]["generation"], 2);
    // Whoever leaves a field to others keeps it as it is.
    let scaled = admin
        .patch(
            &format!("{path}/scale?fieldManager=hpa"),
            "merge",
            &json!({"spec": {"replicas": 7}}),
        )
        .await
        .ok(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let message = admin
        .apply(&path, "fieldManager=me", &mine)
        .await
        .refused(409, "Conflict");
    assert!(message.contains("\"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"));
    let left = admin
        .apply(&path, "fieldManager=me", &deployment(None))
        .await
        .ok(200);
    assert_eq!(left["spec"]["replicas"], 7);
    let expected = [
        "hpa Update scale",
        "kubectl-client-side-apply Update",
        "me Apply",
    ];
    assert_eq!(managers(&left), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_are_applied_to() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{DEPLOYMENTS}/d");
    admin
        .apply(&path, "fieldManager=me", &deployment(Some(1)))
        .await
        .ok(201);
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 99}, "status": {"replicas": 1},
    });
    let status_path = format!("{path}/status");
    let applied = admin
        .apply(&status_path, "fieldManager=controller", &status)
        .await
        .ok(200);
    assert_eq!(applied["spec"]["replicas"], 1);
    assert_eq!(applied["status"]["replicas"], 1);
    assert_eq!(managers(&applied), ["controller Apply status", "me Apply"]);
    assert_eq!(
        *fields(&applied, "controller"),
        json!({"f:status": {"f:replicas": {}}})
    );
    let missing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
    admin
        .apply(
            &format!("{DEPLOYMENTS}/x/status"),
            "fieldManager=c",
            &missing,
        )
        .await
        .refused(404, "NotFound");

    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 4}});
    let scale_path = format!("{path}/scale");
    let refused = admin.apply(&scale_path, "fieldManager=s", &scale).await;
    assert_eq!(
        refused.refused(409, "Conflict"),
        "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas"
    );
    let scaled = admin
        .apply(&scale_path, "fieldManager=s&force=1", &scale)
        .await
        .ok(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let now = admin.get(&path).await.ok(200);
    assert_eq!(now["spec"]["replicas"], 4);
    assert_eq!(*fields(&now, "s"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&now, "me")["f:spec"].get("f:replicas").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_names_its_manager() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/m");
    let agent = [
        ("content-type", "application/json"),
        ("user-agent", "tester/v1 (linux)"),
    ];
    let body = config_map(json!({"a": "1"})).to_string();
    let created = admin.call("POST", MAPS, &agent, body).await.ok(201);
    assert_eq!(managers(&created), ["tester Update"]);
    assert_eq!(
        *fields(&created, "tester"),
        json!({"f:data": {".": {}, "f:a": {}}})
    );
    let patched = admin
        .patch(
            &format!("{path}?fieldManager=p"),
            "strategic-merge",
            &json!({"data": {"b": "2"}}),
        )
        .await
        .ok(200);
    assert_eq!(*fields(&patched, "p"), json!({"f:data": {"f:b": {}}}));
    let mut object = patched.clone();
    object["data"]["b"] = "3".into();
    let updated = admin
        .put(&format!("{path}?fieldManager=u"), &object)
        .await
        .ok(200);
    // The last field that `p` had is `u`'s now.
    assert_eq!(managers(&updated), ["tester Update", "u Update"]);
    // The list can be taken away, and is not made again before somebody applies.
    let reset = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let bare = admin.patch(&path, "json", &reset).await.ok(200);
    assert_eq!(managers(&bare), Vec::<String>::new());
    let patched = admin
        .patch(&path, "merge", &json!({"data": {"c": "4"}}))
        .await
        .ok(200);
    assert_eq!(managers(&patched), Vec::<String>::new());
    let applied = admin
        .apply(&path, "fieldManager=me", &config_map(json!({"c": "4"})))
        .await
        .ok(200);
    assert_eq!(
        managers(&applied),
        ["before-first-apply Update", "me Apply"]
    );
    // Nonsense in the list is left aside.
    let nonsense = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Guess"}]}});
    let patched = admin.patch(&path, "merge", &nonsense).await.ok(200);
    assert_eq!(patched, applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_applies_are_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/m");
    let good = config_map(json!({"a": "1"}));
    let refused = |query: &str, config: Value| {
        let (admin, path, query) = (admin.clone(), path.clone(), query.to_string());
        async move {
            let answer = admin.apply(&path, &query, &config).await.json();
            let message = answer["message"].as_str().unwrap_or("").to_string();
            (answer["code"].as_u64().unwrap_or(0), message)
        }
    };
    assert_eq!(
        refused("", good.clone()).await,
        (422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".into())
    );
    let with = |path: &[&str], value: Value| {
        let mut config = good.clone();
        let mut place = &mut config;
        for key in path {
            place = &mut place[*key];
        }
        *place = value;
        config
    };
    let me = "fieldManager=me";
    for (config, code, message) in [
        (
            with(&["metadata", "managedFields"], json!([])),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            with(&["kind"], json!("Secret")),
            400,
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            with(&["dat"], json!({})),
            400,
            "failed to create typed patch object (/m; v1, Kind=ConfigMap): .dat: field not declared in schema",
        ),
        (
            with(&["metadata", "name"], json!("other")),
            400,
            "the name of the object (other) does not match the name on the URL (m)",
        ),
        (
            with(&["metadata", "uid"], json!("u-1")),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid u-1, and no existing object was found",
        ),
    ] {
        assert_eq!(refused(me, config).await, (code, message.to_string()));
    }
    for body in ["", "[]", "{", "a: [", "\u{0}", "metadata: {name: [}"] {
        let headers = [("content-type", "application/apply-patch+yaml")];
        let answer = admin
            .call("PATCH", &format!("{path}?{me}"), &headers, body)
            .await;
        assert_eq!(answer.status.as_u16(), 400, "{body:?}");
    }
    // The object's rules hold as in any write.
    let bad = config_map(json!({"not a key": "1"}));
    let (code, message) = refused(me, bad).await;
    assert_eq!(code, 422, "{message}");
    admin.apply(&path, me, &good).await.ok(201);
    let (code, _) = refused(me, with(&["metadata", "resourceVersion"], json!("1"))).await;
    assert_eq!(code, 409);
    // `force` is for applies.
    let message = admin
        .patch(&format!("{path}?force=true"), "merge", &json!({}))
        .await
        .refused(422, "Invalid");
    assert!(message.ends_with("force: Forbidden: may not be specified for non-apply patch"));
}

/// Appliers of different fields never lose each other's, nor their places.
#[tokio::test(flavor = "multi_thread")]
async fn appliers_that_race_all_land() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{MAPS}/m");
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let (admin, path) = (admin.clone(), path.clone());
            tokio::spawn(async move {
                let config = config_map(json!({format!("k{i}"): "v"}));
                let query = format!("fieldManager=m{i}");
                let answer = admin.apply(&path, &query, &config).await;
                assert!(answer.status.is_success(), "{answer:?}");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = admin.get(&path).await.ok(200);
    assert_eq!(now["data"].as_object().unwrap().len(), 12);
    assert_eq!(managers(&now).len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds_are_applied_by_their_schema() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gears.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gears", "kind": "Gear"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "teeth": {"type": "array", "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name", "side"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"},
                                "side": {"type": "string", "default": "left"},
                                "length": {"type": "integer"}}}},
                        "marks": {"type": "array", "x-kubernetes-list-type": "set",
                            "items": {"type": "string"}},
                        "plain": {"type": "array", "items": {"type": "string"}},
                        "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
                            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
                        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                    "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}},
            }],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(crds, &definition).await.ok(201);
    let path = "/apis/example.com/v1/namespaces/default/gears/g";
    let gear = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Gear", "metadata": {"name": "g"}, "spec": spec});
    let first = gear(json!({
        "teeth": [{"name": "a", "length": 1}, {"name": "a", "side": "right"}],
        "marks": ["x", "y"], "plain": ["p"], "whole": {"a": "1"}, "open": {"k": {"l": [1]}},
    }));
    let created = admin.apply(path, "fieldManager=one", &first).await.ok(201);
    assert_eq!(
        fields(&created, "one")["f:spec"],
        json!({
            "f:marks": {r#"v:"x""#: {}, r#"v:"y""#: {}},
            "f:open": {"f:k": {".": {}, "f:l": {}}},
            "f:plain": {},
            "f:teeth": {
                r#"k:{"name":"a","side":"left"}"#: {".": {}, "f:length": {}, "f:name": {}},
                r#"k:{"name":"a","side":"right"}"#: {".": {}, "f:name": {}, "f:side": {}},
            },
            "f:whole": {},
        })
    );
    let second = gear(json!({"teeth": [{"name": "b"}], "marks": ["y", "z"]}));
    admin.apply(path, "fieldManager=two", &second).await.ok(200);
    let less = gear(json!({"teeth": [{"name": "a"}], "marks": ["y"]}));
    let now = admin.apply(path, "fieldManager=one", &less).await.ok(200);
    assert_eq!(
        now["spec"],
        json!({
            "teeth": [{"name": "a", "side": "left"}, {"name": "b", "side": "left"}],
            "marks": ["y", "z"],
        })
    );
    let message = admin
        .apply(path, "fieldManager=two", &gear(json!({"nope": 1})))
        .await
        .refused(400, "BadRequest");
    assert!(
        message.ends_with(".spec.nope: field not declared in schema"),
        "{message}"
    );
    let status = json!({"apiVersion": "example.com/v1", "kind": "Gear",
        "metadata": {"name": "g"}, "status": {"ok": true}});
    let status = admin
        .apply(&format!("{path}/status"), "fieldManager=s", &status)
        .await
        .ok(200);
    assert_eq!(*fields(&status, "s"), json!({"f:status": {"f:ok": {}}}));
}

/// Both versions of an Event are one object: a manager keeps its fields under either name.
#[tokio::test(flavor = "multi_thread")]
async fn versions_share_their_managers() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let core = "/api/v1/namespaces/default/events/e";
    let new = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R", "message": "one", "type": "Normal",
    });
    admin.apply(core, "fieldManager=me", &event).await.ok(201);
    let mut other = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"}, "note": "two",
    });
    let message = admin
        .apply(new, "fieldManager=you", &other)
        .await
        .refused(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"me\": .message"
    );
    other["note"] = "one".into();
    let shared = admin.apply(new, "fieldManager=you", &other).await.ok(200);
    assert_eq!(*fields(&shared, "you"), json!({"f:note": {}}));
    // Changed through the new version, the field is nobody else's, whatever they call it.
    other["note"] = "three".into();
    let forced = admin
        .apply(new, "fieldManager=you&force=true", &other)
        .await
        .ok(200);
    assert!(fields(&forced, "me").get("f:message").is_none());
    assert_eq!(admin.get(core).await.ok(200)["message"], "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_by_apply_needs_leave_to_create() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "patcher"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]});
    admin.post(&format!("{rbac}/roles"), &role).await.ok(201);
    let binding = json!({
        "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let bindings = format!("{rbac}/rolebindings");
    admin.post(&bindings, &binding).await.ok(201);
    let jane = cluster.client("jane", &[]);
    let path = format!("{MAPS}/m");
    let config = config_map(json!({"a": "1"}));
    let message = jane
        .apply(&path, "fieldManager=jane", &config)
        .await
        .refused(403, "Forbidden");
    assert!(
        message.contains("cannot create resource \"configmaps\""),
        "{message}"
    );
    admin.apply(&path, "fieldManager=me", &config).await.ok(201);
    jane.apply(&path, "fieldManager=jane", &config)
        .await
        .ok(200);
}
