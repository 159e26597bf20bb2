//! Paths that are no resources: health, version, discovery, OpenAPI, metrics.

use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rhumb_api::discovery;
use rhumb_api::registry::Registry;
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};

use crate::auth::token::Tokens;
use crate::http::negotiate::{self, Form, Target};
use crate::http::reply::{self, Body};
use crate::openapi;
use crate::route::Query;
use crate::server::Api;

pub fn answer(api: &Api, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>> {
    let trimmed = path.trim_end_matches('/');
    let segments: Vec<&str> = trimmed.split('/').skip(1).collect();
    let registry = &*api.registry();
    match segments.as_slice() {
        [] => plain(headers, &paths()),
        ["healthz" | "livez" | "readyz", check @ ..] => health(api, segments[0], check, query),
        ["version"] => plain(headers, &discovery::version()),
        ["metrics"] => metrics(api),
        [".well-known", "openid-configuration"] => {
            let document = Tokens::discovery(&api.server_address);
            Ok(typed(&document, "application/json"))
        }
        ["openid", "v1", "jwks"] => Ok(typed(&api.tokens.jwks(), "application/jwk-set+json")),
        ["api"] => root(registry, headers, true, || {
            discovery::api_versions(&api.server_address)
        }),
        ["apis"] => root(registry, headers, false, || {
            discovery::api_group_list(registry)
        }),
        ["api", version] => found(headers, discovery::resource_list(registry, "", version)),
        ["apis", group] => found(headers, discovery::group(registry, group)),
        ["apis", group, version] => {
            found(headers, discovery::resource_list(registry, group, version))
        }
        ["openapi", "v2"] => openapi::v2(api, headers),
        ["openapi", "v3"] => openapi::v3_index(api, headers),
        ["openapi", "v3", rest @ ..] => openapi::v3(api, &rest.join("/"), headers),
        _ => Err(ApiError::no_such_path()),
    }
}

/// A document of a media type of its own, for clients that know it.
fn typed(document: &Value, media_type: &'static str) -> Response<Body> {
    let mut response = reply::json_bytes(
        StatusCode::OK,
        negotiate::JSON_ACCEPT,
        document.to_string().into(),
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn paths() -> Value {
    json!({"paths": [
        "/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2",
        "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version",
    ]})
}

fn plain(headers: &HeaderMap, value: &Value) -> Result<Response<Body>> {
    let accept = negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    Ok(reply::object(StatusCode::OK, accept, value))
}

fn found(headers: &HeaderMap, value: Option<Value>) -> Result<Response<Body>> {
    plain(headers, &value.ok_or_else(ApiError::no_such_path)?)
}

/// `/api` and `/apis`: one document with everything for clients that know it, else the old form.
fn root(
    registry: &Registry,
    headers: &HeaderMap,
    core: bool,
    old: impl FnOnce() -> Value,
) -> Result<Response<Body>> {
    let accept = negotiate::accept(headers.get(ACCEPT), Target::DiscoveryRoot)?;
    let Form::Discovery(form) = accept.form else {
        return Ok(reply::object(StatusCode::OK, accept, &old()));
    };
    let body = discovery::aggregated(registry, form, core).to_string();
    let mut response = tagged(headers, body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    Ok(response)
}

/// A document with an ETag: 304 when the client has it.
pub fn tagged(headers: &HeaderMap, body: bytes::Bytes) -> Response<Body> {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(&body);
    let tag: String = digest[..16].iter().map(|b| format!("{b:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(reply::full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        reply::json_bytes(StatusCode::OK, negotiate::JSON_ACCEPT, body)
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn health(api: &Api, root: &str, check: &[&str], query: &Query) -> Result<Response<Body>> {
    // A server that shuts down still lives, but takes no new work.
    let checks = [
        ("ping", true),
        ("store", api.ready()),
        ("shutdown", root != "readyz" || !api.stop.is_cancelled()),
    ];
    let excluded = |name: &str| query.all("exclude").any(|e| e == name);
    let selected: Vec<(&str, bool)> = match check {
        [] => checks
            .into_iter()
            .filter(|(name, _)| !excluded(name))
            .collect(),
        [one] => checks.into_iter().filter(|(name, _)| name == one).collect(),
        _ => Vec::new(),
    };
    if selected.is_empty() && !check.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let good = selected.iter().all(|(_, good)| *good);
    let code = match good {
        true => StatusCode::OK,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if good && !query.has("verbose") {
        return Ok(reply::text(code, "ok"));
    }
    let mut text = String::new();
    for (name, good) in selected {
        text += &match good {
            true => format!("[+]{name} ok\n"),
            false => format!("[-]{name} failed: reason withheld\n"),
        };
    }
    text += &format!("{root} check {}\n", if good { "passed" } else { "failed" });
    Ok(reply::text(code, text))
}

fn metrics(api: &Api) -> Result<Response<Body>> {
    let text = api.metrics.render(&api.cache).map_err(ApiError::internal)?;
    let mut response = reply::text(StatusCode::OK, text);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}
