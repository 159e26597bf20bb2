//! The kinds that have no rules of their own in the other files: each can be made, read, watched and
//! removed, or says why not.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
           "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn once() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}})
}

/// Path of the collection, and the least that makes an object of it.
fn samples() -> Vec<(&'static str, Value)> {
    let selector = json!({"matchLabels": {"a": "b"}});
    let claim = json!({"accessModes": ["ReadWriteOnce"],
                       "resources": {"requests": {"storage": "1Gi"}}});
    vec![
        ("/api/v1/namespaces/default/endpoints", json!({})),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": []}}),
        ),
        (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"spec": {"hard": {"pods": "3"}}}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"spec": claim}),
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                            "hostPath": {"path": "/x"}}}),
        ),
        (
            "/api/v1/namespaces/default/podtemplates",
            json!({"template": template()}),
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            json!({"spec": {"template": template()}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"spec": {"selector": selector, "template": template()}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            json!({"spec": {"selector": selector, "template": template(), "serviceName": "s"}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            json!({"data": {"a": 1}, "revision": 1}),
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"spec": {"template": once()}}),
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once()}}}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        ),
        (
            "/apis/networking.k8s.io/v1/ingressclasses",
            json!({"spec": {"controller": "a.b/c"}}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}}),
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"value": 5}),
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"provisioner": "a.b/c"}),
        ),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {}})),
        (
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"spec": {"drivers": []}}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({"storageClassName": "fast"}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"driverName": "d", "parameters": {"a": "b"}}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            webhooks(),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            webhooks(),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            json!({"spec": {
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["g"],
                    "apiVersions": ["v1"], "resources": ["r"]}]},
                "validations": [{"expression": "true"}],
            }}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "h"}),
        ),
    ]
}

/// A webhook of a kind that isn't there.
fn webhooks() -> Value {
    json!({"webhooks": [{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": ["g"], "apiVersions": ["v1"], "resources": ["r"]}],
    }]})
}

/// What clients watch and nobody makes.
const READ_ONLY: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
    ),
    ("apiregistration.k8s.io", "apiservices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    (
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
    ),
    ("networking.k8s.io", "ipaddresses"),
    ("networking.k8s.io", "servicecidrs"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
];

