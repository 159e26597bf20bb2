//! What the pure part of a write costs, step by step, and how much of it is noting who manages
//! which fields: the figures of docs/benchmarks.md.
//!
//! `cargo run --release -p rhumb-api --example write_cost`

#![expect(clippy::unwrap_used, reason = "a benchmark's own values")]

use std::hint::black_box;
use std::time::Instant;

use rhumb_api::apply::{OneVersion, Subject, Writer};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::registry::{self, Kind};
use rhumb_api::strategy::{self, CreateContext};
use serde_json::{Value, json};

const ROUNDS: usize = 1001;

fn writer<'a>(kind: &'a Kind, manager: &'a str, subresource: &'a str) -> Writer<'a> {
    Writer {
        of: Subject::of(kind),
        versions: &OneVersion,
        manager,
        subresource,
        now: jiff::Timestamp::now(),
    }
}

/// Median in µs of what `run` does with what `prepare` makes, which isn't counted.
fn median<T, R>(mut prepare: impl FnMut() -> T, mut run: impl FnMut(T) -> R) -> f64 {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let input = prepare();
            let start = Instant::now();
            // Dropping the result is no part of the step.
            let result = black_box(run(black_box(input)));
            let took = start.elapsed();
            drop(result);
            took
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2].as_secs_f64() * 1e6
}

/// Median of a step that changes an object in its place.
fn changing(object: &Value, mut step: impl FnMut(&mut Value)) -> f64 {
    median(
        || object.clone(),
        |mut object| {
            step(&mut object);
            object
        },
    )
}

fn defaulting(kind: &Kind, object: &Value) -> f64 {
    changing(object, |object| rhumb_api::default_object(kind, object))
}

fn tracking(writer: &Writer, old: Option<&Value>, object: &Value) -> f64 {
    changing(object, |object| writer.track(old, object))
}

fn row(name: &str, steps: [f64; 5]) {
    let [decode, default, track, prepare, encode] = steps;
    let rest = decode + default + prepare + encode;
    println!(
        "| {name} | {decode:.1} | {default:.1} | {track:.1} | {prepare:.1} | {encode:.1} | {:.2} |",
        (rest + track) / rest
    );
}

fn decoded(kind: &Kind, body: &[u8]) -> Value {
    codec::decode(kind, "application/json", body, FieldValidation::Warn)
        .unwrap()
        .object
}

fn context() -> CreateContext<'static> {
    CreateContext {
        namespace: Some("default"),
        now: jiff::Timestamp::now(),
        uid: "6a1f1f0e-3f5c-4a39-9f58-0f6f1a4b9d11",
        suffix: "abcde",
    }
}

/// Measures the creation of an object and returns it as stored.
fn create(name: &str, kind: &Kind, object: &Value) -> Value {
    let body = object.to_string().into_bytes();
    let bare = decoded(kind, &body);
    let mut whole = bare.clone();
    rhumb_api::default_object(kind, &mut whole);
    let mut tracked = whole.clone();
    writer(kind, "kubectl-create", "").track(None, &mut tracked);
    let prepared = |object: &Value| {
        let mut object = object.clone();
        strategy::prepare_create(kind, &mut object, &context()).unwrap();
        object
    };
    let stored = prepared(&tracked);
    row(
        &format!("create of a {name}"),
        [
            median(|| (), |()| decoded(kind, &body)),
            defaulting(kind, &bare),
            tracking(&writer(kind, "kubectl-create", ""), None, &whole),
            median(
                || tracked.clone(),
                |mut object| {
                    strategy::prepare_create(kind, &mut object, &context()).unwrap();
                    object
                },
            ),
            median(|| (), |()| stored.to_string()),
        ],
    );
    stored
}

/// Measures an update, of the status where `subresource` says so.
fn update(name: &str, kind: &Kind, old: &Value, new: &Value, subresource: &str) {
    let body = new.to_string().into_bytes();
    let bare = decoded(kind, &body);
    let mut whole = bare.clone();
    rhumb_api::default_object(kind, &mut whole);
    let manager = "kubelet";
    let mut tracked = whole.clone();
    writer(kind, manager, subresource).track(Some(old), &mut tracked);
    let prepare = |object: &mut Value| match subresource {
        "" => strategy::prepare_update(kind, object, old).unwrap(),
        _ => strategy::prepare_status_update(kind, object, old).unwrap(),
    };
    let mut stored = tracked.clone();
    prepare(&mut stored);
    row(
        name,
        [
            median(|| (), |()| decoded(kind, &body)),
            defaulting(kind, &bare),
            tracking(&writer(kind, manager, subresource), Some(old), &whole),
            median(
                || tracked.clone(),
                |mut object| {
                    prepare(&mut object);
                    object
                },
            ),
            median(|| (), |()| stored.to_string()),
        ],
    );
}

fn main() {
    println!(
        "| write | decode µs | defaults µs | managed fields µs | checks and system fields µs | encode µs | all ÷ all without managed fields |"
    );
    println!("|---|---|---|---|---|---|---|");
    let kind = registry::find("", "v1", "configmaps").unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "default"}, "data": {"k": "v"}});
    let stored = create("ConfigMap", kind, &map);
    let mut new = stored.clone();
    new["data"]["k"] = "w".into();
    update("update of a ConfigMap", kind, &stored, &new, "");

    let kind = registry::find("", "v1", "services").unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "default", "labels": {"app": "s"}},
        "spec": {"selector": {"app": "s"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    create("Service", kind, &service);

    let kind = registry::find("", "v1", "pods").unwrap();
    let container = |i: usize| {
        json!({"name": format!("c{i}"), "image": "registry.test/app:1",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "ports": [{"containerPort": 8000 + i}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000 + i}},
            "volumeMounts": [{"name": "config", "mountPath": "/config"}]})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "p", "tier": "web"}},
        "spec": {"containers": [container(0), container(1)],
            "volumes": [{"name": "config", "configMap": {"name": "m"}}]}});
    let stored = create("Pod of two containers", kind, &pod);
    let mut new = stored.clone();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = |i: usize| {
        json!({"name": format!("c{i}"), "ready": true, "started": true, "restartCount": 0,
            "image": "registry.test/app:1", "imageID": "sha256:1", "containerID": format!("containerd://{i}"),
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    };
    new["status"] = json!({"phase": "Running", "qosClass": "Burstable", "hostIP": "192.0.2.1",
        "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}], "startTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        "containerStatuses": [status(0), status(1)]});
    update("its first status", kind, &stored, &new, "status");
}
