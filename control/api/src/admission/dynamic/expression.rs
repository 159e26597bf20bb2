//! Expressions of conditions and policies: what they may name, and the values behind the names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::cel::{self, Budget, EvalError, Object, Program, Type};
use crate::status::Errors;

/// What an expression may name.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: Vec<(&'static str, Type)>,
    /// Of a policy: its variables so far.
    composed: Option<BTreeMap<String, Type>>,
}

/// What an expression must evaluate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    Bool,
    String,
    StringOrNull,
}

impl Wanted {
    fn allows(self, ty: &Type) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Bool => *ty == Type::Bool,
            Wanted::String => *ty == Type::String,
            Wanted::StringOrNull => matches!(ty, Type::String | Type::Null),
        }
    }

    fn named(self) -> &'static str {
        match self {
            Wanted::Any => "any",
            Wanted::Bool => "bool",
            Wanted::String => "string",
            Wanted::StringOrNull => "one of [string null_type]",
        }
    }

    fn refusal(self, ty: &Type) -> String {
        format!("must evaluate to {} but got {ty}", self.named())
    }
}

fn object(fields: &[(&str, Type)]) -> Type {
    let fields = fields
        .iter()
        .map(|(name, ty)| (name.to_string(), ty.clone()));
    Type::Object(Arc::new(Object {
        fields: fields.collect(),
    }))
}

fn texts() -> Type {
    Type::list(Type::String)
}

fn map(value: Type) -> Type {
    Type::Map(Box::new(Type::String), Box::new(value))
}

/// Source: apiserver `pkg/admission/plugin/cel/compile.go`, `BuildRequestType` and
/// `BuildNamespaceType`.
static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let group_version = |name: &str| {
        object(&[
            ("group", Type::String),
            ("version", Type::String),
            (name, Type::String),
        ])
    };
    let user = object(&[
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", texts()),
        ("extra", map(texts())),
    ]);
    object(&[
        ("kind", group_version("kind")),
        ("resource", group_version("resource")),
        ("subResource", Type::String),
        ("requestKind", group_version("kind")),
        ("requestResource", group_version("resource")),
        ("requestSubResource", Type::String),
        ("name", Type::String),
        ("namespace", Type::String),
        ("operation", Type::String),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ])
});

static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let metadata = object(&[
        ("name", Type::String),
        ("generateName", Type::String),
        ("namespace", Type::String),
        ("labels", map(Type::String)),
        ("annotations", map(Type::String)),
        ("UID", Type::String),
        ("creationTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("deletionTimestamp", Type::Timestamp),
        ("generation", Type::Int),
        ("resourceVersion", Type::String),
        ("finalizers", texts()),
    ]);
    let condition = object(&[
        ("type", Type::String),
        ("status", Type::String),
        ("lastTransitionTime", Type::Timestamp),
        ("reason", Type::String),
        ("message", Type::String),
    ]);
    object(&[
        ("metadata", metadata),
        ("spec", object(&[("finalizers", texts())])),
        (
            "status",
            object(&[
                ("phase", Type::String),
                ("conditions", Type::list(condition)),
            ]),
        ),
    ])
});

const AUTHORIZER: &str = "authorizer";
const VARIABLES: &str = "variables";

impl Environment {
    /// Of a webhook's conditions.
    pub fn of_webhook() -> Environment {
        Environment {
            variables: vec![
                ("object", Type::Dyn),
                ("oldObject", Type::Dyn),
                ("request", REQUEST.clone()),
                ("namespaceObject", NAMESPACE.clone()),
                (AUTHORIZER, Type::Authorizer),
            ],
            composed: None,
        }
    }

    /// Of a policy's conditions, which come before its variables.
    pub fn of_conditions(has_params: bool) -> Environment {
        let mut environment = Environment::of_webhook();
        if has_params {
            environment.variables.push(("params", Type::Dyn));
        }
        environment
    }

    /// Of what else a policy has.
    pub fn of_policy(has_params: bool) -> Environment {
        Environment {
            composed: Some(BTreeMap::new()),
            ..Environment::of_conditions(has_params)
        }
    }

