//! Calls that the kubelet of a pod's node answers: logs, exec, attach and port-forward.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use rhumb_api::json::{self, at, text};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};

use crate::http::relay;
use crate::http::reply::{self, Body};
use crate::route::{Query, Resource};
use crate::server::Api;
use crate::verbs::admission::dynamic::Own;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Query parameters of logs, which the kubelet knows under the same names.
const LOG_PARAMETERS: &[&str] = &[
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timestamps",
];

/// Headers of a WebSocket handshake that pass in both directions.
const WEBSOCKET: &[&str] = &[
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-accept",
];

struct Place {
    node: String,
    address: SocketAddr,
    container: String,
}

/// Whether a container is meant, and which the client names.
enum Container<'a> {
    None,
    Named(&'a str),
}

/// Where the pod is; a pod that isn't anywhere yet is a mistake.
fn placed(api: &Api, resource: &Resource, wanted: Container<'_>) -> Result<Place> {
    find(api, resource, wanted)?.ok_or_else(|| {
        ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            resource.name
        ))
    })
}

/// Where the pod is; `None` before it has a node.
fn find(api: &Api, resource: &Resource, wanted: Container<'_>) -> Result<Option<Place>> {
    let kind = resource.kind.as_ref().ok_or_else(ApiError::no_such_path)?;
    let pod = api
        .cache
        .collection(kind)
        .and_then(|c| c.get(&resource.namespace, &resource.name))
        .ok_or_else(|| ApiError::not_found(kind, &resource.name))?
        .value();
    let container = match wanted {
        Container::None => String::new(),
        Container::Named(name) => container(&pod, name)?,
    };
    let node = text(&pod, "spec.nodeName");
    if node.is_empty() {
        return Ok(None);
    }
    let nodes = registry::find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let object = api
        .cache
        .collection(nodes)
        .and_then(|c| c.get("", node))
        .ok_or_else(|| ApiError::not_found(nodes, node))?
        .value();
    let address = address_of(&object)?;
    Ok(Some(Place {
        node: node.into(),
        address,
        container,
    }))
}

/// Where a node's kubelet listens.
fn address(node: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = json::list(node, "status.addresses")
        .iter()
        .filter(|a| text(a, "type") == "InternalIP")
        .find_map(|a| text(a, "address").parse().ok())?;
    let port = json::int(node, "status.daemonEndpoints.kubeletEndpoint.Port")?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

pub fn address_of(node: &Value) -> Result<SocketAddr> {
    address(node).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "node {} has no InternalIP or no kubelet port in its status",
            text(node, "metadata.name")
        ))
    })
}

/// The container that is meant, in Kubernetes' words when it isn't clear.
fn container(pod: &Value, asked: &str) -> Result<String> {
    let names = |path: &str| -> Vec<&str> {
        json::list(pod, path)
            .iter()
            .map(|c| text(c, "name"))
            .collect()
    };
    let main = names("spec.containers");
    let init = names("spec.initContainers");
    let pod_name = text(pod, "metadata.name");
    if !asked.is_empty() {
        let added = names("spec.ephemeralContainers");
        if [main, init, added].iter().any(|n| n.contains(&asked)) {
            return Ok(asked.into());
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        )));
    }
    let annotated = at(pod, "metadata.annotations")
        .and_then(|a| a.get(DEFAULT_CONTAINER))
        .and_then(Value::as_str);
    match (annotated, main.as_slice()) {
        (Some(name), _) if main.contains(&name) => Ok(name.into()),
        (_, [one]) => Ok((*one).into()),
        _ => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// One byte string of a query, percent-encoded.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char);
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

fn path(
    root: &str,
    resource: &Resource,
    container: Option<&str>,
    query: &[(&str, &str)],
) -> String {
    let query: Vec<String> = query
        .iter()
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    let mut path = format!(
        "/{root}/{}/{}",
        encode(&resource.namespace),
        encode(&resource.name),
    );
    if let Some(container) = container {
        path += &format!("/{}", encode(container));
    }
    if !query.is_empty() {
        path += &format!("?{}", query.join("&"));
    }
    path
}

/// Sends one request to a kubelet.
async fn call(
    api: &Api,
    place: &Place,
    path: &str,
    headers: HeaderMap,
) -> Result<Response<Incoming>> {
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::service_unavailable(format!(
            "the kubelet of node {} at {} can't be reached: {why}",
            place.node, place.address
        ))
    };
    let mut sender = relay::dial(place.address, Some(api.kubelet_tls.clone()))
        .await
        .map_err(|e| failed(&e))?;
    let mut request = hyper::Request::new(Empty::<bytes::Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|e| failed(&e))?;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&place.address.to_string()).map_err(|e| failed(&e))?;
    request.headers_mut().insert(HOST, host);
    sender.send_request(request).await.map_err(|e| failed(&e))
}

/// What the kubelet said, for the client; its streams end when the server stops.
fn pass(api: &Api, response: Response<Incoming>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let mut answer = Response::new(relay::body(body, api.stop.clone()));
    *answer.status_mut() = head.status;
    if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, content_type.clone());
    }
    answer
}

/// A kubelet's refusal is text; clients want a Status.
async fn refusal(response: Response<Incoming>) -> ApiError {
    let code = response.status().as_u16();
    let limited = http_body_util::Limited::new(response.into_body(), 64 << 10);
    let said = match limited.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_string(),
        Err(error) => error.to_string(),
    };
    match code {
        400 | 404 => ApiError::bad_request(said),
        _ => ApiError::internal(format!("the kubelet answered {code}: {said}")),
    }
}

