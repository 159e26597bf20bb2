//! Two operations on a typed value: laying a configuration over an object, and taking fields out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fieldset::FieldSet;
use super::path::Step;
use super::typed::{Place, Shape, has_content, items_of, step_of};

/// The object with everything that the configuration says.
pub fn merge(place: Place<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let (Some(live), Some(config)) = (live, config) else {
        return config.or(live).cloned();
    };
    match (place.shape(live), place.shape(config), live, config) {
        (_, Shape::Struct(of), Value::Object(live), Value::Object(config)) => {
            Some(fields(live, config, |name| place.field(of, name)))
        }
        (Shape::Map(inner), Shape::Map(_), Value::Object(live), Value::Object(config)) => {
            Some(fields(live, config, |_| inner))
        }
        (_, shape @ (Shape::Set(inner) | Shape::Keyed(_, inner)), _, Value::Array(items))
            if !items.is_empty() =>
        {
            Some(Value::Array(list(shape, inner, items_of(live), items)))
        }
        // What goes by its parts is not taken away by a null, or an empty list.
        (shape, _, live, Value::Null | Value::Array(_))
            if !matches!(shape, Shape::Leaf) && has_content(live) =>
        {
            Some(live.clone())
        }
        _ => Some(config.clone()),
    }
}

fn fields<'a>(
    live: &Map<String, Value>,
    config: &Map<String, Value>,
    place: impl Fn(&str) -> Place<'a>,
) -> Value {
    let mut out = Map::with_capacity(live.len().max(config.len()));
    for (name, value) in live {
        if let Some(value) = merge(place(name), Some(value), config.get(name)) {
            out.insert(name.clone(), value);
        }
    }
    for (name, value) in config {
        if !live.contains_key(name) {
            out.insert(name.clone(), value.clone());
        }
    }
    Value::Object(out)
}

/// Items in the configuration's order; those that only the object has stay where they were,
/// before the next item that both have. Items that the object has twice are replaced.
fn list(shape: Shape<'_>, inner: Place<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let named = |items: &[Value]| -> Vec<Option<Step>> {
        items.iter().map(|item| step_of(shape, item).ok()).collect()
    };
    let (live_steps, config_steps) = (named(live), named(config));
    let mut first: BTreeMap<&Step, Option<usize>> = BTreeMap::new();
    for (at, step) in live_steps.iter().enumerate() {
        if let Some(step) = step {
            let twice = first.contains_key(step);
            first.insert(step, (!twice).then_some(at));
        }
    }
    let wanted: BTreeSet<&Step> = config_steps.iter().flatten().collect();
    let shared = |step: &&Step| first.contains_key(*step);
    let mut order = config_steps.iter().flatten().filter(shared);
    let mut next_shared = order.next();
    let mut done: BTreeSet<&Step> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    let take = |c: usize, out: &mut Vec<Value>| {
        let step = config_steps[c].as_ref();
        let at = step.and_then(|step| first.get(step).copied().flatten());
        out.extend(merge(inner, at.map(|at| &live[at]), Some(&config[c])));
    };
    while l < live.len() || c < config.len() {
        if l < live.len() {
            match &live_steps[l] {
                Some(step) if wanted.contains(step) => {
                    // It comes at its turn in the configuration.
                    if done.contains(step) || c < config.len() && next_shared != Some(step) {
                        l += 1;
                        continue;
                    }
                }
                _ => {
                    out.push(live[l].clone());
                    l += 1;
                    continue;
                }
            }
        }
        if c < config.len() {
            take(c, &mut out);
            if let Some(step) = &config_steps[c] {
                done.insert(step);
                if next_shared == Some(step) {
                    next_shared = order.next();
                }
            }
            c += 1;
        } else {
            l += 1;
        }
    }
    out
}

/// The value without these fields. What is left without content becomes null.
pub fn remove(place: Place<'_>, value: &Value, fields: &FieldSet) -> Value {
    match (place.shape(value), value) {
        (Shape::Struct(of), Value::Object(map)) => {
            remove_keys(map, fields, |name| place.field(of, name))
        }
        (Shape::Map(inner), Value::Object(map)) => remove_keys(map, fields, |_| inner),
        (shape @ (Shape::Set(inner) | Shape::Keyed(_, inner)), Value::Array(items)) => {
            let mut left = Vec::with_capacity(items.len());
            for item in items {
                let Ok(step) = step_of(shape, item) else {
                    left.push(item.clone());
                    continue;
                };
                if fields.has_step(&step) {
                    continue;
                }
                left.push(match fields.below(&step) {
                    Some(below) => remove(inner, item, below),
                    None => item.clone(),
                });
            }
            if left.is_empty() {
                Value::Null
            } else {
                Value::Array(left)
            }
        }
        // Parts of what has become one value since.
        (Shape::Leaf, Value::Object(_) | Value::Array(_)) => Value::Null,
        _ => value.clone(),
    }
}

fn remove_keys<'a>(
    map: &Map<String, Value>,
    fields: &FieldSet,
    place: impl Fn(&str) -> Place<'a>,
) -> Value {
    let mut left = Map::with_capacity(map.len());
    for (name, value) in map {
        match fields.field(name) {
            (true, _) => {}
            (false, Some(below)) => {
                left.insert(name.clone(), remove(place(name), value, below));
            }
            (false, None) => {
                left.insert(name.clone(), value.clone());
            }
        }
    }
    if left.is_empty() {
        Value::Null
    } else {
        Value::Object(left)
    }
}

/// The set with the named fields that it has something below of: the parents that a written set
/// leaves out.
pub fn with_named_fields(root: Place<'_>, set: &FieldSet) -> FieldSet {
    set.with_parents(Some(root), &|place: Option<Place<'_>>, step| {
        let Some(place) = place else {
            return (false, None);
        };
        let value = match step {
            Step::Field(_) => Value::Object(Map::new()),
            _ => Value::Array(Vec::new()),
        };
        match (place.shape(&value), step) {
            (Shape::Struct(of), Step::Field(name)) => {
                let declared = of.fields.contains_key(name);
                (declared, Some(place.field(of, name)))
            }
            (Shape::Map(inner), Step::Field(_)) => (false, Some(inner)),
            (Shape::Set(inner) | Shape::Keyed(_, inner), Step::Key(_) | Step::Item(_)) => {
                (false, Some(inner))
            }
            _ => (false, None),
        }
    })
}
