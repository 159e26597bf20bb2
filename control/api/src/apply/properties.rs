//! What holds for apply whatever the kind: random objects of the built-in kinds, and of a custom one
//! with every type of list.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use rhumb_fuzz::{Dice, run};
use serde_json::{Map, Value, json};

use super::*;
use crate::codec;
use crate::crd::tests::{create_definition, widget};
use crate::registry::of_object;
use crate::status::ApiError;

static WIDGET: LazyLock<Kind> = LazyLock::new(|| {
    let crd: Value = serde_saphyr::from_str(include_str!("../fuzz/widgets.yaml")).unwrap();
    widget(&create_definition(crd).unwrap())
});

static SAMPLES: LazyLock<Vec<(&Kind, Value)>> = LazyLock::new(|| {
    let samples: Vec<Value> = serde_saphyr::from_str(include_str!("samples.yaml")).unwrap();
    let of = |sample: Value| {
        let (version, kind) = (
            json::text(&sample, "apiVersion"),
            json::text(&sample, "kind"),
        );
        let kind = match of_object(version, kind) {
            Some(kind) => kind,
            None => &*WIDGET,
        };
        (kind, sample)
    };
    samples.into_iter().map(of).collect()
});

/// What items of lists are told by, and what only stands as it is.
const FIXED: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "port",
    "containerPort",
    "protocol",
    "ip",
    "key",
    "mountPath",
    "topologyKey",
    "whenUnsatisfiable",
    "operator",
    "effect",
    "value",
    "containers",
    "template",
    "jobTemplate",
    "policyTypes",
];

/// Takes some of a sample away and changes some of what is left, but never its types.
fn part(value: &mut Value, fixed: bool, dice: &mut Dice) {
    match value {
        Value::Object(fields) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            for key in keys {
                let stays = FIXED.contains(&&*key);
                if !stays && dice.one_in(4) {
                    fields.remove(&key);
                } else {
                    part(&mut fields[&key], stays, dice);
                }
            }
        }
        Value::Array(items) => {
            // The first stays: an empty list where there must be one is no list, and comes back as one.
            let mut first = true;
            items.retain(|_| std::mem::take(&mut first) || !dice.one_in(4));
            // A text in a list may be of a set, where none comes twice.
            let structs = items.iter_mut().filter(|item| item.is_object());
            structs.for_each(|item| part(item, false, dice));
        }
        Value::String(text) if !fixed && text == "x" && dice.one_in(2) => *text = "y".into(),
        Value::Number(n) if !fixed && n.is_i64() => {
            *value = (n.as_i64().unwrap() + dice.roll(2) as i64).into()
        }
        Value::Bool(b) => *b ^= dice.one_in(2),
        _ => {}
    }
}

/// A kind, and a configuration of it.
fn any(dice: &mut Dice) -> (&'static Kind, Value) {
    let at = dice.index(SAMPLES.len());
    (SAMPLES[at].0, config(SAMPLES[at].0, dice))
}

fn config(kind: &Kind, dice: &mut Dice) -> Value {
    let of_kind = |(other, _): &&(&Kind, Value)| std::ptr::eq(*other, kind);
    let (_, sample) = SAMPLES.iter().find(of_kind).unwrap();
    let mut config = sample.clone();
    part(&mut config, false, dice);
    config["metadata"]["name"] = "o".into();
    // Never nothing: an object that nobody manages is not tracked.
    config["metadata"]["labels"]["own"] = dice.pick(&["x", "y"]).into();
    codec::decode_applied(kind, config).unwrap()
}

fn writer<'a>(kind: &'a Kind, manager: &'a str) -> Writer<'a> {
    Writer {
        of: Subject::of(kind),
        versions: &OneVersion,
        manager,
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    }
}

/// What is stored after an apply.
fn apply(
    kind: &Kind,
    live: Option<&Value>,
    manager: &str,
    config: &Value,
    force: bool,
) -> Result<Value, ApiError> {
    let applied = writer(kind, manager).apply(live, config, force)?;
    let mut object = codec::decode_applied(kind, applied.object)?;
    crate::default_object(kind, &mut object);
    set_managed(&mut object, applied.managed);
    Ok(object)
}

fn owned(object: &Value, manager: &str) -> FieldSet {
    let managed = json::list(object, "metadata.managedFields").iter();
    let mine = managed.filter(|entry| entry["manager"] == manager);
    mine.fold(FieldSet::default(), |all, entry| {
        all.union(&FieldSet::decode(&entry["fieldsV1"]).unwrap())
    })
}

/// Without managers, and with lists in one order.
fn bare(kind: &Kind, object: &Value) -> Value {
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields: std::collections::BTreeMap<_, _> = fields.iter().collect();
                let fields = fields.into_iter();
                Value::Object(fields.map(|(k, v)| (k.clone(), ordered(v))).collect())
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(ordered).collect();
                items.sort_by_key(Value::to_string);
                Value::Array(items)
            }
            plain => plain.clone(),
        }
    }
    let mut object = codec::decode_applied(kind, object.clone()).unwrap();
    set_managed(&mut object, None);
    ordered(&object)
}