pub async fn log(api: &Api, resource: &Resource, query: &Query) -> Result<Response<Body>> {
    let place = find(api, resource, Container::Named(query.get("container")))?;
    let parameters: Vec<(&str, &str)> = LOG_PARAMETERS
        .iter()
        .filter(|key| query.has(key))
        .map(|key| (*key, query.get(key)))
        .collect();
    for key in ["limitBytes", "sinceSeconds", "tailLines"] {
        let value = query.get(key);
        let least = if key == "tailLines" { 0 } else { 1 };
        if query.has(key) && value.parse::<i64>().map_or(true, |n| n < least) {
            return Err(ApiError::bad_request(format!(
                "{key}: Invalid value: {value:?}: must be a number of at least {least}"
            )));
        }
    }
    let Some(place) = place else {
        // Nothing was logged yet.
        let mut empty = Response::new(reply::full(""));
        empty
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(empty);
    };
    let path = path(
        "containerLogs",
        resource,
        Some(&place.container),
        &parameters,
    );
    let response = call(api, &place, &path, HeaderMap::new()).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let mut answer = pass(api, response);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// A stream of a pod that a WebSocket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Exec,
    Attach,
    PortForward,
}

impl Stream {
    pub fn of(subresource: &str) -> Option<Stream> {
        match subresource {
            "exec" => Some(Stream::Exec),
            "attach" => Some(Stream::Attach),
            "portforward" => Some(Stream::PortForward),
            _ => None,
        }
    }

    /// What admission is shown of it: the query, as Kubernetes' type for it.
    pub fn options(self, query: &Query) -> (Own, Value) {
        let (kind, flags): (_, &[&str]) = match self {
            Stream::Exec => ("PodExecOptions", &["stdin", "stdout", "stderr", "tty"]),
            Stream::Attach => ("PodAttachOptions", &["stdin", "stdout", "stderr", "tty"]),
            Stream::PortForward => ("PodPortForwardOptions", &[]),
        };
        let mut options = json!({"kind": kind, "apiVersion": "v1"});
        for flag in flags {
            if query.flag(flag) {
                options[*flag] = true.into();
            }
        }
        if self != Stream::PortForward && query.has("container") {
            options["container"] = query.get("container").into();
        }
        let commands: Vec<&str> = query.all("command").collect();
        if self == Stream::Exec && !commands.is_empty() {
            options["command"] = commands.into();
        }
        let ports: Vec<i64> = query.all("ports").filter_map(|p| p.parse().ok()).collect();
        if self == Stream::PortForward && !ports.is_empty() {
            options["ports"] = ports.into();
        }
        (Own::query(kind), options)
    }

    /// The kubelet's path for what a client asks.
    fn path(self, place: &Place, resource: &Resource, query: &Query) -> Result<String> {
        let root = match self {
            Stream::Exec => "exec",
            Stream::Attach => "attach",
            Stream::PortForward => {
                let ports: Vec<(&str, &str)> =
                    query.all("ports").map(|port| ("port", port)).collect();
                return Ok(path("portForward", resource, None, &ports));
            }
        };
        let mut parameters = Vec::new();
        if self == Stream::Exec {
            parameters.extend(query.all("command").map(|c| ("command", c)));
            if parameters.is_empty() {
                return Err(ApiError::bad_request(
                    "you must specify at least one command for the container",
                ));
            }
        }
        let commands = parameters.len();
        // The kubelet's names of the streams.
        for (ours, kubelets) in [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
        ] {
            if query.flag(ours) {
                parameters.push((kubelets, "1"));
            }
        }
        if parameters.len() == commands {
            return Err(ApiError::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        if query.flag("tty") {
            parameters.push(("tty", "1"));
        }
        Ok(path(root, resource, Some(&place.container), &parameters))
    }
}

/// Joins a client's WebSocket to the kubelet's.
pub async fn stream(
    api: &Arc<Api>,
    stream: Stream,
    resource: &Resource,
    query: &Query,
    mut request: hyper::Request<Incoming>,
) -> Result<Response<Body>> {
    let container = match stream {
        Stream::PortForward => Container::None,
        Stream::Exec | Stream::Attach => Container::Named(query.get("container")),
    };
    // First, since kubectl shows only what its second try, by SPDY, is answered with.
    let place = placed(api, resource, container)?;
    if !relay::is_upgrade(request.headers())
        || request.method() != Method::GET
        || !relay::has_token(request.headers(), &UPGRADE, "websocket")
    {
        return Err(ApiError::bad_request(format!(
            "{} needs a WebSocket upgrade; SPDY by itself is not supported",
            resource.subresource
        )));
    }
    let path = stream.path(&place, resource, query)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    for name in WEBSOCKET {
        if let Some(value) = request.headers().get(*name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    let mut response = call(api, &place, &path, headers).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let mut answer = Response::new(reply::full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = answer.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    for name in WEBSOCKET {
        if let Some(value) = response.headers().get(*name) {
            out.insert(HeaderName::from_static(name), value.clone());
        }
    }
    relay::bridge(
        api,
        hyper::upgrade::on(&mut request),
        hyper::upgrade::on(&mut response),
    );
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn which_container() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(
            container(&one, "x").unwrap_err().message,
            "container x is not valid for pod p"
        );
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container(&two, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&two, "i").unwrap(), "i");
        let mut named = two;
        named["spec"]["ephemeralContainers"] = json!([{"name": "debugger"}]);
        assert_eq!(container(&named, "debugger").unwrap(), "debugger");
        named["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&named, "").unwrap(), "b");
    }

    #[test]
    fn kubelet_addresses_and_paths() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "fd00::1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
        assert_eq!(address(&node), Some("[fd00::1]:10250".parse().unwrap()));
        assert_eq!(address(&json!({})), None);
        assert_eq!(encode("a b&c=/%"), "a%20b%26c%3D%2F%25");
    }
}
