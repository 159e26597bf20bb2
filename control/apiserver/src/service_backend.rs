//! Where a Service is reached. The server is no pod and has no proxy of its own, so it dials a ready
//! endpoint itself.

use std::net::{IpAddr, SocketAddr};

use rand::seq::IndexedRandom as _;
use rhumb_api::json::{self, at, int, list, text};
use rhumb_api::registry;
use serde_json::Value;

use crate::cache::Cache;

/// A ready endpoint of a Service's port, or why there is none.
pub fn endpoint(
    cache: &Cache,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<SocketAddr, String> {
    let services = registry::find("", "v1", "services").and_then(|kind| cache.collection(kind));
    let service = services
        .and_then(|c| c.get(namespace, name))
        .ok_or_else(|| format!("service {name:?} not found"))?
        .value();
    let port_name = list(&service, "spec.ports")
        .iter()
        .find(|p| int(p, "port") == Some(i64::from(port)))
        .map(|p| text(p, "name"))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let slices = slices(cache, namespace, name);
    let found: Vec<SocketAddr> = slices.iter().flat_map(|s| ready(s, port_name)).collect();
    found
        .choose(&mut rand::rng())
        .copied()
        .ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

/// The EndpointSlices of a Service.
pub fn slices(cache: &Cache, namespace: &str, name: &str) -> Vec<Value> {
    let collection = registry::find("discovery.k8s.io", "v1", "endpointslices")
        .and_then(|kind| cache.collection(kind));
    let own = |index: &Value| {
        let labels = json::map(index, "metadata.labels");
        let of = labels.and_then(|l| l.get("kubernetes.io/service-name"));
        of.is_some_and(|of| of == name)
    };
    // The index has the labels: most slices are other Services'.
    let all = collection.iter().flat_map(|c| c.list(namespace));
    all.filter(|o| own(&o.index())).map(|o| o.value()).collect()
}

/// The ready endpoints of a slice at the port of this name.
fn ready(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let port = list(slice, "ports")
        .iter()
        .find(|p| text(p, "name") == port_name)
        .and_then(|p| u16::try_from(int(p, "port")?).ok());
    let Some(port) = port else {
        return Vec::new();
    };
    list(slice, "endpoints")
        .iter()
        // Unknown counts as ready.
        .filter(|e| at(e, "conditions.ready") != Some(&Value::Bool(false)))
        .filter_map(|e| list(e, "addresses").first()?.as_str()?.parse().ok())
        .map(|ip: IpAddr| SocketAddr::new(ip, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_endpoints_of_the_named_port() {
        let slice = json!({
            "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::1"]},
            ],
        });
        let expected: Vec<SocketAddr> = vec![
            "10.0.0.1:2".parse().unwrap(),
            "[fd00::1]:2".parse().unwrap(),
        ];
        assert_eq!(ready(&slice, "b"), expected);
        assert_eq!(ready(&slice, "c"), []);
    }
}
