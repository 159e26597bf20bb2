//! What configMap, secret, downwardAPI and projected volumes hold.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount,
    ServiceAccountTokenProjection, Volume,
};
use kube::api::{Api, PostParams};

use super::VolumeError;
use super::atomic::{File, Payload, valid_path};
use crate::kubelet::Kubelet;
use crate::pure::downward::{self, LiveFields};
use crate::pure::env::find_container;

const DEFAULT_MODE: i32 = 0o644;

/// Tokens by volume and path, with the times they were issued and expire.
#[derive(Debug, Default)]
pub struct TokenCache {
    tokens: HashMap<(String, String), Token>,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// At 80 % of its life, or after a day.
    fn stale(&self, now: Timestamp) -> bool {
        let life = self.expires.as_second() - self.issued.as_second();
        let age = now.as_second() - self.issued.as_second();
        age > life * 8 / 10 || age > 24 * 3600
    }
}

/// Fetches everything a volume shows.
pub(super) async fn fetch(
    k: &Kubelet,
    pod: &Pod,
    v: &Volume,
    tokens: &mut TokenCache,
) -> Result<Payload, VolumeError> {
    let ns = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = v.name.as_str();
    let mut out = Payload::new();
    if let Some(s) = &v.config_map {
        let mode = s.default_mode.unwrap_or(DEFAULT_MODE);
        out = config_map(k, ns, name, &s.name, s.optional, s.items.as_deref(), mode).await?;
    } else if let Some(s) = &v.secret {
        let mode = s.default_mode.unwrap_or(DEFAULT_MODE);
        let secret = s.secret_name.as_deref().unwrap_or("");
        out = secret_files(k, ns, name, secret, s.optional, s.items.as_deref(), mode).await?;
    } else if let Some(s) = &v.downward_api {
        let mode = s.default_mode.unwrap_or(DEFAULT_MODE);
        out = downward_files(k, pod, name, s.items.as_deref().unwrap_or(&[]), mode)?;
    } else if let Some(p) = &v.projected {
        let mode = p.default_mode.unwrap_or(DEFAULT_MODE);
        for source in p.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                out.extend(
                    config_map(k, ns, name, &s.name, s.optional, s.items.as_deref(), mode).await?,
                );
            }
            if let Some(s) = &source.secret {
                out.extend(
                    secret_files(k, ns, name, &s.name, s.optional, s.items.as_deref(), mode)
                        .await?,
                );
            }
            if let Some(s) = &source.downward_api {
                out.extend(downward_files(
                    k,
                    pod,
                    name,
                    s.items.as_deref().unwrap_or(&[]),
                    mode,
                )?);
            }
            if let Some(s) = &source.service_account_token {
                let text = token(k, pod, name, s, tokens).await?;
                // Only the pod's own user or group reads a token where there is one.
                let spec = pod.spec.as_ref();
                let private = spec.is_some_and(|s| {
                    super::common_user(s).is_some() || super::fs_group(s).is_some()
                });
                let mode = if private { 0o600 } else { mode };
                out.insert(
                    s.path.clone(),
                    File {
                        data: text.into_bytes(),
                        mode: mode as u32,
                    },
                );
            }
        }
    }
    if let Some(bad) = out.keys().find(|p| !valid_path(p)) {
        return Err(VolumeError::setup(
            name,
            format!("the path {bad:?} leads out of the volume"),
        ));
    }
    Ok(out)
}

fn api_error(volume: &str, what: String) -> impl FnOnce(kube::Error) -> VolumeError {
    let volume = volume.to_string();
    move |e| VolumeError::setup(&volume, format!("reading {what}: {e}"))
}

async fn config_map(
    k: &Kubelet,
    ns: &str,
    volume: &str,
    name: &str,
    optional: Option<bool>,
    items: Option<&[KeyToPath]>,
    mode: i32,
) -> Result<Payload, VolumeError> {
    let api: Api<ConfigMap> = Api::namespaced(k.client.clone(), ns);
    let Some(cm) = api
        .get_opt(name)
        .await
        .map_err(api_error(volume, format!("configmap {ns}/{name}")))?
    else {
        return if optional == Some(true) {
            Ok(Payload::new())
        } else {
            Err(VolumeError::setup(
                volume,
                format!("configmap {name:?} not found"),
            ))
        };
    };
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    data.extend(
        cm.data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.into_bytes())),
    );
    data.extend(
        cm.binary_data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.0)),
    );
    select(data, items, mode, optional == Some(true))
        .map_err(|m| VolumeError::setup(volume, format!("configmap {m}")))
}

async fn secret_files(
    k: &Kubelet,
    ns: &str,
    volume: &str,
    name: &str,
    optional: Option<bool>,
    items: Option<&[KeyToPath]>,
    mode: i32,
) -> Result<Payload, VolumeError> {
    let api: Api<Secret> = Api::namespaced(k.client.clone(), ns);
    let Some(s) = api
        .get_opt(name)
        .await
        .map_err(api_error(volume, format!("secret {ns}/{name}")))?
    else {
        return if optional == Some(true) {
            Ok(Payload::new())
        } else {
            Err(VolumeError::setup(
                volume,
                format!("secret {name:?} not found"),
            ))
        };
    };
    let data = s
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(k, v)| (k, v.0))
        .collect();
    select(data, items, mode, optional == Some(true))
        .map_err(|m| VolumeError::setup(volume, format!("secret {m}")))
}

