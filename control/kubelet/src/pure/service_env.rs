//! Environment variables of Services.
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>

use k8s_openapi::api::core::v1::Service;

/// Variables of the `default/kubernetes` Service and, if `links`, of the pod's namespace's Services.
pub fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut chosen: Vec<&Service> = services
        .into_iter()
        .filter(|s| {
            let ns = s.metadata.namespace.as_deref().unwrap_or("");
            let master = ns == "default" && s.metadata.name.as_deref() == Some("kubernetes");
            // A Service called "kubernetes" elsewhere would hide the API server's.
            let shadow = ns != "default" && s.metadata.name.as_deref() == Some("kubernetes");
            master || (links && ns == namespace && !shadow)
        })
        .collect();
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut out = vec![];
    for s in chosen {
        let Some(spec) = &s.spec else { continue };
        let Some(ip) = spec
            .cluster_ip
            .as_deref()
            .filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        let Some(ports) = spec.ports.as_ref().filter(|p| !p.is_empty()) else {
            continue;
        };
        let prefix = s
            .metadata
            .name
            .as_deref()
            .unwrap_or("")
            .to_ascii_uppercase()
            .replace('-', "_");
        out.push((format!("{prefix}_SERVICE_HOST"), ip.to_string()));
        out.push((format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string()));
        for p in ports.iter() {
            if let Some(name) = p.name.as_deref().filter(|n| !n.is_empty()) {
                let name = name.to_ascii_uppercase().replace('-', "_");
                out.push((format!("{prefix}_SERVICE_PORT_{name}"), p.port.to_string()));
            }
        }
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_string()
        };
        for (i, p) in ports.iter().enumerate() {
            let protocol = p.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_ascii_lowercase();
            let url = format!("{lower}://{host}:{}", p.port);
            if i == 0 {
                out.push((format!("{prefix}_PORT"), url.clone()));
            }
            let base = format!("{prefix}_PORT_{}_{}", p.port, protocol.to_ascii_uppercase());
            out.push((base.clone(), url));
            out.push((format!("{base}_PROTO"), lower));
            out.push((format!("{base}_PORT"), p.port.to_string()));
            out.push((format!("{base}_ADDR"), ip.to_string()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn links_and_the_api_server() {
        let svc = |ns: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
            .unwrap()
        };
        let all = [
            svc("default", "kubernetes", "10.96.0.1"),
            svc("a", "web-app", "fd00::5"),
            svc("a", "headless", "None"),
            svc("b", "other", "10.96.0.9"),
        ];
        let names = |v: &[(String, String)]| v.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>();
        let only = variables(&all, "a", false);
        assert!(only.contains(&("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())));
        assert!(only.contains(&("KUBERNETES_SERVICE_PORT_HTTPS".into(), "443".into())));
        assert!(only.contains(&("KUBERNETES_PORT".into(), "tcp://10.96.0.1:443".into())));
        assert!(!names(&only).iter().any(|n| n.starts_with("WEB_APP")));
        let linked = variables(&all, "a", true);
        assert!(linked.contains(&("WEB_APP_PORT_443_TCP".into(), "tcp://[fd00::5]:443".into())));
        assert!(
            !names(&linked)
                .iter()
                .any(|n| n.starts_with("OTHER") || n.starts_with("HEADLESS"))
        );
    }
}
