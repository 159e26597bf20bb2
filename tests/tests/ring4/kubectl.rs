//! Stock kubectl and kube-rs against our API server.

use crate::support::{Suite, servers};
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use std::collections::BTreeMap;

pub fn everyday(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("everyday")?;
    let has = |arguments: &[&str], words: &[&str]| -> anyhow::Result<String> {
        let text = space.kubectl(arguments)?;
        for word in words {
            let what = arguments.join(" ");
            ensure!(
                text.contains(word),
                "kubectl {what}: no `{word}` in:\n{text}"
            );
        }
        Ok(text)
    };
    has(&["version"], &["Server Version: v1.36."])?;
    has(
        &["api-resources"],
        &[
            "deployments",
            "networkpolicies",
            "endpointslices",
            "leases",
            "po ",
        ],
    )?;
    has(&["explain", "pod.spec.containers"], &["FIELDS:", "image"])?;
    has(
        &["get", "nodes", "-o", "wide"],
        &["node1", "Ready", "172.30.0.11", "containerd://"],
    )?;
    has(
        &["describe", "node", "node1"],
        &["PodCIDRs:", "Conditions:", "Allocatable:"],
    )?;

    space.apply(&servers("web", 2))?;
    has(
        &["rollout", "status", "deployment/web", "--timeout=60s"],
        &["successfully rolled out"],
    )?;
    has(&["get", "deployments"], &["READY", "UP-TO-DATE", "2/2"])?;
    has(
        &["get", "pods", "-o", "wide"],
        &["Running", "1/1", "10.244."],
    )?;
    has(
        &["get", "service", "web"],
        &["ClusterIP", "80/TCP,90/TCP,91/UDP"],
    )?;
    has(&["get", "endpointslices"], &["IPv4", "IPv6"])?;
    has(
        &["get", "all"],
        &["deployment.apps/web", "replicaset.apps/web-", "service/web"],
    )?;
    has(
        &["describe", "deployment", "web"],
        &["Pod Template:", "ScalingReplicaSet"],
    )?;
    has(&["describe", "service", "web"], &["Endpoints:", "10.244."])?;
    has(&["label", "deployment", "web", "tier=front"], &["labeled"])?;
    has(
        &["annotate", "deployment", "web", "note=hello"],
        &["annotated"],
    )?;
    has(
        &["get", "deployments", "-l", "tier=front", "-o", "name"],
        &["deployment.apps/web"],
    )?;
    ensure!(
        space
            .kubectl(&["get", "deployments", "-l", "tier=back", "-o", "name"])?
            .is_empty(),
        "a selector that nothing matches"
    );
    has(
        &[
            "get",
            "pods",
            "--field-selector",
            "status.phase=Running",
            "-o",
            "name",
        ],
        &["pod/web-"],
    )?;
    has(&["scale", "deployment", "web", "--replicas=3"], &["scaled"])?;
    let wait = [
        "wait",
        "deployment/web",
        "--for=jsonpath={.status.readyReplicas}=3",
        "--timeout=60s",
    ];
    has(&wait, &["condition met"])?;
    has(
        &["set", "env", "deployment/web", "ROUND=2"],
        &["env updated"],
    )?;
    has(
        &["rollout", "status", "deployment/web", "--timeout=90s"],
        &["successfully rolled out"],
    )?;
    has(
        &["rollout", "history", "deployment/web"],
        &["REVISION", "2"],
    )?;
    has(&["rollout", "undo", "deployment/web"], &["rolled back"])?;
    has(
        &["rollout", "status", "deployment/web", "--timeout=90s"],
        &["successfully rolled out"],
    )?;

    has(
        &[
            "run",
            "once",
            "--image=localhost/testbox:dev",
            "--image-pull-policy=IfNotPresent",
            "--restart=Never",
            "--",
            "echo",
            "done",
        ],
        &["pod/once created"],
    )?;
    let wait = [
        "wait",
        "pod/once",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=60s",
    ];
    has(&wait, &["condition met"])?;
    has(&["logs", "once"], &["done"])?;
    has(
        &[
            "create",
            "deployment",
            "made",
            "--image=localhost/testbox:dev",
            "--port=8080",
            "--",
            "netprobe",
            "serve",
            "--http",
            "8080",
        ],
        &["created"],
    )?;
    has(
        &[
            "expose",
            "deployment",
            "made",
            "--port=80",
            "--target-port=8080",
        ],
        &["exposed"],
    )?;
    has(
        &[
            "wait",
            "deployment/made",
            "--for=condition=Available",
            "--timeout=60s",
        ],
        &["condition met"],
    )?;
    has(
        &["create", "configmap", "cm", "--from-literal=a=b"],
        &["created"],
    )?;
    has(
        &["create", "secret", "generic", "se", "--from-literal=a=b"],
        &["created"],
    )?;
    has(
        &["get", "secret", "se", "-o", "jsonpath={.data.a}"],
        &["Yg=="],
    )?;
    has(&["create", "token", "default"], &["."])?;

    // kubectl edit, by an editor that is a program.
    let output = suite
        .cluster
        .kubectl()
        .env("KUBE_EDITOR", "sed -i s/hello/edited/")
        .args(["-n", &space.name, "edit", "deployment", "web"])
        .output()
        .context("starting kubectl edit")?;
    ensure!(output.status.success(), "kubectl edit: {output:?}");
    has(
        &[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.metadata.annotations.note}",
        ],
        &["edited"],
    )?;

    has(&["delete", "deployment", "web"], &["deleted"])?;
    space.wait("the pods of the deleted Deployment are gone", 30, || {
        Ok(space.pods("app=web")?.is_empty().then_some(()))
    })
}

