//! What is kept on disk, and who may read it.

use std::os::unix::fs::PermissionsExt as _;

use rhumb_apiserver::AuditLog;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::{Cluster, LIMIT};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// "correct horse" in base64.
const PASSWORD: &str = "Y29ycmVjdCBob3JzZQ==";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_at_rest() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin();
    let secret = json!({"metadata": {"name": "s"}, "data": {"password": PASSWORD}});
    admin.post(SECRETS, &secret).await.ok(201);
    let map = json!({"metadata": {"name": "m"}, "data": {"plain": "in-the-file"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    admin.post(maps, &map).await.ok(201);
    cluster.stop().await;
    let data = cluster.dir.path().join("data");
    let file = std::fs::read(data.join("store.db")).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("in-the-file"));
    assert!(!holds(PASSWORD));
    for name in ["secrets.keys", "sa.key", "ca.key", "server.key"] {
        let mode = std::fs::metadata(data.join("pki").join(name)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
    }
    cluster.run().await;
    let admin = cluster.admin();
    let found = admin.get(&format!("{SECRETS}/s")).await.ok(200);
    assert_eq!(found["data"]["password"], PASSWORD);
    let list = admin.get(SECRETS).await.ok(200);
    assert_eq!(list["items"][0]["data"]["password"], PASSWORD);
    cluster.stop().await;

    // With the key gone nothing is lost, and nothing starts that would answer without it.
    let keys = data.join("pki/secrets.keys");
    let away = data.join("pki/away");
    std::fs::rename(&keys, &away).unwrap();
    let error = rhumb_apiserver::Server::start(cluster.config()).await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("core/secrets/default/s"), "{error}");
    assert!(error.contains("put that key back"), "{error}");
    std::fs::rename(&away, &keys).unwrap();
    cluster.run().await;
    let admin = cluster.admin();
    admin.get(&format!("{SECRETS}/s")).await.ok(200);
}

/// A cluster with an audit log.
async fn audited() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start().await;
    cluster.stop().await;
    let path = cluster.dir.path().join("audit.log");
    let mut config = cluster.config();
    config.audit = Some(AuditLog {
        path: path.clone(),
        max_size: 1 << 20,
        max_backups: 1,
    });
    cluster.run_with(config).await;
    (cluster, path)
}

/// The log's events, when there are so many.
async fn events(path: &Path, count: usize) -> Vec<Value> {
    let asked = tokio::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines();
        if lines.clone().count() >= count {
            return lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
        }
        assert!(asked.elapsed() < LIMIT, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_writes_into_the_audit_log() {
    let (cluster, path) = audited().await;
    let admin = cluster.admin();
    let labels = json!({"pod-security.kubernetes.io/audit": "baseline"});
    let namespace = json!({"metadata": {"name": "n", "labels": labels}});
    admin.post("/api/v1/namespaces", &namespace).await.ok(201);
    let account = json!({"metadata": {"name": "default"}});
    admin
        .post("/api/v1/namespaces/n/serviceaccounts", &account)
        .await
        .ok(201);
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]},
        "validations": [{"expression": "true"}, {"expression": "false", "message": "never"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "'it was ' + request.userInfo.username"}],
    }});
    admin
        .post(&format!("{group}/validatingadmissionpolicies"), &policy)
        .await
        .ok(201);
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    admin
        .post(
            &format!("{group}/validatingadmissionpolicybindings"),
            &binding,
        )
        .await
        .ok(201);
    let pod = json!({"metadata": {"name": "x"}, "spec": {"hostNetwork": true,
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/n/pods", &pod).await.ok(201);
    let events = events(&path, 5).await;
    let annotations = &events[4]["annotations"];
    assert_eq!(
        annotations["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );
    assert_eq!(
        annotations["pod-security.kubernetes.io/audit-violations"],
        "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    assert_eq!(annotations["p/who"], "it was kubernetes-admin");
    let failures = annotations["validation.policy.admission.k8s.io/validation_failure"].as_str();
    assert_eq!(
        serde_json::from_str::<Value>(failures.unwrap()).unwrap(),
        json!([{"message": "never", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Audit"]}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_audited_without_their_bodies() {
    let (cluster, path) = audited().await;
    let admin = cluster.admin();
    let secret = json!({"metadata": {"name": "s"}, "data": {"password": PASSWORD}});
    admin.post(SECRETS, &secret).await.ok(201);
    let stranger = cluster.client("stranger", &[]);
    stranger.get(SECRETS).await.refused(403, "Forbidden");
    let anonymous = cluster.anonymous();
    anonymous.get("/readyz").await;
    anonymous.get(SECRETS).await.refused(401, "Unauthorized");
    let events = events(&path, 3).await;
    let shown: Vec<String> = events
        .iter()
        .map(|e| {
            let text = |v: &Value| v.as_str().unwrap_or("-").to_string();
            format!(
                "{} {} {} {} {}",
                text(&e["user"]["username"]),
                text(&e["verb"]),
                text(&e["objectRef"]["resource"]),
                e["responseStatus"]["code"],
                text(&e["annotations"]["authorization.k8s.io/decision"])
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "kubernetes-admin create secrets 201 allow",
            "stranger list secrets 403 forbid",
            "-  - 401 -",
        ]
    );
    assert_eq!(events[0]["requestURI"], SECRETS);
    assert_eq!(events[0]["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(events[1]["responseStatus"]["reason"], "Forbidden");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains("readyz"));
}
