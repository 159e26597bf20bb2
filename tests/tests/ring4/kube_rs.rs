//! What kube-rs's own examples do: reflectors of objects and of metadata, a kind derived and applied,
//! dynamic objects by discovery, Events watched, pods changed, evicted and copied to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use kube::api::{
    Api, ApiResource, AttachParams, DeleteParams, DynamicObject, EvictParams, ListParams,
    LogParams, Patch, PatchParams, PostParams, WatchParams,
};
use kube::core::{GroupVersionKind, ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Discovery, ResourceExt, discovery};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Suite, client};

const PATIENCE: Duration = Duration::from_secs(30);

/// A step that must come to an end.
async fn within<T>(what: &str, step: impl Future<Output = T>) -> anyhow::Result<T> {
    let step = tokio::time::timeout(PATIENCE, step);
    step.await.with_context(|| what.to_owned())
}

/// No test of these hangs.
fn bounded(suite: &Suite, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    suite.block_on(async {
        let whole = tokio::time::timeout(3 * PATIENCE, work);
        whole.await.context("the test takes too long")?
    })
}

/// Waits for a reflector's store, or anything else that is looked at again and again.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let looked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked)
        .await
        .with_context(|| format!("waiting until {what}"))
}

/// `configmap_reflector`, `secret_reflector`, `node_reflector`: with streaming lists and without.
pub fn reflectors(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("reflectors")?;
    let maps: Api<ConfigMap> = space.api();
    let secrets: Api<PartialObjectMeta<Secret>> = space.api();
    let nodes: Api<Node> = Api::all(suite.client());
    bounded(suite, async {
        let (kept, writer) = reflector::store();
        let streaming = watcher::Config::default()
            .streaming_lists()
            .labels("kept=yes");
        let stream = watcher(maps.clone(), streaming)
            .default_backoff()
            .reflect(writer);
        let maps_task = tokio::spawn(stream.for_each(|_| async {}));
        let (names, writer) = reflector::store();
        let stream = watcher(secrets.clone(), watcher::Config::default());
        let secrets_task = tokio::spawn(
            stream
                .default_backoff()
                .reflect(writer)
                .for_each(|_| async {}),
        );
        let (hosts, writer) = reflector::store();
        let stream = watcher(nodes, watcher::Config::default())
            .default_backoff()
            .reflect(writer);
        let nodes_task = tokio::spawn(stream.for_each(|_| async {}));

        kept.wait_until_ready().await?;
        let map = |name: &str, label: &str| ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                labels: Some(BTreeMap::from([("kept".into(), label.into())])),
                ..Default::default()
            },
            ..Default::default()
        };
        let post = PostParams::default();
        maps.create(&post, &map("in", "yes")).await?;
        maps.create(&post, &map("out", "no")).await?;
        let shown = || {
            kept.state()
                .iter()
                .map(|o| o.name_any())
                .collect::<Vec<_>>()
        };
        until("one is selected", || shown() == ["in"]).await?;
        // A label brings one in and takes one out.
        let params = PatchParams::default();
        let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"kept": value}}}));
        maps.patch("out", &params, &label("yes")).await?;
        maps.patch("in", &params, &label("no")).await?;
        until("the other is selected", || shown() == ["out"]).await?;
        maps.delete("out", &DeleteParams::default()).await?;
        until("none is selected", || shown().is_empty()).await?;

        let secret = Secret {
            metadata: ObjectMeta {
                name: Some("s".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        space.api::<Secret>().create(&post, &secret).await?;
        until("the secret's metadata is there", || {
            names.state().iter().any(|o| o.name_any() == "s")
        })
        .await?;
        // Metadata alone, by get and by list.
        let one = secrets_of(&space.api()).await?;
        ensure!(one.iter().any(|n| n == "s"), "{one:?}");
        drop(secrets);
        hosts.wait_until_ready().await?;
        ensure!(hosts.state().len() == 2, "{} nodes", hosts.state().len());
        for task in [maps_task, secrets_task, nodes_task] {
            task.abort();
        }
        anyhow::Ok(())
    })
}

async fn secrets_of(api: &Api<Secret>) -> anyhow::Result<Vec<String>> {
    let list = api.list_metadata(&ListParams::default()).await?;
    let got = api.get_metadata("s").await?;
    ensure!(got.name_any() == "s" && got.types.is_some(), "{got:?}");
    Ok(list.items.iter().map(|o| o.name_any()).collect())
}

