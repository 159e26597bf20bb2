//! Objects that the server itself keeps: the system's priority classes, the service ranges, the flow
//! schemas of every cluster, and an APIService for each group and version that is served.

use std::collections::BTreeMap;

use rhumb_api::flowcontrol;
use rhumb_api::json::{self, text};
use rhumb_api::registry::{self, Kind};
use rhumb_store::{Change, Condition, Write};
use serde_json::{Value, json};

use crate::bootstrap::{self, BootstrapError, kind};
use crate::object;
use crate::server::Api;
use crate::verbs::store_key;
use crate::verbs::write::put;

/// What the server keeps without being asked.
pub async fn run(api: &Api) -> Result<(), BootstrapError> {
    let classes = kind("scheduling.k8s.io", "priorityclasses")?;
    for class in priority_classes() {
        bootstrap::create(api, classes, "", class).await?;
    }
    let ranges = kind("networking.k8s.io", "servicecidrs")?;
    keep(api, ranges, service_ranges(api)).await?;
    let group = "flowcontrol.apiserver.k8s.io";
    let levels = kind(group, "prioritylevelconfigurations")?;
    keep(api, levels, flowcontrol::priority_levels()).await?;
    keep(
        api,
        kind(group, "flowschemas")?,
        flowcontrol::flow_schemas(),
    )
    .await?;
    let services = kind("apiregistration.k8s.io", "apiservices")?;
    keep(api, services, api_services(api)).await
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| json!({"metadata": {"name": name}, "value": value, "description": description});
    [
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
}

fn service_ranges(api: &Api) -> Vec<Value> {
    let cidrs: Vec<String> = api
        .service_ips
        .described()
        .split(',')
        .map(str::to_string)
        .collect();
    vec![json!({
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": cidrs},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": null,
        }]},
    })]
}

/// Group and version priorities: what is built in comes before what is defined by users.
const BUILT_IN: (i64, i64) = (17_000, 15);
const CUSTOM: (i64, i64) = (1000, 100);

fn api_services(api: &Api) -> Vec<Value> {
    let registry = api.registry();
    let mut out = Vec::new();
    for (group, versions) in registry.groups() {
        for (i, version) in versions.iter().enumerate() {
            let own = registry::KINDS.iter().any(|k| k.group == group);
            let (group_priority, version_priority) = if own { BUILT_IN } else { CUSTOM };
            let group_priority = if group.is_empty() {
                18_000
            } else {
                group_priority
            };
            let managed = if own { "onstart" } else { "true" };
            let mut spec = json!({
                "groupPriorityMinimum": group_priority,
                // The preferred version first.
                "versionPriority": version_priority - i as i64,
                "version": version,
            });
            if !group.is_empty() {
                spec["group"] = group.into();
            }
            out.push(json!({
                "metadata": {
                    "name": format!("{version}.{group}"),
                    "labels": {"kube-aggregator.kubernetes.io/automanaged": managed},
                },
                "spec": spec,
                "status": {"conditions": [{
                    "type": "Available", "status": "True", "reason": "Local",
                    "message": "Local APIServices are always available",
                    "lastTransitionTime": null,
                }]},
            }));
        }
    }
    out
}

/// Makes the objects of the kind those that are wanted: spec, labels and status; others go.
async fn keep(api: &Api, kind: &Kind, wanted: Vec<Value>) -> Result<(), BootstrapError> {
    let mut there: BTreeMap<String, Value> = api
        .cache
        .collection(kind)
        .iter()
        .flat_map(|c| c.list(""))
        .map(|o| (o.name().to_string(), o.value()))
        .collect();
    for mut object in wanted {
        let name = text(&object, "metadata.name").to_string();
        let Some(old) = there.remove(&name) else {
            date_conditions(&mut object, None);
            bootstrap::create(api, kind, "", object).await?;
            continue;
        };
        date_conditions(&mut object, Some(&old));
        let mut new = old.clone();
        for field in ["spec", "status"] {
            json::put(&mut new, field, object.get(field).cloned());
        }
        if let Some(meta) = json::child(&mut new, "metadata") {
            json::put(meta, "labels", object["metadata"].get("labels").cloned());
        }
        if new != old {
            replace(api, kind, &name, Some(&new)).await?;
        }
    }
    for name in there.keys() {
        replace(api, kind, name, None).await?;
    }
    Ok(())
}

/// Conditions keep the time from which they hold.
fn date_conditions(object: &mut Value, old: Option<&Value>) {
    let now = rhumb_api::time::format(jiff::Timestamp::now());
    for condition in json::list_mut(object, "status.conditions")
        .into_iter()
        .flatten()
    {
        let same = |c: &&Value| {
            text(c, "type") == text(condition, "type")
                && text(c, "status") == text(condition, "status")
        };
        let since = old
            .and_then(|o| json::list(o, "status.conditions").iter().find(same))
            .and_then(|c| c.get("lastTransitionTime").cloned());
        condition["lastTransitionTime"] = since.unwrap_or_else(|| now.as_str().into());
    }
}

/// Writes or removes an object, unless somebody was faster: the next round looks again.
async fn replace(
    api: &Api,
    kind: &Kind,
    name: &str,
    new: Option<&Value>,
) -> Result<(), BootstrapError> {
    let key = store_key(kind, "", name);
    let failed = |source| BootstrapError::Store {
        what: format!("{} {name}", kind.plural),
        source,
    };
    let Some(kv) = api.store.get(&key).await.map_err(failed)? else {
        return Ok(());
    };
    let stored = object::value_of(&kv).map_err(|source| BootstrapError::Damaged {
        what: format!("{} {name}", kind.plural),
        source,
    })?;
    let expected = new.map_or("", |n| text(n, "metadata.resourceVersion"));
    if new.is_some() && text(&stored, "metadata.resourceVersion") != expected {
        return Ok(());
    }
    let change = match new {
        Some(new) => put(kind, new),
        None => Change::Delete,
    };
    api.store
        .write(Write {
            key,
            condition: Condition::ModRevision(kv.mod_revision),
            change,
        })
        .await
        .map_err(failed)?;
    Ok(())
}
