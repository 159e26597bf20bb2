//! Discovery documents, plain and aggregated, and `/version`.

use serde_json::{Value, json};

use std::borrow::Cow;

use crate::registry::{Kind, REVIEWS, Registry, Review};

/// What `/version` answers; the minor is the Kubernetes version whose API this is.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36",
        "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+rhumb-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

/// The machine's architecture as Go and Kubernetes name it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `GET /api`. `server_address` is `host:port` as clients reach it.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address},
        ],
    })
}

/// The groups of kinds and of reviews.
fn groups(registry: &Registry) -> Vec<(&str, Vec<&str>)> {
    let mut groups = registry.groups();
    for review in REVIEWS {
        match groups.iter_mut().find(|(group, _)| *group == review.group) {
            Some((_, versions)) if versions.contains(&review.version) => {}
            Some((_, versions)) => versions.push(review.version),
            None => groups.push((review.group, vec![review.version])),
        }
    }
    groups
}

fn names(names: &[Cow<'static, str>]) -> Value {
    names.iter().map(|name| name.as_ref()).collect()
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let entry = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    let preferred = versions.first().cloned();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

/// `GET /apis`.
pub fn api_group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| api_group(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`; `None` if no such group is served.
pub fn group(registry: &Registry, group: &str) -> Option<Value> {
    let (name, versions) = groups(registry).into_iter().find(|(g, _)| *g == group)?;
    if name.is_empty() {
        return None;
    }
    let mut document = api_group(name, &versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`; `None` if no such version is served.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in registry.of_version(group, version) {
        let mut row = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        if !kind.short_names.is_empty() {
            row["shortNames"] = names(&kind.short_names);
        }
        if !kind.categories.is_empty() {
            row["categories"] = names(&kind.categories);
        }
        row["storageVersionHash"] = storage_hash(kind).into();
        resources.push(row);
        for sub in &kind.subresources {
            let (group, version, sub_kind) = kind.subresource_kind(sub);
            let mut row = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind,
                "verbs": sub.verbs,
            });
            if (group, version) != (&*kind.group, &*kind.version) {
                row["group"] = group.into();
                row["version"] = version.into();
            }
            resources.push(row);
        }
    }
    for review in REVIEWS
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        resources.push(json!({
            "name": review.plural,
            "singularName": review.singular,
            "namespaced": review.namespaced,
            "kind": review.kind,
            "verbs": ["create"],
        }));
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version, "resources": resources,
    }))
}

/// A stable opaque name of the stored form, as clients expect one: FNV-1a of group/version/kind.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let stored = kind.storage();
    let name = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    base64::engine::general_purpose::STANDARD.encode(hash.to_be_bytes())
}

/// The forms of aggregated discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    /// The media type that asks for the form, as it stands in `Accept` and `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Aggregated::V2 => {
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            }
            Aggregated::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

/// `APIGroupDiscoveryList` for `/api` (`core` true) or `/apis`.
pub fn aggregated(registry: &Registry, form: Aggregated, core: bool) -> Value {
    let items: Vec<Value> = groups(registry)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let mut resources: Vec<Value> = registry
                        .of_version(group, version)
                        .map(|kind| resource(kind))
                        .collect();
                    resources.extend(
                        REVIEWS
                            .iter()
                            .filter(|r| r.group == group && r.version == version)
                            .map(review),
                    );
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            // The core group has no name, and its metadata none either.
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let api_version = match form {
        Aggregated::V2 => "apidiscovery.k8s.io/v2",
        Aggregated::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
    };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": api_version,
        "metadata": {}, "items": items,
    })
}

fn review(review: &Review) -> Value {
    json!({
        "resource": review.plural,
        "responseKind": {"group": review.group, "version": review.version, "kind": review.kind},
        "scope": if review.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": review.singular,
        "verbs": ["create"],
    })
}

fn resource(kind: &Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut row = json!({
        "resource": kind.plural,
        "responseKind": response(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        row["shortNames"] = names(&kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = names(&kind.categories);
    }
    if !kind.subresources.is_empty() {
        let subresources: Vec<Value> = kind
            .subresources
            .iter()
            .map(|sub| {
                let (group, version, sub_kind) = kind.subresource_kind(sub);
                json!({
                    "subresource": sub.name,
                    "responseKind": response(group, version, sub_kind),
                    "verbs": sub.verbs,
                })
            })
            .collect();
        row["subresources"] = subresources.into();
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_and_apps() {
        let registry = Registry::built_in();
        let core = resource_list(&registry, "", "v1").unwrap();
        assert_eq!(core["groupVersion"], "v1");
        let rows = core["resources"].as_array().unwrap();
        let pods = rows.iter().find(|r| r["name"] == "pods").unwrap();
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert!(rows.iter().any(|r| r["name"] == "pods/log"));
        let token = rows
            .iter()
            .find(|r| r["name"] == "serviceaccounts/token")
            .unwrap();
        assert_eq!(token["group"], "authentication.k8s.io");
        assert!(resource_list(&registry, "apps", "v2").is_none());
        assert!(group(&registry, "").is_none());
        assert_eq!(
            group(&registry, "apps").unwrap()["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
    }

    #[test]
    fn aggregated_lists_each_kind_once() {
        let registry = Registry::built_in();
        let count = |core| {
            aggregated(&registry, Aggregated::V2, core)["items"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|g| g["versions"].as_array().unwrap())
                .map(|v| v["resources"].as_array().unwrap().len())
                .sum::<usize>()
        };
        assert_eq!(
            count(true) + count(false),
            registry.kinds().len() + REVIEWS.len()
        );
    }
}
