//! The rules of apply on real kinds. Goldens are what kube-apiserver writes for the same requests.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::registry::find;
use crate::status::ApiError;

const NOON: &str = "2026-01-02T12:00:00Z";

struct Cluster {
    kind: &'static Kind,
    live: Option<Value>,
    now: Timestamp,
}

impl Cluster {
    fn of(group: &str, plural: &str) -> Cluster {
        Cluster {
            kind: find(group, "v1", plural).unwrap(),
            live: None,
            now: NOON.parse().unwrap(),
        }
    }

    fn later(&mut self) -> &mut Self {
        self.now = Timestamp::from_second(self.now.as_second() + 60).unwrap();
        self
    }

    fn writer<'a>(&self, manager: &'a str, subresource: &'a str) -> Writer<'a> {
        Writer {
            of: Subject::of(self.kind),
            versions: &OneVersion,
            manager,
            subresource,
            now: self.now,
        }
    }

    /// As a create or replace, of an object that is decoded.
    fn put(&mut self, manager: &str, object: Value) -> &mut Self {
        self.put_at(manager, "", object)
    }

    fn put_at(&mut self, manager: &str, subresource: &str, mut object: Value) -> &mut Self {
        crate::default_object(self.kind, &mut object);
        self.writer(manager, subresource)
            .track(self.live.as_ref(), &mut object);
        self.live = Some(object);
        self
    }

    /// Changes the live object as a patch would.
    fn patch(&mut self, manager: &str, patch: Value) -> &mut Self {
        let mut object = self.live.clone().unwrap();
        json_patch::merge(&mut object, &patch);
        self.put(manager, object)
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApiError> {
        let applied = self
            .writer(manager, "")
            .apply(self.live.as_ref(), &config, force)?;
        let mut object = crate::codec::decode_applied(self.kind, applied.object)?;
        crate::default_object(self.kind, &mut object);
        set_managed(&mut object, applied.managed);
        self.live = Some(object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, config, false).unwrap();
        self
    }

    fn force(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, config, true).unwrap();
        self
    }

    fn refused(&mut self, manager: &str, config: Value) -> ApiError {
        self.try_apply(manager, config, false).unwrap_err()
    }

    fn live(&self) -> &Value {
        self.live.as_ref().unwrap()
    }

    /// The fields of a manager's entry, or null.
    fn owned(&self, manager: &str, operation: &str) -> Value {
        let all = json::list(self.live(), "metadata.managedFields");
        all.iter()
            .find(|e| e["manager"] == manager && e["operation"] == operation)
            .map_or(Value::Null, |e| e["fieldsV1"].clone())
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    let mut out = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"app": "x"}},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}]},
            },
        },
    });
    json_patch::merge(&mut out["spec"], &spec);
    out
}

#[test]
fn a_created_deployment() {
    let mut cluster = Cluster::of("apps", "deployments");
    cluster.put("kubectl-create", deployment(json!({})));
    let managed = &cluster.live()["metadata"]["managedFields"];
    assert_eq!(
        managed,
        &json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1",
            "time": NOON, "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:progressDeadlineSeconds": {},
                    "f:replicas": {},
                    "f:revisionHistoryLimit": {},
                    "f:selector": {},
                    "f:strategy": {
                        "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                        "f:type": {},
                    },
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                r#"k:{"name":"c"}"#: {
                                    ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                                    "f:ports": {
                                        ".": {},
                                        r#"k:{"containerPort":80,"protocol":"TCP"}"#: {
                                            ".": {}, "f:containerPort": {}, "f:protocol": {},
                                        },
                                    },
                                    "f:resources": {},
                                    "f:terminationMessagePath": {},
                                    "f:terminationMessagePolicy": {},
                                },
                            },
                            "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                            "f:securityContext": {}, "f:terminationGracePeriodSeconds": {},
                        },
                    },
                },
            },
        }])
    );
}

