//! `x-kubernetes-validations`: rules in CEL about a value, and about what it was before.
//! Source: apiextensions-apiserver `pkg/apiserver/schema/cel`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::structural::{ListType, Schema, text};
use super::validate::{counterpart, join};
use crate::cel::{self, Budget, EvalError, Program, Type, declare, of_json};
use crate::status::{Errors, Fault, FieldError};

/// What all rules may cost for one object, and one rule for one value, as in Kubernetes.
const OBJECT_BUDGET: u64 = 10_000_000;
const RULE_BUDGET: u64 = 1_000_000;
const MAX_MESSAGE: usize = 5 << 10;

#[derive(Clone, Debug)]
pub struct Rule {
    source: String,
    /// Or why there is none: a definition with such a rule is refused, unless it was stored by
    /// another version of this program.
    program: Result<Program, String>,
    message: String,
    message_program: Option<Program>,
    fault: Fault,
    /// Names of the fields from the rule's value to what the error is about.
    field_path: Vec<String>,
    optional_old: bool,
}

impl Rule {
    /// Whether it is about a change.
    fn is_transition(&self) -> bool {
        self.program.as_ref().is_ok_and(|p| p.uses("oldSelf"))
    }
}

fn listed(schema: &Value) -> &[Value] {
    schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn variables(ty: &Type, rule: &Value) -> [(&'static str, Type); 2] {
    let old = match optional_old(rule) {
        true => Type::optional(ty.clone()),
        false => ty.clone(),
    };
    [("self", ty.clone()), ("oldSelf", old)]
}

fn optional_old(rule: &Value) -> bool {
    rule.get("optionalOldSelf") == Some(&Value::Bool(true))
}

/// Compiles the rules that stand at a schema.
pub fn compile(schema: &Value, compiled: &Schema, root: bool) -> Vec<Rule> {
    let rules = listed(schema);
    if rules.is_empty() {
        return Vec::new();
    }
    let ty = declare(compiled, root).unwrap_or(Type::Dyn);
    rules
        .iter()
        .map(|rule| {
            let source = text(rule, "rule").to_string();
            let variables = variables(&ty, rule);
            let expression = text(rule, "messageExpression");
            Rule {
                program: Program::compile(&source, &variables),
                message: text(rule, "message").to_string(),
                message_program: match expression {
                    "" => None,
                    expression => Program::compile(expression, &variables).ok(),
                },
                fault: fault(text(rule, "reason")).unwrap_or(Fault::Invalid),
                field_path: field_path(text(rule, "fieldPath")).unwrap_or_default(),
                optional_old: optional_old(rule),
                source,
            }
        })
        .collect()
}

fn fault(reason: &str) -> Option<Fault> {
    match reason {
        "" | "FieldValueInvalid" => Some(Fault::Invalid),
        "FieldValueForbidden" => Some(Fault::Forbidden),
        "FieldValueRequired" => Some(Fault::Required),
        "FieldValueDuplicate" => Some(Fault::Duplicate),
        _ => None,
    }
}

/// The names of `.a.b['c']`.
fn field_path(path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']")?;
            names.push(name.to_string());
            rest = after;
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return None;
            }
            names.push(name[..end].to_string());
            rest = &name[end..];
        }
    }
    Some(names)
}

/// Finds what is wrong with the rules of a schema.
pub fn faults(schema: &Value, compiled: &Schema, path: &str, errors: &mut Errors) {
    faults_at(schema, compiled, path, None, true, errors);
}

/// `loose`: the path of the list in whose items nothing tells what a value was before.
fn faults_at(
    schema: &Value,
    compiled: &Schema,
    path: &str,
    loose: Option<&str>,
    root: bool,
    errors: &mut Errors,
) {
    for (i, rule) in listed(schema).iter().enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{i}]");
        rule_faults(rule, compiled, &at, loose, root, errors);
    }
    for (name, inner) in super::structural::object(schema, "properties") {
        if let Some(compiled) = compiled.properties.get(name) {
            let at = format!("{path}.properties[{name}]");
            faults_at(inner, compiled, &at, loose, false, errors);
        }
    }
    if let (Some(inner), Some(Some(compiled))) =
        (schema.get("additionalProperties"), &compiled.additional)
    {
        let at = format!("{path}.additionalProperties");
        faults_at(inner, compiled, &at, loose, false, errors);
    }
    if let (Some(inner), Some(items)) = (schema.get("items"), &compiled.items) {
        let loose = match compiled.list_type {
            ListType::Map => loose,
            ListType::Atomic | ListType::Set => loose.or(Some(path)),
        };
        faults_at(inner, items, &format!("{path}.items"), loose, false, errors);
    }
}