#[test]
fn apply_is_idempotent() {
    run("apply_is_idempotent", 400, |dice| {
        let (kind, base) = any(dice);
        let config = config(kind, dice);
        let live = apply(kind, None, "creator", &base, false).unwrap();
        let once = apply(kind, Some(&live), "me", &config, true).unwrap();
        let twice = apply(kind, Some(&once), "me", &config, false).unwrap();
        assert_eq!(once, twice, "{kind:?}");
    });
}

#[test]
fn force_takes_over() {
    let mut conflicts = 0;
    run("force_takes_over", 400, |dice| {
        let (kind, first) = any(dice);
        let second = config(kind, dice);
        let live = apply(kind, None, "a", &first, false).unwrap();
        let forced = apply(kind, Some(&live), "b", &second, true).unwrap();
        let said = writer(kind, "b").of.root().fields(&second).1;
        let taken = owned(&forced, "b");
        assert!(taken.difference(&said).is_empty(), "{kind:?}");
        match apply(kind, Some(&live), "b", &second, false) {
            Ok(object) => assert_eq!(object, forced),
            Err(refused) => {
                assert_eq!((refused.code, &*refused.reason), (409, "Conflict"));
                conflicts += 1;
                // What they disagreed about is b's alone now.
                let (before, after) = (owned(&live, "a"), owned(&forced, "a"));
                assert!(!before.difference(&after).is_empty(), "{kind:?}");
                // And a gets it back by force only.
                let back = apply(kind, Some(&forced), "a", &first, false);
                assert_eq!(back.unwrap_err().code, 409, "{kind:?}");
            }
        }
    });
    assert!(conflicts > 0 || rhumb_fuzz::replays());
}

/// Deals the fields of a configuration's `spec`, or of it itself, to two.
fn deal(config: &Value, dice: &mut Dice) -> [Value; 2] {
    // The default of a policy's types depends on what else is there, so both say them.
    const COMMON: &[&str] = &["apiVersion", "kind", "metadata", "spec", "policyTypes"];
    let mut hands = [config.clone(), config.clone()];
    for hand in &mut hands {
        hand["metadata"] = json!({"name": "o"});
    }
    let keys = |at: Option<&Value>| -> BTreeSet<String> {
        let fields = at.and_then(Value::as_object);
        fields.map_or(BTreeSet::new(), |f| f.keys().cloned().collect())
    };
    let dealt = |key: &String| !COMMON.contains(&key.as_str());
    for key in keys(config.get("spec")).into_iter().filter(dealt) {
        let other = &mut hands[dice.index(2)];
        other["spec"].as_object_mut().map(|f| f.remove(&key));
    }
    for key in keys(Some(config)).into_iter().filter(dealt) {
        let other = &mut hands[dice.index(2)];
        other.as_object_mut().map(|f| f.remove(&key));
    }
    for (hand, label) in hands.iter_mut().zip(["a", "b"]) {
        // Neither has nothing: an object that nobody manages is not tracked.
        hand["metadata"]["labels"] = json!({(label): "x"});
    }
    hands
}

#[test]
fn disjoint_managers_commute() {
    run("disjoint_managers_commute", 400, |dice| {
        let (kind, whole) = any(dice);
        let [a, b] = deal(&whole, dice);
        let end = |order: [(&str, &Value); 2]| {
            let mut live = None;
            for (manager, config) in order {
                live = Some(apply(kind, live.as_ref(), manager, config, false).unwrap());
            }
            let live = live.unwrap();
            (bare(kind, &live), owned(&live, "a"), owned(&live, "b"))
        };
        let there = end([("a", &a), ("b", &b)]);
        assert_eq!(there, end([("b", &b), ("a", &a)]), "{kind:?}");
    });
}

#[test]
fn leaving_gives_back() {
    run("leaving_gives_back", 400, |dice| {
        let (kind, whole) = any(dice);
        let [mine, theirs] = deal(&whole, dice);
        let before = apply(kind, None, "them", &theirs, false).unwrap();
        let with = apply(kind, Some(&before), "me", &mine, false).unwrap();
        let mut nothing = json!({"apiVersion": kind.api_version(), "kind": kind.kind.as_ref(),
            "metadata": {"name": "o"}});
        if dice.one_in(2) {
            // Or with an empty hand where there was a full one.
            nothing["metadata"]["labels"] = json!({});
        }
        let after = apply(kind, Some(&with), "me", &nothing, false).unwrap();
        let given = |object: &Value| {
            let mut bare = bare(kind, object);
            prune_empty(&mut bare);
            bare
        };
        assert_eq!(given(&after), given(&before), "{kind:?}");
        assert_eq!(owned(&after, "them"), owned(&before, "them"), "{kind:?}");
    });
}

/// Go's structs are there by value: an empty one that came stays, and says nothing.
fn prune_empty(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(prune_empty);
        let kept: Map<String, Value> = std::mem::take(fields)
            .into_iter()
            .filter(|(_, v)| !v.as_object().is_some_and(Map::is_empty))
            .collect();
        *fields = kept;
    }
}
