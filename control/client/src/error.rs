//! The answers of the API that a controller has to tell apart.

use kube::Error;

/// The server's own words, without the whole Status that `kube::Error` prints around them.
pub fn message(error: &Error) -> String {
    match error {
        Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// An error with its causes on one line, each said once.
pub fn chain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            parts.push(message(error));
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

fn reason_is(error: &Error, code: u16, reason: &str) -> bool {
    matches!(error, Error::Api(status) if status.code == code && (status.reason.is_empty() || status.reason == reason))
}

/// The object isn't there.
pub fn is_not_found(error: &Error) -> bool {
    reason_is(error, 404, "NotFound")
}

/// The object was changed since it was read, or a precondition (uid, resourceVersion) doesn't hold.
pub fn is_conflict(error: &Error) -> bool {
    reason_is(error, 409, "Conflict")
}

/// There is an object of that name already.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Creation was refused because the namespace is being deleted: not an error for a controller,
/// its object is about to go as well.
pub fn is_namespace_terminating(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 403
        && (status.message.contains("being terminated")
            || status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))))
}