fn rule_faults(
    rule: &Value,
    compiled: &Schema,
    path: &str,
    loose: Option<&str>,
    root: bool,
    errors: &mut Errors,
) {
    let source = text(rule, "rule");
    let at = |field: &str| format!("{path}.{field}");
    if source.trim().is_empty() {
        errors.required(&at("rule"), "rule is not specified");
        return;
    }
    let Some(ty) = declare(compiled, root) else {
        errors.forbidden(
            path,
            "rules can't be about a value of which the schema says nothing",
        );
        return;
    };
    let variables = variables(&ty, rule);
    match Program::compile(source, &variables) {
        Err(why) => errors.invalid(&at("rule"), source, format!("compilation failed: {why}")),
        Ok(program) => {
            if !matches!(program.result, Type::Bool | Type::Dyn) {
                errors.invalid(
                    &at("rule"),
                    source,
                    "compilation failed: must evaluate to a bool",
                );
            }
            if program.uses("oldSelf")
                && let Some(list) = loose
            {
                errors.invalid(
                    &at("rule"),
                    source,
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"),
                );
            }
            if optional_old(rule) && !program.uses("oldSelf") {
                errors.invalid(
                    &at("optionalOldSelf"),
                    true,
                    "may not be set if oldSelf is not used in rule",
                );
            }
        }
    }
    let expression = text(rule, "messageExpression");
    if !expression.is_empty() {
        match Program::compile(expression, &variables) {
            Err(why) => errors.invalid(
                &at("messageExpression"),
                expression,
                format!("messageExpression compilation failed: {why}"),
            ),
            Ok(program) if !matches!(program.result, Type::String | Type::Dyn) => {
                errors.invalid(
                    &at("messageExpression"),
                    expression,
                    "messageExpression must evaluate to a string",
                );
            }
            Ok(_) => {}
        }
    }
    let message = text(rule, "message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(
            &at("message"),
            message,
            "message must be non-empty if specified",
        );
    }
    if message.contains(['\n', '\r']) {
        errors.invalid(
            &at("message"),
            message,
            "message must not contain line breaks",
        );
    }
    if source.contains(['\n', '\r']) && message.is_empty() {
        errors.required(
            &at("message"),
            "message must be specified if rule contains line breaks",
        );
    }
    let reason = text(rule, "reason");
    if fault(reason).is_none() {
        errors.not_supported(
            &at("reason"),
            reason,
            &[
                "FieldValueDuplicate",
                "FieldValueForbidden",
                "FieldValueInvalid",
                "FieldValueRequired",
            ],
        );
    }
    let given = text(rule, "fieldPath");
    let leads = field_path(given).is_some_and(|names| {
        let mut schema = Some(compiled);
        for name in &names {
            schema = schema.and_then(|s| match (s.properties.get(name), &s.additional) {
                (Some(inner), _) => Some(inner),
                (None, Some(Some(inner))) => Some(inner),
                _ => None,
            });
        }
        schema.is_some()
    });
    if !leads {
        errors.invalid(&at("fieldPath"), given, "fieldPath must be a valid path");
    }
}

/// Checks an object that fits its schema against the schema's rules.
pub fn check(object: &Value, old: Option<&Value>, schema: &Schema, errors: &mut Errors) {
    let mut check = Check {
        budget: Budget::new(OBJECT_BUDGET),
        errors,
        stopped: false,
    };
    check.value(object, old, schema, "", true);
}

struct Check<'a> {
    budget: Budget,
    errors: &'a mut Errors,
    stopped: bool,
}

