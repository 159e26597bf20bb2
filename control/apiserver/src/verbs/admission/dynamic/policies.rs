//! ValidatingAdmissionPolicies at work: which are in force for a request, with which parameters,
//! and what comes of their findings.
//! Source: apiserver `pkg/admission/plugin/policy/{generic,validating}`.

use std::sync::Arc;

use rhumb_api::admission::dynamic::{
    Action, Binding, Constraints, Input, Labels, ParamRef, Policy, Violation,
};
use rhumb_api::registry::Kind;
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};

use super::asker;
use super::subject::{Form, Subject};
use super::webhooks::Pair;
use crate::object;
use crate::verbs::{WAIT, store_key};

const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A violation, and whose it is.
struct Denied<'a> {
    policy: &'a Policy,
    /// `None` if the policy can't be asked at all.
    binding: Option<&'a Binding>,
    violation: Violation,
}

impl Subject<'_> {
    /// Asks every policy that is in force. The first denial counts.
    pub async fn judge(
        &self,
        policies: &[(Arc<Policy>, Vec<Arc<Binding>>)],
        pair: Pair<'_>,
    ) -> Result<()> {
        let mut denied = Vec::new();
        let mut failures = Vec::new();
        for (policy, bindings) in policies {
            let Some(form) = self.meant(&policy.constraints, pair) else {
                continue;
            };
            let takes = match self.param_kind(policy) {
                Ok(takes) => takes,
                Err(why) => {
                    let why = format!("failed to configure policy: {why}");
                    let violation = policy.failed(why);
                    denied.extend(violation.map(|violation| Denied {
                        policy,
                        binding: None,
                        violation,
                    }));
                    continue;
                }
            };
            for binding in bindings {
                if self.meant(&binding.constraints, pair).is_none() {
                    continue;
                }
                let found = self
                    .findings(policy, binding, takes.as_deref(), form, pair)
                    .await;
                for violation in found {
                    self.act(policy, binding, violation, &mut denied, &mut failures);
                }
            }
        }
        if !failures.is_empty() {
            self.request
                .notes
                .annotate(FAILURES.into(), Value::from(failures).to_string());
        }
        match denied.into_iter().next() {
            Some(denied) => Err(self.denial(&denied)),
            None => Ok(()),
        }
    }

    /// The form in which the constraints mean the objects.
    pub fn meant(&self, constraints: &Constraints, pair: Pair<'_>) -> Option<&Form> {
        let (own, others) = self.places();
        let index = constraints.find(&self.attributes.name, &own, &others)?;
        let labels = Labels {
            object: pair.object,
            old: pair.old,
            namespace: self.namespace.as_ref(),
        };
        constraints
            .selectors
            .matches(&own, &labels)
            .then(|| &self.forms[index])
    }

    /// Asks expressions about the objects.
    pub fn asked<T>(
        &self,
        form: &Form,
        pair: Pair<'_>,
        params: Option<&Value>,
        ask: impl FnOnce(&Input<'_>) -> T,
    ) -> T {
        let object = pair.object.map(|o| self.shown(form, o));
        let old = pair.old.map(|o| self.shown(form, o));
        let request = self.attributes.request((&form.resource, &form.kind));
        ask(&Input {
            object: object.as_deref(),
            old: old.as_deref(),
            request: &request,
            params,
            // A Namespace is not in itself.
            namespace: self.namespace.as_ref().filter(|_| !self.is_namespace()),
            authorizer: &asker::authorizer(self),
        })
    }

    /// What a policy has against the objects, once for each of its parameters.
    async fn findings(
        &self,
        policy: &Policy,
        binding: &Binding,
        takes: Option<&Kind>,
        form: &Form,
        pair: Pair<'_>,
    ) -> Vec<Found> {
        let params = match self.params(takes, binding).await {
            Ok(params) => params,
            Err(why) => {
                let why = format!("failed to configure binding: {why}");
                return policy.failed(why).map(Found::Failure).into_iter().collect();
            }
        };
        let mut found = Vec::new();
        for param in params {
            let evaluated = self.asked(form, pair, param.as_ref(), |input| policy.evaluate(input));
            let Some(findings) = evaluated else {
                continue;
            };
            found.extend(findings.violations.into_iter().map(Found::Violation));
            found.extend(findings.failures.into_iter().map(Found::Failure));
            for (key, value) in findings.audit_annotations {
                self.request
                    .notes
                    .annotate_more(format!("{}/{key}", policy.name), value);
            }
        }
        found
    }

    /// The kind of a policy's parameters, if it takes any.
    fn param_kind(&self, policy: &Policy) -> Result<Option<Arc<Kind>>, String> {
        let Some((api_version, name)) = &policy.param_kind else {
            return Ok(None);
        };
        let registry = self.request.api.registry();
        let mut kinds = registry.kinds().iter();
        let found = kinds.find(|k| k.kind == *name && k.api_version() == *api_version);
        match found {
            Some(kind) => Ok(Some(kind.clone())),
            None => {
                let group = if api_version.contains('/') { "" } else { "/" };
                Err(format!(
                    "failed to find resource referenced by paramKind: '{group}{api_version}, Kind={name}'"
                ))
            }
        }
    }

    /// The parameters that a binding means; one `None` if its policy takes none.
    async fn params(
        &self,
        takes: Option<&Kind>,
        binding: &Binding,
    ) -> Result<Vec<Option<Value>>, String> {
        let (Some(kind), Some(reference)) = (takes, &binding.param) else {
            return Ok(vec![None]);
        };
        let namespace = match (kind.namespaced, reference.namespace.as_str()) {
            (true, "") if self.attributes.namespace.is_empty() => {
                return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
            }
            (true, "") => self.attributes.namespace.as_str(),
            (true, namespace) => namespace,
            (false, "") => "",
            (false, _) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                        .into(),
                );
            }
        };
        let found = self.find_params(kind, namespace, reference).await?;
        match (found.is_empty(), reference.required) {
            (true, true) => {
                Err("no params found for policy binding with `Deny` parameterNotFoundAction".into())
            }
            // Nothing to judge by.
            _ => Ok(found.into_iter().map(Some).collect()),
        }
    }

    async fn find_params(
        &self,
        kind: &Kind,
        namespace: &str,
        reference: &ParamRef,
    ) -> Result<Vec<Value>, String> {
        let api = &self.request.api;
        let served = |stored: Value| kind.served(kind.from_store(stored));
        if !reference.name.is_empty() {
            let key = store_key(kind, namespace, &reference.name);
            let stored = api.store.get(&key).await.map_err(|e| e.to_string())?;
            let stored = stored.map(|kv| object::value_of(&kv)).transpose();
            let stored = stored.map_err(|e| e.to_string())?;
            return Ok(stored.map(served).into_iter().collect());
        }
        // What was written before counts.
        let _ = api.cache.reach(api.store.revision(), WAIT).await;
        let Some(collection) = api.cache.collection(kind) else {
            return Ok(Vec::new());
        };
        let listed = collection.list(namespace).into_iter();
        Ok(listed
            .filter(|o| reference.selector.matches(&o.index()))
            .map(|o| served(o.value()))
            .collect())
    }

    /// Does with a finding what the binding says.
    fn act<'a>(
        &self,
        policy: &'a Policy,
        binding: &'a Binding,
        found: Found,
        denied: &mut Vec<Denied<'a>>,
        failures: &mut Vec<Value>,
    ) {
        let violation = match found {
            // A policy that can't be asked lets nothing through.
            Found::Failure(violation) => {
                denied.push(Denied {
                    policy,
                    binding: Some(binding),
                    violation,
                });
                return;
            }
            Found::Violation(violation) => violation,
        };
        for action in &binding.actions {
            match action {
                Action::Deny => denied.push(Denied {
                    policy,
                    binding: Some(binding),
                    violation: violation.clone(),
                }),
                Action::Warn => self.request.notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, violation.message
                )),
                Action::Audit => {
                    let actions: Vec<&str> = binding.actions.iter().map(|a| a.name()).collect();
                    failures.push(json!({
                        "message": violation.message,
                        "policy": policy.name,
                        "binding": binding.name,
                        "expressionIndex": violation.index,
                        "validationActions": actions,
                    }));
                }
            }
        }
    }

    fn denial(&self, denied: &Denied<'_>) -> ApiError {
        let Denied {
            policy,
            binding,
            violation,
        } = denied;
        let with = match binding {
            Some(binding) => format!(" with binding '{}'", binding.name),
            None => String::new(),
        };
        let message = format!(
            "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
            policy.name, violation.message
        );
        let kind = &self.request.kind;
        let mut error = ApiError::forbidden(kind, self.called(), &message);
        error.code = match violation.reason.as_str() {
            "Forbidden" => 403,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        error.reason = violation.reason.clone().into();
        error
            .details
            .get_or_insert_default()
            .insert("causes".into(), json!([{"message": message}]));
        error
    }
}

/// What came of asking a policy.
enum Found {
    Violation(Violation),
    /// It can't be asked, and failures count.
    Failure(Violation),
}
