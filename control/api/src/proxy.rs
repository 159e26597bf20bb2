//! The subresource `proxy` of pods, services and nodes: which address a name stands for, which
//! addresses are refused, and what is rewritten on the way.
//! Source: apimachinery `pkg/util/{net,proxy}`, `pkg/proxy/util`, the registries' `ResourceLocation`.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::json::{at, int, list, text};
use crate::status::{ApiError, Result};

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub tls: bool,
    pub name: &'a str,
    /// A number or a name; "" for the default.
    pub port: &'a str,
}

impl<'a> Wanted<'a> {
    /// `what` is the singular, for the refusal.
    pub fn parse(what: &str, id: &'a str) -> Result<Wanted<'a>> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!(
                "invalid {what} request {id:?}"
            )));
        }
        Ok(Wanted {
            tls: scheme == "https",
            name,
            port,
        })
    }

    /// The port as a number, or what stands for none.
    fn number(&self, default: u16) -> Result<u16> {
        match self.port {
            "" => Ok(default),
            port => port.parse().ok().filter(|p| *p != 0).ok_or_else(|| {
                unreachable_service(&format!("dial tcp: lookup tcp/{port}: unknown port"))
            }),
        }
    }

    fn scheme_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

/// What dialing or asking a target failed with.
pub fn unreachable_service(why: &str) -> ApiError {
    ApiError::service_unavailable(format!("error trying to reach service: {why}"))
}

/// Only addresses that may be somebody else's: an API server's own loopback and its link's services
/// (metadata of clouds) are not to be had through it.
fn proxyable(ip: IpAddr) -> Result<IpAddr> {
    let ip = ip.to_canonical();
    let refused = ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
    match refused {
        true => Err(ApiError::bad_request("address not allowed")),
        false => Ok(ip),
    }
}

/// Where a pod is reached: its status' address, at its first port if none is named.
pub fn pod(pod: &Value, wanted: Wanted<'_>) -> Result<SocketAddr> {
    let ip = text(pod, "status.podIP").parse();
    let ip = ip.map_err(|_| ApiError::bad_request("address not allowed"))?;
    let ip = proxyable(ip)?;
    let first = list(pod, "spec.containers")
        .iter()
        .find_map(|c| int(list(c, "ports").first()?, "containerPort"));
    let first = first.and_then(|port| u16::try_from(port).ok());
    let port = wanted.number(first.unwrap_or(wanted.scheme_port()))?;
    Ok(SocketAddr::new(ip, port))
}

/// Where a node is reached at a port that isn't its kubelet's; `kubelet` is where that is. `None`
/// is the kubelet itself.
pub fn node(kubelet: SocketAddr, wanted: Wanted<'_>) -> Result<Option<SocketAddr>> {
    let port = wanted.number(kubelet.port())?;
    if port == kubelet.port() {
        return Ok(None);
    }
    let ip = proxyable(kubelet.ip())?;
    Ok(Some(SocketAddr::new(ip, port)))
}

/// The places where a Service is reached, ready endpoints all. `id` is what the client wrote;
/// `pod` gives the pod of a name.
pub fn service(
    service: &Value,
    slices: &[Value],
    wanted: Wanted<'_>,
    id: &str,
    pod: impl Fn(&str) -> Option<Value>,
) -> Result<Vec<SocketAddr>> {
    let unavailable = |name: &str| {
        ApiError::service_unavailable(format!("no endpoints available for service {name:?}"))
    };
    // A number stands for the port's name.
    let port = match wanted.port.parse::<i64>() {
        Ok(number) => {
            let mut ports = list(service, "spec.ports").iter();
            let found = ports.find(|p| int(p, "port") == Some(number));
            let found = found.ok_or_else(|| {
                ApiError::service_unavailable(format!(
                    "no service port {number} found for service {:?}",
                    wanted.name
                ))
            })?;
            text(found, "name")
        }
        Err(_) => wanted.port,
    };
    if slices.iter().all(|s| list(s, "endpoints").is_empty()) {
        return Err(unavailable(wanted.name));
    }
    let mut places = Vec::new();
    for slice in slices {
        let ports = list(slice, "ports").iter();
        let numbers: Vec<u16> = ports
            .filter(|p| text(p, "name") == port)
            .filter_map(|p| u16::try_from(int(p, "port")?).ok())
            .collect();
        for endpoint in list(slice, "endpoints") {
            // Nothing said is ready.
            if at(endpoint, "conditions.ready").is_some_and(|r| r == false) {
                continue;
            }
            for address in list(endpoint, "addresses").iter().filter_map(Value::as_str) {
                if let Some(ip) = of_pod(endpoint, address, &pod) {
                    places.extend(numbers.iter().map(|port| SocketAddr::new(ip, *port)));
                }
            }
        }
    }
    match places.is_empty() {
        true => Err(unavailable(id)),
        false => Ok(places),
    }
}

