//! ValidatingAdmissionPolicies: compiled once, asked about each request that they mean.
//! Source: apiserver `pkg/admission/plugin/policy/validating`.

use serde_json::Value;

use super::expression::{Compiled, Environment, Input, Scope, Wanted};
use super::{Constraints, FailurePolicy};
use crate::cel::{self, Budget, EvalError};
use crate::json::{at, list, text};
use crate::selector::LabelSelector;

/// What one expression, all of a policy's, and all of its conditions may cost.
const PER_EXPRESSION: u64 = 1_000_000;
const PER_POLICY: u64 = 10_000_000;
const CONDITIONS: u64 = 2_500_000;
const SPENT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";
const MAX_MESSAGE: usize = 5 << 10;

/// The conditions of a webhook or of a policy.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Vec<Compiled>);

impl Conditions {
    pub fn of(value: &Value, environment: &Environment) -> Conditions {
        let conditions = list(value, "matchConditions").iter();
        let compiled = |c: &Value| Compiled::of(text(c, "expression"), environment, Wanted::Bool);
        Conditions(conditions.map(compiled).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold. One that doesn't says so for all; else what failed counts.
    pub fn hold(&self, scope: &mut Scope<'_>) -> Result<bool, String> {
        let mut budget = Budget::new(CONDITIONS);
        let mut failed = Vec::new();
        for condition in &self.0 {
            match evaluate(condition, scope, &mut budget) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(why) => failed.push(why),
            }
        }
        match failed.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// The value, or the failure as Kubernetes words it.
fn evaluate(
    expression: &Compiled,
    scope: &mut Scope<'_>,
    budget: &mut Budget,
) -> Result<cel::Value, String> {
    let evaluated = scope.evaluate(expression, budget, PER_EXPRESSION);
    evaluated.map_err(|error| match error {
        EvalError::Budget if budget.is_spent() => SPENT.to_string(),
        error => format!(
            "expression '{}' resulted in error: {error}",
            expression.source
        ),
    })
}

#[derive(Clone, Debug)]
struct Validation {
    expression: Compiled,
    message: String,
    message_expression: Option<Compiled>,
    reason: String,
}

#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub constraints: Constraints,
    pub failure: FailurePolicy,
    /// apiVersion and kind of its parameters.
    pub param_kind: Option<(String, String)>,
    conditions: Conditions,
    variables: Vec<(String, Compiled)>,
    validations: Vec<Validation>,
    /// Key and value.
    annotations: Vec<(String, Compiled)>,
}

/// What a validation found against a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub message: String,
    /// A Status' reason.
    pub reason: String,
    /// Which validation it was; 0 if it is about the policy as a whole.
    pub index: usize,
}

impl Violation {
    /// A failure that the policy's failurePolicy makes count.
    fn failure(message: String, index: usize) -> Violation {
        Violation {
            message,
            reason: "Invalid".into(),
            index,
        }
    }
}

/// What a policy says to a request with one set of parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    pub violations: Vec<Violation>,
    /// What denies the request whatever a binding does with violations.
    pub failures: Vec<Violation>,
    pub audit_annotations: Vec<(String, String)>,
}

impl Policy {
    pub fn of(policy: &Value) -> Policy {
        let empty = Value::Null;
        let spec = at(policy, "spec").unwrap_or(&empty);
        let has_params = at(spec, "paramKind").is_some();
        let mut environment = Environment::of_policy(has_params);
        let variables = list(spec, "variables").iter().map(|variable| {
            let name = text(variable, "name").to_string();
            let source = text(variable, "expression");
            let compiled = Compiled::of(source, &environment, Wanted::Any);
            environment.declare(&name, compiled.result());
            (name, compiled)
        });
        let variables = variables.collect();
        let quiet = environment.without_authorizer();
        let validation = |validation: &Value| Validation {
            expression: Compiled::of(text(validation, "expression"), &environment, Wanted::Bool),
            message: text(validation, "message").trim().to_string(),
            message_expression: match text(validation, "messageExpression") {
                "" => None,
                source => Some(Compiled::of(source, &quiet, Wanted::String)),
            },
            reason: match text(validation, "reason") {
                "" => "Invalid".into(),
                reason => reason.into(),
            },
        };
        let annotation = |annotation: &Value| {
            let source = text(annotation, "valueExpression");
            let compiled = Compiled::of(source, &environment, Wanted::StringOrNull);
            (text(annotation, "key").to_string(), compiled)
        };
        Policy {
            name: text(policy, "metadata.name").to_string(),
            constraints: Constraints::of_policy(
                at(spec, "matchConstraints").unwrap_or(&Value::Null),
            ),
            failure: FailurePolicy::of(spec),
            param_kind: at(spec, "paramKind").map(|kind| {
                let text = |field: &str| text(kind, field).to_string();
                (text("apiVersion"), text("kind"))
            }),
            conditions: Conditions::of(spec, &Environment::of_conditions(has_params)),
            variables,
            validations: list(spec, "validations").iter().map(validation).collect(),
            annotations: list(spec, "auditAnnotations")
                .iter()
                .map(annotation)
                .collect(),
        }
    }