/// `crd_api`, `crd_apply`, `dynamic_api`, `dynamic_watcher`, `kubectl`: a kind that comes, is found by
/// discovery, and is written through dynamic objects, its status and its scale.
pub fn dynamic(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("dynamic")?;
    let crd: serde_json::Value = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.clux.dev"},
        "spec": {"group": "clux.dev", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "shortNames": ["f"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string", "maxLength": 10},
                        "info": {"type": "string", "default": "none"},
                        "replicas": {"type": "integer", "minimum": 0}}},
                    "status": {"type": "object", "properties": {
                        "is_bad": {"type": "boolean"}, "replicas": {"type": "integer"}}}}}}}]},
    });
    let definitions: Api<DynamicObject> = Api::all_with(
        suite.client(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        )),
    );
    let apply = PatchParams::apply("kube-rs").force();
    let result = bounded(suite, async {
        definitions
            .patch("foos.clux.dev", &apply, &Patch::Apply(&crd))
            .await?;
        // Discovery finds it, aggregated and group by group.
        let gvk = GroupVersionKind::gvk("clux.dev", "v1", "Foo");
        let found = discovery::pinned_kind(&suite.client(), &gvk).await?;
        ensure!(
            found.1.scope == discovery::Scope::Namespaced,
            "{:?}",
            found.1
        );
        for aggregated in [false, true] {
            let discovery = Discovery::new(suite.client());
            let discovery = match aggregated {
                true => discovery.run_aggregated().await?,
                false => discovery.run().await?,
            };
            let known = discovery
                .resolve_gvk(&gvk)
                .context("discovery has no Foo")?;
            ensure!(known.0.plural == "foos", "{:?}", known.0);
            ensure!(
                known.1.supports_operation("deletecollection"),
                "{:?}",
                known.1
            );
        }
        let foos: Api<DynamicObject> = Api::namespaced_with(suite.client(), &space.name, &found.0);
        let made = |name: &str, spec: serde_json::Value| {
            DynamicObject::new(name, &found.0).data(json!({ "spec": spec }))
        };
        let post = PostParams::default();
        let first = foos
            .create(&post, &made("one", json!({"name": "a", "replicas": 1})))
            .await?;
        ensure!(first.data["spec"]["info"] == "none", "{:?}", first.data);
        match foos
            .create(&post, &made("two", json!({"name": "far too long"})))
            .await
        {
            Err(kube::Error::Api(status)) => {
                ensure!(
                    status.code == 422 && status.reason == "Invalid",
                    "{status:?}"
                );
                ensure!(
                    status
                        .message
                        .contains("spec.name: Too long: may not be more than 10 bytes"),
                    "{}",
                    status.message
                );
            }
            other => anyhow::bail!("a bad Foo gave {other:?}"),
        }
        // Applied twice by one, and by another who disagrees.
        let config = json!({"apiVersion": "clux.dev/v1", "kind": "Foo",
            "metadata": {"name": "two"}, "spec": {"name": "b", "replicas": 3}});
        let mine = PatchParams::apply("mine");
        let applied = foos.patch("two", &mine, &Patch::Apply(&config)).await?;
        let again = foos.patch("two", &mine, &Patch::Apply(&config)).await?;
        ensure!(
            applied.resource_version() == again.resource_version(),
            "it was written again"
        );
        let mut other = config.clone();
        other["spec"]["name"] = "c".into();
        match foos
            .patch("two", &PatchParams::apply("other"), &Patch::Apply(&other))
            .await
        {
            Err(kube::Error::Api(status)) => ensure!(status.code == 409, "{status:?}"),
            other => anyhow::bail!("a conflict gave {other:?}"),
        }
        // Status has a door of its own, and so has scale.
        let status = json!({"status": {"is_bad": true, "replicas": 3}, "spec": {"name": "x"}});
        let patched = foos
            .patch_status("two", &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        ensure!(
            patched.data["status"]["is_bad"] == true,
            "{:?}",
            patched.data
        );
        ensure!(patched.data["spec"]["name"] == "b", "{:?}", patched.data);
        let scaled = json!({"spec": {"replicas": 5}});
        foos.patch_scale("two", &PatchParams::default(), &Patch::Merge(&scaled))
            .await?;
        let scale = foos.get_scale("two").await?;
        let replicas = scale.spec.and_then(|s| s.replicas);
        ensure!(replicas == Some(5), "{replicas:?}");
        // Watched as dynamic objects, from before, through the collection's deletion.
        let mut events = watcher(foos.clone(), watcher::Config::default()).boxed();
        let mut seen = 0;
        while seen < 2 {
            match tokio::time::timeout(PATIENCE, events.try_next()).await?? {
                Some(watcher::Event::InitApply(_)) => seen += 1,
                Some(_) => {}
                None => anyhow::bail!("the watch ended"),
            }
        }
        foos.delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        while seen > 0 {
            match tokio::time::timeout(PATIENCE, events.try_next()).await?? {
                Some(watcher::Event::Delete(_)) => seen -= 1,
                Some(_) => {}
                None => anyhow::bail!("the watch ended"),
            }
        }
        ensure!(
            foos.list(&ListParams::default()).await?.items.is_empty(),
            "some are left"
        );
        anyhow::Ok(())
    });
    let deleted = suite.block_on(definitions.delete("foos.clux.dev", &DeleteParams::default()));
    result?;
    deleted?;
    Ok(())
}