#[test]
fn an_applied_deployment() {
    let mut cluster = Cluster::of("apps", "deployments");
    cluster.apply("kubectl", deployment(json!({"replicas": 2})));
    assert_eq!(cluster.live()["spec"]["strategy"]["type"], "RollingUpdate");
    // Only what was said: no defaults, no empty parents, but the items' names.
    assert_eq!(
        cluster.owned("kubectl", "Apply"),
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {r#"k:{"name":"c"}"#: {
                        ".": {}, "f:image": {}, "f:name": {},
                        "f:ports": {r#"k:{"containerPort":80,"protocol":"TCP"}"#: {
                            ".": {}, "f:containerPort": {},
                        }},
                    }}},
                },
            },
        })
    );
}

#[test]
fn conflicts_are_told_as_kubernetes_tells_them() {
    let mut cluster = Cluster::of("apps", "deployments");
    cluster.put("kubectl-client-side-apply", deployment(json!({})));
    let refused = cluster.refused("me", deployment(json!({"replicas": 3})));
    assert_eq!((refused.code, &*refused.reason), (409, "Conflict"));
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused.details.unwrap()["causes"],
        json!([{
            "reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
            "field": ".spec.replicas",
        }])
    );
    let mut other = deployment(json!({"replicas": 3}));
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
    let refused = cluster.refused("me", other.clone());
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n\
         - .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    // By force the fields change hands; what is the same is shared.
    cluster.force("me", other);
    let theirs = cluster.owned("kubectl-client-side-apply", "Update");
    assert!(theirs["f:spec"].get("f:replicas").is_none());
    assert!(theirs["f:spec"].get("f:selector").is_some());
    let mine = cluster.owned("me", "Apply");
    assert_eq!(mine["f:spec"]["f:replicas"], json!({}));
    // An applier's conflicts name no version.
    let refused = cluster.refused("you", deployment(json!({"replicas": 9})));
    assert!(
        refused
            .message
            .starts_with("Apply failed with 2 conflicts: conflicts with \"me\":\n")
    );
}

#[test]
fn fields_that_nobody_applies_any_more_go() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("a", config_map(json!({"one": "1", "both": "x"})));
    cluster.apply("b", config_map(json!({"two": "2", "both": "x"})));
    cluster.patch("c", json!({"data": {"three": "3"}}));
    assert_eq!(
        cluster.live()["data"],
        json!({"one": "1", "both": "x", "two": "2", "three": "3"})
    );
    cluster.apply("a", config_map(json!({})));
    assert_eq!(
        cluster.live()["data"],
        json!({"both": "x", "two": "2", "three": "3"})
    );
    // `data` itself is still named by its applier.
    assert_eq!(cluster.owned("a", "Apply"), json!({"f:data": {}}));
    let mut bare = config_map(json!({}));
    bare.as_object_mut().unwrap().remove("data");
    cluster.apply("b", bare.clone());
    assert_eq!(cluster.live()["data"], json!({"three": "3"}));
    assert_eq!(cluster.owned("b", "Apply"), Value::Null);
    cluster.apply("a", bare);
    assert_eq!(cluster.live()["data"], json!({"three": "3"}));
}