    /// A failure, if failures count.
    pub fn failed(&self, why: impl Into<String>) -> Option<Violation> {
        let violation = Violation::failure(why.into(), 0);
        (self.failure == FailurePolicy::Fail).then_some(violation)
    }

    /// `None` if its conditions leave the request out.
    pub fn evaluate(&self, input: &Input<'_>) -> Option<Findings> {
        let mut findings = Findings::default();
        let mut scope = Scope::new(input, &self.variables);
        match self.conditions.hold(&mut scope) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => {
                findings.violations.extend(self.failed(why));
                return Some(findings);
            }
        }
        let mut budget = Budget::new(PER_POLICY);
        for (i, validation) in self.validations.iter().enumerate() {
            match evaluate(&validation.expression, &mut scope, &mut budget) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => findings.violations.push(Violation {
                    message: validation.message(&mut scope, &mut budget),
                    reason: validation.reason.clone(),
                    index: i,
                }),
                Err(why) if self.failure == FailurePolicy::Fail => {
                    findings.violations.push(Violation::failure(why, i));
                }
                Err(_) => {}
            }
            if budget.is_spent() {
                // What was found before is not the policy's answer.
                findings.violations = self.failed(SPENT).into_iter().collect();
                return Some(findings);
            }
        }
        for (key, expression) in &self.annotations {
            match evaluate(expression, &mut scope, &mut budget) {
                Ok(cel::Value::String(value)) if !value.trim().is_empty() => {
                    let annotation = (key.clone(), value.trim().to_string());
                    findings.audit_annotations.push(annotation);
                }
                Ok(_) => {}
                Err(why) => findings.failures.extend(self.failed(why)),
            }
        }
        Some(findings)
    }
}

impl Validation {
    fn message(&self, scope: &mut Scope<'_>, budget: &mut Budget) -> String {
        if let Some(expression) = &self.message_expression
            && let Ok(cel::Value::String(text)) = evaluate(expression, scope, budget)
        {
            let text = text.trim();
            if !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE {
                return text.to_string();
            }
        }
        match self.message.as_str() {
            "" => format!("failed expression: {}", self.expression.source.trim()),
            message => message.to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Deny,
    Warn,
    Audit,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Deny => "Deny",
            Action::Warn => "Warn",
            Action::Audit => "Audit",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ParamRef {
    /// "" if the selector counts.
    pub name: String,
    pub selector: LabelSelector,
    pub namespace: String,
    /// Whether it is a failure when there is none.
    pub required: bool,
}

/// Where a policy is in force, and with which parameters.
#[derive(Clone, Debug)]
pub struct Binding {
    pub name: String,
    pub policy: String,
    pub constraints: Constraints,
    pub param: Option<ParamRef>,
    pub actions: Vec<Action>,
}

impl Binding {
    pub fn of(binding: &Value) -> Binding {
        let param = at(binding, "spec.paramRef").map(|param| ParamRef {
            name: text(param, "name").into(),
            selector: LabelSelector::from_object(at(param, "selector")),
            namespace: text(param, "namespace").into(),
            required: text(param, "parameterNotFoundAction") != "Allow",
        });
        let action = |action: &Value| match action.as_str()? {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        };
        let actions = list(binding, "spec.validationActions").iter();
        Binding {
            name: text(binding, "metadata.name").into(),
            policy: text(binding, "spec.policyName").into(),
            constraints: Constraints::of_policy(
                at(binding, "spec.matchResources").unwrap_or(&Value::Null),
            ),
            param,
            actions: actions.filter_map(action).collect(),
        }
    }
}
