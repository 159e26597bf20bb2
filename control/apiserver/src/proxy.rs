//! The subresource `proxy`: any HTTP, handed on to a pod, a Service's endpoint, or a node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use rhumb_api::proxy::{self, Wanted};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::http::relay;
use crate::http::reply::{self, Body};
use crate::kubelet;
use crate::route::Resource;
use crate::server::Api;
use crate::service_backend;
use crate::verbs::admission::dynamic::Own;

/// Who asks, as its connection knows.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: IpAddr,
    /// Cancelled when nobody waits for the answer any more.
    pub gone: CancellationToken,
}

/// Headers that are about one connection (RFC 9110, 7.6.1).
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

struct Place {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

fn object(api: &Api, plural: &str, namespace: &str, name: &str) -> Result<Value> {
    let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let found = api
        .cache
        .collection(kind)
        .and_then(|c| c.get(namespace, name));
    let found = found.ok_or_else(|| ApiError::not_found(kind, name))?;
    Ok(found.value())
}

fn find(api: &Api, resource: &Resource) -> Result<Place> {
    let kind = resource.kind.as_ref().ok_or_else(ApiError::no_such_path)?;
    let wanted = Wanted::parse(&kind.singular, &resource.name)?;
    let found = object(api, &kind.plural, &resource.namespace, wanted.name)?;
    let tls = wanted.tls.then(|| api.unverified_tls.clone());
    let address = match &*kind.kind {
        "Node" => {
            let kubelet = kubelet::address_of(&found)?;
            match proxy::node(kubelet, wanted)? {
                Some(address) => address,
                None => {
                    return Ok(Place {
                        address: kubelet,
                        tls: Some(api.kubelet_tls.clone()),
                    });
                }
            }
        }
        "Service" => endpoint(api, resource, &found, wanted)?,
        _ => proxy::pod(&found, wanted)?,
    };
    Ok(Place { address, tls })
}

/// What admission is shown of it.
pub fn options(resource: &Resource) -> (Own, Value) {
    let kind = match resource.plural.as_str() {
        "nodes" => "NodeProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "PodProxyOptions",
    };
    let options = json!({"kind": kind, "apiVersion": "v1", "path": resource.below});
    (Own::query(kind), options)
}

/// One of the Service's endpoints.
fn endpoint(
    api: &Api,
    resource: &Resource,
    service: &Value,
    wanted: Wanted<'_>,
) -> Result<SocketAddr> {
    let namespace = resource.namespace.as_str();
    let slices = service_backend::slices(&api.cache, namespace, wanted.name);
    let pod = |name: &str| object(api, "pods", namespace, name).ok();
    let places = proxy::service(service, &slices, wanted, &resource.name, pod)?;
    Ok(places[rand::random::<u32>() as usize % places.len()])
}

/// Takes out what is about the client's connection and credentials.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let acting: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in acting {
        headers.remove(name);
    }
}

/// Adds the client to those that the request came through.
fn forwarded(headers: &mut HeaderMap, peer: IpAddr) {
    let peer = peer.to_canonical();
    let mut via: Vec<String> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|v| v.to_str().ok().map(str::to_string))
        .collect();
    via.push(peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&via.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// `GET` without a slash after `proxy`: relative links of what answers would go astray.
fn with_slash(uri: &Uri) -> Result<Response<Body>> {
    let query = uri.query().map_or(String::new(), |q| format!("?{q}"));
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path()));
    let mut answer = Response::new(reply::full(""));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = location.map_err(ApiError::internal)?;
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

pub async fn serve(
    api: &Arc<Api>,
    resource: &Resource,
    mut request: hyper::Request<Incoming>,
) -> Result<Response<Body>> {
    let place = find(api, resource)?;
    let upgrade = relay::is_upgrade(request.headers())
        .then(|| request.headers().get(UPGRADE).cloned())
        .flatten();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if resource.below.is_empty() && reads && upgrade.is_none() {
        return with_slash(request.uri());
    }
    let path = request.uri().path();
    let prefix = path
        .strip_suffix(resource.below.as_str())
        .unwrap_or(path)
        .to_string();
    let client = hyper::upgrade::on(&mut request);
    let (asked, caller) = prepare(resource, request, upgrade.as_ref(), &prefix)?;
    let host = text_of(asked.headers(), &HOST);
    let ask = async {
        let mut sender = relay::dial(place.address, place.tls)
            .await
            .map_err(|e| e.to_string())?;
        sender.send_request(asked).await.map_err(|e| e.to_string())
    };
    let answered = tokio::select! {
        answered = ask => answered,
        () = caller.gone.cancelled() => Err("the client went away".into()),
        () = api.stop.cancelled() => Err("the server is shutting down".into()),
    };
    let mut answered = answered.map_err(|why| match upgrade {
        Some(_) => ApiError::internal_message(format!("error dialing backend: {why}")),
        None => proxy::unreachable_service(&why),
    })?;
    if let (Some(protocol), StatusCode::SWITCHING_PROTOCOLS) = (&upgrade, answered.status()) {
        relay::bridge(api, client, hyper::upgrade::on(&mut answered));
        let mut answer = Response::new(reply::full(""));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = std::mem::take(answered.headers_mut());
        let chosen = answer.headers().get(UPGRADE).unwrap_or(protocol).clone();
        strip(answer.headers_mut());
        answer.headers_mut().insert(UPGRADE, chosen);
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        return Ok(answer);
    }
    if answered.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(proxy::unreachable_service("it switches protocols unasked"));
    }
    let (mut head, body) = answered.into_parts();
    strip(&mut head.headers);
    // What a browser may do with this server's origin isn't for those behind it to say.
    let cors: Vec<HeaderName> = head
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-allow-"))
        .cloned()
        .collect();
    for name in cors {
        head.headers.remove(name);
    }
    let location = text_of(&head.headers, &LOCATION);
    if !location.is_empty() {
        let rewritten = proxy::redirect(&location, &prefix, &place.address.to_string(), &host);
        if let Ok(rewritten) = HeaderValue::from_str(&rewritten) {
            head.headers.insert(LOCATION, rewritten);
        }
    }
    let mut answer = Response::new(relay::body(body, api.stop.clone()));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    Ok(answer)
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_string()
}

/// The request as it is sent on.
fn prepare(
    resource: &Resource,
    request: hyper::Request<Incoming>,
    upgrade: Option<&HeaderValue>,
    prefix: &str,
) -> Result<(hyper::Request<Incoming>, Caller)> {
    let (parts, body) = request.into_parts();
    let caller = parts
        .extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| ApiError::internal("nobody knows where the request came from"))?;
    let path = match resource.below.as_str() {
        "" => "/",
        below => below,
    };
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_string(),
    };
    let target = PathAndQuery::try_from(target)
        .map_err(|e| ApiError::bad_request(format!("the path can't be handed on: {e}")))?;
    let mut headers = parts.headers;
    // HTTP/2 has the host in its target.
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    strip(&mut headers);
    forwarded(&mut headers, caller.peer);
    match upgrade {
        Some(protocol) => {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        None => {
            let uri = format!("{prefix}{path}");
            if let Ok(uri) = HeaderValue::from_str(&uri) {
                headers.insert(FORWARDED_URI, uri);
            }
        }
    }
    let mut asked = hyper::Request::new(body);
    *asked.method_mut() = parts.method;
    *asked.version_mut() = Version::HTTP_11;
    *asked.uri_mut() = Uri::from(target);
    *asked.headers_mut() = headers;
    Ok((asked, caller))
}