#[test]
fn lists_go_by_their_kind() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    let mut cluster = Cluster::of("", "services");
    let dns = json!({"ports": [
        {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]});
    cluster.apply("a", service(dns));
    cluster.apply(
        "b",
        service(json!({"ports": [{"name": "web", "port": 80}]})),
    );
    let ports = cluster.live()["spec"]["ports"].as_array().unwrap().clone();
    let names: Vec<&str> = ports.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["udp", "tcp", "web"]);
    cluster.apply(
        "a",
        service(json!({"ports": [{"name": "tcp", "port": 53}]})),
    );
    let ports = cluster.live()["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2);
    assert_eq!(
        cluster.owned("a", "Apply")["f:spec"]["f:ports"],
        json!({r#"k:{"port":53,"protocol":"TCP"}"#: {".": {}, "f:name": {}, "f:port": {}}})
    );
    // A selector is one value, of one manager.
    cluster.apply("a", service(json!({"selector": {"app": "x"}})));
    let refused = cluster.refused("b", service(json!({"selector": {"tier": "y"}})));
    assert!(
        refused
            .message
            .ends_with("conflict with \"a\": .spec.selector")
    );

    let mut cluster = Cluster::of("", "configmaps");
    let with = |finalizers: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "finalizers": finalizers}})
    };
    cluster.apply("a", with(json!(["x/a", "x/b"])));
    cluster.apply("b", with(json!(["x/c", "x/b"])));
    cluster.apply("a", with(json!(["x/b"])));
    assert_eq!(
        cluster.live()["metadata"]["finalizers"],
        json!(["x/c", "x/b"])
    );
    assert_eq!(
        cluster.owned("b", "Apply"),
        json!({"f:metadata": {"f:finalizers": {r#"v:"x/b""#: {}, r#"v:"x/c""#: {}}}})
    );
}

#[test]
fn updates_take_what_they_change() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("a", config_map(json!({"k": "1", "l": "1"})));
    cluster
        .later()
        .patch("b", json!({"data": {"k": "2", "n": "3"}}));
    assert_eq!(cluster.owned("a", "Apply"), json!({"f:data": {"f:l": {}}}));
    assert_eq!(
        cluster.owned("b", "Update"),
        json!({"f:data": {"f:k": {}, "f:n": {}}})
    );
    // What goes belongs to nobody, and a manager without fields is none.
    cluster
        .later()
        .patch("c", json!({"data": {"k": null, "n": null}}));
    assert_eq!(cluster.owned("b", "Update"), Value::Null);
    assert_eq!(cluster.owned("c", "Update"), Value::Null);
    // No change, no new time.
    let before = cluster.live().clone();
    cluster.later().patch("d", json!({"data": {"l": "1"}}));
    assert_eq!(*cluster.live(), before);
}

#[test]
fn the_status_is_another_door() {
    let mut cluster = Cluster::of("apps", "deployments");
    cluster.put("a", deployment(json!({})));
    let mut object = cluster.live().clone();
    object["status"] =
        json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    object["metadata"]["labels"]["other"] = "y".into();
    cluster.later().put_at("controller", "status", object);
    let entry = &cluster.live()["metadata"]["managedFields"][1];
    assert_eq!(
        (&entry["manager"], &entry["subresource"]),
        (&json!("controller"), &json!("status"))
    );
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {
            "f:conditions": {
                ".": {},
                r#"k:{"type":"Available"}"#: {".": {}, "f:status": {}, "f:type": {}},
            },
            "f:replicas": {},
        }})
    );
    // And the main one owns nothing of it.
    cluster.patch("b", json!({"status": {"replicas": 7}}));
    assert_eq!(cluster.owned("b", "Update"), Value::Null);
}

#[test]
fn objects_from_before() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.live = Some(config_map(json!({"k": "1", "l": "1"})));
    // Untracked objects stay so,
    cluster.patch("b", json!({"data": {"l": "2"}}));
    assert_eq!(cluster.live()["metadata"].get("managedFields"), None);
    // until somebody applies.
    let refused = cluster.refused("a", config_map(json!({"k": "2"})));
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k"
    );
    cluster.apply("a", config_map(json!({"k": "1"})));
    assert_eq!(
        cluster.owned("before-first-apply", "Update"),
        json!({"f:data": {".": {}, "f:k": {}, "f:l": {}}})
    );
}

