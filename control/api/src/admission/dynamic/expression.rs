//! Expressions of conditions and policies: what they may name, and the values behind the names.

use std::collections::BTreeMap;
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
            _ if *ty == Type::Dyn => true,
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
            Wanted::StringOrNull => "string or null_type",
        }
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
    object(&[
        ("metadata", metadata),
        ("spec", object(&[("finalizers", texts())])),
        ("status", object(&[("phase", Type::String)])),
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
                (AUTHORIZER, Type::Authorizer),
            ],
            composed: None,
        }
    }

    /// Of a policy's conditions, which come before its variables.
    pub fn of_conditions(has_params: bool) -> Environment {
        let mut environment = Environment::of_webhook();
        environment
            .variables
            .push(("namespaceObject", NAMESPACE.clone()));
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
            let why = format!("compilation failed: must evaluate to {}", wanted.named());
            errors.invalid(path, source, why);
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
                    false => Err(format!("must evaluate to {}", wanted.named())),
                });
        Compiled {
            source: source.to_string(),
            program,
        }
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
}

impl<'a> Scope<'a> {
    pub fn new(input: &'a Input<'a>, variables: &'a [(String, Compiled)]) -> Scope<'a> {
        Scope {
            input,
            made: BTreeMap::new(),
            variables,
        }
    }

    /// The value of an expression, for at most `most` of the budget.
    pub fn evaluate(
        &mut self,
        expression: &Compiled,
        budget: &mut Budget,
        most: u64,
    ) -> Result<cel::Value, EvalError> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Err(EvalError::Failed(format!("compilation error: {why}"))),
        };
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
        if program.uses(VARIABLES) && !self.made.contains_key(VARIABLES) {
            self.compose(budget, most);
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

    /// The policy's variables, one after the other: each sees those before it. What fails, fails
    /// whoever asks for it.
    fn compose(&mut self, budget: &mut Budget, most: u64) {
        let mut values = BTreeMap::new();
        for (name, expression) in self.variables {
            self.made.insert(VARIABLES, composed(&values));
            let value = match self.evaluate(expression, budget, most) {
                Ok(value) => value,
                Err(error) => cel::Value::Failed(
                    format!("composited variable \"{name}\" fails to evaluate: {error}").into(),
                ),
            };
            values.insert(name.clone(), value);
        }
        self.made.insert(VARIABLES, composed(&values));
    }
}

fn composed(values: &BTreeMap<String, cel::Value>) -> cel::Value {
    cel::map(
        values
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    )
}
