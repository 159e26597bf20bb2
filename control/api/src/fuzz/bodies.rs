//! Bodies in every syntax, and the four kinds of patches.

use jiff::Timestamp;
use rhumb_fuzz::{Dice, bytes, run, value};
use serde_json::{Map, Value, json};

use super::{any_kind, blames_the_client, object};
use crate::apply::fieldset::FieldSet;
use crate::apply::{self, OneVersion, Subject, Writer};
use crate::codec::{self, FieldValidation, JSON, YAML};
use crate::patch::{self, PatchType};
use crate::registry::Kind;
use crate::strategy::{self, DeleteOptions};
use crate::{default_object, protobuf};

const WORDS: &[&str] = &[
    "\"metadata\":",
    "\"name\":\"name\"",
    "\"spec\":{}",
    "\"$patch\":\"delete\"",
    "apiVersion: v1\n",
    "&a [*a]",
    "<<: *a",
    "!!binary x",
    "- ",
    "? ",
    "|\n",
    "\t",
];

fn validation(dice: &mut Dice) -> FieldValidation {
    match dice.roll(3) {
        0 => FieldValidation::Ignore,
        1 => FieldValidation::Warn,
        _ => FieldValidation::Strict,
    }
}

/// What decodes is walked as the server walks it.
fn decode(kind: &Kind, media_type: &str, body: &[u8], dice: &mut Dice) {
    let decoded = codec::decode(kind, media_type, body, validation(dice));
    let Some(decoded) = blames_the_client(decoded) else {
        return;
    };
    let mut object = decoded.object;
    let namespace = kind.namespaced.then_some("ns");
    if blames_the_client(strategy::conform(kind, &mut object, namespace, None)).is_some() {
        default_object(kind, &mut object);
    }
}

#[test]
fn json() {
    run("json", 1500, |dice| {
        let kind = any_kind(dice);
        let sample = value(&object(kind, dice), dice).to_string();
        let body = bytes(sample.as_bytes(), WORDS, dice);
        decode(kind, JSON, &body, dice);
        decode(kind, JSON, sample.as_bytes(), dice);
    });
}

#[test]
fn yaml() {
    run("yaml", 700, |dice| {
        let kind = any_kind(dice);
        let sample = value(&object(kind, dice), dice);
        let sample = serde_saphyr::to_string(&sample).unwrap_or_default();
        let body = bytes(sample.as_bytes(), WORDS, dice);
        decode(kind, YAML, &body, dice);
    });
}

#[test]
fn a_little_yaml_does_not_become_much() {
    // Each line is nine times the one before.
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{}, ", i - 1).repeat(9);
        laughs += &format!("a{i}: &a{i} [{}]\n", before.trim_end_matches(", "));
    }
    let refused = codec::parse(YAML, laughs.as_bytes()).unwrap_err();
    assert_eq!(refused.code, 400);
    let deep = format!("a: {}", "[".repeat(100_000));
    assert_eq!(codec::parse(YAML, deep.as_bytes()).unwrap_err().code, 400);
}

/// A message of some fields, each of any wire type, some of them messages.
fn message(dice: &mut Dice, depth: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..dice.roll(6) {
        let number = 1 + dice.roll(12);
        match dice.roll(6) {
            0 => {
                varint(number << 3, &mut out);
                varint(dice.roll(u64::MAX) >> dice.roll(64), &mut out);
            }
            1 => {
                varint(number << 3 | 1, &mut out);
                out.extend(dice.roll(u64::MAX).to_le_bytes());
            }
            2 => {
                varint(number << 3 | 5, &mut out);
                out.extend((dice.roll(1 << 32) as u32).to_le_bytes());
            }
            _ => {
                let inner = match depth > 6 || dice.one_in(3) {
                    true => dice
                        .pick(&["", "a", "name", "é", "\0", "1Gi"])
                        .as_bytes()
                        .to_vec(),
                    false => message(dice, depth + 1),
                };
                varint(number << 3 | 2, &mut out);
                varint(inner.len() as u64, &mut out);
                out.extend(inner);
            }
        }
    }
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(number: u64, inner: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(inner.len() as u64, out);
    out.extend(inner);
}

#[test]
fn protobuf_bodies() {
    run("protobuf_bodies", 3000, |dice| {
        let kind = any_kind(dice);
        let mut meta = Vec::new();
        field(1, kind.api_version().as_bytes(), &mut meta);
        field(2, kind.kind.as_bytes(), &mut meta);
        let mut unknown = Vec::new();
        field(1, &meta, &mut unknown);
        field(2, &message(dice, 0), &mut unknown);
        let mut body = b"k8s\0".to_vec();
        body.extend(unknown);
        decode(kind, protobuf::MEDIA_TYPE, &body, dice);
        let body = bytes(&body, &["k8s\0"], dice);
        decode(kind, protobuf::MEDIA_TYPE, &body, dice);
    });
}

/// Pointers to every place of a value.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_string());
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(inner, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                pointers(inner, &format!("{at}/{i}"), out);
            }
            out.push(format!("{at}/-"));
        }
        _ => {}
    }
}

fn operations(object: &Value, dice: &mut Dice) -> Value {
    let mut places = vec!["/x/y".to_string(), "x".into(), "/~2".into()];
    pointers(object, "", &mut places);
    let place = |dice: &mut Dice| Value::from(places[dice.index(places.len())].clone());
    (0..dice.roll(8))
        .map(|_| {
            let op = dice.pick(&["add", "remove", "replace", "move", "copy", "test", "x"]);
            json!({
                "op": op, "path": place(dice), "from": place(dice),
                "value": value(&json!({"a": [1]}), dice),
            })
        })
        .collect()
}