async fn account(admin: &Client) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_made_watched_changed_and_removed() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (path, mut object) in samples() {
        let list = admin.get(path).await.ok(200);
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch = admin
            .watch(&format!("{path}?watch=true&resourceVersion={from}"))
            .await;
        object["metadata"] = json!({"generateName": "x-"});
        let made = admin.post(path, &object).await.ok(201);
        let name = made["metadata"]["name"].as_str().unwrap().to_string();
        assert_eq!(watch.next_name().await, format!("ADDED {name}"), "{path}");
        let one = format!("{path}/{name}");
        let patch = json!({"metadata": {"labels": {"l": "v"}}});
        let patched = admin.patch(&one, "strategic-merge", &patch).await.ok(200);
        assert_eq!(
            patched["metadata"].get("generation"),
            made["metadata"].get("generation"),
            "{path}: labels are no change of the spec"
        );
        // What was read is what is written, with nothing left to default.
        let same = admin.put(&one, &patched).await.ok(200);
        assert_eq!(same, patched, "{path}");
        assert_eq!(watch.next_name().await, format!("MODIFIED {name}"));
        let table = admin
            .call(
                "GET",
                path,
                &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
                "",
            )
            .await
            .ok(200);
        let cells = table["rows"][0]["cells"].as_array().unwrap().len();
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(cells, columns, "{path}");
        admin
            .call("DELETE", &format!("{path}?labelSelector=l%3Dv"), &[], "")
            .await
            .ok(200);
        assert_eq!(watch.next_name().await, format!("DELETED {name}"));
        admin.get(&one).await.refused(404, "NotFound");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_a_door_of_its_own() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {}},
        "status": {"disruptionsAllowed": 7},
    });
    let made = admin.post(budgets, &budget).await.ok(201);
    assert_eq!(made["status"]["disruptionsAllowed"], 0);
    let path = format!("{budgets}/b");
    let patch = json!({"spec": {"maxUnavailable": 9}, "status": {"disruptionsAllowed": 3}});
    let status = admin
        .patch(&format!("{path}/status"), "merge", &patch)
        .await
        .ok(200);
    assert_eq!(status["status"]["disruptionsAllowed"], 3);
    assert_eq!(status["spec"]["maxUnavailable"], 1);
    assert_eq!(status["metadata"]["generation"], 1);
    let main = admin.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(main["spec"]["maxUnavailable"], 9);
    assert_eq!(main["metadata"]["generation"], 2);
    let wrong = json!({"status": {"currentHealthy": -1}});
    let message = admin
        .patch(&format!("{path}/status"), "merge", &wrong)
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("status.currentHealthy: Invalid value: -1"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_kinds_can_be_watched_and_say_why_they_are_not_made() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (group, plural) in READ_ONLY {
        let path = format!("/apis/{group}/v1/{plural}");
        let list = admin.get(&path).await.ok(200);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut watch = admin.watch(&format!("{path}?{query}")).await;
        for _ in list["items"].as_array().unwrap() {
            assert_eq!(watch.next().await.unwrap()["type"], "ADDED", "{plural}");
        }
        let mark = watch.next().await.unwrap();
        assert_eq!(mark["type"], "BOOKMARK", "{plural} from {version}");
        let namespaced = matches!(*plural, "resourceclaims" | "resourceclaimtemplates");
        let path = match namespaced {
            true => format!("/apis/{group}/v1/namespaces/default/{plural}"),
            false => path,
        };
        let message = admin
            .post(&path, &json!({"metadata": {"name": "x"}}))
            .await
            .refused(405, "MethodNotAllowed");
        let start = format!("create is not supported on resources of kind \"{plural}.{group}\": ");
        assert!(message.starts_with(&start), "{message}");
        let found = admin.get(&format!("/apis/{group}/v1")).await.ok(200);
        let row = found["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["name"] == *plural)
            .unwrap();
        assert_eq!(row["verbs"], json!(["get", "list", "watch"]), "{plural}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_its_own_objects() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let services = admin
        .get("/apis/apiregistration.k8s.io/v1/apiservices")
        .await
        .ok(200);
    let names: Vec<&str> = services["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["metadata"]["name"].as_str().unwrap())
        .collect();
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.autoscaling"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let apps = admin
        .get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps")
        .await
        .ok(200);
    assert_eq!(apps["spec"]["group"], "apps");
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
    let range = admin
        .get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        .await
        .ok(200);
    assert_eq!(
        range["spec"]["cidrs"],
        json!(["10.96.0.0/24", "fd00:10:96::/112"])
    );
    let class = admin
        .get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical")
        .await
        .ok(200);
    assert_eq!(class["value"], 2_000_001_000_i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_take_their_priority_from_classes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, spec: Value| {
        let mut pod = json!({"metadata": {"name": name},
                             "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let message = admin
        .post(pods, &pod("a", json!({"priorityClassName": "high"})))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"a\" is forbidden: no PriorityClass with name high was found"
    );
    let high = json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"});
    admin.post(classes, &high).await.ok(201);
    let made = admin
        .post(pods, &pod("a", json!({"priorityClassName": "high"})))
        .await
        .ok(201);
    assert_eq!(made["spec"]["priority"], 7);
    assert_eq!(made["spec"]["preemptionPolicy"], "Never");
    let usual = json!({"metadata": {"name": "usual"}, "value": 3, "globalDefault": true});
    admin.post(classes, &usual).await.ok(201);
    // Wait until the cache has it, as a client does who reads before it writes.
    admin.get(&format!("{classes}/usual")).await.ok(200);
    let made = admin.post(pods, &pod("b", json!({}))).await.ok(201);
    assert_eq!(made["spec"]["priority"], 3);
    assert_eq!(made["spec"]["priorityClassName"], "usual");
    let other = json!({"metadata": {"name": "other"}, "value": 4, "globalDefault": true});
    let message = admin.post(classes, &other).await.refused(403, "Forbidden");
    assert_eq!(
        message,
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"
    );
    let message = admin
        .patch(&format!("{classes}/usual"), "merge", &json!({"value": 9}))
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "PriorityClass.scheduling.k8s.io \"usual\" is invalid: value: Forbidden: may not be changed in an update."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscalers_have_two_versions() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let old = json!({
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                 "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
    });
    let made = admin.post(&path("v1"), &old).await.ok(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    let new = admin.get(&format!("{}/h", path("v2"))).await.ok(200);
    assert_eq!(new["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(
        new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        50
    );
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 60}});
    admin
        .patch(&format!("{}/h", path("v1")), "merge", &patch)
        .await
        .ok(200);
    let list = admin.get(&path("v2")).await.ok(200);
    assert_eq!(
        list["items"][0]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        60
    );
    let groups = admin.get("/apis/autoscaling").await.ok(200);
    assert_eq!(groups["preferredVersion"]["version"], "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn scales_of_every_kind_that_has_them() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (path, mut object) in samples() {
        if !path.ends_with("replicationcontrollers") && !path.ends_with("statefulsets") {
            continue;
        }
        object["metadata"] = json!({"name": "x"});
        admin.post(path, &object).await.ok(201);
        let scale = admin.get(&format!("{path}/x/scale")).await.ok(200);
        assert_eq!(scale["status"]["selector"], "a=b", "{path}");
        let patch = json!({"spec": {"replicas": 4}});
        admin
            .patch(&format!("{path}/x/scale"), "merge", &patch)
            .await
            .ok(200);
        let scaled = admin.get(&format!("{path}/x")).await.ok(200);
        assert_eq!(scaled["spec"]["replicas"], 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_schemas_are_there_to_be_looked_at() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let schemas = admin.get(&format!("{group}/flowschemas")).await.ok(200);
    let found = schemas["items"].as_array().unwrap();
    let all = found
        .iter()
        .find(|s| s["metadata"]["name"] == "catch-all")
        .unwrap();
    assert_eq!(all["spec"]["matchingPrecedence"], 10000);
    let condition = &all["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Dangling"), &json!("False"))
    );
    assert!(condition["lastTransitionTime"].is_string());
    for schema in found {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"]
            .as_str()
            .unwrap();
        let path = format!("{group}/prioritylevelconfigurations/{level}");
        admin.get(&path).await.ok(200);
    }
    let answer = admin
        .delete(&format!("{group}/flowschemas/catch-all"), None)
        .await;
    answer.refused(405, "MethodNotAllowed");
    // Nobody claims that they decided anything.
    let answer = admin.get("/api/v1/namespaces").await;
    assert!(
        !answer
            .headers
            .contains_key("x-kubernetes-pf-flowschema-uid")
    );
}
