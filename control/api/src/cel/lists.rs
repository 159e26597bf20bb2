//! Functions on lists: Kubernetes' own, and those of cel-go's lists extension at version 3.
//! Source: Kubernetes `pkg/cel/library/lists.go`, cel-go `ext/{lists,sets}.go`.

use std::cmp::Ordering;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr};

use super::arithmetic;
use super::eval::{Budget, Evaluated, failed, no_overload};
use super::types::Type;
use super::value::Value;

/// The longest list that `lists.range` makes.
const MAX_RANGE: i64 = 10_000_000;

pub fn call(name: &str, items: &[Value], args: &[Value], budget: &mut Budget) -> Option<Evaluated> {
    Some(match (name, args) {
        ("size", []) => Ok(count(items.len())),
        ("join", []) => join(items, "", budget),
        ("join", [Value::String(by)]) => join(items, by, budget),
        ("slice", [Value::Int(from), Value::Int(until)]) => slice(items, *from, *until),
        ("flatten", []) => flatten(items, 1),
        ("flatten", [Value::Int(depth)]) if *depth < 0 => failed("level must be non-negative"),
        ("flatten", [Value::Int(depth)]) => flatten(items, *depth),
        ("distinct", []) => distinct(items, budget),
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        ("sort", []) => sorted(items, items, budget),
        ("first", []) => Ok(items.first().cloned().map_or_else(Value::none, Value::some)),
        ("last", []) => Ok(items.last().cloned().map_or_else(Value::none, Value::some)),
        ("unwrapOpt", []) => unwrapped(items),
        ("isSorted", []) => {
            let mut pairs = items.windows(2);
            let found = pairs.try_fold(true, |sorted, pair| {
                let order = pair[0].compare(&pair[1])?;
                Some(sorted && order != Ordering::Greater)
            });
            found.map_or_else(no_overload, |sorted| Ok(Value::Bool(sorted)))
        }
        ("sum", []) => match items.split_first() {
            None => Ok(Value::Int(0)),
            Some((first, rest)) => rest.iter().try_fold(first.clone(), |sum, item| {
                arithmetic::add(sum, item.clone())
            }),
        },
        ("min", []) => extreme(items, "min", Ordering::Less),
        ("max", []) => extreme(items, "max", Ordering::Greater),
        ("indexOf", [item]) => Ok(at(items.iter().position(|i| i == item))),
        ("lastIndexOf", [item]) => Ok(at(items.iter().rposition(|i| i == item))),
        _ => return None,
    })
}

fn at(position: Option<usize>) -> Value {
    position.map_or(Value::Int(-1), count)
}

fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn weight(items: &[Value]) -> u64 {
    items.iter().map(Value::weight).sum()
}

/// `sets.contains`, `sets.intersects` and `sets.equivalent`: each item is compared with each.
pub fn sets(name: &str, a: &[Value], b: &[Value], budget: &mut Budget) -> Evaluated {
    budget.spend((a.len() as u64).saturating_mul(b.len() as u64))?;
    let within = |a: &[Value], b: &[Value]| a.iter().all(|i| b.contains(i));
    Ok(Value::Bool(match name {
        "sets.contains" => within(b, a),
        "sets.intersects" => b.iter().any(|i| a.contains(i)),
        _ => within(a, b) && within(b, a),
    }))
}

pub fn range(n: i64, budget: &mut Budget) -> Evaluated {
    if n < 0 {
        return failed(format!("lists.range: size must be non-negative, got {n}"));
    }
    if n > MAX_RANGE {
        return failed(format!(
            "lists.range: size {n} exceeds maximum allowed ({MAX_RANGE})"
        ));
    }
    budget.spend(n.unsigned_abs())?;
    Ok(Value::list((0..n).map(Value::Int).collect()))
}

/// The values of the optionals that have one.
pub fn unwrapped(items: &[Value]) -> Evaluated {
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::Optional(Some(value)) => out.push((**value).clone()),
            Value::Optional(None) => {}
            _ => return no_overload(),
        }
    }
    Ok(Value::list(out))
}

