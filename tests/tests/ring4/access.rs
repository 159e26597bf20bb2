//! Who may what, with stock kubectl: roles, bindings, impersonation, tokens of pods.

use crate::support::{Space, Suite, client};
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};

fn says(space: &Space<'_>, arguments: &[&str], words: &[&str]) -> anyhow::Result<String> {
    let text = space.kubectl(arguments)?;
    for word in words {
        let what = arguments.join(" ");
        ensure!(
            text.contains(word),
            "kubectl {what}: no `{word}` in:\n{text}"
        );
    }
    Ok(text)
}

fn refuses(space: &Space<'_>, arguments: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let output = space.kubectl_output(arguments)?;
    let what = arguments.join(" ");
    ensure!(!output.status.success(), "kubectl {what} went through");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for word in words {
        ensure!(
            text.contains(word),
            "kubectl {what}: no `{word}` in:\n{text}"
        );
    }
    Ok(())
}

pub fn roles(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("roles")?;
    says(
        &space,
        &["auth", "whoami"],
        &["kubernetes-admin", "system:masters"],
    )?;
    says(&space, &["auth", "can-i", "delete", "nodes"], &["yes"])?;
    refuses(
        &space,
        &["auth", "can-i", "list", "pods", "--as", "jane"],
        &["no"],
    )?;
    refuses(
        &space,
        &["get", "pods", "--as", "jane"],
        &[
            "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"roles\"",
        ],
    )?;
    says(
        &space,
        &[
            "create",
            "role",
            "reader",
            "--verb=get,list,watch",
            "--resource=pods,deployments.apps,pods/log",
        ],
        &["role.rbac.authorization.k8s.io/reader created"],
    )?;
    says(
        &space,
        &[
            "create",
            "rolebinding",
            "jane",
            "--role=reader",
            "--user=jane",
            "--group=dev",
        ],
        &["created"],
    )?;
    says(&space, &["get", "pods", "--as", "jane"], &[])?;
    says(
        &space,
        &["get", "deployments", "--as", "otto", "--as-group", "dev"],
        &[],
    )?;
    refuses(&space, &["get", "pods", "--as", "otto"], &["Forbidden"])?;
    says(
        &space,
        &["auth", "can-i", "--list", "--as", "jane"],
        &["deployments.apps", "[get list watch]", "/openapi/*"],
    )?;
    says(
        &space,
        &["auth", "whoami", "--as", "jane", "--as-group", "dev"],
        &["jane", "dev"],
    )?;
    says(
        &space,
        &["get", "roles,rolebindings", "-o", "wide"],
        &["reader", "Role/reader", "jane", "dev"],
    )?;
    says(
        &space,
        &["describe", "role", "reader"],
        &["deployments.apps", "[get list watch]"],
    )?;
    refuses(
        &space,
        &[
            "patch",
            "rolebinding",
            "jane",
            "--type=merge",
            "-p",
            r#"{"roleRef":{"name":"x"}}"#,
        ],
        &["cannot change roleRef"],
    )?;

    // The roles for people gather those of their parts; a part that is added counts as well.
    says(
        &space,
        &[
            "create",
            "rolebinding",
            "e",
            "--clusterrole=edit",
            "--user=emma",
        ],
        &["created"],
    )?;
    space.wait("the gathered rules of the role edit", 30, || {
        let output =
            space.kubectl_output(&["auth", "can-i", "create", "deployments", "--as", "emma"])?;
        Ok(output.status.success().then_some(()))
    })?;
    refuses(
        &space,
        &["auth", "can-i", "create", "roles", "--as", "emma"],
        &["no"],
    )?;
    refuses(
        &space,
        &["auth", "can-i", "get", "roles", "--as", "emma"],
        &["no"],
    )?;
    says(
        &space,
        &[
            "create",
            "clusterrole",
            "ring4-roles",
            "--verb=get",
            "--resource=roles",
        ],
        &["created"],
    )?;
    space.kubectl(&[
        "label",
        "clusterrole",
        "ring4-roles",
        "rbac.authorization.k8s.io/aggregate-to-view=true",
    ])?;
    space.wait("the new part of the role view within edit", 30, || {
        let output = space.kubectl_output(&["auth", "can-i", "get", "roles", "--as", "emma"])?;
        Ok(output.status.success().then_some(()))
    })?;
    space.kubectl(&["delete", "clusterrole", "ring4-roles"])?;
    space.wait("the end of that part", 30, || {
        let output = space.kubectl_output(&["auth", "can-i", "get", "roles", "--as", "emma"])?;
        Ok((!output.status.success()).then_some(()))
    })?;

    // Nobody grants more than they have, and reconcile adds what is missing.
    says(
        &space,
        &[
            "create",
            "rolebinding",
            "a",
            "--clusterrole=admin",
            "--user=anna",
        ],
        &["created"],
    )?;
    space.wait("the gathered rules of the role admin", 30, || {
        let output = space.kubectl_output(&["auth", "can-i", "create", "roles", "--as", "anna"])?;
        Ok(output.status.success().then_some(()))
    })?;
    says(
        &space,
        &[
            "create",
            "role",
            "small",
            "--verb=get",
            "--resource=pods",
            "--as",
            "anna",
        ],
        &["created"],
    )?;
    refuses(
        &space,
        &[
            "create",
            "role",
            "big",
            "--verb=delete",
            "--resource=nodes",
            "--as",
            "anna",
        ],
        &[
            "attempting to grant RBAC permissions not currently held",
            "Resources:[\"nodes\"]",
        ],
    )?;
    let manifest = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: small, namespace: roles}\nrules:\n  - {apiGroups: [\"\"], resources: [pods], verbs: [get, delete]}\n";
    let output = space.kubectl_stdin(&["auth", "reconcile", "-f", "-"], manifest)?;
    ensure!(output.status.success(), "{output:?}");
    says(&space, &["get", "role", "small", "-o", "yaml"], &["delete"])?;
    Ok(())
}

/// A client that has a token and nothing else.
fn with_token(suite: &Suite, token: &str) -> anyhow::Result<kube::Client> {
    let mut kubeconfig = Kubeconfig::read_from(suite.cluster.layout.kubeconfig())?;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(kube::config::AuthInfo {
            token: Some(token.to_string().into()),
            ..Default::default()
        });
    }
    suite.block_on(async {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    })
}

