//! Rules in the Common Expression Language, as Kubernetes' API has them: parsed by the crate `cel`,
//! checked against the types of what they are about, and evaluated within a budget.
//!
//! Evaluation is our own: the crate's interpreter neither knows types before it runs (a rule about
//! a field that doesn't exist must be refused when it is written) nor bounds its work (a rule is
//! written by one user, and evaluated for all).

mod arithmetic;
mod authorizer;
mod check;
mod declared;
mod eval;
mod functions;
mod library;
mod list_kinds;
mod lists;
mod named_format;
mod network;
mod patterns;
mod semver;
mod text;
mod two_variables;
mod types;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::parser::Parser;

pub use authorizer::{Asked, Authorize, Decision, Question};
pub use declared::{declared, dynamic, map};
pub use eval::{Budget, EvalError};
pub use types::{Object, Type, declare, escape};
pub use value::{Value, of_json};

/// The longest rule, and the deepest: both its parsing and its evaluation take stack for it.
const MAX_LENGTH: usize = 16 << 10;
const MAX_DEPTH: usize = 100;
/// The parser that the crate generates takes much of it.
const PARSER_STACK: usize = 64 << 20;

/// An expression that has been checked.
#[derive(Clone, Debug)]
pub struct Program {
    expr: std::sync::Arc<IdedExpr>,
    patterns: std::sync::Arc<patterns::Patterns>,
    /// The type of what it evaluates to.
    pub result: Type,
    /// Whether it names the variable.
    uses: Vec<String>,
}

impl Program {
    /// Compiles an expression over these variables. The error says what is wrong as cel-go does.
    pub fn compile(source: &str, variables: &[(&str, Type)]) -> Result<Program, String> {
        let expr = parse(source)?;
        let result = check::check(&expr, variables)?;
        let patterns = patterns::Patterns::of(&expr)?;
        let mut uses = Vec::new();
        names(&expr, &mut uses);
        Ok(Program {
            expr: std::sync::Arc::new(expr),
            patterns: std::sync::Arc::new(patterns),
            result,
            uses,
        })
    }

    pub fn uses(&self, variable: &str) -> bool {
        self.uses.iter().any(|u| u == variable)
    }

    /// The fields of a variable that the expression names; `None` if it may name any.
    pub fn fields(&self, variable: &str) -> Option<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        fields(&self.expr, variable, &mut found).then_some(found)
    }

    pub fn evaluate(
        &self,
        variables: &BTreeMap<&str, Value>,
        budget: &mut Budget,
    ) -> Result<Value, EvalError> {
        eval::evaluate(&self.expr, &self.patterns, variables, budget)
    }
}

/// Parses on a stack of its own: the depth of what is refused shows only after it was parsed.
fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > MAX_LENGTH {
        return Err(format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}",
            source.len()
        ));
    }
    let source = source.to_string();
    let work = move || {
        let parsed = Parser::new().enable_optional_syntax(true).parse(&source);
        let expr = parsed.map_err(|errors| {
            let texts: Vec<String> = errors
                .errors
                .iter()
                .map(|e| {
                    format!(
                        "ERROR: <input>:{}:{}: Syntax error: {}",
                        e.pos.0, e.pos.1, e.msg
                    )
                })
                .collect();
            texts.join("\n")
        })?;
        match depth(&expr) > MAX_DEPTH {
            true => Err(format!("expression recursion limit exceeded: {MAX_DEPTH}")),
            false => Ok(expr),
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(PARSER_STACK)
        .spawn(work);
    let thread = thread.map_err(|e| format!("the expression can't be parsed: {e}"))?;
    thread
        .join()
        .unwrap_or_else(|_| Err("the expression can't be parsed".into()))
}

/// The expressions directly below one.
fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).collect(),
        Expr::Comprehension(c) => vec![
            &c.iter_range,
            &c.accu_init,
            &c.loop_cond,
            &c.loop_step,
            &c.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => entries(&map.entries),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(value) => entries(&value.entries),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entries(entries: &[cel::common::ast::IdedEntryExpr]) -> Vec<&IdedExpr> {
    entries
        .iter()
        .flat_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(field) => vec![&field.value],
        })
        .collect()
}

fn depth(expr: &IdedExpr) -> usize {
    1 + children(expr).into_iter().map(depth).max().unwrap_or(0)
}

fn names(expr: &IdedExpr, found: &mut Vec<String>) {
    if let Expr::Ident(name) = &expr.expr {
        found.push(name.clone());
    }
    children(expr)
        .into_iter()
        .for_each(|child| names(child, found));
}

/// Adds the fields of a variable that are named; says whether it is named in no other way.
fn fields(expr: &IdedExpr, variable: &str, found: &mut BTreeSet<String>) -> bool {
    let is_it = |expr: &IdedExpr| matches!(&expr.expr, Expr::Ident(name) if name == variable);
    match &expr.expr {
        Expr::Ident(name) => return name != variable,
        Expr::Select(select) if is_it(&select.operand) => {
            found.insert(select.field.clone());
            return true;
        }
        Expr::Call(call) if call.func_name == "_?._" => {
            if let [operand, name] = call.args.as_slice()
                && let Expr::Literal(LiteralValue::String(name)) = &name.expr
                && is_it(operand)
            {
                found.insert(name.inner().to_string());
                return true;
            }
        }
        _ => {}
    }
    children(expr)
        .into_iter()
        .all(|child| fields(child, variable, found))
}

#[cfg(test)]
mod tests;
