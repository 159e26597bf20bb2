//! `metav1.Status`: every refusal of the API, with Kubernetes' reasons, codes and texts.
//! Source: apimachinery `pkg/api/errors` and `pkg/util/validation/field`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::registry::Kind;

/// An error that a client sees: becomes a `Status` object with an HTTP code.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    /// Kubernetes' own, or what a webhook says.
    pub reason: Cow<'static, str>,
    pub message: String,
    /// `details` of the Status: name, group, kind, uid, causes, retryAfterSeconds.
    pub details: Option<Box<Map<String, Value>>>,
}

pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        ApiError {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !kind.group.is_empty() {
            details.insert("group".into(), kind.group.as_ref().into());
        }
        details.insert("kind".into(), kind.plural.as_ref().into());
        self.details = Some(Box::new(details));
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details
            .get_or_insert_default()
            .insert("retryAfterSeconds".into(), seconds.into());
        self
    }

    fn with_causes(mut self, causes: Vec<Value>) -> Self {
        self.details
            .get_or_insert_default()
            .insert("causes".into(), Value::Array(causes));
        self
    }

    /// The `Status` object itself.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.as_ref().into();
        }
        if let Some(details) = &self.details {
            status["details"] = Value::Object((**details).clone());
        }
        status["code"] = self.code.into();
        status
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", kind.qualified_resource()),
        )
        .about(kind, name)
    }

    /// A path that names nothing that is served.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", kind.qualified_resource()),
        )
        .about(kind, name)
    }

    /// `generateName` found no free name.
    pub fn generate_name_conflict(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!(
                "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
                kind.qualified_resource()
            ),
        )
        .about(kind, name)
        .with_retry_after(1)
    }

    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                kind.qualified_resource()
            ),
        )
        .about(kind, name)
    }

    /// The stale resourceVersion.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// Admission's refusal of an object: `pods "x" is forbidden: why`.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let resource = kind.qualified_resource();
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// Authorization's refusal, for a resource (`resource` may be `pods/status`).
    pub fn unauthorised_access(
        user: &str,
        verb: &str,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
        reason: &str,
    ) -> Self {
        let place = match namespace {
            Some(ns) => format!("in the namespace \"{ns}\""),
            None => "at the cluster scope".to_string(),
        };
        let plural = resource.split('/').next().unwrap_or(resource);
        let qualified = if group.is_empty() {
            plural.to_string()
        } else {
            format!("{plural}.{group}")
        };
        let subject = if name.is_empty() {
            qualified
        } else {
            format!("{qualified} \"{name}\"")
        };
        let mut error = Self::new(
            403,
            "Forbidden",
            format!(
                "{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}{}",
                match reason {
                    "" => String::new(),
                    reason => format!(": {reason}"),
                }
            ),
        );
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        details.insert("kind".into(), plural.into());
        error.details = Some(Box::new(details));
        error
    }

    /// Authorization's refusal of a path that is no resource.
    pub fn unauthorised_path(user: &str, verb: &str, path: &str, reason: &str) -> Self {
        let mut text = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        if !reason.is_empty() {
            text += &format!(": {reason}");
        }
        let mut error = Self::new(403, "Forbidden", text);
        error.details = Some(Box::default());
        error
    }

    /// 422 with one cause a field.
    pub fn invalid(kind: &Kind, name: &str, errors: Errors) -> Self {
        Self::invalid_named(&kind.group, &kind.kind, name, errors)
    }

    /// As `invalid`, for what is no registered kind.
    pub fn invalid_named(group: &str, kind: &str, name: &str, errors: Errors) -> Self {
        let mut lines: Vec<String> = Vec::new();
        let mut causes = Vec::new();
        for error in &errors.0 {
            let line = error.to_string();
            if !lines.contains(&line) {
                lines.push(line);
            }
            causes.push(json!({
                "reason": error.reason(), "message": error.body(), "field": error.field,
            }));
        }
        let text = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() {
            kind.to_string()
        } else {
            format!("{kind}.{group}")
        };
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {text}"),
        );
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        details.insert("kind".into(), kind.into());
        error.details = Some(Box::new(details));
        error.with_causes(causes)
    }

    pub fn method_not_supported(kind: &Kind, verb: &str) -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            format!(
                "{verb} is not supported on resources of kind \"{}\"",
                kind.qualified_resource()
            ),
        )
        .about(kind, "")
    }

    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!(
                "only the following media types are accepted: {}",
                accepted.join(", ")
            ),
        )
    }

    /// A revision that compaction has taken away: 410.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn watch_too_old() -> Self {
        Self::expired("The resourceVersion for the provided watch is too old.")
    }

    pub fn list_too_old() -> Self {
        Self::expired("The resourceVersion for the provided list is too old.")
    }

    pub fn continue_expired() -> Self {
        Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
        )
    }

    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        )
        .with_causes(vec![
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}),
        ])
        .with_retry_after(1)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
        .with_causes(vec![json!({"message": message.to_string()})])
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after)
    }

    /// An eviction that a disruption budget doesn't allow now.
    pub fn disruption_budget(cause: impl Into<String>, retry_after: u32) -> Self {
        let error = Self::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        let error = match retry_after {
            0 => error,
            seconds => error.with_retry_after(seconds),
        };
        error.with_causes(vec![
            json!({"reason": "DisruptionBudget", "message": cause.into()}),
        ])
    }

    /// A 500 whose message says it all.
    pub fn internal_message(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    pub fn request_too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }
}

