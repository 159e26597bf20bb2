//! Evaluation within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::authorizer::REQUEST_RESOURCE;
use super::functions;
use super::patterns::Patterns;
use super::value::{Key, Value};
use super::{arithmetic, library, lists, two_variables};

/// What evaluations together may still cost: some unit a step, and one for each ten bytes that a
/// step looks at.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    #[error("{0}")]
    Failed(String),
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
}

impl Budget {
    pub fn new(units: u64) -> Budget {
        Budget { left: units }
    }

    /// At most `units` of this budget, which are taken off it afterwards.
    pub fn part<T>(&mut self, units: u64, work: impl FnOnce(&mut Budget) -> T) -> T {
        let granted = units.min(self.left);
        let mut part = Budget { left: granted };
        let result = work(&mut part);
        self.left -= granted - part.left;
        result
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    pub fn spend(&mut self, units: u64) -> Result<(), EvalError> {
        match self.left.checked_sub(units) {
            Some(left) if left > 0 => {
                self.left = left;
                Ok(())
            }
            _ => {
                self.left = 0;
                Err(EvalError::Budget)
            }
        }
    }
}

pub type Evaluated = Result<Value, EvalError>;

pub fn failed<T>(why: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(why.into()))
}

pub fn no_overload<T>() -> Result<T, EvalError> {
    failed("no such overload")
}

pub fn evaluate(
    expr: &IdedExpr,
    patterns: &Patterns,
    variables: &BTreeMap<&str, Value>,
    budget: &mut Budget,
) -> Evaluated {
    let mut machine = Machine {
        variables: variables
            .iter()
            .map(|(k, v)| (k.to_string(), v.clone()))
            .collect(),
        patterns,
        budget,
    };
    machine.eval(expr)
}

struct Machine<'a> {
    /// The innermost last.
    variables: Vec<(String, Value)>,
    patterns: &'a Patterns,
    budget: &'a mut Budget,
}

