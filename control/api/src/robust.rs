//! No object that a client can send makes any step panic: objects are made from the kinds' own
//! types, with values of the wrong type and edge values mixed in, and walked through every step.

use jiff::Timestamp;
use proptest::prelude::*;
use rhumb_fuzz::Dice;
use serde_json::{Map, Value, json};

use crate::codec::{self, FieldValidation, Parsed};
use crate::patch::PatchType;
use crate::registry::{KINDS, Kind};
use crate::schema::{Type, types};
use crate::strategy::{self, CreateContext, DeleteOptions, Propagation};
use crate::table::{self, IncludeObject};
use crate::{admission, default_object, patch, scale, service};

const WORDS: &[&str] = &[
    "",
    "a",
    "b",
    "web",
    "-",
    "A",
    "a/b",
    "a/b/c",
    "é",
    "None",
    "ClusterIP",
    "IPv4",
    "IPv6",
    "10.0.0.1",
    "fd00::1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "::/0",
    "TCP",
    "UDP",
    "Always",
    "In",
    "Exists",
    "RollingUpdate",
    "Recreate",
    "25%",
    "0%",
    "1Gi",
    "-1",
    "\u{0}",
    "metadata.name",
    "2026-01-01T00:00:00Z",
    "Ingress",
    "kubernetes.io/tls",
    "True",
    "Ready",
    "x:latest",
    "@",
    ":",
];
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    80,
    65535,
    65536,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];

/// One of these.
fn one<T: Clone>(dice: &mut Dice, from: &[T]) -> T {
    from[dice.index(from.len())].clone()
}

fn any_value(ty: &Type, dice: &mut Dice, depth: u32) -> Value {
    if dice.roll(40) == 0 {
        return one(
            dice,
            &[
                Value::Null,
                json!([]),
                json!({}),
                json!("x"),
                json!(1.5),
                json!(true),
                json!([null]),
            ],
        );
    }
    match ty {
        Type::Struct(id) => {
            let mut out = Map::new();
            let mut names: Vec<&String> = types().get(*id).fields.keys().collect();
            names.sort();
            for name in names {
                // Deep objects get sparse, or there would be no end.
                if dice.roll(u64::from(depth) + 2) == 0 {
                    let field = &types().get(*id).fields[name];
                    out.insert(name.clone(), any_value(&field.ty, dice, depth + 1));
                }
            }
            Value::Object(out)
        }
        Type::Map(item) => (0..dice.roll(3))
            .map(|_| {
                (
                    one(dice, WORDS).to_string(),
                    any_value(item, dice, depth + 1),
                )
            })
            .collect::<Map<_, _>>()
            .into(),
        Type::List(item) => (0..dice.roll(4))
            .map(|_| any_value(item, dice, depth + 1))
            .collect(),
        Type::Text | Type::Time | Type::MicroTime => one(dice, WORDS).into(),
        Type::Quantity => one(dice, &["1", "1Gi", "100m", "-1", "0", "1e40", "0.1n"]).into(),
        Type::Bytes => one(dice, &["", "eHg=", "eA==", "*"]).into(),
        Type::Int32 => (one(dice, NUMBERS) as i32).into(),
        Type::Int64 => one(dice, NUMBERS).into(),
        Type::Float => json!(0.5),
        Type::Bool => (dice.roll(2) == 0).into(),
        Type::IntOrString if dice.roll(2) == 0 => (one(dice, NUMBERS) as i32).into(),
        Type::IntOrString => one(dice, WORDS).into(),
        Type::StructOrAny(id) if dice.roll(4) > 0 => any_value(&Type::Struct(*id), dice, depth),
        Type::StructOrAny(_) => true.into(),
        Type::Any => json!({"any": 1}),
    }
}

fn object(kind: &Kind, dice: &mut Dice) -> Value {
    any_value(&Type::Struct(types().of(kind)), dice, 0)
}

/// An object of the kind, or nearly so, that follows from a number.
pub fn seeded(kind: &Kind, seed: u64) -> Value {
    object(kind, &mut Dice::new(seed))
}