#[test]
fn clients_may_rewrite_the_list() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("a", config_map(json!({"k": "1"})));
    // An update that doesn't know the list, or can't write it, leaves it.
    let mut object = cluster.live().clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    cluster.put("b", object.clone());
    assert_eq!(cluster.owned("a", "Apply"), json!({"f:data": {"f:k": {}}}));
    object["metadata"]["managedFields"] = json!([{"manager": "z", "operation": "Apply",
        "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}]);
    cluster.put("b", object.clone());
    assert_eq!(cluster.owned("a", "Apply"), json!({"f:data": {"f:k": {}}}));
    // As kubectl takes over from client-side apply: under another name, by hand.
    object["metadata"]["managedFields"] = json!([{"manager": "z", "operation": "Apply",
        "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}]);
    cluster.put("b", object.clone());
    assert_eq!(cluster.owned("z", "Apply"), json!({"f:data": {"f:k": {}}}));
    assert_eq!(cluster.owned("a", "Apply"), Value::Null);
    for empty in [json!([{}]), json!([])] {
        cluster.put("b", object.clone());
        let mut emptied = object.clone();
        emptied["metadata"]["managedFields"] = empty;
        cluster.put("b", emptied);
        assert_eq!(cluster.live()["metadata"].get("managedFields"), None);
        cluster.apply("z", config_map(json!({"k": "1"})));
    }
}

#[test]
fn kubectl_goes_from_client_side_to_server_side() {
    let mut cluster = Cluster::of("", "configmaps");
    let mut object = config_map(json!({"k": "1", "l": "1"}));
    let last = config_map(json!({"k": "1", "l": "1"})).to_string();
    object["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    cluster.put("kubectl-client-side-apply", object);
    assert_eq!(
        cluster.refused("other", config_map(json!({"k": "2"}))).code,
        409
    );
    cluster.apply("kubectl", config_map(json!({"k": "2", "l": "1"})));
    assert_eq!(cluster.live()["data"]["k"], "2");
    let kept = &cluster.live()["metadata"]["annotations"][LAST_APPLIED];
    assert_eq!(
        kept,
        "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"2\",\"l\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m\"}}\n"
    );
    // What somebody else has changed since is theirs.
    cluster.later().patch("other", json!({"data": {"l": "9"}}));
    let refused = cluster.refused("kubectl", config_map(json!({"k": "2", "l": "1"})));
    assert!(
        refused.message.ends_with("\"other\" using v1: .data.l"),
        "{}",
        refused.message
    );
}

#[test]
fn bad_configurations_are_refused_by_path() {
    let mut cluster = Cluster::of("apps", "deployments");
    let with = |patch: Value| {
        let mut config = deployment(json!({}));
        json_patch::merge(&mut config, &patch);
        config
    };
    let container = |c: Value| with(json!({"spec": {"template": {"spec": {"containers": c}}}}));
    for (config, message) in [
        (
            with(json!({"spec": {"foo": 1}})),
            ".spec.foo: field not declared in schema",
        ),
        (
            with(json!({"spec": {"replicas": "x"}})),
            ".spec.replicas: expected numeric (int or float), got *value.valueUnstructured",
        ),
        (
            with(json!({"metadata": {"labels": {"a": true}}})),
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:true}",
        ),
        (
            with(json!({"spec": {"template": "x"}})),
            ".spec.template: expected map, got &{x}",
        ),
        (
            container(json!([{"name": "a"}, {"name": "a"}])),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            container(json!([{"image": "a"}])),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
    ] {
        let refused = cluster.refused("a", config);
        assert_eq!(refused.code, 400);
        assert_eq!(
            refused.message,
            format!(
                "failed to create typed patch object (/d; apps/v1, Kind=Deployment): {message}"
            )
        );
    }
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    let refused = cluster.refused("a", managed);
    assert_eq!(refused.message, "metadata.managedFields must be nil");
    let mut other = deployment(json!({}));
    other["apiVersion"] = "apps/v1beta1".into();
    let refused = cluster.refused("a", other);
    assert_eq!(
        refused.message,
        "invalid object type: apps/v1beta1, Kind=Deployment"
    );
}

#[test]
fn old_updaters_become_one() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.put("m0", config_map(json!({"k0": "v"})));
    for i in 1..14 {
        let patch = json!({"data": {format!("k{i}"): "v"}});
        cluster.later().patch(&format!("m{i}"), patch);
    }
    let managed = cluster.live()["metadata"]["managedFields"]
        .as_array()
        .unwrap();
    assert_eq!(managed.len(), 10);
    assert_eq!(managed[0]["manager"], "ancient-changes");
    let ancient = managed[0]["fieldsV1"]["f:data"].as_object().unwrap();
    assert_eq!(
        ancient.keys().collect::<Vec<_>>(),
        [".", "f:k0", "f:k1", "f:k2", "f:k3", "f:k4"]
    );
}

#[test]
fn replicas_have_one_owner_through_both_doors() {
    let mut cluster = Cluster::of("apps", "deployments");
    cluster.apply("a", deployment(json!({"replicas": 1})));
    let path = [Step::field("spec"), Step::field("replicas")];
    let managed = &cluster.live()["metadata"]["managedFields"];
    let in_scale = scale::of_object(Some(managed), &path).unwrap();
    assert_eq!(
        in_scale[0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}}})
    );
    let mut scale = crate::scale::of(cluster.kind, cluster.live()).unwrap();
    set_managed(&mut scale, Some(in_scale));
    let writer = Writer {
        of: Subject::scale().unwrap(),
        ..cluster.writer("hpa", "scale")
    };
    let mut scaled = scale.clone();
    scaled["spec"]["replicas"] = 5.into();
    writer.track(Some(&scale), &mut scaled);
    let after = scale::to_object(
        Some(managed),
        scaled["metadata"].get("managedFields"),
        &path,
        "apps/v1",
    );
    let mut object = cluster.live().clone();
    object["spec"]["replicas"] = 5.into();
    set_managed(&mut object, after);
    cluster.live = Some(object);
    assert_eq!(
        cluster.owned("hpa", "Update"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert!(
        cluster.owned("a", "Apply")["f:spec"]
            .get("f:replicas")
            .is_none()
    );
    let refused = cluster.refused("a", deployment(json!({"replicas": 1})));
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

/// Some of a pod: maps, sets, lists by name, single values.
fn any_pod() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["a", "b", "c"]);
    let labels = prop::collection::btree_map(text(), text(), 0..3);
    let finalizers = prop::collection::btree_set(prop::sample::select(vec!["x/a", "x/b"]), 0..3);
    let port = (
        80..83u16,
        prop::sample::select(vec![None, Some("UDP"), Some("TCP")]),
    );
    let ports = prop::collection::vec(port, 0..3);
    let env = prop::collection::btree_map(text(), text(), 0..3);
    let container = (text(), text(), ports, env, prop::option::of(text()));
    let containers = prop::collection::vec(container, 0..3);
    (labels, finalizers, containers, prop::option::of(0..3i64)).prop_map(
        |(labels, finalizers, containers, deadline)| {
            let mut seen = std::collections::BTreeSet::new();
            let containers: Vec<Value> = containers
                .into_iter()
                .filter(|c| seen.insert(c.0))
                .map(|(name, image, ports, env, dir)| {
                    let mut seen = std::collections::BTreeSet::new();
                    let ports: Vec<Value> = ports
                        .into_iter()
                        .filter(|(port, protocol)| seen.insert((*port, protocol.unwrap_or("TCP"))))
                        .map(|(port, protocol)| match protocol {
                            Some(p) => json!({"containerPort": port, "protocol": p}),
                            None => json!({"containerPort": port}),
                        })
                        .collect();
                    let env: Vec<Value> = env
                        .into_iter()
                        .map(|(name, value)| json!({"name": name, "value": value}))
                        .collect();
                    let mut c = json!({"name": name, "image": image, "ports": ports, "env": env});
                    if let Some(dir) = dir {
                        c["workingDir"] = dir.into();
                    }
                    c
                })
                .collect();
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers},
            });
            if let Some(deadline) = deadline {
                pod["spec"]["activeDeadlineSeconds"] = deadline.into();
            }
            pod
        },
    )
}

