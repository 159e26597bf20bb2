//! Kubeconfig files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ca::Pair;

/// A kubeconfig with one cluster, one user and one context.
pub fn kubeconfig(server: &str, ca_certificate: &str, user: &str, pair: &Pair) -> String {
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "rhumb",
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(ca_certificate),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            },
        }],
        "contexts": [{
            "name": "rhumb",
            "context": { "cluster": "rhumb", "user": user },
        }],
        "current-context": "rhumb",
    });
    let mut options = serde_saphyr::SerializerOptions::default();
    // One line a value: people cut certificates out with line tools.
    options.prefer_block_scalars = false;
    // JSON is YAML too, and a Value can always be written.
    serde_saphyr::to_string_with_options(&config, options).unwrap_or_else(|_| config.to_string())
}