fn slice(items: &[Value], from: i64, until: i64) -> Evaluated {
    let cannot = |why: &str| failed(format!("cannot slice({from}, {until}), {why}"));
    let (Ok(first), Ok(end)) = (usize::try_from(from), usize::try_from(until)) else {
        return cannot("negative indexes not supported");
    };
    if first > end {
        return cannot("start index must be less than or equal to end index");
    }
    match items.get(first..end) {
        Some(items) => Ok(Value::list(items.to_vec())),
        None => cannot(&format!("list is length {}", items.len())),
    }
}

fn flatten(items: &[Value], depth: i64) -> Evaluated {
    fn add(items: &[Value], depth: i64, out: &mut Vec<Value>) {
        for item in items {
            match item {
                Value::List(list) if depth > 0 => add(&list.items, depth - 1, out),
                item => out.push(item.clone()),
            }
        }
    }
    let mut out = Vec::new();
    add(items, depth, &mut out);
    Ok(Value::list(out))
}

fn distinct(items: &[Value], budget: &mut Budget) -> Evaluated {
    budget.spend(weight(items).saturating_mul(items.len() as u64))?;
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !out.contains(item) {
            out.push(item.clone());
        }
    }
    Ok(Value::list(out))
}

/// The items in the order of their keys; those with the same key as they were.
pub fn sorted(items: &[Value], keys: &[Value], budget: &mut Budget) -> Evaluated {
    let Some(first) = keys.first() else {
        return Ok(Value::list(Vec::new()));
    };
    let comparable = |key: &Value| {
        matches!(
            key,
            Value::Bool(_)
                | Value::Int(_)
                | Value::Uint(_)
                | Value::Double(_)
                | Value::String(_)
                | Value::Bytes(_)
                | Value::Timestamp(_)
                | Value::Duration(_)
        )
    };
    if !comparable(first) {
        return failed("list elements must be comparable");
    }
    let kind = std::mem::discriminant(first);
    if keys.iter().any(|key| std::mem::discriminant(key) != kind) {
        return failed("list elements must have the same type");
    }
    let rounds = u64::from(items.len().checked_ilog2().unwrap_or(0)) + 1;
    budget.spend(weight(keys).saturating_mul(rounds))?;
    let order = |a: &Value, b: &Value| match (a, b) {
        // NaN would have no order.
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (a, b) => a.compare(b).unwrap_or(Ordering::Equal),
    };
    let mut pairs: Vec<(&Value, &Value)> = keys.iter().zip(items).collect();
    pairs.sort_by(|(a, _), (b, _)| order(a, b));
    Ok(Value::list(
        pairs.into_iter().map(|(_, item)| item.clone()).collect(),
    ))
}

/// `list.sortBy(name, key)`, which the parser leaves as a call.
pub struct SortBy<'a> {
    pub range: &'a IdedExpr,
    pub name: &'a str,
    pub key: &'a IdedExpr,
}

pub fn sort_by(call: &CallExpr) -> Option<Result<SortBy<'_>, String>> {
    let range = call.target.as_deref()?;
    let [name, key] = call.args.as_slice() else {
        return None;
    };
    if call.func_name != "sortBy" {
        return None;
    }
    let Expr::Ident(name) = &name.expr else {
        return Some(Err("argument is not an identifier".into()));
    };
    Some(Ok(SortBy { range, name, key }))
}

/// Whether lists can be sorted by keys of this type.
pub fn sorts(key: &Type) -> bool {
    matches!(
        key,
        Type::Dyn
            | Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::String
            | Type::Bytes
            | Type::Timestamp
            | Type::Duration
    )
}

fn extreme(items: &[Value], name: &str, wanted: Ordering) -> Evaluated {
    let Some((first, rest)) = items.split_first() else {
        return failed(format!("{name} called on empty list"));
    };
    rest.iter()
        .try_fold(first.clone(), |best, item| match item.compare(&best) {
            Some(order) if order == wanted => Ok(item.clone()),
            Some(_) => Ok(best),
            None => no_overload(),
        })
}

fn join(items: &[Value], by: &str, budget: &mut Budget) -> Evaluated {
    budget.spend((items.len() as u64).saturating_mul(1 + by.len() as u64 / 10))?;
    let texts: Option<Vec<&str>> = items
        .iter()
        .map(|item| match item {
            Value::String(text) => Some(&**text),
            _ => None,
        })
        .collect();
    texts.map_or_else(no_overload, |texts| Ok(Value::text(texts.join(by))))
}
