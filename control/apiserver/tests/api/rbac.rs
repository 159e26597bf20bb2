//! Roles, bindings, reviews and impersonation over the wire.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role},
           "subjects": [{"kind": "User", "name": user}]})
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

async fn create(client: &Client, plural: &str, object: Value) -> Value {
    let path = match plural {
        "roles" | "rolebindings" => format!("{RBAC}/namespaces/default/{plural}"),
        _ => format!("{RBAC}/{plural}"),
    };
    client.post(&path, &object).await.ok(201)
}

/// A WebSocket opens by GET; to read is not enough for a shell.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_pods_need_create() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let jane = cluster.client("jane", &[]);
    let streams = ["exec", "attach", "portforward"];
    let resources: Vec<String> = streams.iter().map(|s| format!("pods/{s}")).collect();
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    for (name, verb) in [("looks", "get"), ("enters", "create")] {
        let rules = json!([rule(&[verb], "", &resources)]);
        create(&admin, "roles", role(name, rules)).await;
    }
    create(
        &admin,
        "rolebindings",
        binding("looks", "Role", "looks", "jane"),
    )
    .await;
    for stream in streams {
        let path = format!("{PODS}/x/{stream}?container=c&command=sh&stdout=true");
        let message = jane.get(&path).await.refused(403, "Forbidden");
        assert!(message.contains("cannot create resource"), "{message}");
    }
    create(
        &admin,
        "rolebindings",
        binding("enters", "Role", "enters", "jane"),
    )
    .await;
    for stream in streams {
        // Allowed, hence looked for.
        let path = format!("{PODS}/x/{stream}?container=c&command=sh&stdout=true");
        jane.get(&path).await.refused(404, "NotFound");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_take_effect_at_once_and_end_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let jane = cluster.client("jane", &[]);
    jane.get(PODS).await.refused(403, "Forbidden");
    let made = create(
        &admin,
        "roles",
        role("reader", json!([rule(&["get", "list"], "", &["pods"])])),
    )
    .await;
    assert_eq!(made["kind"], "Role");
    let made = create(
        &admin,
        "rolebindings",
        binding("jane", "Role", "reader", "jane"),
    )
    .await;
    assert_eq!(made["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    jane.get(PODS).await.ok(200);
    jane.get("/api/v1/pods").await.refused(403, "Forbidden");
    let message = jane
        .delete(&format!("{PODS}/x"), None)
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"x\" is forbidden: User \"jane\" cannot delete resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let bound = format!("{RBAC}/namespaces/default/rolebindings/jane");
    let other = json!({"roleRef": {"kind": "Role", "name": "other"}});
    let message = admin
        .patch(&bound, "merge", &other)
        .await
        .refused(422, "Invalid");
    assert!(message.contains("roleRef: Invalid value"), "{message}");
    assert!(message.ends_with("cannot change roleRef"), "{message}");
    // A role that has gone gives nothing, and the refusal says so.
    admin
        .delete(&format!("{RBAC}/namespaces/default/roles/reader"), None)
        .await
        .ok(200);
    admin.get(PODS).await.ok(200);
    let message = jane.get(PODS).await.refused(403, "Forbidden");
    assert!(
        message.ends_with(": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"),
        "{message}"
    );
    admin.delete(&bound, None).await.ok(200);
    let bad = role("a", json!([{"verbs": ["get"]}]));
    admin
        .post(&format!("{RBAC}/clusterroles"), &bad)
        .await
        .refused(422, "Invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_more_than_they_have() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let jane = cluster.client("jane", &["dev"]);
    let rules = json!([
        rule(
            &["create", "get", "patch"],
            "rbac.authorization.k8s.io",
            &["roles", "rolebindings", "clusterroles"]
        ),
        rule(&["get"], "", &["pods"]),
    ]);
    create(&admin, "clusterroles", role("granter", rules)).await;
    create(
        &admin,
        "clusterroles",
        role("pods", json!([rule(&["get"], "", &["pods"])])),
    )
    .await;
    create(
        &admin,
        "clusterroles",
        role("secrets", json!([rule(&["get"], "", &["secrets"])])),
    )
    .await;
    create(
        &admin,
        "clusterrolebindings",
        binding("jane", "ClusterRole", "granter", "jane"),
    )
    .await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");

    create(
        &jane,
        "roles",
        role("mine", json!([rule(&["get"], "", &["pods"])])),
    )
    .await;
    let more = role(
        "more",
        json!([rule(&["get", "list", "watch"], "", &["pods"])]),
    );
    let message = jane.post(&roles, &more).await.refused(403, "Forbidden");
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}"
    );
    let wider =
        json!([{"op": "add", "path": "/rules/-", "value": rule(&["get"], "", &["secrets"])}]);
    jane.patch(&format!("{roles}/mine"), "json", &wider)
        .await
        .refused(403, "Forbidden");
    // What changes nothing of the rules is fine.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    jane.patch(&format!("{roles}/mine"), "merge", &label)
        .await
        .ok(200);
    let gathering = json!({"metadata": {"name": "g"}, "aggregationRule": {"clusterRoleSelectors": [
        {"matchLabels": {"a": "b"}}]}});
    let message = jane
        .post(&format!("{RBAC}/clusterroles"), &gathering)
        .await
        .refused(403, "Forbidden");
    assert!(message.ends_with("must have cluster-admin privileges to use the aggregationRule"));

    create(
        &jane,
        "rolebindings",
        binding("a", "ClusterRole", "pods", "otto"),
    )
    .await;
    let message = jane
        .post(&bindings, &binding("b", "ClusterRole", "secrets", "otto"))
        .await
        .refused(403, "Forbidden");
    assert!(
        message.contains("Resources:[\"secrets\"], Verbs:[\"get\"]"),
        "{message}"
    );
    let message = jane
        .post(&bindings, &binding("b", "ClusterRole", "nothing", "otto"))
        .await
        .refused(404, "NotFound");
    assert_eq!(
        message,
        "clusterroles.rbac.authorization.k8s.io \"nothing\" not found"
    );
    // The verbs bind and escalate say that one may all the same.
    let mut bind = rule(&["bind"], "rbac.authorization.k8s.io", &["clusterroles"]);
    bind["resourceNames"] = json!(["secrets"]);
    create(&admin, "clusterroles", role("binder", json!([bind]))).await;
    create(
        &admin,
        "clusterrolebindings",
        binding("binder", "ClusterRole", "binder", "jane"),
    )
    .await;
    create(
        &jane,
        "rolebindings",
        binding("b", "ClusterRole", "secrets", "otto"),
    )
    .await;
    jane.post(&roles, &more).await.refused(403, "Forbidden");
    let escalate = json!([rule(&["escalate"], "rbac.authorization.k8s.io", &["roles"])]);
    create(&admin, "clusterroles", role("escalator", escalate)).await;
    create(
        &admin,
        "clusterrolebindings",
        binding("esc", "ClusterRole", "escalator", "jane"),
    )
    .await;
    create(&jane, "roles", more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_roles_come_back_and_keep_what_was_added() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = format!("{RBAC}/clusterroles/system:basic-user");
    let first = admin.get(&path).await.ok(200);
    assert_eq!(
        first["metadata"]["labels"]["kubernetes.io/bootstrapping"],
        "rbac-defaults"
    );
    let own = rule(&["get"], "", &["nodes"]);
    let changed = json!({"rules": [own]});
    admin.patch(&path, "merge", &changed).await.ok(200);
    let binding = format!("{RBAC}/clusterrolebindings/system:discovery");
    admin.delete(&binding, None).await.ok(200);
    let kept = format!("{RBAC}/clusterroles/system:kube-dns");
    let protect = json!({"rules": [], "metadata": {"annotations": {
        "rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    admin.patch(&kept, "merge", &protect).await.ok(200);
    let jane = cluster.client("jane", &[]);
    jane.get("/api").await.refused(403, "Forbidden");

    cluster.stop().await;
    cluster.run().await;
    let admin = cluster.admin();
    let role = admin.get(&path).await.ok(200);
    let rules = role["rules"].as_array().unwrap();
    assert_eq!(rules[0], own);
    assert_eq!(rules.len(), 4, "{rules:?}");
    admin.get(&binding).await.ok(200);
    let kept = admin.get(&kept).await.ok(200);
    assert!(kept["rules"].as_array().is_none_or(Vec::is_empty), "{kept}");
    cluster.client("jane", &[]).get("/api").await.ok(200);
    // The next start changes nothing.
    let version = role["metadata"]["resourceVersion"].clone();
    cluster.stop().await;
    cluster.run().await;
    let again = cluster.admin().get(&path).await.ok(200);
    assert_eq!(again["metadata"]["resourceVersion"], version);
}

const AUTHZ: &str = "/apis/authorization.k8s.io/v1";

#[tokio::test(flavor = "multi_thread")]
async fn reviews() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let jane = cluster.client("jane", &["dev"]);
    let rules = json!([
        rule(&["get", "list"], "", &["pods"]),
        rule(
            &["create"],
            "authorization.k8s.io",
            &["localsubjectaccessreviews"]
        )
    ]);
    create(&admin, "roles", role("reader", rules)).await;
    create(
        &admin,
        "rolebindings",
        binding("jane", "Role", "reader", "jane"),
    )
    .await;
    let ask = |namespace: &str| {
        json!({"spec": {"resourceAttributes": {
        "verb": "list", "resource": "pods", "namespace": namespace}}})
    };
    let own = format!("{AUTHZ}/selfsubjectaccessreviews");
    let answer = jane.post(&own, &ask("default")).await.ok(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by RoleBinding \"jane/default\" of Role \"reader\" to User \"jane\""
    );
    let answer = jane.post(&own, &ask("other")).await.ok(201);
    assert_eq!(answer["status"], json!({"allowed": false}));
    jane.post(&own, &json!({"spec": {}}))
        .await
        .refused(422, "Invalid");
    jane.get(&own).await.refused(403, "Forbidden");
    admin.get(&own).await.refused(405, "MethodNotAllowed");

    // About others: for those who may ask.
    let mut about = ask("default");
    about["spec"]["user"] = "jane".into();
    let others = format!("{AUTHZ}/subjectaccessreviews");
    jane.post(&others, &about).await.refused(403, "Forbidden");
    let answer = admin.post(&others, &about).await.ok(201);
    assert_eq!(answer["status"]["allowed"], true);
    admin
        .post(&others, &ask("default"))
        .await
        .refused(422, "Invalid");
    let local = format!("{AUTHZ}/namespaces/default/localsubjectaccessreviews");
    let answer = jane.post(&local, &about).await.ok(201);
    assert_eq!(answer["status"]["allowed"], true);
    about["spec"]["resourceAttributes"]["namespace"] = "other".into();
    jane.post(&local, &about).await.refused(422, "Invalid");
    admin
        .post(&format!("{AUTHZ}/localsubjectaccessreviews"), &about)
        .await
        .refused(404, "NotFound");

    // `kubectl auth can-i --list`
    let list = format!("{AUTHZ}/selfsubjectrulesreviews");
    let answer = jane
        .post(&list, &json!({"spec": {"namespace": "default"}}))
        .await
        .ok(201);
    let status = &answer["status"];
    assert_eq!(status["incomplete"], false);
    let listed = status["resourceRules"].as_array().unwrap();
    assert!(
        listed.contains(&rule(&["get", "list"], "", &["pods"])),
        "{listed:?}"
    );
    let paths = status["nonResourceRules"].to_string();
    assert!(paths.contains("/openapi/*"), "{paths}");
    let everything = admin
        .post(&list, &json!({"spec": {"namespace": "default"}}))
        .await
        .ok(201);
    let everything = everything["status"]["resourceRules"].to_string();
    assert!(everything.contains(r#"{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}"#));

    let who = jane
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &json!({}),
        )
        .await
        .ok(201);
    let info = &who["status"]["userInfo"];
    assert_eq!(info["username"], "jane");
    assert_eq!(info["groups"], json!(["dev", "system:authenticated"]));
    assert!(info["extra"]["authentication.kubernetes.io/credential-id"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let who = |client: Client, headers: Vec<(&'static str, &'static str)>| async move {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        client.call("POST", path, &all, "{}").await
    };
    let answer = who(
        admin.clone(),
        vec![
            ("impersonate-user", "otto"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-example.com%2fscope", "a"),
        ],
    )
    .await
    .ok(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "otto", "uid": "7", "groups": ["dev", "ops", "system:authenticated"],
               "extra": {"example.com/scope": ["a"]}})
    );
    let sa = vec![("impersonate-user", "system:serviceaccount:a:b")];
    let answer = who(admin.clone(), sa.clone()).await.ok(201);
    assert_eq!(
        answer["status"]["userInfo"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:a",
            "system:authenticated"
        ])
    );
    // The rights are those of the other user.
    let as_otto = [("impersonate-user", "otto")];
    admin
        .call("GET", PODS, &as_otto, "")
        .await
        .refused(403, "Forbidden");
    who(admin.clone(), vec![("impersonate-group", "dev")])
        .await
        .refused(400, "BadRequest");

    let jane = cluster.client("jane", &[]);
    let message = who(jane.clone(), vec![("impersonate-user", "otto")])
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "users \"otto\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let mut users = rule(&["impersonate"], "", &["users"]);
    users["resourceNames"] = json!(["otto"]);
    create(&admin, "clusterroles", role("as-otto", json!([users]))).await;
    create(
        &admin,
        "clusterrolebindings",
        binding("j", "ClusterRole", "as-otto", "jane"),
    )
    .await;
    who(jane.clone(), vec![("impersonate-user", "otto")])
        .await
        .ok(201);
    for headers in [
        vec![("impersonate-user", "root")],
        vec![
            ("impersonate-user", "otto"),
            ("impersonate-group", "system:masters"),
        ],
        vec![("impersonate-user", "otto"), ("impersonate-uid", "1")],
        vec![("impersonate-user", "otto"), ("impersonate-extra-x", "1")],
        sa,
    ] {
        who(jane.clone(), headers).await.refused(403, "Forbidden");
    }
}