    pub fn declare(&mut self, variable: &str, ty: Type) {
        if let Some(composed) = &mut self.composed {
            composed.insert(variable.into(), ty);
        }
    }

    pub fn without_authorizer(&self) -> Environment {
        let mut environment = self.clone();
        environment
            .variables
            .retain(|(name, _)| *name != AUTHORIZER);
        environment
    }

    fn compile(&self, source: &str) -> Result<Program, String> {
        let mut variables = self.variables.clone();
        if let Some(composed) = &self.composed {
            let fields = composed.clone();
            variables.push((VARIABLES, Type::Object(Arc::new(Object { fields }))));
        }
        Program::compile(source, &variables)
    }
}

/// Adds what is wrong with an expression; else its type.
pub fn check(
    path: &str,
    source: &str,
    environment: &Environment,
    wanted: Wanted,
    errors: &mut Errors,
) -> Option<Type> {
    match environment.compile(source) {
        Err(why) => {
            errors.invalid(path, source, format!("compilation failed: {why}"));
            None
        }
        Ok(program) if !wanted.allows(&program.result) => {
            errors.invalid(path, source, wanted.refusal(&program.result));
            None
        }
        Ok(program) => Some(program.result),
    }
}

/// Whether a variable may have this name.
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && cel::escape(name)
            .is_some_and(|escaped| !escaped.starts_with("__") || name.starts_with("__"))
}

/// A stored expression.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub source: String,
    /// Or why there is none: an earlier version of this program may have known more.
    program: Result<Program, String>,
}

impl Compiled {
    pub fn of(source: &str, environment: &Environment, wanted: Wanted) -> Compiled {
        let program =
            environment
                .compile(source)
                .and_then(|program| match wanted.allows(&program.result) {
                    true => Ok(program),
                    false => Err(wanted.refusal(&program.result)),
                });
        Compiled {
            source: source.to_string(),
            program,
        }
    }

    fn compiled(&self) -> Result<&Program, EvalError> {
        let why = |why: &String| EvalError::Failed(format!("compilation error: {why}"));
        self.program.as_ref().map_err(why)
    }

    pub fn result(&self) -> Type {
        self.program
            .as_ref()
            .map_or(Type::Dyn, |p| p.result.clone())
    }
}

/// What the expressions are about.
pub struct Input<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    /// The AdmissionRequest.
    pub request: &'a Value,
    pub params: Option<&'a Value>,
    pub namespace: Option<&'a Value>,
    /// The variable `authorizer`.
    pub authorizer: &'a cel::Value,
}

/// The values behind the names, each made when an expression first names it.
pub struct Scope<'a> {
    input: &'a Input<'a>,
    made: BTreeMap<&'static str, cel::Value>,
    variables: &'a [(String, Compiled)],
    /// The policy's variables that some expression has named.
    composed: BTreeMap<String, cel::Value>,
}