fn code<T>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => 0,
    }
}

pub fn service_accounts(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("accounts")?;
    space.kubectl(&["create", "serviceaccount", "reader"])?;
    space.kubectl(&[
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=pods",
    ])?;
    space.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=accounts:reader",
    ])?;
    let pod = client("shell", "app: shell", None)
        .replace("spec:\n", "spec:\n  serviceAccountName: reader\n");
    space.apply(&pod)?;
    space.ready("app=shell", 1)?;
    let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = space.exec("shell", &["cat", file])?;
    let client = with_token(suite, token.trim())?;
    suite.block_on(async {
        let pods: Api<Pod> = Api::namespaced(client.clone(), "accounts");
        let names = pods
            .list(&ListParams::default())
            .await
            .context("listing what the role allows")?;
        ensure!(names.items.len() == 1);
        let others: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "accounts");
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "accounts");
        ensure!(code(others.list(&ListParams::default()).await) == 403);
        ensure!(code(secrets.list(&ListParams::default()).await) == 403);
        ensure!(code(maps.get("kube-root-ca.crt").await) == 403);
        ensure!(code(pods.delete("shell", &Default::default()).await) == 403);
        Ok(())
    })?;
    // A token of the pod ends with the pod.
    let bound = space.kubectl(&[
        "create",
        "token",
        "reader",
        "--bound-object-kind=Pod",
        "--bound-object-name=shell",
        "--duration=1h",
    ])?;
    let bound = with_token(suite, bound.trim())?;
    let list = |client: &kube::Client| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), "accounts");
        suite.block_on(async move { code(pods.list(&ListParams::default()).await) })
    };
    ensure!(list(&bound) == 200);
    space.kubectl(&["delete", "pod", "shell", "--wait"])?;
    ensure!(
        list(&bound) == 401,
        "the token of a pod that has gone counts"
    );
    ensure!(
        list(&client) == 401,
        "the token in a pod that has gone counts"
    );
    Ok(())
}

