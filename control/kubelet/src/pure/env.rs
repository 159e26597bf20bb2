//! A container's environment.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

use super::downward::{self, Allocatable, LiveFields};
use super::expand::expand;

/// Objects that a container's environment may name, fetched beforehand; `None` is "not found".
#[derive(Debug, Default)]
pub struct EnvObjects {
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// Everything that an environment is made from.
#[derive(Debug)]
pub struct EnvInputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub live: &'a LiveFields,
    pub node: &'a Allocatable,
    pub objects: &'a EnvObjects,
    pub service_env: &'a [(String, String)],
}

/// Names of the ConfigMaps and Secrets that the container's environment needs.
pub fn references(c: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = vec![];
    let mut secrets = vec![];
    for from in c.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    config_maps.sort();
    config_maps.dedup();
    secrets.sort();
    secrets.dedup();
    (config_maps, secrets)
}

/// All text values of a ConfigMap.
fn config_map_data(cm: &ConfigMap) -> impl Iterator<Item = (&String, String)> {
    cm.data.iter().flatten().map(|(k, v)| (k, v.clone()))
}

fn secret_data(s: &Secret) -> impl Iterator<Item = (&String, String)> {
    s.data
        .iter()
        .flatten()
        .map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned()))
}

/// The environment in order; an error is the message of a `CreateContainerConfigError`.
pub fn build(i: &EnvInputs<'_>) -> Result<Vec<(String, String)>, String> {
    let namespace = i.pod.metadata.namespace.as_deref().unwrap_or("default");
    let find_config_map = |name: &str| i.objects.config_maps.get(name).and_then(Option::as_ref);
    let find_secret = |name: &str| i.objects.secrets.get(name).and_then(Option::as_ref);

    let mut from: BTreeMap<String, String> = BTreeMap::new();
    for source in i.container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        if let Some(r) = &source.config_map_ref {
            match find_config_map(&r.name) {
                Some(cm) => {
                    from.extend(config_map_data(cm).map(|(k, v)| (format!("{prefix}{k}"), v)))
                }
                None if r.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", r.name)),
            }
        }
        if let Some(r) = &source.secret_ref {
            match find_secret(&r.name) {
                Some(s) => from.extend(secret_data(s).map(|(k, v)| (format!("{prefix}{k}"), v))),
                None if r.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", r.name)),
            }
        }
    }
    // A name with "=" or NUL can't be an environment variable at all.
    from.retain(|k, _| !k.is_empty() && !k.contains(['=', '\0']));

    let service: BTreeMap<&str, &str> = i
        .service_env
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let mut seen: BTreeMap<String, String> = from.clone();
    let mut order: Vec<String> = from.into_keys().collect();
    for e in i.container.env.iter().flatten() {
        let value = if let Some(value) = e.value.as_ref().filter(|v| !v.is_empty()) {
            expand(value, |name| {
                seen.get(name)
                    .cloned()
                    .or_else(|| service.get(name).map(|v| v.to_string()))
            })
        } else if let Some(source) = &e.value_from {
            if let Some(f) = &source.field_ref {
                downward::field(i.pod, i.live, &f.field_path)
                    .ok_or_else(|| format!("unsupported fieldPath: {}", f.field_path))?
            } else if let Some(sel) = &source.resource_field_ref {
                let c = match &sel.container_name {
                    Some(name) if !name.is_empty() => find_container(i.pod, name)
                        .ok_or_else(|| format!("container {name} not found"))?,
                    _ => i.container,
                };
                downward::resource(c, i.node, sel)?
            } else if let Some(r) = &source.config_map_key_ref {
                let optional = r.optional == Some(true);
                match find_config_map(&r.name) {
                    None if optional => continue,
                    None => return Err(format!("configmap {:?} not found", r.name)),
                    Some(cm) => match cm.data.as_ref().and_then(|d| d.get(&r.key)) {
                        Some(v) => v.clone(),
                        None if optional => continue,
                        None => {
                            return Err(format!(
                                "couldn't find key {} in ConfigMap {namespace}/{}",
                                r.key, r.name
                            ));
                        }
                    },
                }
            } else if let Some(r) = &source.secret_key_ref {
                let optional = r.optional == Some(true);
                match find_secret(&r.name) {
                    None if optional => continue,
                    None => return Err(format!("secret {:?} not found", r.name)),
                    Some(s) => match s.data.as_ref().and_then(|d| d.get(&r.key)) {
                        Some(v) => String::from_utf8_lossy(&v.0).into_owned(),
                        None if optional => continue,
                        None => {
                            return Err(format!(
                                "couldn't find key {} in Secret {namespace}/{}",
                                r.key, r.name
                            ));
                        }
                    },
                }
            } else {
                String::new()
            }
        } else {
            String::new()
        };
        if seen.insert(e.name.clone(), value).is_none() {
            order.push(e.name.clone());
        }
    }
    let mut out: Vec<(String, String)> = vec![];
    for (name, value) in i.service_env {
        if !seen.contains_key(name) {
            out.push((name.clone(), value.clone()));
        }
    }
    for name in order {
        // Every name in `order` was inserted into `seen` with it.
        if let Some(value) = seen.get(&name) {
            out.push((name.clone(), value.clone()));
        }
    }
    Ok(out)
}

