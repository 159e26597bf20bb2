//! Comprehensions over two variables: a list's index and item, a map's key and value. The parser
//! leaves them as calls. Source: cel-go `ext/comprehensions.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr};

use super::eval::{EvalError, Evaluated, failed, no_overload};
use super::types::Type;
use super::value::{Key, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    All,
    Exists,
    ExistsOne,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

/// A call that is one of them.
pub struct Macro<'a> {
    pub kind: Kind,
    pub range: &'a IdedExpr,
    pub first: &'a str,
    pub second: &'a str,
    /// Of a transformation, if it has one.
    pub filter: Option<&'a IdedExpr>,
    pub body: &'a IdedExpr,
}

/// `None` if the call is no such macro; an error if it is one with something else than names.
pub fn of(call: &CallExpr) -> Option<Result<Macro<'_>, String>> {
    let range = call.target.as_deref()?;
    let (kind, most) = match call.func_name.as_str() {
        "all" => (Kind::All, 3),
        "exists" => (Kind::Exists, 3),
        "existsOne" | "exists_one" => (Kind::ExistsOne, 3),
        "transformList" => (Kind::TransformList, 4),
        "transformMap" => (Kind::TransformMap, 4),
        "transformMapEntry" => (Kind::TransformMapEntry, 4),
        _ => return None,
    };
    let (first, second, rest) = match call.args.as_slice() {
        [first, second, rest @ ..] if (1..=most - 2).contains(&rest.len()) => (first, second, rest),
        _ => return None,
    };
    let (Expr::Ident(first), Expr::Ident(second)) = (&first.expr, &second.expr) else {
        return Some(Err("argument must be a simple name".into()));
    };
    if first == second {
        return Some(Err(format!("duplicate variable name: {first}")));
    }
    let (filter, body) = match rest {
        [body] => (None, body),
        [filter, body] => (Some(filter), body),
        _ => return None,
    };
    Some(Ok(Macro {
        kind,
        range,
        first,
        second,
        filter,
        body,
    }))
}

/// The types of the two variables.
pub fn variables(range: &Type) -> Option<(Type, Type)> {
    Some(match range {
        Type::List(item) => (Type::Int, (**item).clone()),
        Type::Map(key, value) => ((**key).clone(), (**value).clone()),
        Type::Dyn => (Type::Dyn, Type::Dyn),
        _ => return None,
    })
}

/// The type of the whole, or why there is none.
pub fn result(kind: Kind, first: &Type, body: &Type) -> Result<Type, String> {
    match (kind, body) {
        (Kind::All | Kind::Exists | Kind::ExistsOne, Type::Bool | Type::Dyn) => Ok(Type::Bool),
        (Kind::All | Kind::Exists | Kind::ExistsOne, other) => {
            Err(format!("expected type 'bool' but found '{other}'"))
        }
        (Kind::TransformList, body) => Ok(Type::list(body.clone())),
        (Kind::TransformMap, body) => {
            Ok(Type::Map(Box::new(first.clone()), Box::new(body.clone())))
        }
        (Kind::TransformMapEntry, entry @ Type::Map(..)) => Ok(entry.clone()),
        (Kind::TransformMapEntry, Type::Dyn) => Ok(Type::Dyn),
        (Kind::TransformMapEntry, other) => Err(format!("expected type 'map' but found '{other}'")),
    }
}

/// What has been made so far.
pub enum Made {
    /// The value that decides, how many had it, and what failed on the way.
    Logic {
        kind: Kind,
        count: usize,
        failed: Option<EvalError>,
    },
    List(Vec<Value>),
    Map {
        entries: bool,
        made: BTreeMap<Key, Value>,
    },
}

impl Made {
    pub fn new(kind: Kind) -> Made {
        match kind {
            Kind::All | Kind::Exists | Kind::ExistsOne => Made::Logic {
                kind,
                count: 0,
                failed: None,
            },
            Kind::TransformList => Made::List(Vec::new()),
            Kind::TransformMap | Kind::TransformMapEntry => Made::Map {
                entries: kind == Kind::TransformMapEntry,
                made: BTreeMap::new(),
            },
        }
    }

    /// Takes what the body gave. Says whether the rest doesn't matter.
    pub fn add(&mut self, key: Option<Key>, step: Evaluated) -> Result<bool, EvalError> {
        match self {
            Made::Logic {
                kind,
                count,
                failed,
            } => match step {
                Ok(Value::Bool(b)) => {
                    let decides = match kind {
                        Kind::All => !b,
                        _ => b,
                    };
                    *count += usize::from(decides);
                    Ok(decides && *kind != Kind::ExistsOne)
                }
                Ok(_) => no_overload().map(|_: ()| false),
                // Another one may decide all the same.
                Err(error @ EvalError::Failed(_)) if *kind != Kind::ExistsOne => {
                    failed.get_or_insert(error);
                    Ok(false)
                }
                Err(error) => Err(error),
            },
            Made::List(items) => {
                items.push(step?);
                Ok(false)
            }
            Made::Map { entries, made } => {
                let value = step?;
                let pairs: Vec<(Key, Value)> = match (*entries, value, key) {
                    (true, Value::Map(map), _) => {
                        map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
                    }
                    (false, value, Some(key)) => vec![(key, value)],
                    _ => return no_overload(),
                };
                for (key, value) in pairs {
                    if made.insert(key, value).is_some() {
                        return failed("insert failed: key already exists");
                    }
                }
                Ok(false)
            }
        }
    }

    pub fn end(self) -> Evaluated {
        match self {
            Made::Logic {
                kind: Kind::ExistsOne,
                count,
                ..
            } => Ok(Value::Bool(count == 1)),
            Made::Logic {
                kind,
                count,
                failed,
            } => match (count, failed) {
                (0, Some(error)) => Err(error),
                (0, None) => Ok(Value::Bool(kind == Kind::All)),
                _ => Ok(Value::Bool(kind == Kind::Exists)),
            },
            Made::List(items) => Ok(Value::list(items)),
            Made::Map { made, .. } => Ok(Value::Map(Arc::new(made))),
        }
    }
}