impl Machine<'_> {
    fn eval(&mut self, expr: &IdedExpr) -> Evaluated {
        self.budget.spend(1)?;
        match &expr.expr {
            Expr::Unspecified | Expr::Struct(_) => failed("unsupported expression"),
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (i, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element)?;
                    match value {
                        Value::Optional(inner) if list.optional_indices.contains(&i) => {
                            items.extend(inner.map(|v| (*v).clone()));
                        }
                        value => items.push(value),
                    }
                }
                Ok(Value::list(items))
            }
            Expr::Map(map) => {
                let mut out = BTreeMap::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return failed("unsupported expression");
                    };
                    let key = self.eval(&entry.key)?;
                    let Some(key) = Key::of(&key) else {
                        return failed(format!("unsupported key type: {}", key.type_name()));
                    };
                    let value = match (self.eval(&entry.value)?, entry.optional) {
                        (Value::Optional(None), true) => continue,
                        (Value::Optional(Some(value)), true) => (*value).clone(),
                        (value, _) => value,
                    };
                    if out.insert(key, value).is_some() {
                        return failed("Failed with repeated key");
                    }
                }
                Ok(Value::Map(Arc::new(out)))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Call(call) => self.call(call),
        }
    }

    fn variable(&mut self, name: &str) -> Evaluated {
        let found = self.variables.iter().rev().find(|(n, _)| n == name);
        match found {
            Some((_, Value::Failed(why))) => failed(&**why),
            Some((_, value)) => Ok(value.clone()),
            None if functions::is_type(name) => Ok(Value::Type(name.into())),
            None => failed(format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Evaluated {
        let operand = self.eval(&select.operand)?;
        if select.test {
            return Ok(Value::Bool(field(&operand, &select.field)?.is_some()));
        }
        if let Value::Optional(inner) = &operand {
            return optional_field(inner.as_deref(), &select.field);
        }
        match field(&operand, &select.field)? {
            Some(Value::Failed(why)) => failed(&*why),
            Some(value) => Ok(value),
            None => failed(format!("no such key: {}", select.field)),
        }
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Evaluated {
        let range = self.eval(&c.iter_range)?;
        let accu = self.eval(&c.accu_init)?;
        let depth = self.variables.len();
        self.variables.push((c.accu_var.clone(), accu));
        // The items stay where they are: a list inside a list is gone through many times.
        let result = match &range {
            Value::List(list) => self.steps(c, depth, &mut list.items.iter().cloned()),
            Value::Map(map) => self.steps(c, depth, &mut map.keys().map(Key::value)),
            _ => no_overload(),
        };
        let result = result.and_then(|()| self.eval(&c.result));
        self.variables.truncate(depth);
        result
    }

    fn steps(
        &mut self,
        c: &ComprehensionExpr,
        accu: usize,
        items: &mut dyn Iterator<Item = Value>,
    ) -> Result<(), EvalError> {
        for item in items {
            if let Value::Bool(false) = self.eval(&c.loop_cond)? {
                break;
            }
            self.variables.push((c.iter_var.clone(), item));
            let step = self.eval(&c.loop_step);
            self.variables.truncate(accu + 1);
            self.variables[accu].1 = match step {
                Ok(value) => value,
                // A later element may decide all the same.
                Err(EvalError::Failed(why)) => Value::Failed(why.into()),
                Err(spent) => return Err(spent),
            };
        }
        Ok(())
    }

    fn call(&mut self, call: &CallExpr) -> Evaluated {
        let args = call.args.as_slice();
        match (call.func_name.as_str(), args) {
            ("_&&_", [left, right]) => self.logic(left, right, false),
            ("_||_", [left, right]) => self.logic(left, right, true),
            ("_?_:_", [condition, yes, no]) => match self.eval(condition)? {
                Value::Bool(true) => self.eval(yes),
                Value::Bool(false) => self.eval(no),
                _ => no_overload(),
            },
            ("@not_strictly_false", [value]) => match self.eval(value) {
                Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
                Err(EvalError::Budget) => Err(EvalError::Budget),
                _ => Ok(Value::Bool(true)),
            },
            ("_+_", [left, right]) => self.add(left, right),
            ("_?._", [operand, name]) => {
                let operand = self.eval(operand)?;
                let Expr::Literal(LiteralValue::String(name)) = &name.expr else {
                    return no_overload();
                };
                match &operand {
                    Value::Optional(inner) => optional_field(inner.as_deref(), name.inner()),
                    other => optional_field(Some(other), name.inner()),
                }
            }
            ("_[?_]", [operand, key]) => {
                let operand = self.eval(operand)?;
                let key = self.eval(key)?;
                Ok(optional_index(&operand, &key))
            }
            ("optMap" | "optFlatMap", [variable, body]) if call.target.is_some() => {
                self.optional_map(call, variable, body)
            }
            _ => match two_variables::of(call) {
                Some(Ok(found)) => self.two_variables(&found),
                Some(Err(why)) => failed(why),
                None => match lists::sort_by(call) {
                    Some(Ok(found)) => self.sort_by(&found),
                    Some(Err(why)) => failed(why),
                    None => self.function(call),
                },
            },
        }
    }

    fn two_variables(&mut self, found: &two_variables::Macro<'_>) -> Evaluated {
        let range = self.eval(found.range)?;
        match &range {
            Value::List(list) => {
                let items = list.items.iter().cloned();
                self.pairs(found, &mut (0..).map(Value::Int).zip(items))
            }
            Value::Map(map) => {
                self.pairs(found, &mut map.iter().map(|(k, v)| (k.value(), v.clone())))
            }
            _ => no_overload(),
        }
    }

    fn pairs(
        &mut self,
        found: &two_variables::Macro<'_>,
        pairs: &mut dyn Iterator<Item = (Value, Value)>,
    ) -> Evaluated {
        let depth = self.variables.len();
        let mut made = two_variables::Made::new(found.kind);
        for (first, second) in pairs {
            let key = Key::of(&first);
            self.variables.push((found.first.to_string(), first));
            self.variables.push((found.second.to_string(), second));
            let kept = match found.filter {
                Some(filter) => self.eval(filter),
                None => Ok(Value::Bool(true)),
            };
            let step = match kept {
                Ok(Value::Bool(true)) => Some(self.eval(found.body)),
                Ok(Value::Bool(false)) => None,
                Ok(_) => Some(no_overload()),
                Err(error) => Some(Err(error)),
            };
            self.variables.truncate(depth);
            let Some(step) = step else {
                continue;
            };
            if let Ok(value) = &step {
                self.budget.spend(value.weight())?;
            }
            if made.add(key, step)? {
                break;
            }
        }
        made.end()
    }

    fn sort_by(&mut self, found: &lists::SortBy<'_>) -> Evaluated {
        let Value::List(list) = self.eval(found.range)? else {
            return no_overload();
        };
        let depth = self.variables.len();
        let mut keys = Vec::with_capacity(list.items.len());
        for item in &list.items {
            self.variables.push((found.name.to_string(), item.clone()));
            let key = self.eval(found.key);
            self.variables.truncate(depth);
            keys.push(key?);
        }
        lists::sorted(&list.items, &keys, self.budget)
    }

    fn function(&mut self, call: &CallExpr) -> Evaluated {
        let space = match call.target.as_deref().map(|t| &t.expr) {
            Some(Expr::Ident(name)) if !self.variables.iter().any(|(n, _)| n == name) => Some(name),
            _ => None,
        };
        let name = match space {
            Some(space) => format!("{space}.{}", call.func_name),
            None => call.func_name.clone(),
        };
        let mut values = Vec::with_capacity(call.args.len() + 1);
        if let (Some(target), None) = (&call.target, space) {
            values.push(self.eval(target)?);
        }
        for arg in &call.args {
            values.push(self.eval(arg)?);
        }
        // What a function looks at, it may look at all of.
        let weight: u64 = match name.as_str() {
            "_[_]" | "size" => 1,
            _ => values.iter().map(Value::weight).sum(),
        };
        self.budget.spend(weight)?;
        let on_target = call.target.is_some() && space.is_none();
        let found = arithmetic::operator(&name, &values);
        match found.or_else(|| self.patterns.call(&name, &values, self.budget)) {
            Some(result) => result,
            None => library::call(&name, on_target, &values, self.budget),
        }
    }

    /// The side that decides does, even if the other can't be evaluated.
    fn logic(&mut self, left: &IdedExpr, right: &IdedExpr, decisive: bool) -> Evaluated {
        let left = self.eval(left);
        if matches!(left, Ok(Value::Bool(b)) if b == decisive) || left == Err(EvalError::Budget) {
            return left;
        }
        let right = self.eval(right);
        if matches!(right, Ok(Value::Bool(b)) if b == decisive) || right == Err(EvalError::Budget) {
            return right;
        }
        match (left?, right?) {
            (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!decisive)),
            _ => no_overload(),
        }
    }

    /// A comprehension's list grows in place.
    fn add(&mut self, left: &IdedExpr, right: &IdedExpr) -> Evaluated {
        let accu = match &left.expr {
            Expr::Ident(name) if name == "@result" => {
                self.variables.iter().rposition(|(n, _)| n == name)
            }
            _ => None,
        };
        let (left, right) = match accu {
            Some(at) => {
                let right = self.eval(right)?;
                // The step's result takes its place at once.
                (
                    std::mem::replace(&mut self.variables[at].1, Value::Null),
                    right,
                )
            }
            None => (self.eval(left)?, self.eval(right)?),
        };
        if let Value::Failed(why) = left {
            return failed(&*why);
        }
        let weight = match accu {
            Some(_) => right.weight(),
            None => left.weight() + right.weight(),
        };
        self.budget.spend(weight)?;
        arithmetic::add(left, right)
    }

    fn optional_map(&mut self, call: &CallExpr, variable: &IdedExpr, body: &IdedExpr) -> Evaluated {
        let (Some(target), Expr::Ident(variable)) = (&call.target, &variable.expr) else {
            return no_overload();
        };
        let inner = match self.eval(target)? {
            Value::Optional(Some(inner)) => (*inner).clone(),
            Value::Optional(None) => return Ok(Value::none()),
            _ => return no_overload(),
        };
        let depth = self.variables.len();
        self.variables.push((variable.clone(), inner));
        let result = self.eval(body);
        self.variables.truncate(depth);
        match (call.func_name.as_str(), result?) {
            ("optMap", value) => Ok(Value::some(value)),
            (_, value @ Value::Optional(_)) => Ok(value),
            _ => no_overload(),
        }
    }
}

fn constant(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
        LiteralValue::Bytes(b) => Value::Bytes(b.inner().into()),
        LiteralValue::Double(d) => Value::Double(*d.inner()),
        LiteralValue::Int(n) => Value::Int(*n.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(s) => Value::text(s.inner()),
        LiteralValue::UInt(n) => Value::Uint(*n.inner()),
    }
}

fn field(operand: &Value, name: &str) -> Result<Option<Value>, EvalError> {
    match operand {
        Value::Map(map) => Ok(map.get(&Key::String(name.into())).cloned()),
        Value::Question(question) if name == REQUEST_RESOURCE => {
            Ok(Some(question.request_resource()))
        }
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(inner)) => field(inner, name),
        Value::Null => failed(format!("no such key: {name}")),
        _ => no_overload(),
    }
}

fn optional_field(operand: Option<&Value>, name: &str) -> Evaluated {
    let found = match operand {
        Some(operand) => field(operand, name)?,
        None => None,
    };
    Ok(found.map_or_else(Value::none, Value::some))
}

fn optional_index(operand: &Value, key: &Value) -> Value {
    let found = match operand {
        Value::Optional(Some(inner)) => arithmetic::index(inner, key).ok(),
        Value::Optional(None) => None,
        other => arithmetic::index(other, key).ok(),
    };
    found.map_or_else(Value::none, Value::some)
}