impl<'a> Scope<'a> {
    pub fn new(input: &'a Input<'a>, variables: &'a [(String, Compiled)]) -> Scope<'a> {
        Scope {
            input,
            made: BTreeMap::new(),
            variables,
            composed: BTreeMap::new(),
        }
    }

    /// The value of an expression, for at most `most` of the budget.
    pub fn evaluate(
        &mut self,
        expression: &Compiled,
        budget: &mut Budget,
        most: u64,
    ) -> Result<cel::Value, EvalError> {
        let program = expression.compiled()?;
        if program.uses(VARIABLES) {
            self.compose(program, budget, most);
        }
        self.run(program, budget, most)
    }

    /// Evaluates what has its variables already.
    fn run(
        &mut self,
        program: &Program,
        budget: &mut Budget,
        most: u64,
    ) -> Result<cel::Value, EvalError> {
        for name in [
            "object",
            "oldObject",
            "request",
            "params",
            "namespaceObject",
            AUTHORIZER,
        ] {
            if program.uses(name) && !self.made.contains_key(name) {
                self.made.insert(name, self.make(name));
            }
        }
        budget.part(most, |budget| program.evaluate(&self.made, budget))
    }

    fn make(&self, name: &str) -> cel::Value {
        let input = self.input;
        let whole = |value: Option<&Value>| value.map_or(cel::Value::Null, cel::dynamic);
        match name {
            "object" => whole(input.object),
            "oldObject" => whole(input.old),
            "params" => whole(input.params),
            AUTHORIZER => input.authorizer.clone(),
            "request" => cel::declared(input.request, &REQUEST),
            _ => input
                .namespace
                .map_or(cel::Value::Null, |n| cel::declared(n, &NAMESPACE)),
        }
    }

    /// The variables that an expression needs, in their order: each sees those before it. What
    /// nobody names is not evaluated, and what fails, fails whoever asks for it.
    fn compose(&mut self, program: &Program, budget: &mut Budget, most: u64) {
        let mut needed = Needed::default();
        needed.add(program);
        for (name, expression) in self.variables.iter().rev() {
            if let (true, Ok(program)) = (needed.has(name), &expression.program) {
                needed.add(program);
            }
        }
        for (name, expression) in self.variables {
            if !needed.has(name) || self.composed.contains_key(name) {
                continue;
            }
            self.made.insert(VARIABLES, composed(&self.composed));
            let found = expression.compiled();
            let value = match found.and_then(|program| self.run(program, budget, most)) {
                Ok(value) => value,
                Err(error) => cel::Value::Failed(
                    format!("composited variable \"{name}\" fails to evaluate: {error}").into(),
                ),
            };
            self.composed.insert(name.clone(), value);
        }
        self.made.insert(VARIABLES, composed(&self.composed));
    }
}

/// Names of variables.
#[derive(Default)]
struct Needed {
    all: bool,
    names: BTreeSet<String>,
}

impl Needed {
    fn add(&mut self, program: &Program) {
        match program.fields(VARIABLES) {
            Some(names) => self.names.extend(names),
            None => self.all = true,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}

fn composed(values: &BTreeMap<String, cel::Value>) -> cel::Value {
    cel::map(
        values
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_evaluated_when_somebody_names_them() {
        let mut environment = Environment::of_policy(false);
        let mut variables = Vec::new();
        for (name, source) in [
            ("n", "object.n"),
            ("dear", "lists.range(900000).size()"),
            ("more", "variables.n + 1"),
            ("gone", "object.gone"),
            ("whole", "size(dyn(variables)) > 0"),
        ] {
            let compiled = Compiled::of(source, &environment, Wanted::Any);
            environment.declare(name, compiled.result());
            variables.push((name.to_string(), compiled));
        }
        let object = json!({"n": 1});
        let input = Input {
            object: Some(&object),
            old: None,
            request: &json!({}),
            params: None,
            namespace: None,
            authorizer: &cel::Value::Null,
        };
        let mut scope = Scope::new(&input, &variables);
        let mut evaluate = |source: &str, budget: &mut Budget| {
            let compiled = Compiled::of(source, &environment, Wanted::Any);
            scope.evaluate(&compiled, budget, 1_000_000)
        };
        // Far less than the dear one takes.
        let mut budget = Budget::new(1000);
        assert_eq!(
            evaluate("variables.more == 2", &mut budget),
            Ok(cel::Value::Bool(true))
        );
        assert_eq!(
            evaluate("variables.more == 2 || variables.gone", &mut budget),
            Ok(cel::Value::Bool(true))
        );
        assert_eq!(
            evaluate("variables.gone", &mut budget),
            Err(EvalError::Failed(
                "composited variable \"gone\" fails to evaluate: no such key: gone".into()
            ))
        );
        assert!(!budget.is_spent());
        // Who takes them all pays for them all.
        let mut budget = Budget::new(2_000_000);
        assert_eq!(
            evaluate("variables.whole && variables.dear == 900000", &mut budget),
            Ok(cel::Value::Bool(true))
        );
        assert_eq!(budget.spend(1_100_000), Err(EvalError::Budget));
    }
}
