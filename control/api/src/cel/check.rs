//! The type of an expression, or why it has none: in cel-go's words.

use std::collections::BTreeMap;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::authorizer::REQUEST_RESOURCE;
use super::functions::{self, Signature};
use super::types::{Bindings, Type, filled, fits, join};
use super::{lists, two_variables};

type Result<T> = std::result::Result<T, String>;

pub fn check(expr: &IdedExpr, variables: &[(&str, Type)]) -> Result<Type> {
    let variables = variables
        .iter()
        .map(|(name, ty)| (name.to_string(), ty.clone()));
    let mut checker = Checker {
        scopes: vec![variables.collect()],
    };
    checker.check(expr)
}

struct Checker {
    scopes: Vec<BTreeMap<String, Type>>,
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

fn no_overload(name: &str, target: Option<&Type>, args: &[Type]) -> String {
    let args: Vec<String> = args.iter().map(Type::to_string).collect();
    let shown = match target {
        Some(target) => format!("{target}.({})", args.join(", ")),
        None => format!("({})", args.join(", ")),
    };
    format!("found no matching overload for '{name}' applied to '{shown}'")
}

/// The type of the items of a literal so far and of the next: Kubernetes wants them all alike.
fn alike(before: Type, next: Type) -> Result<Type> {
    let fit = |from: &Type, to: &Type| fits(from, to, &mut Bindings::new());
    match (fit(&next, &before), fit(&before, &next)) {
        (true, true) => Ok(join(&before, &next)),
        (true, false) => Ok(before),
        (false, true) => Ok(next),
        (false, false) => Err(format!("expected type '{before}' but found '{next}'")),
    }
}

fn no_range(found: &Type) -> String {
    format!(
        "expression of type '{found}' cannot be range of a comprehension (must be list, map, or dynamic)"
    )
}

impl Checker {
    fn variable(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn check(&mut self, expr: &IdedExpr) -> Result<Type> {
        match &expr.expr {
            Expr::Unspecified => Err("Syntax error: an expression is missing".into()),
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            }),
            Expr::Ident(name) => match self.variable(name) {
                Some(ty) => Ok(ty.clone()),
                None if functions::is_type(name) => Ok(Type::Type),
                None => Err(undeclared(name)),
            },
            Expr::List(list) => {
                let mut item: Option<Type> = None;
                for (i, element) in list.elements.iter().enumerate() {
                    let mut found = self.check(element)?;
                    if list.optional_indices.contains(&i) {
                        found = self.unwrapped(found)?;
                    }
                    item = Some(match item {
                        None => found,
                        Some(item) => alike(item, found)?,
                    });
                }
                Ok(Type::list(item.unwrap_or(Type::Open("T".into()))))
            }
            Expr::Map(map) => {
                let mut both: Option<(Type, Type)> = None;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        continue;
                    };
                    let key = self.check(&entry.key)?;
                    let mut value = self.check(&entry.value)?;
                    if entry.optional {
                        value = self.unwrapped(value)?;
                    }
                    both = Some(match both {
                        None => (key, value),
                        Some((k, v)) => (alike(k, key)?, alike(v, value)?),
                    });
                }
                let (key, value) = both.unwrap_or((Type::Dyn, Type::Dyn));
                Ok(Type::Map(Box::new(key), Box::new(value)))
            }
            Expr::Struct(value) => Err(undeclared(&value.type_name)),
            Expr::Select(select) => self.select(select),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Call(call) => self.call(call),
        }
    }

    fn unwrapped(&self, ty: Type) -> Result<Type> {
        match ty {
            Type::Optional(inner) => Ok(*inner),
            Type::Dyn => Ok(Type::Dyn),
            other => Err(format!("expected type 'optional_type' but found '{other}'")),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Type> {
        let operand = self.check(&select.operand)?;
        let found = field(&operand, &select.field)?;
        Ok(if select.test { Type::Bool } else { found })
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Result<Type> {
        let range = self.check(&c.iter_range)?;
        let item = match (&range, &c.iter_var2) {
            (_, Some(_)) => {
                return Err("comprehensions with two variables are not supported".into());
            }
            (Type::List(item), _) => (**item).clone(),
            (Type::Map(key, _), _) => (**key).clone(),
            (Type::Dyn, _) => Type::Dyn,
            (other, _) => return Err(no_range(other)),
        };
        let accu = self.check(&c.accu_init)?;
        self.scopes
            .push(BTreeMap::from([(c.accu_var.clone(), accu.clone())]));
        self.scopes
            .push(BTreeMap::from([(c.iter_var.clone(), item)]));
        self.check(&c.loop_cond)?;
        let step = self.check(&c.loop_step)?;
        self.scopes.pop();
        // The step says what a list that began empty is a list of.
        let accu = join(&accu, &step);
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(c.accu_var.clone(), accu);
        }
        let result = self.check(&c.result);
        self.scopes.pop();
        result
    }

    fn call(&mut self, call: &CallExpr) -> Result<Type> {
        let name = call.func_name.as_str();
        if let Some(result) = self.optional_syntax(call)? {
            return Ok(result);
        }
        if let Some(macros) = self.optional_macro(call)? {
            return Ok(macros);
        }
        if let Some(found) = two_variables::of(call) {
            return self.two_variables(&found?);
        }
        if let Some(found) = lists::sort_by(call) {
            return self.sort_by(&found?);
        }
        // `ip.isCanonical(x)`, `optional.of(x)`: a function with a dot in its name.
        let qualified = match call.target.as_deref().map(|t| &t.expr) {
            Some(Expr::Ident(space)) if self.variable(space).is_none() => {
                Some(format!("{space}.{name}"))
            }
            _ => None,
        };
        let args = call
            .args
            .iter()
            .map(|arg| self.check(arg))
            .collect::<Result<Vec<Type>>>()?;
        if let Some(qualified) = qualified {
            return match functions::named(&qualified, false) {
                [] => Err(undeclared(&qualified)),
                signatures => overload(&qualified, signatures, None, &args),
            };
        }
        let target = match &call.target {
            Some(target) => Some(self.check(target)?),
            None => None,
        };
        match functions::named(name, target.is_some()) {
            [] => Err(undeclared(name)),
            signatures => overload(name, signatures, target.as_ref(), &args),
        }
    }

    /// `a.?b` and `a[?b]`.
    fn optional_syntax(&mut self, call: &CallExpr) -> Result<Option<Type>> {
        let [operand, key] = call.args.as_slice() else {
            return Ok(None);
        };
        let inner = |ty: Type| match ty {
            Type::Optional(inner) => *inner,
            other => other,
        };
        let found = match call.func_name.as_str() {
            "_?._" => {
                let operand = inner(self.check(operand)?);
                let Expr::Literal(LiteralValue::String(name)) = &key.expr else {
                    return Err("unsupported optional field selection".into());
                };
                field(&operand, name.inner())?
            }
            "_[?_]" => {
                let operand = inner(self.check(operand)?);
                let key = self.check(key)?;
                overload(
                    "_[_]",
                    functions::named("_[_]", false),
                    None,
                    &[operand, key],
                )?
            }
            // An optional's field is optional.
            "_[_]" => {
                let Type::Optional(operand) = self.check(operand)? else {
                    return Ok(None);
                };
                let key = self.check(key)?;
                overload(
                    "_[_]",
                    functions::named("_[_]", false),
                    None,
                    &[*operand, key],
                )?
            }
            _ => return Ok(None),
        };
        Ok(Some(match found {
            already @ Type::Optional(_) => already,
            found => Type::optional(found),
        }))
    }

    fn two_variables(&mut self, found: &two_variables::Macro<'_>) -> Result<Type> {
        let range = self.check(found.range)?;
        let Some((first, second)) = two_variables::variables(&range) else {
            return Err(no_range(&range));
        };
        let scope = [(found.first, first.clone()), (found.second, second)];
        let scope = scope.map(|(name, ty)| (name.to_string(), ty));
        self.scopes.push(BTreeMap::from(scope));
        let checked = self.two_bodies(found, &first);
        self.scopes.pop();
        checked
    }

    fn sort_by(&mut self, found: &lists::SortBy<'_>) -> Result<Type> {
        let range = self.check(found.range)?;
        let item = match &range {
            Type::List(item) => (**item).clone(),
            Type::Dyn => Type::Dyn,
            _ => return Err(no_range(&range)),
        };
        self.scopes
            .push(BTreeMap::from([(found.name.to_string(), item.clone())]));
        let key = self.check(found.key);
        self.scopes.pop();
        let key = key?;
        if !lists::sorts(&key) {
            let keys = [Type::list(key)];
            return Err(no_overload("@sortByAssociatedKeys", Some(&range), &keys));
        }
        Ok(Type::list(item))
    }

    fn two_bodies(&mut self, found: &two_variables::Macro<'_>, first: &Type) -> Result<Type> {
        if let Some(filter) = found.filter {
            let filter = self.check(filter)?;
            if !matches!(filter, Type::Bool | Type::Dyn) {
                return Err(format!("expected type 'bool' but found '{filter}'"));
            }
        }
        let body = self.check(found.body)?;
        two_variables::result(found.kind, first, &body)
    }

    /// `o.optMap(v, expr)` and `o.optFlatMap(v, expr)`.
    fn optional_macro(&mut self, call: &CallExpr) -> Result<Option<Type>> {
        let flat = match call.func_name.as_str() {
            "optMap" => false,
            "optFlatMap" => true,
            _ => return Ok(None),
        };
        let (Some(target), [variable, body]) = (&call.target, call.args.as_slice()) else {
            return Ok(None);
        };
        let Expr::Ident(variable) = &variable.expr else {
            return Err(format!(
                "{}() variable name must be a simple identifier",
                call.func_name
            ));
        };
        let inner = self.check(target)?;
        let inner = self.unwrapped(inner)?;
        self.scopes
            .push(BTreeMap::from([(variable.clone(), inner)]));
        let body = self.check(body);
        self.scopes.pop();
        Ok(Some(match (flat, body?) {
            (true, body) => Type::optional(self.unwrapped(body)?),
            (false, body) => Type::optional(body),
        }))
    }
}

fn field(operand: &Type, name: &str) -> Result<Type> {
    match operand {
        Type::Dyn => Ok(Type::Dyn),
        Type::Authorizer if name == REQUEST_RESOURCE => Ok(Type::ResourceCheck),
        Type::Object(object) => match object.fields.get(name) {
            Some(ty) => Ok(ty.clone()),
            None => Err(format!("undefined field '{name}'")),
        },
        Type::Map(key, value) if matches!(**key, Type::String | Type::Dyn) => Ok((**value).clone()),
        Type::Optional(inner) => Ok(match field(inner, name)? {
            already @ Type::Optional(_) => already,
            found => Type::optional(found),
        }),
        other => Err(format!("type '{other}' does not support field selection")),
    }
}

fn overload(
    name: &str,
    signatures: &[Signature],
    target: Option<&Type>,
    args: &[Type],
) -> Result<Type> {
    let mut found: Option<Type> = None;
    for signature in signatures {
        let mut bindings = Bindings::new();
        let matches = signature.args.len() == args.len()
            && match (&signature.target, target) {
                (Some(wanted), Some(target)) => fits(target, wanted, &mut bindings),
                (None, None) => true,
                _ => false,
            }
            && args
                .iter()
                .zip(&signature.args)
                .all(|(arg, wanted)| fits(arg, wanted, &mut bindings));
        if matches {
            let result = filled(&signature.result, &bindings);
            // Of something dynamic several may match, with results that differ.
            found = Some(found.map_or(result.clone(), |found| join(&found, &result)));
        }
    }
    found.ok_or_else(|| no_overload(name, target, args))
}
