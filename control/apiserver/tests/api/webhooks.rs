//! Mutating and validating webhooks.

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::client::{Client, Cluster};
use crate::webhook_server::{Webhook, patch};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The last step of the path says what it does.
fn decide(path: &str, request: &Value) -> Value {
    let object = &request["object"];
    match path {
        "/allow" => json!({"allowed": true}),
        "/deny" => {
            json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"},
            "warnings": ["careful"], "auditAnnotations": {"why": "day"}})
        }
        "/deny-silently" => json!({"allowed": false}),
        "/warn" => json!({"allowed": true, "warnings": ["careful"]}),
        "/wrong-uid" => json!({"allowed": true, "uid": "x"}),
        "/broken" => json!({"http": 500}),
        "/slow" => json!({"allowed": true, "sleep": 5}),
        "/label-a" => match object["metadata"]["labels"]["a"].is_string() {
            true => json!({"allowed": true}),
            false if object["metadata"]["labels"].is_object() => {
                patch(&json!([{"op": "add", "path": "/metadata/labels/a", "value": "1"}]))
            }
            false => {
                patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "1"}}]))
            }
        },
        // One after another: it needs what the one before has added.
        "/label-b" => patch(&json!([
            {"op": "test", "path": "/metadata/labels/a", "value": "1"},
            {"op": "add", "path": "/metadata/labels/b", "value": "2"},
        ])),
        "/container" => match object["spec"]["containers"].as_array().map(Vec::len) {
            Some(1) => patch(&json!([{"op": "add", "path": "/spec/containers/-",
                "value": {"name": "sidecar", "image": "i"}}])),
            _ => json!({"allowed": true}),
        },
        "/replicas" => patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])),
        "/nonsense" => patch(&json!([{"op": "add", "path": "/data", "value": 7}])),
        "/null-patch" => patch(&Value::Null),
        "/any-patch" => patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {}}])),
        other => panic!("{other}"),
    }
}

struct Test {
    cluster: Cluster,
    admin: Client,
    hook: Webhook,
}

impl Test {
    async fn start() -> Test {
        let cluster = Cluster::start().await;
        let admin = cluster.admin();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook = Webhook::serve(listener, &["127.0.0.1"], decide);
        Test {
            admin,
            cluster,
            hook,
        }
    }

