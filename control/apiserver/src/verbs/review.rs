//! Reviews: questions that are answered, not stored. `kubectl auth whoami` and `kubectl auth can-i`
//! ask them, and so do servers that leave authentication and authorization to this one.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::{self, at, list, text};
use rhumb_api::rbac::Decision;
use rhumb_api::registry::Review;
use rhumb_api::status::{ApiError, Errors, Result};
use serde_json::{Value, json};

use crate::auth::User;
use crate::auth::authenticate;
use crate::auth::authorize::{Attributes, Authorizer};
use crate::http::negotiate::{self, Target};
use crate::http::reply::{self, Body};
use crate::route::Query;
use crate::server::Api;

/// A review as it comes in.
pub struct Asked<'a> {
    pub review: &'static Review,
    pub user: &'a User,
    /// "" but for a LocalSubjectAccessReview.
    pub namespace: &'a str,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Answers a review of the user's, or of the user or token that it names.
pub fn create(api: &Api, asked: &Asked<'_>) -> Result<Response<Body>> {
    let review = asked.review;
    let media_type = asked
        .headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let validation = FieldValidation::parse("CreateOptions", asked.query.get("fieldValidation"))?;
    let parsed = codec::parse(media_type, asked.body)?;
    let decoded = codec::decode_named(review.schema_name, parsed, validation)?;
    let mut object = decoded.object;
    let given = text(&object, "kind");
    if !given.is_empty() && given != review.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({given}) does not match the expected kind ({})",
            review.kind
        )));
    }
    object["kind"] = review.kind.into();
    object["apiVersion"] = format!("{}/{}", review.group, review.version).into();
    if let Some(metadata) = json::child(&mut object, "metadata")
        && !asked.namespace.is_empty()
    {
        let given = text(metadata, "namespace");
        if !given.is_empty() && given != asked.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata["namespace"] = asked.namespace.into();
    }
    object["status"] = answer(api, asked, &object)?;
    let accept = negotiate::accept(asked.headers.get(ACCEPT), Target::Other)?;
    let mut response = reply::object(StatusCode::CREATED, accept, &object);
    reply::warn(&mut response, &decoded.warnings);
    Ok(response)
}

fn answer(api: &Api, asked: &Asked<'_>, object: &Value) -> Result<Value> {
    let authorizer = &api.authorizer;
    let review = asked.review;
    match review.kind {
        "SelfSubjectReview" => Ok(json!({"userInfo": asked.user.to_value()})),
        "TokenReview" => token(api, object),
        "SelfSubjectRulesReview" => rules(authorizer, asked.user, object),
        "SelfSubjectAccessReview" => {
            let mut errors = Errors::default();
            one_question(object, &mut errors);
            refuse(review, errors)?;
            Ok(access(authorizer, asked.user, object))
        }
        _ => {
            let mut errors = Errors::default();
            one_question(object, &mut errors);
            let user = named_user(object);
            if user.name.is_empty() && user.groups.is_empty() {
                errors.invalid(
                    "spec.user",
                    "",
                    "at least one of user or group must be specified",
                );
            }
            if review.namespaced {
                let inside = text(object, "spec.resourceAttributes.namespace");
                if at(object, "spec.nonResourceAttributes").is_some() {
                    errors.invalid(
                        "spec.nonResourceAttributes",
                        at(object, "spec.nonResourceAttributes")
                            .cloned()
                            .unwrap_or_default(),
                        "disallowed on this kind of request",
                    );
                } else if inside != asked.namespace {
                    errors.invalid(
                        "spec.resourceAttributes.namespace",
                        inside,
                        "must match metadata.namespace",
                    );
                }
            }
            refuse(review, errors)?;
            Ok(access(authorizer, &user, object))
        }
    }
}

fn refuse(review: &Review, errors: Errors) -> Result<()> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_named(
            review.group,
            review.kind,
            "",
            errors,
        )),
    }
}

fn one_question(review: &Value, errors: &mut Errors) {
    let resource = at(review, "spec.resourceAttributes");
    let path = at(review, "spec.nonResourceAttributes");
    match (resource, path) {
        (Some(_), Some(path)) => errors.invalid(
            "spec.nonResourceAttributes",
            path.clone(),
            "cannot be specified in combination with resourceAttributes",
        ),
        (None, None) => errors.invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
}

/// The user that a SubjectAccessReview is about.
fn named_user(review: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        let values = value.as_array().into_iter().flatten();
        values
            .filter_map(|v| v.as_str().map(str::to_string))
            .collect()
    };
    let extra = json::map(review, "spec.extra").into_iter().flatten();
    User {
        name: text(review, "spec.user").into(),
        uid: text(review, "spec.uid").into(),
        groups: at(review, "spec.groups").map(texts).unwrap_or_default(),
        extra: extra.map(|(k, v)| (k.clone(), texts(v))).collect(),
    }
}

fn access(authorizer: &Authorizer, user: &User, review: &Value) -> Value {
    let Decision { allowed, reason } = match at(review, "spec.resourceAttributes") {
        Some(asked) => {
            let requirement = |key: &str| {
                list(asked, "fieldSelector.requirements")
                    .iter()
                    .find(|r| text(r, "key") == key && text(r, "operator") == "In")
                    .and_then(|r| match list(r, "values") {
                        [one] => one.as_str(),
                        _ => None,
                    })
            };
            let attributes = Attributes {
                verb: text(asked, "verb"),
                group: text(asked, "group"),
                resource: text(asked, "resource"),
                subresource: text(asked, "subresource"),
                namespace: text(asked, "namespace"),
                name: text(asked, "name"),
                node_field: requirement("spec.nodeName"),
            };
            authorizer.resource(user, &attributes)
        }
        None => {
            let asked = |field: &str| text(review, &format!("spec.nonResourceAttributes.{field}"));
            authorizer.path(user, asked("verb"), asked("path"))
        }
    };
    match reason.as_str() {
        "" => json!({"allowed": allowed}),
        reason => json!({"allowed": allowed, "reason": reason}),
    }
}

/// `kubectl auth can-i --list`.
fn rules(authorizer: &Authorizer, user: &User, review: &Value) -> Result<Value> {
    let namespace = text(review, "spec.namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let known = authorizer.rules_for(user, namespace);
    let (mut resource, mut paths) = (Vec::new(), Vec::new());
    for rule in &known.rules {
        if !rule.resources.is_empty() {
            resource.push(json!({
                "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources,
            }));
            if !rule.names.is_empty()
                && let Some(last) = resource.last_mut()
            {
                last["resourceNames"] = rule.names.clone().into();
            }
        }
        if !rule.urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    let mut status = json!({
        "resourceRules": resource, "nonResourceRules": paths,
        "incomplete": !known.faults.is_empty(),
    });
    if !known.faults.is_empty() {
        status["evaluationError"] = known.faults.join(", ").into();
    }
    Ok(status)
}

/// Whose token it is, for servers that don't look themselves.
fn token(api: &Api, review: &Value) -> Result<Value> {
    let given = text(review, "spec.token");
    if given.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<&str> = list(review, "spec.audiences")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    Ok(match authenticate::token(api, given, &audiences) {
        Ok((user, audiences)) => {
            let mut status = json!({"authenticated": true, "user": user.to_value()});
            if !audiences.is_empty() {
                status["audiences"] = audiences.into();
            }
            status
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}
