//! A pod's resolver configuration by its dnsPolicy.

use k8s_openapi::api::core::v1::PodSpec;

/// Contents of a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// What decides beside the pod.
#[derive(Debug, Clone)]
pub struct DnsSource<'a> {
    pub host: &'a Resolver,
    pub cluster_servers: &'a [String],
    pub cluster_domain: &'a str,
    pub namespace: &'a str,
}

/// Reads a resolv.conf; lines that it can't read are left out, as resolvers do.
pub fn parse(text: &str) -> Resolver {
    let mut r = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => r.servers.extend(words.next().map(str::to_string)),
            Some("search") => r.searches = words.map(str::to_string).collect(),
            Some("options") => r.options.extend(words.map(str::to_string)),
            _ => {}
        }
    }
    r
}

/// The pod's resolver, and whether ClusterFirst had to fall back to Default.
pub fn for_pod(spec: &PodSpec, source: &DnsSource<'_>) -> (Resolver, bool) {
    let host_network = spec.host_network == Some(true);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if host_network => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let (mut r, fell_back) = match policy {
        "None" => (Resolver::default(), false),
        "ClusterFirst" if !source.cluster_servers.is_empty() => {
            let domain = source.cluster_domain;
            let mut searches = vec![
                format!("{}.svc.{domain}", source.namespace),
                format!("svc.{domain}"),
                domain.to_string(),
            ];
            searches.extend(source.host.searches.iter().cloned());
            (
                Resolver {
                    servers: source.cluster_servers.to_vec(),
                    searches,
                    options: vec!["ndots:5".into()],
                },
                false,
            )
        }
        "ClusterFirst" => (source.host.clone(), true),
        _ => (source.host.clone(), false),
    };
    if let Some(extra) = &spec.dns_config {
        for server in extra.nameservers.iter().flatten() {
            if !r.servers.contains(server) {
                r.servers.push(server.clone());
            }
        }
        for search in extra.searches.iter().flatten() {
            if !r.searches.contains(search) {
                r.searches.push(search.clone());
            }
        }
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            r.options.retain(|o| o.split(':').next() != Some(name));
            r.options.push(match &option.value {
                Some(v) => format!("{name}:{v}"),
                None => name.clone(),
            });
        }
    }
    (r, fell_back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(spec: serde_json::Value, cluster: &[&str]) -> (Resolver, bool) {
        let host = parse("# c\nnameserver 192.0.2.1\nsearch lan\noptions timeout:1 rotate\n");
        let servers: Vec<String> = cluster.iter().map(|s| s.to_string()).collect();
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        for_pod(
            &spec,
            &DnsSource {
                host: &host,
                cluster_servers: &servers,
                cluster_domain: "cluster.local",
                namespace: "ns",
            },
        )
    }

    #[test]
    fn policies() {
        let (r, back) = run(json!({"containers": []}), &["10.96.0.10"]);
        assert!(!back);
        assert_eq!(r.servers, ["10.96.0.10"]);
        assert_eq!(
            r.searches,
            [
                "ns.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "lan"
            ]
        );
        assert_eq!(r.options, ["ndots:5"]);

        let (r, back) = run(json!({"containers": []}), &[]);
        assert!(back);
        assert_eq!(r.servers, ["192.0.2.1"]);

        let (r, back) = run(
            json!({"containers": [], "hostNetwork": true}),
            &["10.96.0.10"],
        );
        assert!(!back);
        assert_eq!(r.servers, ["192.0.2.1"]);

        let (r, _) = run(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &[],
        );
        assert_eq!(
            r,
            Resolver {
                servers: vec!["9.9.9.9".into()],
                searches: vec!["x".into()],
                options: vec!["ndots:2".into(), "edns0".into()]
            }
        );
    }

    #[test]
    fn dns_config_overrides_options() {
        let (r, _) = run(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &["10.96.0.10"],
        );
        assert_eq!(r.options, ["ndots:1"]);
    }
}
