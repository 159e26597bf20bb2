//! `serviceaccounts/token`: TokenRequest.

use http::{Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::{self, text};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Errors, Result};
use serde_json::{Value, json};

use super::Request;
use crate::auth::token::{Bound, Claims, ISSUER, Reference};
use crate::http::reply::{self, Body};

const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

pub async fn create(request: &Request) -> Result<Response<Body>> {
    let validation = FieldValidation::parse(request.query.get("fieldValidation"))?;
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let mut asked = codec::decode_named(TOKEN_REQUEST, parsed, validation)?.object;
    let name = request.resource.name.as_str();
    let namespace = request.resource.namespace.as_str();
    let (_, account) = request.current(name).await?;
    let seconds = json::int(&asked, "spec.expirationSeconds").unwrap_or(DEFAULT_SECONDS);
    check_seconds(request, seconds)?;
    let mut audiences: Vec<String> = json::list(&asked, "spec.audiences")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let (pod, node) = bound_to(request, &asked, name)?;
    let now = jiff::Timestamp::now();
    let expires = now.as_second() + seconds;
    let claims = Claims {
        aud: audiences.clone(),
        exp: expires,
        iat: now.as_second(),
        iss: ISSUER.into(),
        jti: uuid::Uuid::new_v4().to_string(),
        bound: Bound {
            namespace: namespace.into(),
            node,
            pod,
            serviceaccount: Reference {
                name: name.into(),
                uid: text(&account, "metadata.uid").into(),
            },
        },
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = request
        .api
        .tokens
        .sign(&claims)
        .map_err(ApiError::internal)?;
    let expiry = jiff::Timestamp::from_second(expires).unwrap_or(now);
    asked["apiVersion"] = "authentication.k8s.io/v1".into();
    asked["kind"] = "TokenRequest".into();
    asked["metadata"] = json!({
        "name": name, "namespace": namespace,
        "creationTimestamp": rhumb_api::time::format(now),
    });
    if let Some(spec) = json::child(&mut asked, "spec") {
        spec["audiences"] = audiences.into();
        spec["expirationSeconds"] = seconds.into();
    }
    asked["status"] = json!({
        "token": token, "expirationTimestamp": rhumb_api::time::format(expiry),
    });
    Ok(reply::object(StatusCode::CREATED, request.accept, &asked))
}

fn check_seconds(request: &Request, seconds: i64) -> Result<()> {
    let mut errors = Errors::default();
    if seconds < LEAST_SECONDS {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > MOST_SECONDS {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    errors.into_result(&request.kind, "")
}

/// The pod that the token ends with, and its node. A kubelet may only ask for tokens of pods.
fn bound_to(
    request: &Request,
    asked: &Value,
    account: &str,
) -> Result<(Option<Reference>, Option<Reference>)> {
    let node = request.user.as_node();
    let reference = json::at(asked, "spec.boundObjectRef");
    let Some(reference) = reference else {
        return match node {
            Some(_) => Err(ApiError::forbidden(
                &request.kind,
                account,
                "node requested token not bound to a pod",
            )),
            None => Ok((None, None)),
        };
    };
    let kind = text(reference, "kind");
    if (text(reference, "apiVersion"), kind) != ("v1", "Pod") {
        return Err(ApiError::bad_request(format!(
            "cannot bind token to object of type {kind}: only pods can be bound to"
        )));
    }
    let namespace = request.resource.namespace.as_str();
    let name = text(reference, "name");
    let pods = registry::find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let pod = request
        .api
        .cache
        .collection(pods)
        .and_then(|c| c.get(namespace, name))
        .ok_or_else(|| ApiError::not_found(pods, name))?
        .value();
    let uid = text(&pod, "metadata.uid");
    let wanted = text(reference, "uid");
    if !wanted.is_empty() && wanted != uid {
        return Err(ApiError::conflict(
            pods,
            name,
            &format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    if text(&pod, "spec.serviceAccountName") != account {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let node_name = text(&pod, "spec.nodeName");
    if let Some(node) = node
        && node != node_name
    {
        return Err(ApiError::forbidden(
            &request.kind,
            account,
            "node requested token bound to a pod scheduled on a different node",
        ));
    }
    let node = registry::find("", "v1", "nodes")
        .and_then(|kind| request.api.cache.collection(kind))
        .and_then(|nodes| nodes.get("", node_name))
        .map(|node| Reference {
            name: node_name.into(),
            uid: text(&node.value(), "metadata.uid").into(),
        });
    let pod = Reference {
        name: name.into(),
        uid: uid.into(),
    };
    Ok((Some(pod), node))
}