pub fn patches(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("patches")?;
    space.apply(&servers("web", 1))?;
    let patch = |kind: &str, text: &str| {
        space.kubectl(&["patch", "deployment", "web", "--type", kind, "-p", text])
    };
    // Strategic: containers merge by name.
    patch(
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"server","env":[{"name":"A","value":"1"}]}]}}}}"#,
    )?;
    patch("merge", r#"{"metadata":{"labels":{"merged":"yes"}}}"#)?;
    patch(
        "json",
        r#"[{"op":"add","path":"/metadata/labels/json","value":"yes"}]"#,
    )?;
    let object = space.kubectl(&["get", "deployment", "web", "-o", "json"])?;
    let object: serde_json::Value = serde_json::from_str(&object)?;
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    ensure!(
        container["image"] == "localhost/testbox:dev" && container["env"][0]["value"] == "1",
        "the strategic patch lost something: {container}"
    );
    let labels = &object["metadata"]["labels"];
    ensure!(
        labels["merged"] == "yes" && labels["json"] == "yes",
        "{labels}"
    );
    // Applying what is there already changes nothing, and taking a label out removes it.
    let one =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: cm, labels: {x: why}}, data: {a: b}}";
    let two = "{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {a: c}}";
    for (manifest, word) in [(one, "created"), (one, "unchanged"), (two, "configured")] {
        let text = space.apply(manifest)?;
        ensure!(text.contains(word), "no `{word}`: {text}");
    }
    let labels = space.kubectl(&[
        "get",
        "cm",
        "cm",
        "-o",
        "jsonpath={.metadata.labels}{.data.a}",
    ])?;
    ensure!(labels == "c", "after the second apply: {labels}");
    let bad = space.kubectl_output(&[
        "patch",
        "deployment",
        "web",
        "--type",
        "json",
        "-p",
        r#"[{"op":"remove","path":"/none"}]"#,
    ])?;
    ensure!(!bad.status.success(), "a patch of nothing went through");
    Ok(())
}

pub fn kube_rs(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("kubers")?;
    let api: Api<ConfigMap> = space.api();
    suite.block_on(async {
        let start = api.list(&ListParams::default()).await?;
        let revision = start
            .metadata
            .resource_version
            .context("a list has a revision")?;
        for number in 0..5 {
            let object = ConfigMap {
                metadata: ObjectMeta {
                    generate_name: Some("made-".to_owned()),
                    labels: Some(BTreeMap::from([("number".to_owned(), number.to_string())])),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            };
            api.create(&PostParams::default(), &object).await?;
        }
        // A watch from the list's revision sees every one, in order.
        let watch = WatchParams::default().timeout(20);
        let mut events = std::pin::pin!(api.watch(&watch, &revision).await?);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let event = events.try_next().await?.context("the watch ended early")?;
            if let WatchEvent::Added(object) = event
                && let Some(number) = object
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get("number"))
            {
                seen.push(number.clone());
            }
        }
        ensure!(seen == ["0", "1", "2", "3", "4"], "the watch saw {seen:?}");

        // Pages, and a stale write.
        let page = api.list(&ListParams::default().limit(2)).await?;
        ensure!(
            page.items.len() == 2,
            "a page has {} objects",
            page.items.len()
        );
        let next = page
            .metadata
            .continue_
            .context("a page has a continue token")?;
        let rest = api
            .list(&ListParams::default().continue_token(&next))
            .await?;
        let total = page.items.len() + rest.items.len();
        let whole = api.list(&ListParams::default()).await?.items.len();
        ensure!(total == whole, "pages have {total} of {whole} objects");

        let mut object = rest.items.last().cloned().context("an object")?;
        let name = object.metadata.name.clone().unwrap_or_default();
        object.data = Some(BTreeMap::from([("a".to_owned(), "1".to_owned())]));
        api.replace(&name, &PostParams::default(), &object).await?;
        match api.replace(&name, &PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => anyhow::bail!("a stale write gave {other:?}"),
        }
        anyhow::Ok(())
    })
}
