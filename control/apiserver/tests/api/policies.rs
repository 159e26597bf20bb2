//! ValidatingAdmissionPolicies, and match conditions.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A policy about ConfigMaps.
fn policy(name: &str, spec: Value) -> Value {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [{
        "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
    }]}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        policy["spec"][key] = value.clone();
    }
    policy
}

async fn configure(admin: &Client, name: &str, spec: Value, binding: Value) {
    let path = format!("{GROUP}/validatingadmissionpolicies");
    admin.post(&path, &policy(name, spec)).await.ok(201);
    bind(admin, name, name, binding).await;
}

async fn bind(admin: &Client, name: &str, policy: &str, spec: Value) {
    let mut binding = json!({"metadata": {"name": name},
        "spec": {"policyName": policy, "validationActions": ["Deny"]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        binding["spec"][key] = value.clone();
    }
    let path = format!("{GROUP}/validatingadmissionpolicybindings");
    admin.post(&path, &binding).await.ok(201);
}

async fn forget(admin: &Client, name: &str) {
    for plural in [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ] {
        admin
            .delete(&format!("{GROUP}/{plural}/{name}"), None)
            .await
            .ok(200);
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_deny_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let validations = json!([
        {"expression": "object.data.all(k, size(object.data[k]) < 4)"},
        {"expression": "variables.name != 'bad'", "message": "a bad name", "reason": "Forbidden"},
        {"expression": "!has(object.data.x)", "messageExpression": "'no x in ' + request.namespace"},
        {"expression": "request.operation == 'CREATE' || object.data == oldObject.data"},
    ]);
    let variables = json!([{"name": "name", "expression": "object.metadata.name"}]);
    let spec = json!({"validations": validations, "variables": variables});
    configure(&admin, "p", spec, json!({})).await;
    admin
        .post(MAPS, &map("good", json!({"k": "v"})))
        .await
        .ok(201);
    let denied = |name: &str, why: &str| {
        format!(
            "configmaps \"{name}\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: {why}"
        )
    };
    let refused = admin.post(MAPS, &map("long", json!({"k": "value"}))).await;
    let status = refused.json();
    assert_eq!(
        refused.refused(422, "Invalid"),
        denied(
            "long",
            "failed expression: object.data.all(k, size(object.data[k]) < 4)"
        )
    );
    assert_eq!(
        status["details"]["causes"][0]["message"],
        status["message"]
            .as_str()
            .unwrap()
            .replace("configmaps \"long\" is forbidden: ", "")
    );
    assert_eq!(
        admin
            .post(MAPS, &map("bad", json!({"k": "v"})))
            .await
            .refused(403, "Forbidden"),
        denied("bad", "a bad name")
    );
    assert_eq!(
        admin
            .post(MAPS, &map("c", json!({"x": "v"})))
            .await
            .refused(422, "Invalid"),
        denied("c", "no x in default")
    );
    // Without data the first expression fails, and a failure counts.
    assert_eq!(
        admin
            .post(MAPS, &json!({"metadata": {"name": "none"}}))
            .await
            .refused(422, "Invalid"),
        denied(
            "none",
            "expression 'object.data.all(k, size(object.data[k]) < 4)' resulted in error: no such key: data"
        )
    );
    let change = json!({"data": {"k": "w"}});
    admin
        .patch(&format!("{MAPS}/good"), "merge", &change)
        .await
        .refused(422, "Invalid");
    // What is not mentioned is not meant, and nothing is when there is no binding.
    admin.delete(&format!("{MAPS}/good"), None).await.ok(200);
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/p");
    admin.delete(&binding, None).await.ok(200);
    admin
        .post(MAPS, &map("bad", json!({"k": "v"})))
        .await
        .ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_conditions_and_failure_policies() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let never = json!([{"expression": "false", "message": "never"}]);
    configure(
        &admin,
        "p",
        json!({"validations": never}),
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    let answer = admin.post(MAPS, &map("a", json!({}))).await;
    assert_eq!(
        answer.headers["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': never\""
    );
    answer.ok(201);
    forget(&admin, "p").await;
    // A condition that doesn't hold leaves the request out, whatever fails beside it.
    let conditions = json!([
        {"name": "broken", "expression": "object.nothing == 1"},
        {"name": "only-b", "expression": "object.metadata.name == 'b'"},
    ]);
    let spec = json!({"validations": never, "matchConditions": conditions});
    configure(&admin, "p", spec, json!({})).await;
    admin.post(MAPS, &map("c", json!({}))).await.ok(201);
    let message = admin
        .post(MAPS, &map("b", json!({})))
        .await
        .refused(422, "Invalid");
    assert!(
        message
            .ends_with("expression 'object.nothing == 1' resulted in error: no such key: nothing"),
        "{message}"
    );
    forget(&admin, "p").await;
    let broken = json!([{"expression": "object.nothing == 1"}]);
    configure(
        &admin,
        "p",
        json!({"validations": broken, "failurePolicy": "Ignore"}),
        json!({}),
    )
    .await;
    admin.post(MAPS, &map("d", json!({}))).await.ok(201);
    forget(&admin, "p").await;
    // What an annotation can't say denies, whatever the binding does with violations.
    let annotations = json!([{"key": "k", "valueExpression": "string(object.data.missing)"}]);
    configure(
        &admin,
        "p",
        json!({"auditAnnotations": annotations}),
        json!({"validationActions": ["Audit"]}),
    )
    .await;
    let message = admin
        .post(MAPS, &map("d", json!({})))
        .await
        .refused(422, "Invalid");
    assert!(message.ends_with("no such key: data"), "{message}");
    forget(&admin, "p").await;
    // Parameters of a kind that isn't there.
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "Gone"}, "validations": [{"expression": "true"}]});
    configure(&admin, "p", spec, json!({})).await;
    let message = admin
        .post(MAPS, &map("d", json!({})))
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "configmaps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Gone'"
    );
    forget(&admin, "p").await;
    // A Namespace is in none.
    let spec = json!({"validations": [{"expression": "namespaceObject == null"}],
        "matchConstraints": {"resourceRules": [{"operations": ["UPDATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["namespaces"]}]}});
    configure(&admin, "p", spec, json!({})).await;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    admin
        .patch("/api/v1/namespaces/default", "merge", &label)
        .await
        .ok(200);
    forget(&admin, "p").await;
    // A binding may be about less than its policy.
    let elsewhere = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}});
    configure(
        &admin,
        "p",
        json!({"validations": never}),
        json!({"matchResources": elsewhere}),
    )
    .await;
    admin.post(MAPS, &map("e", json!({}))).await.ok(201);
    admin
        .post(
            "/api/v1/namespaces/kube-system/configmaps",
            &map("e", json!({})),
        )
        .await
        .refused(422, "Invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let limit =
        json!({"metadata": {"name": "limit", "labels": {"l": "1"}}, "data": {"most": "abcd"}});
    // Whoever writes it should know which functions there are.
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let message = admin
        .post(
            &path,
            &policy(
                "bad",
                json!({"validations": [{"expression": "nothing(object)"}]}),
            ),
        )
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"bad\" is invalid: spec.validations[0].expression: Invalid value: \"nothing(object)\": compilation failed: undeclared reference to 'nothing' (in container '')"
    );
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "validations": [{"expression": "!(params.data.most in object.data)"}],
    });
    let reference = |change: Value| {
        let mut reference =
            json!({"name": "limit", "namespace": "kube-system", "parameterNotFoundAction": "Deny"});
        for (key, value) in change.as_object().into_iter().flatten() {
            reference[key] = value.clone();
        }
        json!({"paramRef": reference})
    };
    configure(&admin, "p", spec, reference(json!({}))).await;
    let message = admin
        .post(MAPS, &map("a", json!({"k": "v"})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{message}"
    );
    admin.post(secrets, &limit).await.ok(201);
    admin.post(MAPS, &map("a", json!({"k": "v"}))).await.ok(201);
    admin
        .post(MAPS, &map("b", json!({"abcd": "v"})))
        .await
        .refused(422, "Invalid");
    // A second binding by labels, of the object's own namespace, where there is none.
    let own = json!({"paramRef": {"selector": {"matchLabels": {"l": "1"}}, "parameterNotFoundAction": "Allow"}});
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/p");
    admin.delete(&binding, None).await.ok(200);
    bind(&admin, "q", "p", own).await;
    admin
        .post(MAPS, &map("b", json!({"abcd": "v"})))
        .await
        .ok(201);
    let mut here = limit.clone();
    here["metadata"]["name"] = "here".into();
    admin
        .post("/api/v1/namespaces/default/secrets", &here)
        .await
        .ok(201);
    admin
        .post(MAPS, &map("c", json!({"abcd": "v"})))
        .await
        .refused(422, "Invalid");
    // Who can't read the parameters binds no policy to them.
    let rules = json!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "policies"}, "rules": rules});
    admin
        .post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role)
        .await
        .ok(201);
    let bound = json!({"metadata": {"name": "policies"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "paul"}]});
    admin
        .post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &bound,
        )
        .await
        .ok(201);
    let paul = cluster.client("paul", &[]);
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "Secret"}, "validations": [{"expression": "true"}]});
    let message = paul
        .post(&path, &policy("q", spec))
        .await
        .refused(422, "Invalid");
    assert_eq!(
        message,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"q\" is invalid: spec.paramKind: Forbidden: user paul must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)"
    );
    let binding = json!({"metadata": {"name": "r"}, "spec": {"policyName": "p", "validationActions": ["Warn"],
        "paramRef": {"name": "limit", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}}});
    paul.post(
        &format!("{GROUP}/validatingadmissionpolicybindings"),
        &binding,
    )
    .await
    .refused(422, "Invalid");
    paul.post(
        &path,
        &policy("q", json!({"validations": [{"expression": "true"}]})),
    )
    .await
    .ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_ask_who_may_do_what() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete"]}]);
    let role = json!({"metadata": {"name": "r", "namespace": "default"}, "rules": rules});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    admin.post(&format!("{rbac}/roles"), &role).await.ok(201);
    let bound = json!({"metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "paul"}]});
    admin
        .post(&format!("{rbac}/rolebindings"), &bound)
        .await
        .ok(201);
    let paul = cluster.client("paul", &[]);
    let secrets =
        "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()";
    let validations = json!([
        {"expression": "authorizer.requestResource.check('delete').allowed()", "message": "may not delete"},
        {"expression": format!("object.metadata.name != 'secret' || {secrets}"), "message": "may not read secrets"},
        {"expression": "!authorizer.serviceAccount('default', 'x').requestResource.check('create').allowed()"},
    ]);
    configure(&admin, "p", json!({"validations": validations}), json!({})).await;
    paul.post(MAPS, &map("a", json!({}))).await.ok(201);
    let message = paul
        .post(MAPS, &map("secret", json!({})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.ends_with("denied request: may not read secrets"),
        "{message}"
    );
    admin.post(MAPS, &map("secret", json!({}))).await.ok(201);
    // Of a message nobody asks who may do what.
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let asks = json!([{"expression": "true", "messageExpression": "authorizer.requestResource.check('get').reason()"}]);
    let message = admin
        .post(&path, &policy("q", json!({"validations": asks})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("undeclared reference to 'authorizer'"),
        "{message}"
    );
}