/// A key and a request for a certificate of a user, in PEM.
fn request(user: &str, group: &str) -> anyhow::Result<(String, String)> {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    Ok((key.serialize_pem(), params.serialize_request(&key)?.pem()?))
}

fn manifest(name: &str, signer: &str, pem: &str) -> String {
    let encoded = STANDARD.encode(pem);
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  \
         request: {encoded}\n  signerName: kubernetes.io/{signer}\n  expirationSeconds: 3600\n  \
         usages: [client auth, digital signature]\n"
    )
}

pub fn certificates(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("certificates")?;
    let (key, pem) = request("cora", "dev")?;
    space.apply(&manifest("ring4-cora", "kube-apiserver-client", &pem))?;
    space.apply(&manifest("ring4-denied", "kube-apiserver-client", &pem))?;
    says(
        &space,
        &["get", "csr", "ring4-cora"],
        &["kubernetes-admin", "Pending", "60m"],
    )?;
    says(
        &space,
        &["certificate", "deny", "ring4-denied"],
        &["denied"],
    )?;
    says(
        &space,
        &["certificate", "approve", "ring4-cora"],
        &["approved"],
    )?;
    let issued = |name: &str| {
        space.wait(&format!("the certificate of {name}"), 30, || {
            let text =
                space.kubectl(&["get", "csr", name, "-o", "jsonpath={.status.certificate}"])?;
            Ok((!text.is_empty()).then_some(text))
        })
    };
    let certificate = issued("ring4-cora")?;
    says(&space, &["get", "csr"], &["Approved,Issued", "Denied"])?;
    says(
        &space,
        &["describe", "csr", "ring4-cora"],
        &["Approved,Issued", "cora"],
    )?;
    // The certificate is its holder's, and nobody else's.
    let mut kubeconfig = Kubeconfig::read_from(suite.cluster.layout.kubeconfig())?;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(kube::config::AuthInfo {
            client_certificate_data: Some(certificate.clone()),
            client_key_data: Some(STANDARD.encode(&key).into()),
            ..Default::default()
        });
    }
    suite.block_on(async {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let reviews: Api<SelfSubjectReview> = Api::all(kube::Client::try_from(config)?);
        let review = reviews
            .create(&Default::default(), &SelfSubjectReview::default())
            .await?;
        let user = review.status.and_then(|s| s.user_info).context("no user")?;
        ensure!(user.username.as_deref() == Some("cora"), "{user:?}");
        ensure!(user.groups.iter().flatten().any(|g| g == "dev"), "{user:?}");
        Ok(())
    })?;

    // A kubelet renews its own certificate by itself; to make another node's takes a role.
    let (_, own) = request("system:node:node1", "system:nodes")?;
    let (_, other) = request("system:node:node9", "system:nodes")?;
    let as_node = [
        "create",
        "-f",
        "-",
        "--as",
        "system:node:node1",
        "--as-group",
        "system:nodes",
    ];
    for (name, pem) in [("ring4-own", &own), ("ring4-other", &other)] {
        let text = manifest(name, "kube-apiserver-client-kubelet", pem);
        let output = space.kubectl_stdin(&as_node, &text)?;
        ensure!(output.status.success(), "{output:?}");
    }
    issued("ring4-own")?;
    says(
        &space,
        &["get", "csr", "ring4-own"],
        &["system:node:node1", "Approved,Issued"],
    )?;
    says(&space, &["get", "csr", "ring4-other"], &["Pending"])?;
    for name in ["ring4-cora", "ring4-denied", "ring4-own", "ring4-other"] {
        space.kubectl(&["delete", "csr", name])?;
    }
    Ok(())
}
