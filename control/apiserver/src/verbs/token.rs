//! `serviceaccounts/token`: TokenRequest.

use http::{Response, StatusCode};
use rhumb_api::codec;
use rhumb_api::json::{self, text};
use rhumb_api::node_restriction;
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Errors, Result};
use serde_json::{Value, json};

use super::Request;
use super::admission::dynamic::{self, Own};
use crate::auth::token::{Bound, Claims, ISSUER, Reference};
use crate::http::reply::{self, Body};

const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";

const OWN: Own = Own {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    schema: TOKEN_REQUEST,
};
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

pub async fn create(request: &Request) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let mut asked = codec::decode_named(TOKEN_REQUEST, parsed, validation)?.object;
    dynamic::post(request, &OWN, &mut asked, request.dry_run()?).await?;
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
    // What was written before is looked up, and the token counts from the start.
    let api = &request.api;
    let _ = api.cache.reach(api.store.revision(), super::WAIT).await;
    let bound = bound_to(request, &asked, name)?;
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
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
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

/// What the token ends with, besides its service account.
#[derive(Default)]
struct BoundTo {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

fn cached(request: &Request, plural: &str, namespace: &str, name: &str) -> Result<Value> {
    let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let found = request
        .api
        .cache
        .collection(kind)
        .and_then(|c| c.get(namespace, name));
    Ok(found
        .ok_or_else(|| ApiError::not_found(kind, name))?
        .value())
}

fn bound_to(request: &Request, asked: &Value, account: &str) -> Result<BoundTo> {
    let namespace = request.resource.namespace.as_str();
    let of = |field: &str| text(asked, &format!("spec.boundObjectRef.{field}"));
    let name = of("name");
    if let Some(node) = request.user.as_node() {
        let pod = cached(request, "pods", namespace, name).ok();
        node_restriction::token(node, asked, pod.as_ref())
            .map_err(|why| ApiError::forbidden(&request.kind, account, &why))?;
    }
    if json::at(asked, "spec.boundObjectRef").is_none() {
        return Ok(BoundTo::default());
    }
    let (plural, within) = match (of("apiVersion"), of("kind")) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let object = cached(request, plural, within, name)?;
    let uid = text(&object, "metadata.uid");
    let wanted = of("uid");
    if !wanted.is_empty() && wanted != uid {
        let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
        return Err(ApiError::conflict(
            kind,
            name,
            &format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let reference = Reference {
        name: name.into(),
        uid: uid.into(),
    };
    let mut bound = BoundTo::default();
    match plural {
        "nodes" => bound.node = Some(reference),
        "secrets" => bound.secret = Some(reference),
        _ => {
            if text(&object, "spec.serviceAccountName") != account {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            bound.pod = Some(reference);
            // Where the pod runs is told along.
            let node = text(&object, "spec.nodeName");
            bound.node = cached(request, "nodes", "", node).ok().map(|n| Reference {
                name: node.into(),
                uid: text(&n, "metadata.uid").into(),
            });
        }
    }
    Ok(bound)
}
