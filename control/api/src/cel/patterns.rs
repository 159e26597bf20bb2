//! Regular expressions. Those that an expression spells out are compiled with it, so that a
//! comprehension doesn't compile them for each item.
//! Source: Kubernetes `pkg/cel/library/regex.go`, cel-go's validators of literals.

use std::borrow::Cow;
use std::collections::HashMap;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use regex::Regex;

use super::eval::{Budget, EvalError, Evaluated};
use super::value::Value;
use crate::crd::format;
use crate::crd::pattern::regex;
use crate::time;

/// By their text.
#[derive(Clone, Debug, Default)]
pub struct Patterns(HashMap<String, Regex>);

impl Patterns {
    /// Those of an expression; or what is wrong with a literal that stands for something else.
    pub fn of(expr: &IdedExpr) -> Result<Patterns, String> {
        let mut patterns = Patterns::default();
        patterns.collect(expr)?;
        Ok(patterns)
    }

    fn collect(&mut self, expr: &IdedExpr) -> Result<(), String> {
        if let Expr::Call(call) = &expr.expr
            && let Some(text) = literal(call)
        {
            let name = call.func_name.as_str();
            let fits = match name {
                "duration" => format::nanoseconds(text).is_some(),
                "timestamp" => time::parse(text).is_some(),
                "matches" | "find" | "findAll" => {
                    let compiled = regex(text).ok();
                    let fits = compiled.is_some() || name != "matches";
                    self.0.extend(compiled.map(|c| (text.to_string(), c)));
                    fits
                }
                _ => true,
            };
            if !fits {
                return Err(format!("invalid {name} argument"));
            }
        }
        super::children(expr)
            .into_iter()
            .try_for_each(|child| self.collect(child))
    }

    fn compiled(&self, pattern: &str, budget: &mut Budget) -> Result<Cow<'_, Regex>, EvalError> {
        if let Some(found) = self.0.get(pattern) {
            return Ok(Cow::Borrowed(found));
        }
        budget.spend((pattern.len() as u64 + 100).saturating_mul(repeated(pattern)))?;
        match regex(pattern) {
            Ok(compiled) => Ok(Cow::Owned(compiled)),
            Err(error) => Err(EvalError::Failed(format!("error parsing regexp: {error}"))),
        }
    }

    /// `matches`, `find` and `findAll`.
    pub fn call(&self, name: &str, values: &[Value], budget: &mut Budget) -> Option<Evaluated> {
        let [Value::String(text), Value::String(pattern), rest @ ..] = values else {
            return None;
        };
        let most = match (name, rest) {
            ("matches" | "find" | "findAll", []) => usize::MAX,
            ("findAll", [Value::Int(most)]) => usize::try_from(*most).unwrap_or(usize::MAX),
            _ => return None,
        };
        Some(self.search(name, text, pattern, most, budget))
    }

    fn search(
        &self,
        name: &str,
        text: &str,
        pattern: &str,
        most: usize,
        budget: &mut Budget,
    ) -> Evaluated {
        // As Kubernetes has it: a tenth of the text times a quarter of the pattern.
        let cost = (text.len() as u64 / 10 + 1).saturating_mul(pattern.len() as u64 / 4 + 1);
        budget.spend(cost)?;
        let pattern = self.compiled(pattern, budget)?;
        Ok(match name {
            "matches" => Value::Bool(pattern.is_match(text)),
            "find" => Value::text(pattern.find(text).map_or("", |m| m.as_str())),
            _ => {
                let found = pattern.find_iter(text).take(most);
                Value::list(found.map(|m| Value::text(m.as_str())).collect())
            }
        })
    }
}

/// The text that stands where a function takes what it must be able to read.
fn literal(call: &CallExpr) -> Option<&str> {
    let at = usize::from(call.target.is_none() && call.func_name == "matches");
    match &call.args.get(at)?.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// How many times a pattern's repetitions make it larger than it is written, at most.
fn repeated(pattern: &str) -> u64 {
    let counts = pattern.split('{').skip(1).filter_map(|rest| {
        let (inner, _) = rest.split_once('}')?;
        inner.split(',').filter_map(|n| n.parse::<u64>().ok()).max()
    });
    counts.fold(1_u64, |product, n| product.saturating_mul(n.max(1)))
}