/// The `Status` that answers a finished delete.
pub fn deleted(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    details.insert("name".into(), name.into());
    if !kind.group.is_empty() {
        details.insert("group".into(), kind.group.as_ref().into());
    }
    details.insert("kind".into(), kind.plural.as_ref().into());
    if !uid.is_empty() {
        details.insert("uid".into(), uid.into());
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

/// What is wrong with one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub fault: Fault,
    pub field: String,
    pub value: Value,
    pub detail: String,
}

impl FieldError {
    pub fn reason(&self) -> &'static str {
        match self.fault {
            Fault::NotFound => "FieldValueNotFound",
            Fault::Required => "FieldValueRequired",
            Fault::Duplicate => "FieldValueDuplicate",
            Fault::Invalid => "FieldValueInvalid",
            Fault::NotSupported => "FieldValueNotSupported",
            Fault::Forbidden => "FieldValueForbidden",
            Fault::TooLong => "FieldValueTooLong",
            Fault::TooMany => "FieldValueTooMany",
            Fault::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// Go's `field.Error.ErrorBody`.
    pub fn body(&self) -> String {
        let head = match self.fault {
            Fault::NotFound => "Not found",
            Fault::Required => "Required value",
            Fault::Duplicate => "Duplicate value",
            Fault::Invalid | Fault::TypeInvalid => "Invalid value",
            Fault::NotSupported => "Unsupported value",
            Fault::Forbidden => "Forbidden",
            Fault::TooLong => "Too long",
            Fault::TooMany => "Too many",
        };
        let mut body = match self.fault {
            Fault::Required | Fault::Forbidden | Fault::TooLong => head.to_string(),
            // JSON's and Go's quoting agree on everything that a valid field can hold.
            _ => format!("{head}: {}", self.value),
        };
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Collected field errors, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, fault: Fault, field: &str, value: Value, detail: impl Into<String>) {
        self.0.push(FieldError {
            fault,
            field: field.to_string(),
            value,
            detail: detail.into(),
        });
    }

    pub fn required(&mut self, field: &str, detail: &str) {
        self.push(Fault::Required, field, Value::String(String::new()), detail);
    }

    pub fn invalid(&mut self, field: &str, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(Fault::Invalid, field, value.into(), detail);
    }

    pub fn type_invalid(
        &mut self,
        field: &str,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.push(Fault::TypeInvalid, field, value.into(), detail);
    }

    pub fn duplicate(&mut self, field: &str, value: impl Into<Value>) {
        self.push(Fault::Duplicate, field, value.into(), "");
    }

    pub fn forbidden(&mut self, field: &str, detail: impl Into<String>) {
        self.push(
            Fault::Forbidden,
            field,
            Value::String(String::new()),
            detail,
        );
    }

    pub fn not_found(&mut self, field: &str, value: impl Into<Value>) {
        self.push(Fault::NotFound, field, value.into(), "");
    }

    pub fn not_supported(&mut self, field: &str, value: impl Into<Value>, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        self.push(
            Fault::NotSupported,
            field,
            value.into(),
            format!("supported values: {}", quoted.join(", ")),
        );
    }

    pub fn too_long(&mut self, field: &str, max: usize) {
        self.push(
            Fault::TooLong,
            field,
            Value::Null,
            format!("may not be more than {max} bytes"),
        );
    }

    pub fn too_many(&mut self, field: &str, actual: usize, max: usize) {
        self.push(
            Fault::TooMany,
            field,
            actual.into(),
            format!("must have at most {max} items"),
        );
    }

    /// `Ok` when nothing was found, else the 422 about `kind`/`name`.
    pub fn into_result(self, kind: &Kind, name: &str) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(kind, name, self))
        }
    }
}
