//! Answers: objects, Status errors, streams; gzip and YAML.

use std::io::{self, Write as _};

use bytes::Bytes;
use futures::Stream;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER, VARY};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use rhumb_api::status::ApiError;
use serde_json::Value;

use super::negotiate::Accept;

/// A body that fails breaks its connection off, so that nobody takes it for whole.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

const WARNING: HeaderName = HeaderName::from_static("warning");
const JSON: &str = "application/json";
const INDENT_TO: usize = 4 << 20;
/// As kube-apiserver: smaller answers are not worth it.
const GZIP_FROM: usize = 128 << 10;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    let whole = Full::new(bytes.into());
    whole.map_err(|never| match never {}).boxed_unsync()
}

pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt as _;
    parts(chunks.map(Ok))
}

/// As `stream`, for what may not become whole.
pub fn parts(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures::StreamExt as _;
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// JSON bytes in the syntax that the client wants.
pub fn json_bytes(code: StatusCode, accept: Accept, json: Bytes) -> Response<Body> {
    let (bytes, content_type) = if accept.yaml {
        let value: Value = serde_json::from_slice(&json).unwrap_or_default();
        match serde_saphyr::to_string(&value) {
            Ok(yaml) => (Bytes::from(yaml), "application/yaml"),
            // JSON is YAML as well.
            Err(_) => (json, "application/yaml"),
        }
    } else {
        (json, JSON)
    };
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn object(code: StatusCode, accept: Accept, object: &Value) -> Response<Body> {
    json_bytes(code, accept, object.to_string().into())
}

pub fn error(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = object(code, super::negotiate::JSON_ACCEPT, &error.to_status());
    let retry = error
        .details
        .as_ref()
        .and_then(|d| d.get("retryAfterSeconds"))
        .and_then(Value::as_u64);
    if let Some(seconds) = retry {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// `Warning: 299 - "text"`, which kubectl prints.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .flat_map(|c| {
                let escape = matches!(c, '"' | '\\').then_some('\\');
                escape.into_iter().chain(std::iter::once(c))
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Breaks a whole answer of JSON into lines, for people. What is larger than people read stays.
pub async fn indent(response: Response<Body>) -> Response<Body> {
    use hyper::body::Body as _;
    let json = response.headers().get(CONTENT_TYPE) == Some(&HeaderValue::from_static(JSON));
    let size = response.body().size_hint().exact();
    if !json || size.is_none_or(|size| size as usize > INDENT_TO) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(failure) => return error(&ApiError::internal(failure)),
    };
    let indented =
        serde_json::from_slice::<Value>(&bytes).and_then(|value| serde_json::to_vec_pretty(&value));
    Response::from_parts(parts, full(indented.map_or(bytes, Bytes::from)))
}

/// Compresses a whole answer if the client takes it and it is worth it.
pub async fn compress(response: Response<Body>) -> Response<Body> {
    use hyper::body::Body as _;
    let worth = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| size as usize >= GZIP_FROM);
    if !worth || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(failure) => return error(&ApiError::internal(failure)),
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            parts
                .headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts
                .headers
                .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, full(packed))
        }
        // Writing to memory doesn't fail; if it did, plain is right too.
        Err(_) => Response::from_parts(parts, full(bytes)),
    }
}
