//! Registry credentials from image pull secrets.

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::image_ref::registry_and_path;

/// Credentials of one registry entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identity_token: String,
    pub registry_token: String,
    pub server: String,
}

/// Credentials for `image`, the most specific entry first, in the order of the secrets otherwise.
pub fn matching(image: &str, secrets: &[Secret]) -> Vec<Credentials> {
    let (registry, path) = registry_and_path(image);
    let mut found: Vec<(usize, Credentials)> = vec![];
    for secret in secrets {
        let Some(data) = &secret.data else { continue };
        let auths: Option<Value> = if let Some(raw) = data.get(".dockerconfigjson") {
            serde_json::from_slice::<Value>(&raw.0)
                .ok()
                .and_then(|v| v.get("auths").cloned())
        } else if let Some(raw) = data.get(".dockercfg") {
            serde_json::from_slice(&raw.0).ok()
        } else {
            None
        };
        let Some(Value::Object(auths)) = auths else {
            continue;
        };
        for (key, entry) in &auths {
            if let Some(depth) = match_key(key, &registry, &path)
                && let Some(credentials) = read_entry(key, entry)
            {
                found.push((depth, credentials));
            }
        }
    }
    found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    found.into_iter().map(|(_, c)| c).collect()
}

/// How specifically a config key names the image: number of path components that match.
fn match_key(key: &str, registry: &str, path: &str) -> Option<usize> {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let (host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let key_path = key_path
        .trim_start_matches("v1")
        .trim_start_matches("v2")
        .trim_matches('/');
    let canonical = |h: &str| {
        if h == "index.docker.io" {
            "docker.io".to_string()
        } else {
            h.to_string()
        }
    };
    let (host, registry) = (canonical(host), canonical(registry));
    let (host_name, host_port) = host
        .split_once(':')
        .map_or((host.as_str(), None), |(h, p)| (h, Some(p)));
    let (reg_name, reg_port) = registry
        .split_once(':')
        .map_or((registry.as_str(), None), |(h, p)| (h, Some(p)));
    let labels_match = {
        let (a, b): (Vec<_>, Vec<_>) = (
            host_name.split('.').collect(),
            reg_name.split('.').collect(),
        );
        a.len() == b.len() && a.iter().zip(&b).all(|(p, l)| glob(p, l))
    };
    if !labels_match || host_port != reg_port {
        return None;
    }
    if key_path.is_empty() {
        return Some(0);
    }
    (path == key_path || path.starts_with(&format!("{key_path}/")))
        .then(|| key_path.split('/').count())
}

/// `*` stands for any part of one host label.
fn glob(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((before, after)) => {
            label.starts_with(before)
                && label.len() >= before.len()
                && (0..=label.len() - before.len()).any(|skip| {
                    label.is_char_boundary(before.len() + skip)
                        && glob(after, &label[before.len() + skip..])
                })
        }
    }
}

fn read_entry(key: &str, entry: &Value) -> Option<Credentials> {
    let text = |k: &str| {
        entry
            .get(k)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_string()
    };
    let mut c = Credentials {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        server: key.to_string(),
    };
    let auth = text("auth");
    if !auth.is_empty() {
        let raw = base64::engine::general_purpose::STANDARD
            .decode(auth.trim())
            .ok()?;
        let raw = String::from_utf8(raw).ok()?;
        let (user, password) = raw.split_once(':')?;
        c.username = user.to_string();
        c.password = password.trim_end_matches('\0').to_string();
    }
    (!c.username.is_empty() || !c.identity_token.is_empty() || !c.registry_token.is_empty())
        .then_some(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(auths: Value) -> Secret {
        let raw =
            base64::engine::general_purpose::STANDARD.encode(json!({"auths": auths}).to_string());
        serde_json::from_value(
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": raw}}),
        )
        .unwrap()
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let auth = base64::engine::general_purpose::STANDARD.encode("u:p:w");
        let s = [secret(json!({
            "reg.example:5000": {"username": "wide", "password": "x"},
            "https://reg.example:5000/v1/": {"username": "wide2", "password": "x"},
            "reg.example:5000/team": {"auth": auth},
            "other": {"username": "no", "password": "no"},
            "*.glob.io": {"username": "g", "password": "g"},
        }))];
        let got = matching("reg.example:5000/team/app:1", &s);
        assert_eq!(got.len(), 3);
        assert_eq!(
            (got[0].username.as_str(), got[0].password.as_str()),
            ("u", "p:w")
        );
        assert_eq!(matching("reg.example:5000/teams/app:1", &s).len(), 2);
        assert_eq!(matching("reg.example/team/app:1", &s).len(), 0);
        assert_eq!(matching("a.glob.io/x", &s)[0].username, "g");
        assert_eq!(matching("a.b.glob.io/x", &s).len(), 0);
    }

    #[test]
    fn broken_secrets_are_left_out() {
        let s: Secret =
            serde_json::from_value(json!({"data": {".dockerconfigjson": "bm90IGpzb24="}})).unwrap();
        assert!(matching("a", &[s]).is_empty());
        assert!(matching("x.io/a", &[secret(json!({"x.io": {"auth": "%%%"}}))]).is_empty());
    }
}