impl Check<'_> {
    fn value(
        &mut self,
        value: &Value,
        old: Option<&Value>,
        schema: &Schema,
        path: &str,
        root: bool,
    ) {
        if !schema.has_rules || self.stopped {
            return;
        }
        self.rules(value, old, schema, path, root);
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let inner = match (schema.properties.get(key), &schema.additional) {
                        (Some(inner), _) => inner,
                        (None, Some(Some(inner))) => inner,
                        _ => continue,
                    };
                    let before = old.and_then(|o| o.get(key));
                    self.value(value, before, inner, &join(path, key), false);
                }
            }
            Value::Array(items) => {
                let Some(inner) = &schema.items else {
                    return;
                };
                for (i, item) in items.iter().enumerate() {
                    let before = counterpart(item, old, schema);
                    self.value(item, before, inner, &format!("{path}[{i}]"), false);
                }
            }
            _ => {}
        }
    }

    fn rules(
        &mut self,
        value: &Value,
        old: Option<&Value>,
        schema: &Schema,
        path: &str,
        root: bool,
    ) {
        if schema.rules.is_empty() || value.is_null() {
            return;
        }
        let now = of_json(value, schema, root);
        let before = old.map(|old| of_json(old, schema, root));
        for rule in &schema.rules {
            // What was so before, and is as it was, may stay so.
            if self.stopped || (old == Some(value) && !rule.is_transition()) {
                continue;
            }
            let before = match (&before, rule.optional_old) {
                (Some(before), false) => Some(before.clone()),
                (Some(before), true) => Some(cel::Value::some(before.clone())),
                (None, true) => Some(cel::Value::none()),
                // There was nothing to be changed.
                (None, false) if rule.is_transition() => continue,
                (None, false) => None,
            };
            let mut variables = BTreeMap::from([("self", now.clone())]);
            variables.extend(before.map(|before| ("oldSelf", before)));
            self.rule(rule, &variables, schema, path);
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        variables: &BTreeMap<&str, cel::Value>,
        schema: &Schema,
        path: &str,
    ) {
        let evaluated = match &rule.program {
            Err(why) => Err(EvalError::Failed(format!("compilation failed: {why}"))),
            Ok(program) => self
                .budget
                .part(RULE_BUDGET, |budget| program.evaluate(variables, budget)),
        };
        let shown = match rule.message.as_str() {
            "" => format!("failed rule: {}", rule.source),
            message => message.to_string(),
        };
        match evaluated {
            Ok(cel::Value::Bool(true)) => {}
            Ok(cel::Value::Bool(false)) => {
                let message = self.message(rule, variables).unwrap_or(shown);
                let field = rule
                    .field_path
                    .iter()
                    .fold(path.to_string(), |path, name| join(&path, name));
                self.push(rule.fault, field, schema, message);
            }
            Ok(_) => self.push(
                Fault::Invalid,
                path.into(),
                schema,
                format!("rule evaluation error: the result is no bool evaluating rule: {shown}"),
            ),
            Err(EvalError::Failed(why)) => {
                self.push(
                    Fault::Invalid,
                    path.into(),
                    schema,
                    format!("{why} evaluating rule: {shown}"),
                );
            }
            Err(EvalError::Budget) => {
                self.stopped = true;
                let why = match self.budget.is_spent() {
                    true => "validation failed due to running out of cost budget, no further validation rules will be run".to_string(),
                    false => format!("call cost exceeds limit for rule: {}, no further validation rules will be run due to call cost exceeds limit for rule", rule.source),
                };
                self.push(Fault::Invalid, path.into(), schema, why);
            }
        }
    }

    /// What the message's own expression makes of it; `None` if nothing usable.
    fn message(&mut self, rule: &Rule, variables: &BTreeMap<&str, cel::Value>) -> Option<String> {
        let program = rule.message_program.as_ref()?;
        let evaluated = self
            .budget
            .part(RULE_BUDGET, |budget| program.evaluate(variables, budget));
        let Ok(cel::Value::String(text)) = evaluated else {
            return None;
        };
        let text = text.trim();
        let usable = !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE;
        usable.then(|| text.to_string())
    }

    fn push(&mut self, fault: Fault, field: String, schema: &Schema, detail: String) {
        let field = if field.is_empty() {
            "<nil>".into()
        } else {
            field
        };
        self.errors.0.push(FieldError {
            fault,
            field,
            value: schema.ty.as_str().into(),
            detail,
        });
    }
}