/// A configuration of its own part: labels and items whose names begin with `prefix`.
fn own_part(prefix: &'static str) -> impl Strategy<Value = Value> {
    let name =
        move || prop::sample::select(vec!["1", "2", "3"]).prop_map(move |n| format!("{prefix}{n}"));
    // Never nothing: an object that nobody manages is not tracked.
    let labels = prop::collection::btree_map(name(), "[a-c]", 1..3);
    let containers = prop::collection::btree_map(name(), "[a-c]", 0..3);
    (labels, containers).prop_map(|(labels, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, image)| json!({"name": name, "image": image}))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
            "spec": {"containers": containers},
        })
    })
}

/// An object with lists by name in one order, for comparisons that leave order aside.
fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(k, v)| (k.clone(), ordered(v)))
            .collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(ordered).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        plain => plain.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn apply_is_idempotent(base in any_pod(), config in any_pod()) {
        let mut cluster = Cluster::of("", "pods");
        cluster.put("creator", base);
        cluster.force("me", config.clone());
        let once = cluster.live().clone();
        cluster.later().apply("me", config);
        prop_assert_eq!(cluster.live(), &once);
    }

    #[test]
    fn what_was_applied_is_there_and_owned(base in any_pod(), config in any_pod()) {
        let mut cluster = Cluster::of("", "pods");
        cluster.put("creator", base);
        cluster.force("me", config.clone());
        let root = Subject::of(cluster.kind);
        let changes = root.compare(&config, cluster.live(), &FieldSet::default());
        prop_assert!(changes.modified.difference(&metadata_itself()).is_empty(), "{changes:?}");
        let owned = FieldSet::decode(&cluster.owned("me", "Apply")).unwrap();
        let skip = cluster.writer("me", "").skipped();
        let said = root.root().fields(&config).1.without(&skip).difference(&metadata_itself());
        prop_assert_eq!(owned, said);
    }

    #[test]
    fn disjoint_managers_commute(a in own_part("a"), b in own_part("b"), again in own_part("a")) {
        let end = |order: [&str; 2]| {
            let mut cluster = Cluster::of("", "pods");
            let config = |m: &str| if m == "a" { a.clone() } else { b.clone() };
            for manager in order {
                cluster.apply(manager, config(manager));
            }
            cluster.apply("a", again.clone());
            ordered(cluster.live())
        };
        prop_assert_eq!(end(["a", "b"]), end(["b", "a"]));
    }

    #[test]
    fn leaving_takes_away_what_was_brought(base in any_pod(), part in own_part("mine")) {
        let mut cluster = Cluster::of("", "pods");
        cluster.put("creator", base);
        let before = cluster.live().clone();
        cluster.apply("me", part);
        cluster.apply("me", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}));
        let bare = |object: &Value| {
            let mut object =
                crate::codec::decode_applied(cluster.kind, object.clone()).unwrap();
            set_managed(&mut object, None);
            // Validation refuses a pod without containers.
            if json::list(&object, "spec.containers").is_empty() {
                json::remove(&mut object["spec"], "containers");
            }
            ordered(&object)
        };
        prop_assert_eq!(bare(cluster.live()), bare(&before));
    }

    #[test]
    fn nothing_changes_where_nothing_differs(object in any_pod()) {
        let kind = Subject::of(find("", "v1", "pods").unwrap());
        prop_assert!(kind.compare(&object, &object, &FieldSet::default()).is_same());
        let merged = merge::merge(kind.root(), Some(&object), Some(&object)).unwrap();
        prop_assert_eq!(&merged, &object);
        prop_assert_eq!(check::check(kind.root(), &object), None);
    }

    #[test]
    fn a_comparison_is_the_other_way_round_backwards(a in any_pod(), b in any_pod()) {
        let kind = Subject::of(find("", "v1", "pods").unwrap());
        let there = kind.compare(&a, &b, &FieldSet::default());
        let back = kind.compare(&b, &a, &FieldSet::default());
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.removed, &back.added);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(there.added.intersection(&there.modified).is_empty());
    }

    #[test]
    fn every_object_is_survived(one in any::<u64>(), two in any::<u64>(), at in any::<usize>()) {
        let kinds = &crate::registry::KINDS;
        let cluster = Cluster { kind: &kinds[at % kinds.len()], ..Cluster::of("", "pods") };
        let (live, mut config) = (
            crate::robust::seeded(cluster.kind, one),
            crate::robust::seeded(cluster.kind, two),
        );
        for subresource in ["", "status"] {
            let writer = cluster.writer("me", subresource);
            let _ = writer.apply(Some(&live), &config, true);
            if config.is_object() {
                config["apiVersion"] = cluster.kind.api_version().into();
                config["kind"] = cluster.kind.kind.as_ref().into();
            }
            let _ = writer.apply(Some(&live), &config, false);
            let _ = writer.apply(None, &config, true);
            writer.track(Some(&live), &mut config.clone());
        }
        let _ = Managed::decode(Some(&live));
        let _ = FieldSet::decode(&live);
    }
}
