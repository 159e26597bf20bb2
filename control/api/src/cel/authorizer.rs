//! Kubernetes' authorizer library: an expression asks who may do what.
//! Source: Kubernetes `pkg/cel/library/authz.go`.

use std::fmt::Debug;
use std::sync::Arc;

use super::eval::{Budget, Evaluated, failed};
use super::types::Type;
use super::value::Value;
use crate::validation::metadata::{dns1123_label_faults, dns1123_subdomain_faults};

/// What one question costs, as in Kubernetes.
const COST: u64 = 350_000;

/// The field of `authorizer` that asks about what the request itself is about.
pub const REQUEST_RESOURCE: &str = "requestResource";

/// Who answers.
pub trait Authorize: Debug + Send + Sync {
    fn check(&self, asked: &Asked) -> Decision;
}

/// A question. Empty texts are left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Namespace and name, if not the user of the request.
    pub service_account: Option<(String, String)>,
    /// Of what is no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
    pub verb: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// "" if it could be decided.
    pub error: String,
}

/// How far a question has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
}

impl Stage {
    pub fn ty(self) -> Type {
        match self {
            Stage::Authorizer => Type::Authorizer,
            Stage::Path => Type::PathCheck,
            Stage::Group => Type::GroupCheck,
            Stage::Resource => Type::ResourceCheck,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Question {
    authorize: Arc<dyn Authorize>,
    pub stage: Stage,
    asked: Asked,
    /// What the request itself is about: `authorizer.requestResource`.
    request: Arc<Asked>,
}

impl Question {
    /// The variable `authorizer`.
    pub fn authorizer(authorize: Arc<dyn Authorize>, request: Asked) -> Value {
        Value::Question(Arc::new(Question {
            authorize,
            stage: Stage::Authorizer,
            asked: Asked::default(),
            request: Arc::new(request),
        }))
    }

    fn with(&self, stage: Stage, change: impl FnOnce(&mut Asked)) -> Value {
        let mut next = self.clone();
        next.stage = stage;
        change(&mut next.asked);
        Value::Question(Arc::new(next))
    }

    pub fn request_resource(&self) -> Value {
        self.with(Stage::Resource, |asked| {
            let service_account = asked.service_account.take();
            *asked = (*self.request).clone();
            asked.service_account = service_account;
        })
    }

    pub fn call(&self, name: &str, args: &[Value], budget: &mut Budget) -> Option<Evaluated> {
        let texts: Option<Vec<&str>> = args
            .iter()
            .map(|arg| match arg {
                Value::String(text) => Some(&**text),
                _ => None,
            })
            .collect();
        let texts = texts?;
        let text = || texts.first().map(|t| t.to_string()).unwrap_or_default();
        let here = self.stage;
        Some(Ok(match (here, name, texts.as_slice()) {
            (Stage::Authorizer, "path", [text]) if text.trim().is_empty() => {
                return Some(failed("path must not be empty"));
            }
            (Stage::Group, "resource", [text]) if text.trim().is_empty() => {
                return Some(failed("resource must not be empty"));
            }
            (Stage::Authorizer, "serviceAccount", [namespace, name])
                if !are_names(namespace, name) =>
            {
                return Some(failed(format!(
                    "invalid service account {namespace:?}/{name:?}: a DNS label and a DNS subdomain are needed"
                )));
            }
            (Stage::Authorizer, "path", [_]) => {
                self.with(Stage::Path, |asked| asked.path = Some(text()))
            }
            (Stage::Authorizer, "group", [_]) => {
                self.with(Stage::Group, |asked| asked.group = text())
            }
            (Stage::Authorizer, "serviceAccount", [namespace, name]) => self.with(here, |asked| {
                asked.service_account = Some((namespace.to_string(), name.to_string()));
            }),
            (Stage::Group, "resource", [_]) => {
                self.with(Stage::Resource, |asked| asked.resource = text())
            }
            (Stage::Resource, "subresource", [_]) => {
                self.with(here, |asked| asked.subresource = text())
            }
            (Stage::Resource, "namespace", [_]) => {
                self.with(here, |asked| asked.namespace = text())
            }
            (Stage::Resource, "name", [_]) => self.with(here, |asked| asked.name = text()),
            (Stage::Resource, "fieldSelector", [_]) => {
                self.with(here, |asked| asked.field_selector = text())
            }
            (Stage::Resource, "labelSelector", [_]) => {
                self.with(here, |asked| asked.label_selector = text())
            }
            (Stage::Resource | Stage::Path, "check", [_]) => {
                if let Err(error) = budget.spend(COST) {
                    return Some(Err(error));
                }
                let mut asked = self.asked.clone();
                asked.verb = text();
                Value::Decision(Arc::new(self.authorize.check(&asked)))
            }
            _ => return None,
        }))
    }
}

fn are_names(namespace: &str, name: &str) -> bool {
    dns1123_label_faults(namespace).is_empty() && dns1123_subdomain_faults(name).is_empty()
}

pub fn decision(decision: &Decision, name: &str) -> Option<Evaluated> {
    Some(Ok(match name {
        "allowed" => Value::Bool(decision.allowed),
        "reason" => Value::text(&decision.reason),
        "errored" => Value::Bool(!decision.error.is_empty()),
        "error" => Value::text(&decision.error),
        _ => return None,
    }))
}
