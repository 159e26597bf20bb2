//! Bad input is refused, with the field's name.

use crate::support::Suite;
use anyhow::{Context, ensure};
use std::process::Output;

fn told(output: &Output, words: &[&str]) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "accepted: {words:?}");
    for word in words {
        ensure!(text.contains(word), "`{word}` is not in: {text}");
    }
    Ok(())
}

pub fn refused(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("bad")?;
    let try_create = |manifest: &str, words: &[&str]| -> anyhow::Result<()> {
        let output = space.kubectl_stdin(&["create", "-f", "-"], manifest)?;
        told(&output, words).with_context(|| manifest.to_owned())
    };
    // 422 with the field.
    try_create(
        "{apiVersion: v1, kind: Pod, metadata: {name: Bad_Name}, spec: {containers: [{name: a, image: b}]}}",
        &["metadata.name", "Bad_Name"],
    )?;
    try_create(
        "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}",
        &["spec.containers"],
    )?;
    try_create(
        "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 70000}]}}",
        &["spec.ports[0].port", "70000"],
    )?;
    try_create(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, \
         template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}}",
        &["spec.template.metadata.labels"],
    )?;
    try_create(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, \
         spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}}",
        &["cidr", "10.0.0.0/99"],
    )?;
    // Strict decoding, which is kubectl's default.
    try_create(
        "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containrs: []}}",
        &["unknown field", "spec.containrs"],
    )?;
    // A kind that there is not; to validate one, kubectl would ask for custom resources first.
    let nonsense = "{apiVersion: v1, kind: Nonsense, metadata: {name: x}}";
    let output = space.kubectl_stdin(&["create", "--validate=false", "-f", "-"], nonsense)?;
    told(&output, &["no matches for kind \"Nonsense\""])?;

    // 400 for what is no JSON, and for a wrong type.
    let path = format!("/api/v1/namespaces/{}/configmaps", space.name);
    let post = |body: &'static str| -> anyhow::Result<kube::Error> {
        let request = http_post(&path, body)?;
        let answer = suite.block_on(suite.client().request::<serde_json::Value>(request));
        match answer {
            Ok(value) => anyhow::bail!("accepted: {value}"),
            Err(error) => Ok(error),
        }
    };
    for body in ["{", "null", "[]", r#"{"data": 7}"#] {
        let error = post(body)?;
        let kube::Error::Api(status) = &error else {
            anyhow::bail!("{body}: {error}");
        };
        ensure!(status.code == 400, "{body}: {status:?}");
    }
    // 404 and 405 are told apart.
    let output = space.kubectl_output(&["get", "--raw", "/api/v1/nonsense"])?;
    told(&output, &["could not find"])?;
    // And the server lives on.
    space.kubectl(&["get", "configmaps"]).map(drop)
}

fn http_post(path: &str, body: &'static str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::post(path)
        .header("content-type", "application/json")
        .body(body.as_bytes().to_vec())?)
}
