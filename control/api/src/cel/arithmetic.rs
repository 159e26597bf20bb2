//! Operators.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::eval::{Evaluated, failed, no_overload};
use super::value::{Key, Value};

/// The result of an operator; `None` if the name is none's.
pub fn operator(name: &str, values: &[Value]) -> Option<Evaluated> {
    let ordered = |fits: fn(Ordering) -> bool| match values {
        [a, b] => Some(match (a.compare(b), a, b) {
            (Some(ordering), ..) => Ok(Value::Bool(fits(ordering))),
            // NaN has no order, and is not an error.
            (None, Value::Double(_), _) | (None, _, Value::Double(_)) => Ok(Value::Bool(false)),
            _ => no_overload(),
        }),
        _ => None,
    };
    match (name, values) {
        ("_==_", [a, b]) => Some(Ok(Value::Bool(a == b))),
        ("_!=_", [a, b]) => Some(Ok(Value::Bool(a != b))),
        ("_<_", _) => ordered(|o| o == Ordering::Less),
        ("_<=_", _) => ordered(|o| o != Ordering::Greater),
        ("_>_", _) => ordered(|o| o == Ordering::Greater),
        ("_>=_", _) => ordered(|o| o != Ordering::Less),
        ("!_", [Value::Bool(b)]) => Some(Ok(Value::Bool(!b))),
        ("-_", [value]) => Some(negate(value)),
        ("_-_", [a, b]) => Some(subtract(a, b)),
        ("_*_", [a, b]) => Some(multiply(a, b)),
        ("_/_", [a, b]) => Some(divide(a, b)),
        ("_%_", [a, b]) => Some(modulo(a, b)),
        ("@in", [item, range]) => Some(contains(item, range)),
        ("_[_]", [operand, key]) => Some(match operand {
            Value::Optional(Some(inner)) => index(inner, key).map(Value::some),
            Value::Optional(None) => Ok(Value::none()),
            other => index(other, key),
        }),
        _ => None,
    }
}

fn whole<T>(result: Option<T>, of: fn(T) -> Value, kind: &str) -> Evaluated {
    match result {
        Some(number) => Ok(of(number)),
        None => failed(format!("{kind} overflow")),
    }
}

fn int(result: Option<i64>) -> Evaluated {
    whole(result, Value::Int, "integer")
}

fn uint(result: Option<u64>) -> Evaluated {
    whole(result, Value::Uint, "unsigned integer")
}

fn duration(result: Option<i64>) -> Evaluated {
    whole(result, Value::Duration, "duration")
}

fn timestamp(result: Result<Timestamp, jiff::Error>) -> Evaluated {
    whole(result.ok(), Value::Timestamp, "timestamp")
}

fn negate(value: &Value) -> Evaluated {
    match value {
        Value::Int(n) => int(n.checked_neg()),
        Value::Double(n) => Ok(Value::Double(-n)),
        _ => no_overload(),
    }
}

pub fn add(left: Value, right: Value) -> Evaluated {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::text([&*a, &*b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&*a, &*b].concat().into())),
        (Value::List(a), Value::List(b)) => {
            let list = Arc::try_unwrap(a).unwrap_or_else(|shared| (*shared).clone());
            Ok(Value::List(Arc::new(list.plus(&b))))
        }
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            timestamp(t.checked_add(SignedDuration::from_nanos(d)))
        }
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(b)),
        _ => no_overload(),
    }
}

fn subtract(a: &Value, b: &Value) -> Evaluated {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let apart = a.duration_since(*b).as_nanos();
            duration(i64::try_from(apart).ok())
        }
        (Value::Timestamp(t), Value::Duration(d)) => {
            timestamp(t.checked_sub(SignedDuration::from_nanos(*d)))
        }
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        _ => no_overload(),
    }
}

fn multiply(a: &Value, b: &Value) -> Evaluated {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide(a: &Value, b: &Value) -> Evaluated {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            failed("division by zero")
        }
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo(a: &Value, b: &Value) -> Evaluated {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            failed("modulus by zero")
        }
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

fn contains(item: &Value, range: &Value) -> Evaluated {
    match range {
        Value::List(list) => Ok(Value::Bool(list.items.contains(item))),
        Value::Map(map) => Ok(Value::Bool(
            Key::of(item).is_some_and(|key| map.contains_key(&key)),
        )),
        _ => no_overload(),
    }
}

pub fn index(operand: &Value, key: &Value) -> Evaluated {
    match operand {
        Value::List(list) => {
            let at = match Key::of(key) {
                Some(Key::Int(at)) => at,
                _ => return no_overload(),
            };
            let found = usize::try_from(at).ok().and_then(|at| list.items.get(at));
            match found {
                Some(value) => Ok(value.clone()),
                None => failed(format!("index out of bounds: {at}")),
            }
        }
        Value::Map(map) => match Key::of(key).and_then(|key| map.get(&key)) {
            Some(value) => Ok(value.clone()),
            None => failed(format!("no such key: {}", shown(key))),
        },
        _ => no_overload(),
    }
}

fn shown(key: &Value) -> String {
    match key {
        Value::String(s) => s.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        other => other.type_name(),
    }
}
