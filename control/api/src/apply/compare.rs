//! What changed between two objects, field by field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fieldset::FieldSet;
use super::path::Step;
use super::typed::{Place, Shape, has_content, items_of, step_of};

/// No field is in more than one of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

/// What happened to a value as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Kept,
    Added,
    Modified,
    Removed,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    fn add(&mut self, step: Step, own: Own, below: Comparison) {
        if own == Own::Kept && below.is_same() {
            return;
        }
        self.added.add(step.clone(), own == Own::Added, below.added);
        self.modified
            .add(step.clone(), own == Own::Modified, below.modified);
        self.removed.add(step, own == Own::Removed, below.removed);
    }
}

static NULL: Value = Value::Null;

/// Compares two objects of the type, `skip` and what is below aside.
pub fn compare(root: Place<'_>, old: &Value, new: &Value, skip: &FieldSet) -> Comparison {
    visit(root, Some(old), Some(new), Some(skip)).1
}

/// At least one of the values is there.
fn visit(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    skip: Option<&FieldSet>,
) -> (Own, Comparison) {
    let whole = match (old, new) {
        (None, _) => Own::Added,
        (_, None) => Own::Removed,
        (Some(_), Some(_)) => Own::Kept,
    };
    let old_shape = place.shape(old.unwrap_or(&NULL));
    let new_shape = place.shape(new.unwrap_or(&NULL));
    let shape = match (old, old_shape, new, new_shape) {
        // Without a type, an object may become something else.
        (Some(old), Shape::Map(inner), Some(new), Shape::Leaf) if !new.is_null() => {
            let mut below = Comparison::default();
            maps(inner, old.as_object(), None, &mut below);
            return (Own::Modified, below);
        }
        (Some(old), Shape::Leaf, Some(_), Shape::Map(inner)) if !old.is_null() => {
            let mut below = Comparison::default();
            maps(inner, None, new.and_then(Value::as_object), &mut below);
            return (Own::Modified, below);
        }
        (_, Shape::Leaf, _, other) | (_, other, _, _) => other,
    };
    let mut below = Comparison::default();
    let object = |value: Option<&Value>| value.is_some_and(has_content);
    if matches!(shape, Shape::Leaf) || !object(old) && !object(new) {
        let own = match (old, new) {
            (Some(old), Some(new)) if !place.same(old, new) => Own::Modified,
            _ => whole,
        };
        return (own, below);
    }
    let (old_map, new_map) = (
        old.and_then(Value::as_object),
        new.and_then(Value::as_object),
    );
    match shape {
        Shape::Leaf => {}
        Shape::Struct(of) => {
            let (had, has) = (old.is_some(), new.is_some());
            for name in names(old_map, new_map) {
                let (skipped, inner) = skip.map_or((false, None), |skip| skip.field(name));
                if skipped {
                    continue;
                }
                let before = old_map.and_then(|m| m.get(name));
                let after = new_map.and_then(|m| m.get(name));
                let always = of.fields.get(name).is_some_and(|field| field.always);
                // In a struct that is there it is there, empty: only its content is news.
                let (was, is) = (always && had, always && has);
                let field = place.field(of, name);
                let (own, inner) = match (before, after) {
                    (None, Some(one)) if was && is_zero(one) || of.omits(name, one) => continue,
                    (Some(one), None) if is && is_zero(one) || of.omits(name, one) => continue,
                    (None, after) if was => visit(field, Some(&NULL), after, inner),
                    (before, None) if is => visit(field, before, Some(&NULL), inner),
                    (before, after) => visit(field, before, after, inner),
                };
                below.add(Step::field(name), own, inner);
            }
        }
        Shape::Map(inner) => maps(inner, old_map, new_map, &mut below),
        Shape::Set(inner) | Shape::Keyed(_, inner) => {
            if old != new {
                lists(shape, inner, old, new, &mut below);
            }
        }
    }
    (whole, below)
}

/// What Go writes of a field that nobody set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => !has_content(value),
    }
}

type Fields<'v> = Option<&'v Map<String, Value>>;

/// The names of both, each once.
fn names<'v>(old: Fields<'v>, new: Fields<'v>) -> impl Iterator<Item = &'v String> {
    let first = old.into_iter().flat_map(Map::keys);
    let rest = new
        .into_iter()
        .flat_map(Map::keys)
        .filter(move |name| !old.is_some_and(|old| old.contains_key(*name)));
    first.chain(rest)
}

fn maps(inner: Place<'_>, old: Fields<'_>, new: Fields<'_>, out: &mut Comparison) {
    for name in names(old, new) {
        let (own, below) = visit(
            inner,
            old.and_then(|m| m.get(name)),
            new.and_then(|m| m.get(name)),
            None,
        );
        out.add(Step::field(name), own, below);
    }
}

/// Items are compared by name. Those that occur twice are one value together.
fn lists(
    shape: Shape<'_>,
    inner: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Comparison,
) {
    let mut items: BTreeMap<Step, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old.map_or(&[][..], items_of) {
        if let Ok(step) = step_of(shape, item) {
            items.entry(step).or_default().0.push(item);
        }
    }
    for item in new.map_or(&[][..], items_of) {
        if let Ok(step) = step_of(shape, item) {
            items.entry(step).or_default().1.push(item);
        }
    }
    for (step, (old, new)) in items {
        match (old.as_slice(), new.as_slice()) {
            (old, new) if old.len() <= 1 && new.len() <= 1 => {
                let (own, below) = visit(inner, old.first().copied(), new.first().copied(), None);
                out.add(step, own, below);
            }
            (old, new) if old.len() >= 2 && new.len() >= 2 => {
                if old != new {
                    out.add(step, Own::Modified, Comparison::default());
                }
            }
            (old, new) if old.len() >= 2 => {
                let below = new.first().map(|new| visit(inner, None, Some(new), None).1);
                out.add(step, Own::Removed, below.unwrap_or_default());
            }
            (old, _) => {
                let below = old.first().map(|old| visit(inner, Some(old), None, None).1);
                out.add(step, Own::Added, below.unwrap_or_default());
            }
        }
    }
}
