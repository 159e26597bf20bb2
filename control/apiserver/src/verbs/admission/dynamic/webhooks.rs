//! Webhooks at work: which are meant, the review that each gets, and what comes of its answer.
//! Source: apiserver `pkg/admission/plugin/webhook/{generic,mutating,validating}`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use rhumb_api::admission::dynamic::{Answer, FailurePolicy, Operation, Scope, refusal, verify};
use rhumb_api::apply::managed::Managed;
use rhumb_api::json::{self, at};
use rhumb_api::patch::{self, PatchType};
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};

use super::hooks::Hook;
use super::subject::{Form, Subject};

/// What a mutating webhook may look at again.
#[derive(Default)]
pub struct Turns {
    /// Whether this is the second turn.
    again: bool,
    /// Webhooks that were asked, and would be asked again after a change.
    asked: BTreeSet<String>,
    /// Those that have to be asked again.
    due: BTreeSet<String>,
    /// What the first turn left.
    last: Option<Value>,
}

impl Turns {
    fn changed(&mut self) {
        self.due.append(&mut self.asked);
    }

    pub fn again(mut self) -> Turns {
        self.again = true;
        self
    }
}

/// The objects of one call, in the form of the request.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// Why a webhook let nothing through.
enum Failed {
    /// It said no.
    Denied(ApiError),
    /// It could not be asked, or answered nonsense.
    Call(String),
    /// Whatever the policy for failures is.
    Always(ApiError),
}

