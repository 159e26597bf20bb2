//! Who a token stands for: given out by an admin, or by the server for service accounts.

use serde_json::{Value, json};

use crate::client::{Client, Cluster};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn account(admin: &Client, name: &str) {
    admin
        .post(ACCOUNTS, &json!({"metadata": {"name": name}}))
        .await
        .ok(201);
}

async fn token(admin: &Client, account: &str, spec: Value) -> String {
    let path = format!("{ACCOUNTS}/{account}/token");
    let answer = admin.post(&path, &json!({"spec": spec})).await.ok(201);
    answer["status"]["token"].as_str().unwrap().to_string()
}

async fn review(client: &Client, token: &str, audiences: &[&str]) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    let answer = client.post(REVIEWS, &json!({"spec": spec})).await.ok(201);
    answer["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_names_users() {
    let mut cluster = Cluster::start().await;
    cluster.stop().await;
    let file = cluster.dir.path().join("tokens.csv");
    std::fs::write(&file, "s3cret,anna,42,\"dev,ops\"\n").unwrap();
    let mut config = cluster.config();
    config.token_auth_file = Some(file.clone());
    cluster.run_with(config).await;
    let anna = cluster.with_token("s3cret");
    let who = anna.post(WHO, &json!({})).await.ok(201);
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "anna", "uid": "42", "groups": ["dev", "ops", "system:authenticated"]})
    );
    cluster
        .with_token("s3cre")
        .get("/api")
        .await
        .refused(401, "Unauthorized");
    let status = review(&cluster.admin(), "s3cret", &[]).await;
    assert_eq!(status["user"]["username"], "anna");
    anna.post(REVIEWS, &json!({"spec": {"token": "x"}}))
        .await
        .refused(403, "Forbidden");

    cluster.stop().await;
    std::fs::write(&file, "s3cret,anna\n").unwrap();
    let mut config = cluster.config();
    config.token_auth_file = Some(file);
    let error = rhumb_apiserver::Server::start(config).await.err().unwrap();
    let error = error.to_string();
    assert!(error.contains("at least 3 columns"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_reviews_look_at_audiences_and_at_what_is_there() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "a").await;
    let secret = json!({"metadata": {"name": "s"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    admin.post(secrets, &secret).await.ok(201);
    admin
        .post("/api/v1/nodes", &json!({"metadata": {"name": "n"}}))
        .await
        .ok(201);
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let plain = token(&admin, "a", json!({})).await;
    let vault = token(&admin, "a", json!({"audiences": ["vault", "other"]})).await;
    let of_secret = token(&admin, "a", bound("Secret", "s")).await;
    let of_node = token(&admin, "a", bound("Node", "n")).await;
    let api = "https://kubernetes.default.svc.cluster.local";

    let status = review(&admin, &plain, &[]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!([api]));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:a");
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert!(user["uid"].as_str().unwrap().len() == 36);
    let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
    assert!(id.unwrap().starts_with("JTI="));

    let status = review(&admin, &vault, &[]).await;
    assert_eq!(status["user"], json!({}));
    assert!(status["error"].as_str().unwrap().contains("audiences"));
    let status = review(&admin, &vault, &["vault", "third"]).await;
    assert_eq!(status["audiences"], json!(["vault"]));
    assert!(review(&admin, "nonsense", &[]).await["error"].is_string());
    let status = review(&admin, &of_node, &[]).await;
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/node-name"],
        json!(["n"])
    );

    for (token, path) in [
        (&of_secret, format!("{secrets}/s")),
        (&of_node, "/api/v1/nodes/n".to_string()),
        (&plain, format!("{ACCOUNTS}/a")),
    ] {
        let client = cluster.with_token(token);
        client.get("/api").await.ok(200);
        admin.delete(&path, None).await.ok(200);
        admin.get(&path).await.refused(404, "NotFound");
        client.get("/api").await.refused(401, "Unauthorized");
    }
    account(&admin, "a").await;
    // Another of the same name.
    cluster
        .with_token(&plain)
        .get("/api")
        .await
        .refused(401, "Unauthorized");
    let path = format!("{ACCOUNTS}/a/token");
    for (spec, code) in [
        (bound("Service", "x"), 400),
        (bound("Pod", "x"), 404),
        (json!({"expirationSeconds": 599}), 422),
    ] {
        let answer = admin.post(&path, &json!({"spec": spec})).await;
        assert_eq!(answer.status.as_u16(), code, "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signing_key_can_be_replaced() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "a").await;
    let old = token(&admin, "a", json!({})).await;
    let reader = cluster.with_token(&old);
    let keys = reader.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.ok(200)["keys"].as_array().unwrap().len(), 1);
    let discovery = reader
        .get("/.well-known/openid-configuration")
        .await
        .ok(200);
    assert_eq!(
        discovery["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
    assert!(
        discovery["jwks_uri"]
            .as_str()
            .unwrap()
            .ends_with("/openid/v1/jwks")
    );
    let jane = cluster.client("jane", &[]);
    jane.get("/openid/v1/jwks").await.refused(403, "Forbidden");
    cluster.stop().await;

    // The new key signs, the old one's tokens go on.
    let new_key = cluster.dir.path().join("new.key");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(&new_key, pair.serialize_pem()).unwrap();
    let old_key = cluster.dir.path().join("data/pki/sa.key");
    let mut config = cluster.config();
    config.service_account_signing_key = Some(new_key.clone());
    config.service_account_keys = vec![old_key];
    cluster.run_with(config).await;
    let admin = cluster.admin();
    let new = token(&admin, "a", json!({})).await;
    for token in [&old, &new] {
        let client = cluster.with_token(token);
        client.get("/api").await.ok(200);
    }
    let keys = admin.get("/openid/v1/jwks").await.ok(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    cluster.stop().await;

    let mut config = cluster.config();
    config.service_account_signing_key = Some(new_key);
    cluster.run_with(config).await;
    cluster.with_token(&new).get("/api").await.ok(200);
    cluster
        .with_token(&old)
        .get("/api")
        .await
        .refused(401, "Unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelets_are_restricted() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let kubelet = cluster.client("system:node:n1", &["system:nodes"]);
    let labels = |key: &str| json!({"metadata": {"name": "n1", "labels": {key: "x"}}});
    let message = kubelet
        .post("/api/v1/nodes", &labels("node-restriction.kubernetes.io/a"))
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/a"
    );
    let node = kubelet
        .post("/api/v1/nodes", &labels("kubernetes.io/hostname"))
        .await
        .ok(201);
    let n1 = "/api/v1/nodes/n1";
    let message = kubelet
        .patch(n1, "merge", &labels("node-role.kubernetes.io/master"))
        .await
        .refused(403, "Forbidden");
    assert!(message.ends_with("is not allowed to modify labels: node-role.kubernetes.io/master"));
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let message = kubelet
        .patch(n1, "merge", &taint)
        .await
        .refused(403, "Forbidden");
    assert!(message.ends_with("node \"n1\" is not allowed to modify taints"));
    admin.patch(n1, "merge", &taint).await.ok(200);
    kubelet.patch(n1, "merge", &labels("mine")).await.ok(200);
    kubelet.delete(n1, None).await.refused(403, "Forbidden");

    account(&admin, "default").await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}]}});
    let message = kubelet.post(pods, &pod).await.refused(403, "Forbidden");
    assert!(
        message.ends_with("node \"n1\" can only create mirror pods"),
        "{message}"
    );
    admin.post(pods, &pod).await.ok(201);
    pod["metadata"]["name"] = "foreign".into();
    pod["spec"]["nodeName"] = "n2".into();
    admin.post(pods, &pod).await.ok(201);
    let status = json!({"status": {"phase": "Running"}});
    kubelet
        .patch(&format!("{pods}/p/status"), "merge", &status)
        .await
        .ok(200);
    kubelet
        .patch(&format!("{pods}/foreign/status"), "merge", &status)
        .await
        .refused(403, "Forbidden");
    kubelet
        .delete(&format!("{pods}/foreign"), None)
        .await
        .refused(403, "Forbidden");
    let mirror = json!({"metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true,
                             "uid": node["metadata"]["uid"]}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let made = kubelet.post(pods, &mirror).await.ok(201);
    assert_eq!(made["spec"].get("serviceAccountName"), None);
    kubelet.delete(&format!("{pods}/m"), None).await.ok(200);
}
