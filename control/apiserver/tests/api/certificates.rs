//! Certificate signing requests over the wire; approval and signing are in ring 4 too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::client::Cluster;

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request(name: &str, signer: &str, user: &str, group: &str) -> Value {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": name}, "spec": {
        "request": STANDARD.encode(pem), "signerName": signer,
        "usages": ["client auth", "digital signature"], "expirationSeconds": 3600}})
}

fn condition(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "test", "message": "m"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_name_who_asks_and_keep_what_they_ask() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut asked = request("a", "kubernetes.io/kube-apiserver-client", "jane", "dev");
    asked["spec"]["username"] = "somebody-else".into();
    asked["spec"]["groups"] = json!(["system:masters"]);
    let bootstrap = cluster.client("boot", &["bootstrappers"]);
    bootstrap.post(CSRS, &asked).await.refused(403, "Forbidden");
    let grant = json!({"metadata": {"name": "boot"},
        "roleRef": {"kind": "ClusterRole", "name": "system:node-bootstrapper"},
        "subjects": [{"kind": "Group", "name": "bootstrappers"}]});
    admin
        .post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &grant,
        )
        .await
        .ok(201);
    asked["status"] = json!({"certificate": "eA=="});
    let made = bootstrap.post(CSRS, &asked).await.ok(201);
    assert_eq!(made["spec"]["username"], "boot");
    assert_eq!(
        made["spec"]["groups"],
        json!(["bootstrappers", "system:authenticated"])
    );
    assert_eq!(made["status"], json!({}));
    let path = format!("{CSRS}/a");
    let change = json!({"spec": {"username": "root"}, "metadata": {"labels": {"a": "b"}}});
    let changed = admin.patch(&path, "merge", &change).await.ok(200);
    assert_eq!(changed["spec"], made["spec"]);
    assert_eq!(changed["metadata"]["labels"]["a"], "b");

    for (field, value, why) in [
        (
            "request",
            json!("bm9uc2Vuc2U="),
            "PEM block type must be CERTIFICATE REQUEST",
        ),
        (
            "usages",
            json!(["client auth", "magic"]),
            "Unsupported value: \"magic\"",
        ),
        ("usages", json!([]), "spec.usages: Required value"),
        (
            "signerName",
            json!("nonsense"),
            "must be a fully qualified domain and path",
        ),
        (
            "expirationSeconds",
            json!(5),
            "may not specify a duration less than 600 seconds",
        ),
    ] {
        let mut bad = request("b", "kubernetes.io/kube-apiserver-client", "jane", "dev");
        bad["spec"][field] = value;
        let message = admin.post(CSRS, &bad).await.refused(422, "Invalid");
        assert!(message.contains(why), "{message}");
    }
    let root = request(
        "r",
        "kubernetes.io/kube-apiserver-client",
        "jane",
        "system:masters",
    );
    let message = admin.post(CSRS, &root).await.refused(403, "Forbidden");
    assert!(
        message.ends_with("signer with system:masters group is not allowed"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn approval_and_signing_need_the_verb_for_the_signer() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["a", "d"] {
        let asked = request(name, "example.com/mine", "jane", "dev");
        admin.post(CSRS, &asked).await.ok(201);
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = |verb: &str, name: &str| {
        json!([
        {"verbs": ["update", "patch", "get"], "apiGroups": ["certificates.k8s.io"],
         "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name]}])
    };
    for (user, verb, signer) in [
        ("wrong", "approve", "example.com/other"),
        ("approver", "approve", "example.com/*"),
        ("signer", "sign", "example.com/mine"),
    ] {
        let role = json!({"metadata": {"name": user}, "rules": rules(verb, signer)});
        admin
            .post(&format!("{rbac}/clusterroles"), &role)
            .await
            .ok(201);
        let binding = json!({"metadata": {"name": user},
            "roleRef": {"kind": "ClusterRole", "name": user},
            "subjects": [{"kind": "User", "name": user}]});
        admin
            .post(&format!("{rbac}/clusterrolebindings"), &binding)
            .await
            .ok(201);
    }
    let approval = format!("{CSRS}/a/approval");
    for user in ["wrong", "signer"] {
        let client = cluster.client(user, &[]);
        let message = client
            .patch(&approval, "merge", &condition("Approved"))
            .await
            .refused(403, "Forbidden");
        assert!(
            message.ends_with(
                "user not permitted to approve requests with signerName \"example.com/mine\""
            ),
            "{message}"
        );
    }
    let approver = cluster.client("approver", &[]);
    let mut sneaky = condition("Approved");
    sneaky["status"]["certificate"] = "eA==".into();
    let approved = approver.patch(&approval, "merge", &sneaky).await.ok(200);
    assert_eq!(approved["status"].get("certificate"), None);
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let message = approver
        .patch(&approval, "merge", &json!({"status": {"conditions": []}}))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("may not remove a condition of type \"Approved\""),
        "{message}"
    );
    approver
        .patch(&format!("{CSRS}/d/approval"), "merge", &condition("Denied"))
        .await
        .ok(200);

    let status = format!("{CSRS}/a/status");
    let signed = |pem: &str| json!({"status": {"certificate": STANDARD.encode(pem)}});
    let ca = cluster
        .server
        .as_ref()
        .unwrap()
        .ca_certificate()
        .to_string();
    approver
        .patch(&status, "merge", &signed(&ca))
        .await
        .refused(403, "Forbidden");
    let signer = cluster.client("signer", &[]);
    signer
        .patch(&status, "merge", &signed("x"))
        .await
        .refused(422, "Invalid");
    signer.patch(&status, "merge", &signed(&ca)).await.ok(200);
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.call("GET", CSRS, &headers, "").await.ok(200);
    let cells: Vec<String> = (0..2)
        .map(|i| {
            let cells = &table["rows"][i]["cells"];
            format!("{} {} {}", cells[2], cells[4], cells[5])
        })
        .collect();
    assert_eq!(
        cells,
        [
            "\"example.com/mine\" \"60m\" \"Approved,Issued\"",
            "\"example.com/mine\" \"60m\" \"Denied\""
        ]
    );
    let list = admin
        .get(&format!(
            "{CSRS}?fieldSelector=spec.signerName%3Dexample.com%2Fmine"
        ))
        .await
        .ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}
