//! Where a Service is reached. The server is no pod and has no proxy of its own, so it dials a ready
//! endpoint itself.

use std::net::{IpAddr, SocketAddr};

use rand::seq::IndexedRandom as _;
use rhumb_api::json::{at, int, list, text};
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
    let collection = |group: &str, plural: &str| {
        let kind = registry::find(group, "v1", plural);
        kind.and_then(|kind| cache.collection(kind))
            .ok_or_else(|| format!("{plural} are not served"))
    };
    let service = collection("", "services")?
        .get(namespace, name)
        .ok_or_else(|| format!("service {name:?} not found"))?
        .value();
    let port_name = list(&service, "spec.ports")
        .iter()
        .find(|p| int(p, "port") == Some(i64::from(port)))
        .map(|p| text(p, "name"))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let slices = collection("discovery.k8s.io", "endpointslices")?.list(namespace);
    let mut found = Vec::new();
    for slice in slices {
        // The index has the labels: most slices are other Services'.
        if text_of_label(&slice.index()) != name {
            continue;
        }
        found.extend(ready(&slice.value(), port_name));
    }
    found
        .choose(&mut rand::rng())
        .copied()
        .ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

fn text_of_label(object: &Value) -> &str {
    at(object, "metadata.labels")
        .and_then(|labels| labels.get("kubernetes.io/service-name"))
        .and_then(Value::as_str)
        .unwrap_or("")
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