/// `pod_api`, `pod_cp`, `log_stream`, `pod_evict`, `event_watcher`: the life of a pod.
pub fn pods(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("kube-rs-pods")?;
    let talker = client("talker", "app: talker", None).replace(
        r#"command: [sleep, "1000000"]"#,
        r#"command: [sh, -c, "for i in 1 2 3; do echo line $i; done; sleep 1000000"]"#,
    );
    space.apply(&talker)?;
    space.ready("app=talker", 1)?;
    let api: Api<Pod> = space.api();
    let events: Api<Event> = space.api();
    bounded(suite, async {
        // The events about it, selected by the fields that Events have.
        let about = "involvedObject.kind=Pod,involvedObject.name=talker,type=Normal";
        let list = events.list(&ListParams::default().fields(about)).await?;
        ensure!(
            list.items
                .iter()
                .any(|e| e.reason.as_deref() == Some("Started")),
            "{:?}",
            list.items.iter().map(|e| &e.reason).collect::<Vec<_>>()
        );
        // What can't be changed is refused by its field.
        let image = json!({"spec": {"activeDeadlineSeconds": 50_000}});
        let patched = api
            .patch("talker", &PatchParams::default(), &Patch::Strategic(&image))
            .await?;
        ensure!(
            patched.spec.and_then(|s| s.active_deadline_seconds) == Some(50_000),
            "the deadline was not taken"
        );
        let fixed = json!({"spec": {"hostNetwork": true}});
        match api
            .patch("talker", &PatchParams::default(), &Patch::Merge(&fixed))
            .await
        {
            Err(kube::Error::Api(status)) => ensure!(
                status.code == 422 && status.message.contains("pod updates may not change fields"),
                "{status:?}"
            ),
            other => anyhow::bail!("a pod's network changed: {other:?}"),
        }
        let logs = LogParams {
            follow: true,
            since_seconds: Some(3600),
            ..Default::default()
        };
        let lines = api.log_stream("talker", &logs).await?;
        let lines = futures::AsyncBufReadExt::lines(lines).take(3).try_collect();
        let lines: Vec<String> = within("reading the log", lines).await??;
        ensure!(lines == ["line 1", "line 2", "line 3"], "{lines:?}");
        // A file goes in through a command's input, and is read again.
        let params = AttachParams::default()
            .stdin(true)
            .stdout(false)
            .stderr(false);
        let take = ["sh", "-c", "head -c 5 >/tmp/copied"];
        let mut copy = api.exec("talker", take, &params).await?;
        let mut input = copy.stdin().context("no input")?;
        input.write_all(b"hello").await?;
        input.flush().await?;
        let outcome = copy.take_status().context("no status")?;
        let outcome = within("the command's outcome", outcome).await?;
        let outcome = outcome.context("no outcome")?;
        ensure!(outcome.status.as_deref() == Some("Success"), "{outcome:?}");
        let params = AttachParams::default().stderr(false);
        let mut read = api.exec("talker", ["cat", "/tmp/copied"], &params).await?;
        let mut output = Vec::new();
        let mut stream = read.stdout().context("no output")?;
        let all = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut output);
        within("the command's output", all).await??;
        ensure!(output == b"hello", "{output:?}");

        let watch = WatchParams::default()
            .fields("metadata.name=talker")
            .timeout(30);
        let mut gone = api.watch(&watch, "0").await?.boxed();
        api.evict("talker", &EvictParams::default()).await?;
        let mut deleted = false;
        while let Some(event) = within("an event", gone.try_next()).await?? {
            if let kube::api::WatchEvent::Deleted(_) = event {
                deleted = true;
                break;
            }
        }
        ensure!(deleted, "the evicted pod stayed");
        anyhow::Ok(())
    })
}