    /// One webhook of a configuration.
    fn webhook(&self, path: &str, resources: &[&str]) -> Value {
        json!({
            "name": format!("{}.example.com", path.trim_start_matches('/')),
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": format!("https://127.0.0.1:{}{path}", self.hook.port), "caBundle": self.hook.ca,
            },
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
        })
    }

    async fn configure(&self, kind: &str, name: &str, webhooks: Value) {
        let path = format!("{GROUP}/{}", kind.to_lowercase() + "webhookconfigurations");
        let object = json!({"metadata": {"name": name}, "webhooks": webhooks});
        self.admin.post(&path, &object).await.ok(201);
    }

    async fn forget(&self, kind: &str, name: &str) {
        let path = format!(
            "{GROUP}/{}/{name}",
            kind.to_lowercase() + "webhookconfigurations"
        );
        self.admin.delete(&path, None).await.ok(200);
    }
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_webhooks_see_what_would_be_stored() {
    let t = Test::start().await;
    t.configure(
        "Validating",
        "v",
        json!([t.webhook("/allow", &["configmaps"])]),
    )
    .await;
    t.admin.post(MAPS, &map("a")).await.ok(201);
    let seen = t.hook.seen();
    let (_, request) = &seen[0];
    assert_eq!(seen.len(), 1);
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(
        request["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        request["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(request["requestKind"], request["kind"]);
    assert_eq!(
        (&request["name"], &request["namespace"]),
        (&json!("a"), &json!("default"))
    );
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(request["dryRun"], false);
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(request["object"]["data"], json!({"k": "v"}));
    assert!(request["object"]["metadata"]["uid"].is_string());

    let path = format!("{MAPS}/a");
    t.admin
        .patch(&path, "merge", &json!({"data": {"k": "w"}}))
        .await
        .ok(200);
    t.admin.delete(&path, None).await.ok(200);
    let seen = t.hook.seen();
    let operations: Vec<_> = seen.iter().map(|(_, r)| r["operation"].clone()).collect();
    assert_eq!(operations, ["UPDATE", "DELETE"]);
    assert_eq!(seen[0].1["oldObject"]["data"]["k"], "v");
    assert_eq!(seen[0].1["object"]["data"]["k"], "w");
    assert_eq!(seen[1].1["object"], Value::Null);
    assert_eq!(seen[1].1["oldObject"]["data"]["k"], "w");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_failures() {
    let t = Test::start().await;
    let refuse = async |path: &str, change: Value| {
        let mut webhook = t.webhook(path, &["configmaps"]);
        for (key, value) in change.as_object().into_iter().flatten() {
            webhook[key] = value.clone();
        }
        t.configure("Validating", "v", json!([webhook])).await;
        let answer = t.admin.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
        t.forget("Validating", "v").await;
        answer
    };
    let none = || json!({});
    let answer = refuse("/deny", none()).await;
    assert_eq!(answer.headers["warning"], "299 - \"careful\"");
    let message = answer.refused(403, "Forbidden");
    assert_eq!(
        message,
        "admission webhook \"deny.example.com\" denied the request: not today"
    );
    let answer = refuse("/deny-silently", none()).await.ok(400);
    assert_eq!(
        answer["message"],
        "admission webhook \"deny-silently.example.com\" denied the request without explanation"
    );
    let answer = refuse("/warn", none()).await;
    assert_eq!(answer.headers["warning"], "299 - \"careful\"");
    answer.ok(201);
    let failed = |why: &str| format!("Internal error occurred: failed calling webhook {why}");
    assert_eq!(
        refuse("/broken", none())
            .await
            .refused(500, "InternalError")
            .split("an error")
            .next(),
        Some(failed("\"broken.example.com\": failed to call webhook: ").as_str())
    );
    assert!(
        refuse("/wrong-uid", none()).await.refused(500, "InternalError").starts_with(
            &failed("\"wrong-uid.example.com\": received invalid webhook response: expected response.uid=")
        )
    );
    let slow = refuse("/slow", json!({"timeoutSeconds": 1}))
        .await
        .refused(500, "InternalError");
    let url = format!("https://127.0.0.1:{}/slow?timeout=1s", t.hook.port);
    assert_eq!(
        slow,
        failed(&format!(
            "\"slow.example.com\": failed to call webhook: Post \"{url}\": context deadline exceeded"
        ))
    );
    for path in ["/broken", "/wrong-uid"] {
        refuse(path, json!({"failurePolicy": "Ignore"}))
            .await
            .ok(201);
    }
    // A refusal is no failure.
    refuse("/deny", json!({"failurePolicy": "Ignore"}))
        .await
        .refused(403, "Forbidden");
    // Nobody listens there; who listens is not believed; a Service that isn't there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone =
        json!({"clientConfig": {"url": format!("https://{closed}/"), "caBundle": t.hook.ca}});
    assert!(
        refuse("/allow", gone)
            .await
            .refused(500, "InternalError")
            .contains("connect: Connection refused")
    );
    let other = Webhook::serve(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        &["127.0.0.1"],
        decide,
    );
    let url = format!("https://127.0.0.1:{}/allow", other.port);
    let stranger = json!({"clientConfig": {"url": url, "caBundle": t.hook.ca}});
    assert!(
        refuse("/allow", stranger)
            .await
            .refused(500, "InternalError")
            .contains("certificate")
    );
    // One that signed itself is believed, and for its own name only.
    for (names, believed) in [(["127.0.0.1"], true), (["127.0.0.2"], false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // As `openssl req -x509` makes it: an authority too.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.map(String::from)).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        let ca = made.pem();
        let own = Webhook::with(listener, &made, &key, ca, decide);
        let url = format!("https://127.0.0.1:{}/allow", own.port);
        let config = json!({"clientConfig": {"url": url, "caBundle": own.ca}});
        let answer = refuse("/allow", config).await;
        match believed {
            true => drop(answer.ok(201)),
            false => assert!(
                answer
                    .refused(500, "InternalError")
                    .contains("certificate not valid for name")
            ),
        }
    }
    let service =
        json!({"clientConfig": {"service": {"name": "s", "namespace": "default", "path": "/x"}}});
    assert_eq!(
        refuse("/allow", service)
            .await
            .refused(500, "InternalError"),
        failed(
            "\"allow.example.com\": failed to call webhook: Post \"https://s.default.svc:443/x?timeout=10s\": service \"s\" not found"
        )
    );
    let message = refuse("/allow", json!({"sideEffects": "NoneOnDryRun"})).await;
    message.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_change_one_after_another() {
    let t = Test::start().await;
    let maps = &["configmaps"];
    // In the order of names, whatever order they come in.
    t.configure("Mutating", "n", json!([t.webhook("/label-b", maps)]))
        .await;
    t.configure("Mutating", "m", json!([t.webhook("/label-a", maps)]))
        .await;
    let made = t.admin.post(MAPS, &map("a")).await.ok(201);
    assert_eq!(made["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    let stored = t.admin.get(&format!("{MAPS}/a")).await.ok(200);
    assert_eq!(stored["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    // What they add belongs to nobody, and an update keeps it.
    let owned = stored["metadata"]["managedFields"].to_string();
    assert!(!owned.contains("f:labels"), "{owned}");
    t.forget("Mutating", "m").await;
    t.forget("Mutating", "n").await;
    t.configure("Mutating", "m", json!([t.webhook("/nonsense", maps)]))
        .await;
    let message = t
        .admin
        .post(MAPS, &map("b"))
        .await
        .refused(500, "InternalError");
    assert_eq!(
        message,
        "Internal error occurred: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string"
    );
    t.forget("Mutating", "m").await;
    // What was answered is no failure to call.
    let mut ignored = t.webhook("/label-b", maps);
    ignored["failurePolicy"] = "Ignore".into();
    t.configure("Mutating", "m", json!([ignored])).await;
    t.admin
        .post(MAPS, &map("b"))
        .await
        .refused(500, "InternalError");
    t.forget("Mutating", "m").await;
    // Go's empty list.
    t.configure("Mutating", "m", json!([t.webhook("/null-patch", maps)]))
        .await;
    t.admin.post(MAPS, &map("c")).await.ok(201);
    let path = format!("{MAPS}/c?gracePeriodSeconds=7&orphanDependents=false");
    t.hook.seen();
    t.admin.delete(&path, None).await.ok(200);
    let seen = t.hook.seen();
    assert_eq!(
        seen[0].1["options"],
        json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 7, "orphanDependents": false})
    );
    t.admin.post(MAPS, &map("c")).await.ok(201);
    let body = json!({"propagationPolicy": "Background"});
    let path = format!("{MAPS}/c?propagationPolicy=Orphan");
    t.hook.seen();
    t.admin.delete(&path, Some(&body)).await.ok(200);
    assert_eq!(
        t.hook.seen()[0].1["options"]["propagationPolicy"],
        "Background"
    );
    // A name is made last.
    let generated = json!({"metadata": {"generateName": "g-"}});
    let made = t.admin.post(MAPS, &generated).await.ok(201);
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("g-"));
    let (_, request) = &t.hook.seen()[0];
    assert_eq!(request["object"]["metadata"].get("name"), None);
    t.forget("Mutating", "m").await;
    t.configure("Mutating", "m", json!([t.webhook("/any-patch", maps)]))
        .await;
    let message = t
        .admin
        .delete(&format!("{MAPS}/a"), None)
        .await
        .refused(500, "InternalError");
    assert!(
        message.contains("attempted to modify the object"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_plugins_see_what_webhooks_add() {
    let t = Test::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    t.admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await
        .ok(201);
    let mut first = t.webhook("/label-a", &["pods"]);
    first["reinvocationPolicy"] = "IfNeeded".into();
    t.configure(
        "Mutating",
        "m",
        json!([first, t.webhook("/container", &["pods"])]),
    )
    .await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = t
        .admin
        .post("/api/v1/namespaces/default/pods", &pod)
        .await
        .ok(201);
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!(sidecar["name"], "sidecar");
    // Defaults, and the token.
    assert_eq!(sidecar["terminationMessagePath"], "/dev/termination-log");
    assert!(
        sidecar["volumeMounts"][0]["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access-")
    );
    let asked: Vec<String> = t.hook.seen().into_iter().map(|(path, _)| path).collect();
    assert_eq!(asked, ["/label-a", "/container", "/label-a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_and_other_versions() {
    let t = Test::start().await;
    let hooks = json!([t.webhook("/allow", &["*/*"])]);
    t.configure("Validating", "v", hooks).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    t.admin.post(deployments, &deployment).await.ok(201);
    t.hook.seen();
    t.configure(
        "Mutating",
        "m",
        json!([t.webhook("/replicas", &["deployments/scale"])]),
    )
    .await;
    let scale = format!("{deployments}/d/scale");
    let scaled = t
        .admin
        .patch(&scale, "merge", &json!({"spec": {"replicas": 5}}))
        .await
        .ok(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    t.forget("Mutating", "m").await;
    let seen = t.hook.seen();
    assert_eq!(seen.len(), 2);
    let (_, request) = &seen[1];
    assert_eq!(
        request["kind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    assert_eq!(request["subResource"], "scale");
    assert_eq!(request["object"]["spec"]["replicas"], 2);
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);

    // The same objects by another version.
    t.forget("Validating", "v").await;
    let mut webhook = t.webhook("/allow", &["horizontalpodautoscalers"]);
    webhook["rules"][0]["apiVersions"] = json!(["v1"]);
    t.configure("Validating", "v", json!([webhook])).await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    t.admin.post(scalers, &scaler).await.ok(201);
    let seen = t.hook.seen();
    let (_, request) = &seen[0];
    assert_eq!(request["resource"]["version"], "v1");
    assert_eq!(request["requestResource"]["version"], "v2");
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        request["object"]["spec"]["targetCPUUtilizationPercentage"],
        80
    );
    t.forget("Validating", "v").await;

    // A custom kind's Scale by another version.
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [version("v1", true), version("v2", false)]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    t.admin.post(definitions, &definition).await.ok(201);
    let widgets = "/apis/example.com/v2/namespaces/default/widgets";
    let widget = json!({"metadata": {"name": "w"}, "spec": {"replicas": 1}});
    t.admin.post(widgets, &widget).await.ok(201);
    let mut webhook = t.webhook("/deny", &["widgets/scale"]);
    webhook["rules"][0]["apiVersions"] = json!(["v1"]);
    t.configure("Validating", "v", json!([webhook])).await;
    let more = json!({"spec": {"replicas": 2}});
    t.admin
        .patch(&format!("{widgets}/w/scale"), "merge", &more)
        .await
        .refused(403, "Forbidden");
    let seen = t.hook.seen();
    let (_, request) = &seen[0];
    assert_eq!(request["resource"]["version"], "v1");
    assert_eq!(request["requestResource"]["version"], "v2");
    t.forget("Validating", "v").await;

    // Streams are connections, and what says which is no object with labels.
    let mut webhook = t.webhook("/deny", &["pods/exec"]);
    webhook["objectSelector"] =
        json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    t.configure("Validating", "v", json!([webhook])).await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true";
    t.admin.get(exec).await.refused(404, "NotFound");
    assert_eq!(t.hook.seen(), []);
    t.forget("Validating", "v").await;
    t.configure(
        "Validating",
        "v",
        json!([t.webhook("/deny", &["pods/exec"])]),
    )
    .await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true";
    t.admin.get(exec).await.refused(403, "Forbidden");
    t.admin
        .get(&format!("{exec}&dryRun=All"))
        .await
        .refused(400, "BadRequest");
    let seen = t.hook.seen();
    let (_, request) = &seen[0];
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(
        request["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": ["ls"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_checked_and_count_at_once() {
    let t = Test::start().await;
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    let mut webhook = t.webhook("/deny", &["*"]);
    webhook["sideEffects"] = "Unknown".into();
    let bad = json!({"metadata": {"name": "v"}, "webhooks": [webhook]});
    let message = t.admin.post(&path, &bad).await.refused(422, "Invalid");
    assert_eq!(
        message,
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"v\" is invalid: webhooks[0].sideEffects: Unsupported value: \"Unknown\": supported values: \"None\", \"NoneOnDryRun\""
    );
    // What is configured about everything is not about configurations.
    t.configure("Validating", "v", json!([t.webhook("/deny", &["*"])]))
        .await;
    t.admin
        .post(MAPS, &map("a"))
        .await
        .refused(403, "Forbidden");
    t.forget("Validating", "v").await;
    t.admin.post(MAPS, &map("a")).await.ok(201);
    // Selectors by labels, of a namespace and of an object.
    let mut webhook = t.webhook("/deny", &["configmaps"]);
    webhook["objectSelector"] = json!({"matchLabels": {"checked": "yes"}});
    webhook["namespaceSelector"] =
        json!({"matchLabels": {"kubernetes.io/metadata.name": "default"}});
    t.configure("Validating", "v", json!([webhook])).await;
    t.admin.post(MAPS, &map("b")).await.ok(201);
    let mut labelled = map("c");
    labelled["metadata"]["labels"] = json!({"checked": "yes"});
    t.admin
        .post(MAPS, &labelled)
        .await
        .refused(403, "Forbidden");
    t.admin
        .post("/api/v1/namespaces/kube-system/configmaps", &labelled)
        .await
        .ok(201);
    drop(t.cluster);
}