impl Subject<'_> {
    /// The form in which a webhook wants its objects; `None` if it isn't meant.
    fn wanted<'s>(&'s self, hook: &Hook, pair: Pair<'_>) -> Result<Option<&'s Form>> {
        let webhook = &hook.webhook;
        let Some(form) = self.meant(&webhook.constraints, pair) else {
            return Ok(None);
        };
        if webhook.conditions.is_empty() {
            return Ok(Some(form));
        }
        let holds = self.asked(form, pair, None, |input| {
            webhook.conditions.hold(&mut Scope::new(input, &[]))
        });
        match (holds, webhook.failure) {
            (Ok(holds), _) => Ok(holds.then_some(form)),
            (Err(why), FailurePolicy::Fail) => {
                let kind = &self.request.kind;
                Err(ApiError::forbidden(kind, self.called(), &why))
            }
            (Err(why), FailurePolicy::Ignore) => {
                tracing::warn!(webhook = webhook.name, why, "its conditions failed");
                Ok(None)
            }
        }
    }

    /// Asks the mutating webhooks in turn. Says whether one of them has changed the object.
    pub async fn mutate(
        &self,
        hooks: &[Arc<Hook>],
        object: &mut Option<Value>,
        old: Option<&Value>,
        turns: &mut Turns,
    ) -> Result<bool> {
        if turns.again && turns.last != *object {
            // The server's own plugins have changed it since.
            turns.changed();
        }
        let mut any = false;
        for hook in hooks {
            let pair = Pair {
                object: object.as_ref(),
                old,
            };
            let id = &hook.webhook.id;
            // What was not asked at first is not asked later.
            if turns.again && !turns.due.contains(id) {
                continue;
            }
            let Some(form) = self.wanted(hook, pair)? else {
                continue;
            };
            let answered = self.ask(hook, form, pair, true).await;
            let patched = match answered {
                Ok(answer) => self.patched(hook, form, pair.object, answer.patch),
                Err(failed) => Err(failed),
            };
            match patched {
                Ok(None) => {}
                Ok(Some(new)) => {
                    if Some(&new) != object.as_ref() {
                        any = true;
                        turns.changed();
                    }
                    *object = Some(new);
                }
                Err(failed) => self.failed(hook, failed)?,
            }
            if hook.webhook.reinvoke {
                turns.asked.insert(id.clone());
            }
        }
        if any || turns.last.is_none() {
            turns.last = object.clone();
        }
        Ok(any)
    }

    /// Asks the validating webhooks, all at once; the first refusal in their order counts.
    pub async fn validate(&self, hooks: &[Arc<Hook>], pair: Pair<'_>) -> Result<()> {
        let calls = hooks.iter().map(async |hook| {
            let Some(form) = self.wanted(hook, pair)? else {
                return Ok(());
            };
            match self.ask(hook, form, pair, false).await {
                Ok(_) => Ok(()),
                Err(failed) => self.failed(hook, failed),
            }
        });
        join_all(calls).await.into_iter().collect()
    }

    fn time_left(&self) -> Duration {
        let deadline = self.request.deadline;
        deadline.saturating_duration_since(Instant::now())
    }

    fn failed(&self, hook: &Hook, failed: Failed) -> Result<()> {
        let name = &hook.webhook.name;
        match (failed, hook.webhook.failure) {
            (Failed::Denied(error) | Failed::Always(error), _) => Err(error),
            // Whatever its policy, there is no time left for the others.
            _ if self.time_left().is_zero() => Err(ApiError::timeout(
                "request did not complete within requested timeout - context deadline exceeded",
            )),
            (Failed::Call(why), FailurePolicy::Fail) => Err(ApiError::internal(format!(
                "failed calling webhook {name:?}: {why}"
            ))),
            (Failed::Call(why), FailurePolicy::Ignore) => {
                tracing::warn!(webhook = name, why, "a webhook failed, and is left aside");
                Ok(())
            }
        }
    }

    async fn ask(
        &self,
        hook: &Hook,
        form: &Form,
        pair: Pair<'_>,
        mutating: bool,
    ) -> Result<Answer, Failed> {
        let webhook = &hook.webhook;
        if self.attributes.dry_run && !webhook.dry_runs {
            return Err(Failed::Always(ApiError::bad_request(format!(
                "admission webhook {:?} does not support dry run",
                webhook.name
            ))));
        }
        let client = hook
            .client
            .as_ref()
            .map_err(|why| Failed::Call(format!("failed to call webhook: {why}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let body = self.review(form, pair, webhook.review_version, &uid);
        let within = Duration::from_secs(webhook.timeout_seconds).min(self.time_left());
        let answer = client.post(body, within).await.map_err(Failed::Call)?;
        let answer = verify(&answer, webhook.review_version, &uid, mutating)
            .map_err(|why| Failed::Call(format!("received invalid webhook response: {why}")))?;
        for warning in &answer.warnings {
            self.request.notes.warn(warning.clone());
        }
        for (key, value) in &answer.audit_annotations {
            self.request
                .notes
                .annotate(format!("{}/{key}", webhook.name), value.clone());
        }
        match answer.allowed {
            true => Ok(answer),
            false => Err(Failed::Denied(refusal(
                &webhook.name,
                answer.status.as_ref(),
            ))),
        }
    }

    fn review(&self, form: &Form, pair: Pair<'_>, version: &str, uid: &str) -> Bytes {
        let show = |object: Option<&Value>| match object {
            Some(object) => self.shown(form, object).into_owned(),
            None => Value::Null,
        };
        let mut request = json!({"uid": uid});
        let rest = self.attributes.request((&form.resource, &form.kind));
        if let (Some(request), Value::Object(rest)) = (request.as_object_mut(), rest) {
            request.extend(rest);
            request.insert("object".into(), show(pair.object));
            request.insert("oldObject".into(), show(pair.old));
        }
        let review = json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{version}"),
            "request": request,
        });
        review.to_string().into()
    }

    /// The object after a webhook's patch; `None` if it has none.
    fn patched(
        &self,
        hook: &Hook,
        form: &Form,
        object: Option<&Value>,
        patch: Option<Vec<u8>>,
    ) -> Result<Option<Value>, Failed> {
        let name = &hook.webhook.name;
        let Some(patch) = patch else {
            return Ok(None);
        };
        let operations = serde_json::from_slice(&patch)
            .map_err(|e| Failed::Call(format!("its patch is no JSON: {e}")))?;
        match operations {
            Value::Null => return Ok(None),
            Value::Array(none) if none.is_empty() => return Ok(None),
            _ => {}
        }
        // Nobody looks at the options of a connection again.
        let connects = self.attributes.operation == Operation::Connect;
        let Some(object) = object.filter(|_| !connects) else {
            return Err(Failed::Always(ApiError::internal(format!(
                "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
            ))));
        };
        // It was answered, so that it is no failure to call.
        let broken = |error: ApiError| Failed::Always(ApiError::internal(error.message));
        let shown = self.shown(form, object);
        let patched = patch::apply_named("", PatchType::Json, &shown, &patch).map_err(broken)?;
        let mut taken = self.taken(form, patched.object).map_err(broken)?;
        if let Err(why) = Managed::decode(at(&taken, "metadata.managedFields")) {
            // Who owns what is not lost by it.
            let managed = at(object, "metadata.managedFields").cloned();
            if let Some(metadata) = json::child(&mut taken, "metadata") {
                json::put(metadata, "managedFields", managed);
            }
            self.request.notes.warn(format!(
                ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {why}"
            ));
        }
        Ok(Some(taken))
    }
}