/// An endpoint's address, if it really is its pod's: whoever writes EndpointSlices doesn't choose
/// what the API server dials.
fn of_pod(endpoint: &Value, address: &str, pod: &impl Fn(&str) -> Option<Value>) -> Option<IpAddr> {
    let target = at(endpoint, "targetRef").filter(|t| text(t, "kind") == "Pod")?;
    let pod = pod(text(target, "name"))?;
    let own = text(target, "uid");
    if !own.is_empty() && own != text(&pod, "metadata.uid") {
        return None;
    }
    let mut ips = list(&pod, "status.podIPs").iter().map(|p| text(p, "ip"));
    let known = text(&pod, "status.podIP") == address || ips.any(|ip| ip == address);
    let ip = address.parse().ok().filter(|_| known)?;
    proxyable(ip).ok()
}

/// A redirect of the target as its client has to follow it: below `prefix`, the path of the
/// subresource. `target` is the authority that was asked, `host` the client's Host header.
pub fn redirect(location: &str, prefix: &str, target: &str, host: &str) -> String {
    let rest = ["http://", "https://", "//"]
        .iter()
        .find_map(|scheme| location.strip_prefix(scheme));
    let path = match rest {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if authority != target && authority != host {
                return location.to_string();
            }
            path
        }
        None => location,
    };
    if rest.is_none() && path.starts_with(prefix) {
        return path.to_string();
    }
    if !path.starts_with('/') {
        // Relative to where the client is.
        return location.to_string();
    }
    match path.starts_with(prefix) {
        true => path.to_string(),
        false => format!("{prefix}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let wanted = |id| Wanted::parse("pod", id).map(|w| (w.tls, w.name, w.port));
        assert_eq!(wanted("p"), Ok((false, "p", "")));
        assert_eq!(wanted("p:80"), Ok((false, "p", "80")));
        assert_eq!(wanted("https:p:web"), Ok((true, "p", "web")));
        assert_eq!(wanted("http:p:"), Ok((false, "p", "")));
        for bad in ["", ":80", "ftp:p:80", "a:b:c:d", "https::1"] {
            let error = wanted(bad).unwrap_err();
            assert_eq!(error.message, format!("invalid pod request {bad:?}"));
            assert_eq!(error.code, 400);
        }
    }

    fn of(id: &str) -> Wanted<'_> {
        Wanted::parse("pod", id).unwrap()
    }

    #[test]
    fn pods() {
        let at = |ip: &str| {
            json!({"status": {"podIP": ip}, "spec": {"containers": [{}, {"ports": [
                {"containerPort": 8080}, {"containerPort": 9}]}]}})
        };
        let addresses = |ip, id| pod(&at(ip), of(id)).map(|a| a.to_string());
        assert_eq!(addresses("10.0.0.1", "p"), Ok("10.0.0.1:8080".into()));
        assert_eq!(addresses("fd00::1", "p:81"), Ok("[fd00::1]:81".into()));
        let plain = json!({"status": {"podIP": "10.0.0.1"}});
        assert_eq!(pod(&plain, of("https:p:")).unwrap().port(), 443);
        assert_eq!(addresses("10.0.0.1", "p:web").unwrap_err().code, 503);
        for refused in [
            "",
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "255.255.255.255",
            "localhost",
        ] {
            let error = addresses(refused, "p").unwrap_err();
            assert_eq!(
                (error.code, &*error.message),
                (400, "address not allowed"),
                "{refused}"
            );
        }
    }

    #[test]
    fn nodes() {
        let kubelet = "127.0.0.1:10250".parse().unwrap();
        assert_eq!(node(kubelet, of("n")), Ok(None));
        assert_eq!(node(kubelet, of("n:10250")), Ok(None));
        // Ours to talk to, but nothing else of that address.
        assert_eq!(
            node(kubelet, of("n:22")).unwrap_err().message,
            "address not allowed"
        );
        let kubelet = "10.0.0.1:10250".parse().unwrap();
        assert_eq!(
            node(kubelet, of("n:22")),
            Ok(Some("10.0.0.1:22".parse().unwrap()))
        );
    }

    #[test]
    fn services() {
        let object = json!({"spec": {"ports": [
            {"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        let ready = |ip: &str, name: &str, ready: Value| {
            json!({"addresses": [ip], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": name}})
        };
        let slices = [json!({
            "ports": [{"name": "web", "port": 8080}, {"name": "admin", "port": 8081}],
            "endpoints": [
                ready("10.0.0.1", "a", Value::Null), ready("10.0.0.2", "b", json!(false)),
                // Not that pod's address; no pod at all.
                ready("10.0.0.9", "a", json!(true)), ready("10.0.0.4", "gone", json!(true)),
                {"addresses": ["10.0.0.5"]},
            ],
        })];
        let pods = |name: &str| match name {
            "a" => Some(json!({"status": {"podIP": "10.0.0.1"}})),
            "b" => Some(json!({"status": {"podIPs": [{"ip": "10.0.0.2"}]}})),
            _ => None,
        };
        let places = |slices: &[Value], id: &str| {
            let found = service(&object, slices, of(id), id, pods);
            found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let web = Ok(vec!["10.0.0.1:8080".to_string()]);
        assert_eq!(places(&slices, "s:80"), web);
        assert_eq!(places(&slices, "https:s:web"), web);
        assert_eq!(places(&slices, "s:admin"), Ok(vec!["10.0.0.1:8081".into()]));
        for (slices, id, message) in [
            (
                &slices[..],
                "s:82",
                "no service port 82 found for service \"s\"",
            ),
            (
                &slices[..],
                "s:other",
                "no endpoints available for service \"s:other\"",
            ),
            // A port with a name has to be named.
            (&slices[..], "s", "no endpoints available for service \"s\""),
            (&[], "s:80", "no endpoints available for service \"s\""),
        ] {
            let error = places(slices, id).unwrap_err();
            assert_eq!((error.code, &*error.message), (503, message));
        }
    }

    #[test]
    fn redirects() {
        let prefix = "/api/v1/namespaces/n/pods/p/proxy";
        for (location, want) in [
            ("/login?a=b", "/api/v1/namespaces/n/pods/p/proxy/login?a=b"),
            ("/", "/api/v1/namespaces/n/pods/p/proxy/"),
            (
                "http://10.0.0.1:80/x",
                "/api/v1/namespaces/n/pods/p/proxy/x",
            ),
            ("https://api:6443/x", "/api/v1/namespaces/n/pods/p/proxy/x"),
            ("http://elsewhere/x", "http://elsewhere/x"),
            ("//elsewhere/x", "//elsewhere/x"),
            ("x/y", "x/y"),
            (
                "/api/v1/namespaces/n/pods/p/proxy/x",
                "/api/v1/namespaces/n/pods/p/proxy/x",
            ),
        ] {
            assert_eq!(redirect(location, prefix, "10.0.0.1:80", "api:6443"), want);
        }
    }
}