/// Strategic directives in some objects of a patch.
fn directives(patch: &mut Value, dice: &mut Dice) {
    match patch {
        Value::Object(fields) => {
            for inner in fields.values_mut() {
                directives(inner, dice);
            }
            let lists: Vec<String> = fields
                .iter()
                .filter(|(_, v)| v.is_array())
                .map(|(k, _)| k.clone())
                .collect();
            for list in lists {
                let content = fields[&list].clone();
                match dice.roll(8) {
                    0 => fields.insert(format!("$deleteFromPrimitiveList/{list}"), content),
                    1 => fields.insert(format!("$setElementOrder/{list}"), content),
                    _ => None,
                };
            }
            match dice.roll(12) {
                0 => fields.insert(
                    "$patch".into(),
                    (*dice.pick(&["delete", "replace", "merge", "x"])).into(),
                ),
                1 => fields.insert("$retainKeys".into(), json!(["name", "x"])),
                _ => None,
            };
        }
        Value::Array(items) => items.iter_mut().for_each(|item| directives(item, dice)),
        _ => {}
    }
}

#[test]
fn patches() {
    run("patches", 1500, |dice| {
        let kind = any_kind(dice);
        let live = object(kind, dice);
        let (patch_type, patch) = match dice.roll(3) {
            0 => (PatchType::Json, operations(&live, dice)),
            1 => (PatchType::Merge, value(&object(kind, dice), dice)),
            _ => {
                let mut patch = object(kind, dice);
                directives(&mut patch, dice);
                (PatchType::Strategic, value(&patch, dice))
            }
        };
        let mut body = patch.to_string().into_bytes();
        if dice.one_in(4) {
            body = bytes(&body, WORDS, dice);
        }
        let made = patch::apply(kind, patch_type, &live, &body);
        if let Some(made) = blames_the_client(made) {
            let given = validation(dice);
            blames_the_client(patch::decode(kind, patch_type, made, &body, given));
        }
    });
}

fn writer(kind: &Kind) -> Writer<'_> {
    Writer {
        of: Subject::of(kind),
        versions: &OneVersion,
        manager: "fuzz",
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn applied_configurations() {
    run("applied_configurations", 1200, |dice| {
        let kind = any_kind(dice);
        let decoded = |value: Value| {
            let body = value.to_string();
            codec::decode(kind, JSON, body.as_bytes(), FieldValidation::Ignore).ok()
        };
        let mut live = decoded(object(kind, dice)).map(|decoded| decoded.object);
        if let Some(live) = &mut live {
            writer(kind).track(None, live);
            if dice.one_in(3) {
                live["metadata"]["managedFields"] = value(&live["metadata"]["managedFields"], dice);
            }
        }
        let config = value(&object(kind, dice), dice).to_string().into_bytes();
        let config = match dice.one_in(4) {
            true => bytes(&config, WORDS, dice),
            false => config,
        };
        let Some((config, _)) = blames_the_client(apply::parse(&config)) else {
            return;
        };
        let force = dice.one_in(2);
        let applied = writer(kind).apply(live.as_ref(), &config, force);
        if let Some(applied) = blames_the_client(applied) {
            blames_the_client(codec::decode_applied(kind, applied.object));
        }
    });
}

#[test]
fn sets_of_fields() {
    let sample = json!({"f:spec": {"f:list": {"k:{\"a\":1,\"b\":\"x\"}": {".": {}, "f:c": {}},
        "v:\"x\"": {}, "v:1.5": {}, "i:7": {}}}, ".": {}});
    run("sets_of_fields", 3000, |dice| {
        let mut set = value(&sample, dice);
        if let Some(fields) = set.as_object_mut()
            && dice.one_in(2)
        {
            let odd: Map<String, Value> = std::mem::take(fields)
                .into_iter()
                .map(|(key, inner)| {
                    let key = bytes(key.as_bytes(), &["k:{", "v:", "i:", "f:"], dice);
                    (String::from_utf8_lossy(&key).into_owned(), inner)
                })
                .collect();
            *fields = odd;
        }
        if let Ok(decoded) = FieldSet::decode(&set) {
            let again = FieldSet::decode(&decoded.encode()).expect("what was encoded decodes");
            assert_eq!(again, decoded);
        }
    });
}

#[test]
fn options_of_deletes() {
    const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    let sample = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 3,
        "preconditions": {"uid": "u", "resourceVersion": "1"}, "dryRun": ["All"],
        "propagationPolicy": "Orphan"});
    run("options_of_deletes", 2000, |dice| {
        let parsed = codec::Parsed {
            value: value(&sample, dice),
            duplicates: vec![],
        };
        let decoded = codec::decode_named(OPTIONS, parsed, FieldValidation::Ignore);
        let Some(decoded) = blames_the_client(decoded) else {
            return;
        };
        let Some(options) = blames_the_client(DeleteOptions::from_value(&decoded.object)) else {
            return;
        };
        let kind = any_kind(dice);
        let old = object(kind, dice);
        let now = Timestamp::UNIX_EPOCH;
        blames_the_client(strategy::prepare_delete(kind, &old, &options, now));
    });
}
