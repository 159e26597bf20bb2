//! CustomResourceDefinitions: whatever is accepted is served, described and checked.

use std::sync::Arc;

use jiff::Timestamp;
use rhumb_fuzz::{run, value};
use serde_json::json;

use super::blames_the_client;
use crate::codec::{self, FieldValidation, JSON};
use crate::crd::tests::{create_definition, widget};
use crate::crd::{kinds, names};
use crate::openapi::Documents;
use crate::registry::Registry;
use crate::strategy::{self, CreateContext};
use crate::table::{self, IncludeObject};
use crate::{default_object, discovery};

fn rich() -> serde_json::Value {
    serde_saphyr::from_str(include_str!("widgets.yaml")).unwrap()
}

fn instance() -> serde_json::Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
        "spec": {"color": "red", "replicas": 3, "port": "http", "free": {"x": [1]},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}, "spec": {}},
            "list": [{"name": "a", "value": 1.5}, {"name": "b"}], "map": {"k": "v"},
            "set": ["2026-01-01T00:00:00Z"]},
        "status": {"replicas": 1, "selector": "a=b"}})
}

#[test]
fn definitions() {
    let sample = rich();
    let mut accepted = 0;
    run("definitions", 500, |dice| {
        let definition = match dice.one_in(5) {
            true => sample.clone(),
            // Some places never change, or nothing would get through.
            false => {
                let mut definition = sample.clone();
                let version = dice.index(2);
                let place = &mut definition["spec"]["versions"][version];
                *place = value(place, dice);
                definition
            }
        };
        let Some(crd) = blames_the_client(create_definition(definition)) else {
            return;
        };
        accepted += 1;
        if !names::holds(&crd, "Established") && !names::holds(&crd, "NamesAccepted") {
            return;
        }
        let registry = Registry::with(kinds(&crd).into_iter().map(Arc::new).collect());
        let open_api = Documents::new(&registry);
        // It describes all built-in kinds too, which takes its time.
        if dice.one_in(30) {
            open_api.v2().to_string();
        }
        for path in open_api.v3_paths().iter().filter(|p| p.contains("example")) {
            open_api
                .v3(path)
                .expect("what is listed is there")
                .to_string();
        }
        discovery::resource_list(&registry, "example.com", "v1");
        for kind in kinds(&crd) {
            let object = value(&instance(), dice);
            let body = object.to_string();
            let decoded = codec::decode(&kind, JSON, body.as_bytes(), FieldValidation::Warn);
            let Some(decoded) = blames_the_client(decoded) else {
                continue;
            };
            let mut object = decoded.object;
            object["apiVersion"] = kind.api_version().into();
            object["kind"] = kind.kind.as_ref().into();
            let namespace = kind.namespaced.then_some("ns");
            let conforms = strategy::conform(&kind, &mut object, namespace, None);
            if blames_the_client(conforms).is_none() {
                continue;
            }
            default_object(&kind, &mut object);
            let context = CreateContext {
                namespace,
                now: Timestamp::UNIX_EPOCH,
                uid: "u",
                suffix: "abcde",
            };
            let made = strategy::prepare_create(&kind, &mut object, &context);
            let now = Timestamp::UNIX_EPOCH;
            table::render(
                &kind,
                [&object],
                json!({}),
                IncludeObject::Object,
                true,
                now,
            );
            if blames_the_client(made).is_some() {
                object["metadata"]["resourceVersion"] = "1".into();
                let mut again = object.clone();
                let updated = strategy::prepare_update(&kind, &mut again, &object);
                updated.expect("an equal update is valid");
            }
        }
    });
    assert!(accepted > 0 || rhumb_fuzz::replays());
    // The sample says little unless it is good itself.
    let crd = create_definition(sample).unwrap();
    let kind = widget(&crd);
    let body = instance().to_string();
    codec::decode(&kind, JSON, body.as_bytes(), FieldValidation::Strict).unwrap();
}