/// A container or init container by its name.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(
        env: serde_json::Value,
        env_from: serde_json::Value,
    ) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "env": env, "envFrom": env_from,
                "resources": {"limits": {"cpu": "2"}}}]}}))
        .unwrap();
        let mut objects = EnvObjects::default();
        objects.config_maps.insert(
            "cm".into(),
            Some(serde_json::from_value(json!({"data": {"k": "v", "two": "2"}})).unwrap()),
        );
        objects.secrets.insert(
            "s".into(),
            Some(serde_json::from_value(json!({"data": {"pw": "c2VjcmV0"}})).unwrap()),
        );
        build(&EnvInputs {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            live: &LiveFields {
                pod_ips: vec!["10.1.1.1".into()],
                host_ips: vec![],
            },
            node: &Allocatable::default(),
            objects: &objects,
            service_env: &[("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())],
        })
    }

    fn get(out: &[(String, String)], k: &str) -> Option<String> {
        out.iter().find(|(n, _)| n == k).map(|(_, v)| v.clone())
    }

    #[test]
    fn all_sources() {
        let out = run(
            json!([
                {"name": "A", "value": "a"},
                {"name": "B", "value": "$(A)-$(KUBERNETES_SERVICE_HOST)-$(k)-$(LATER)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "two"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "pw", "optional": true}}},
                {"name": "A", "value": "again"},
            ]),
            json!([{"configMapRef": {"name": "cm"}}, {"prefix": "S_", "secretRef": {"name": "s"}}]),
        )
        .unwrap();
        assert_eq!(get(&out, "B").unwrap(), "a-10.96.0.1-v-$(LATER)");
        assert_eq!(get(&out, "A").unwrap(), "again");
        assert_eq!(get(&out, "IP").unwrap(), "10.1.1.1");
        assert_eq!(get(&out, "CPU").unwrap(), "2");
        assert_eq!(get(&out, "CM").unwrap(), "2");
        assert_eq!(get(&out, "PW").unwrap(), "secret");
        assert_eq!(get(&out, "S_pw").unwrap(), "secret");
        assert_eq!(get(&out, "k").unwrap(), "v");
        assert_eq!(get(&out, "OPT"), None);
        assert_eq!(out.iter().filter(|(n, _)| n == "A").count(), 1);
    }

    #[test]
    fn missing_objects_are_named() {
        let cm = |key: &str, name: &str| json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]);
        assert_eq!(
            run(cm("k", "none"), json!([])).unwrap_err(),
            "configmap \"none\" not found"
        );
        assert_eq!(
            run(cm("none", "cm"), json!([])).unwrap_err(),
            "couldn't find key none in ConfigMap n/cm"
        );
        assert_eq!(
            run(json!([]), json!([{"secretRef": {"name": "x"}}])).unwrap_err(),
            "secret \"x\" not found"
        );
    }
}