fn decoded(kind: &Kind, value: Value) -> Option<Value> {
    let parsed = Parsed {
        value,
        duplicates: vec![],
    };
    let mut object = codec::decode_parsed(kind, parsed, FieldValidation::Warn)
        .ok()?
        .object;
    let metadata = crate::json::child(&mut object, "metadata")?;
    metadata["name"] = "name".into();
    metadata["namespace"] = if kind.namespaced {
        "ns".into()
    } else {
        Value::Null
    };
    let namespace = kind.namespaced.then_some("ns");
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
    strategy::conform(kind, &mut object, namespace, None).ok()?;
    default_object(kind, &mut object);
    if kind.is("", "Pod") {
        admission::service_account(&mut object, &json!({}), "abcde");
        admission::default_tolerations(&mut object);
        let class = admission::priority_class_of(&object, [&object.clone()])
            .ok()
            .flatten()
            .cloned();
        let _ = admission::priority(&mut object, class.as_ref());
    }
    if kind.is("", "Service") {
        service::default_families(&mut object, &[service::Family::V4, service::Family::V6]);
        let _ = service::wanted_ips(&object);
    }
    Some(kind.to_stored(object))
}

fn walk(kind: &Kind, dice: &mut Dice) {
    let now = Timestamp::UNIX_EPOCH;
    let (first, second) = (object(kind, dice), object(kind, dice));
    let Some(mut created) = decoded(kind, first.clone()) else {
        return;
    };
    let storage = kind.storage();
    let ctx = CreateContext {
        namespace: kind.namespaced.then_some("ns"),
        now,
        uid: "u",
        suffix: "abcde",
    };
    let stored = strategy::prepare_create(storage, &mut created, &ctx);
    created["metadata"]["resourceVersion"] = "1".into();
    let render = |o: &Value| {
        let _ = table::render(kind, [o], json!({}), IncludeObject::Object, true, now);
    };
    render(&created);
    render(&first);
    let _ = scale::of(storage, &created).map(|s| scale::apply(storage, &created, &s));
    let _ = scale::of(storage, &first);
    if let Some(mut new) = decoded(kind, second.clone()) {
        let mut status = new.clone();
        let _ = strategy::prepare_update(storage, &mut new, &created);
        let _ = strategy::prepare_status_update(storage, &mut status, &created);
        render(&status);
        let _ = strategy::prepare_finalize(storage, &mut status, &created);
    }
    for patch_type in [PatchType::Strategic, PatchType::Merge] {
        let _ = patch::apply(kind, patch_type, &created, second.to_string().as_bytes());
    }
    for propagation in [
        None,
        Some(Propagation::Orphan),
        Some(Propagation::Foreground),
    ] {
        let options = DeleteOptions {
            grace_period_seconds: (dice.roll(2) == 0).then(|| one(dice, NUMBERS)),
            propagation,
            ..Default::default()
        };
        if let Ok(strategy::DeleteOutcome::Mark(marked)) =
            strategy::prepare_delete(storage, &created, &options, now)
        {
            let _ = strategy::prepare_delete(storage, &marked, &options, now);
        }
    }
    if kind.is("", "Pod") {
        let _ = strategy::bind(kind, &created, &second, now);
    }
    if stored.is_ok() {
        // What was accepted decodes to itself, and an update with it changes nothing.
        let served = kind.served(created.clone());
        let again = decoded(kind, served).expect("an accepted object decodes");
        let mut new = again;
        strategy::prepare_update(storage, &mut new, &created).expect("an equal update is valid");
        assert_eq!(new, created, "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_step_takes_every_object(seed in any::<u64>()) {
        for kind in KINDS.iter() {
            walk(kind, &mut Dice::new(seed));
        }
    }

    #[test]
    fn bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        for kind in KINDS.iter().take(2) {
            for media in ["application/json", "application/yaml"] {
                let _ = codec::decode(kind, media, &body, FieldValidation::Strict);
            }
            let _ = patch::apply(kind, PatchType::Json, &json!({}), &body);
        }
    }
}

#[test]
fn many_random_objects_are_accepted() {
    // The walk above would say little if nothing got through validation.
    let mut accepted = std::collections::BTreeMap::new();
    for kind in KINDS.iter() {
        for seed in 0..300 {
            let mut dice = Dice::new(seed);
            let value = object(kind, &mut dice);
            let Some(mut o) = decoded(kind, value) else {
                continue;
            };
            let ctx = CreateContext {
                namespace: kind.namespaced.then_some("ns"),
                now: Timestamp::UNIX_EPOCH,
                uid: "u",
                suffix: "abcde",
            };
            if strategy::prepare_create(kind.storage(), &mut o, &ctx).is_ok() {
                *accepted.entry(kind.qualified_resource()).or_insert(0) += 1;
            }
        }
    }
    for plural in [
        "configmaps",
        "namespaces",
        "serviceaccounts",
        "leases.coordination.k8s.io",
    ] {
        assert!(
            accepted.get(plural).is_some_and(|n| *n > 3),
            "{plural}: {accepted:?}"
        );
    }
}