/// All keys, or those that `items` names at the paths it gives.
fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(k, data)| {
                (
                    k,
                    File {
                        data,
                        mode: mode as u32,
                    },
                )
            })
            .collect());
    };
    let mut out = Payload::new();
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => {
                data.insert(item.key.clone(), bytes.clone());
                let mode = item.mode.unwrap_or(mode) as u32;
                out.insert(item.path.clone(), File { data: bytes, mode });
            }
            None if optional => {}
            None => return Err(format!("references non-existent key: {}", item.key)),
        }
    }
    Ok(out)
}

fn downward_files(
    k: &Kubelet,
    pod: &Pod,
    volume: &str,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
) -> Result<Payload, VolumeError> {
    let mut out = Payload::new();
    for item in items {
        let text = if let Some(f) = &item.field_ref {
            downward::field(pod, &LiveFields::default(), &f.field_path).ok_or_else(|| {
                VolumeError::setup(volume, format!("unsupported fieldPath: {}", f.field_path))
            })?
        } else if let Some(sel) = &item.resource_field_ref {
            let name = sel.container_name.as_deref().unwrap_or("");
            let c = find_container(pod, name).ok_or_else(|| {
                VolumeError::setup(volume, format!("container {name:?} not found"))
            })?;
            downward::resource(c, &k.node.allocatable, sel)
                .map_err(|m| VolumeError::setup(volume, m))?
        } else {
            return Err(VolumeError::setup(
                volume,
                format!("item {:?} has no source", item.path),
            ));
        };
        let mode = item.mode.unwrap_or(mode) as u32;
        out.insert(
            item.path.clone(),
            File {
                data: text.into_bytes(),
                mode,
            },
        );
    }
    Ok(out)
}

async fn token(
    k: &Kubelet,
    pod: &Pod,
    volume: &str,
    source: &ServiceAccountTokenProjection,
    cache: &mut TokenCache,
) -> Result<String, VolumeError> {
    let now = Timestamp::now();
    let key = (volume.to_string(), source.path.clone());
    let known = cache.tokens.get(&key).cloned();
    if let Some(t) = known.as_ref().filter(|t| !t.stale(now)) {
        return Ok(t.text.clone());
    }
    let ns = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod
        .spec
        .as_ref()
        .and_then(|s| s.service_account_name.as_deref())
        .unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(k.client.clone(), ns);
    let audiences: Vec<String> = source
        .audience
        .iter()
        .filter(|a| !a.is_empty())
        .cloned()
        .collect();
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(3600)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..Default::default()
    };
    match api
        .create_token_request(account, &PostParams::default(), &request)
        .await
    {
        Ok(answer) => {
            let status = answer.status.unwrap_or_default();
            let text = status.token.filter(|t| !t.is_empty()).ok_or_else(|| {
                VolumeError::setup(
                    volume,
                    format!("the API gave no token for service account {ns}/{account}"),
                )
            })?;
            let expires = status.expiration_timestamp.map_or(now, |t| t.0);
            let t = Token {
                text: text.clone(),
                issued: now,
                expires,
            };
            cache.tokens.insert(key, t);
            Ok(text)
        }
        // The old one still works for a while.
        Err(_) if known.as_ref().is_some_and(|t| t.expires > now) => {
            Ok(known.map(|t| t.text).unwrap_or_default())
        }
        Err(e) => Err(VolumeError::setup(
            volume,
            format!("requesting a token for service account {ns}/{account}: {e}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_select_and_rename() {
        let data: BTreeMap<String, Vec<u8>> = [
            ("a".to_string(), b"1".to_vec()),
            ("b".to_string(), b"2".to_vec()),
        ]
        .into();
        let items: Vec<KeyToPath> = serde_json::from_value(
            json!([{"key": "a", "path": "x/y", "mode": 256}, {"key": "a", "path": "z"}]),
        )
        .unwrap();
        let out = select(data.clone(), Some(&items), 0o644, false).unwrap();
        assert_eq!(out.keys().collect::<Vec<_>>(), ["x/y", "z"]);
        assert_eq!(out["x/y"].mode, 0o400);
        assert_eq!(select(data.clone(), None, 0o600, false).unwrap().len(), 2);
        let missing: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "no", "path": "p"}])).unwrap();
        assert!(
            select(data.clone(), Some(&missing), 0o644, false)
                .unwrap_err()
                .contains("non-existent key: no")
        );
        assert!(
            select(data, Some(&missing), 0o644, true)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn tokens_age() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let t = Token {
            text: String::new(),
            issued: at(0),
            expires: at(1000),
        };
        assert!(!t.stale(at(799)));
        assert!(t.stale(at(801)));
        let long = Token {
            text: String::new(),
            issued: at(0),
            expires: at(1_000_000),
        };
        assert!(long.stale(at(24 * 3600 + 1)));
    }
}
