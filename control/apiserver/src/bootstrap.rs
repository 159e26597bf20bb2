//! What every cluster has from its first start: the four namespaces, and the `kubernetes` Service
//! with the API server behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rhumb_api::json::{self, text};
use rhumb_api::registry::{self, Kind};
use rhumb_api::service;
use rhumb_api::status::ApiError;
use rhumb_api::strategy::{self, CreateContext};
use rhumb_store::{Change, Condition, Outcome, StoreError, Write};
use serde_json::{Value, json};

use crate::ip_addresses;
use crate::kept;
use crate::object::{self, BadObject};
use crate::server::Api;
use crate::verbs::store_key;
use crate::verbs::write::put;

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("creating {what}: {source}")]
    Store {
        what: String,
        #[source]
        source: StoreError,
    },
    #[error("creating {what}: {source}")]
    Refused {
        what: String,
        #[source]
        source: Box<ApiError>,
    },
    #[error("reading {what}: {source}")]
    Damaged {
        what: String,
        #[source]
        source: BadObject,
    },
    #[error("the kind {0} is not served")]
    Kind(&'static str),
}

/// `kubernetes_ips`: the first address of each service range. `server`: where pods reach us.
pub async fn run(
    api: &Api,
    kubernetes_ips: &[IpAddr],
    server: SocketAddr,
) -> Result<(), BootstrapError> {
    let namespaces = kind("", "namespaces")?;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(api, namespaces, "", json!({"metadata": {"name": name}})).await?;
    }
    let services = kind("", "services")?;
    let addresses: Vec<String> = kubernetes_ips
        .iter()
        .take(1)
        .map(IpAddr::to_string)
        .collect();
    let made = create(
        api,
        services,
        "default",
        json!({
            "metadata": {
                "name": "kubernetes",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": addresses[0], "clusterIPs": addresses,
                "ipFamilyPolicy": "SingleStack",
                "ports": [{
                    "name": "https", "port": 443, "protocol": "TCP", "targetPort": server.port(),
                }],
            },
        }),
    )
    .await?;
    if made {
        api.service_ips.take(&kubernetes_ips[..1]);
        let service = json!({"metadata": {"namespace": "default", "name": "kubernetes"}});
        ip_addresses::hold(api, &kubernetes_ips[..1], &service).await?;
    }
    endpoints(api, server).await?;
    kept::run(api).await
}

pub fn kind(
    group: &'static str,
    plural: &'static str,
) -> Result<&'static Arc<Kind>, BootstrapError> {
    registry::find(group, "v1", plural).ok_or(BootstrapError::Kind(plural))
}

/// The EndpointSlice of the `kubernetes` Service, brought up to date when the address changed.
async fn endpoints(api: &Api, server: SocketAddr) -> Result<(), BootstrapError> {
    let slices = kind("discovery.k8s.io", "endpointslices")?;
    let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
    // Nobody else reaches a server that listens on loopback only.
    let endpoints = match server.ip().is_loopback() {
        true => json!([]),
        false => json!([{
            "addresses": [server.ip().to_string()], "conditions": {"ready": true},
        }]),
    };
    let slice = json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": server.port(), "protocol": "TCP"}],
    });
    if create(api, slices, "default", slice.clone()).await? {
        return Ok(());
    }
    amend(api, slices, "default", "kubernetes", |old| {
        let mut new = old.clone();
        for field in ["addressType", "endpoints", "ports"] {
            json::put(&mut new, field, slice.get(field).cloned());
        }
        rhumb_api::default_object(slices, &mut new);
        new
    })
    .await
}

/// Replaces an object by what `change` makes of it, if that differs. What is gone meanwhile, or was
/// changed by somebody else, is left for the next time.
pub async fn amend(
    api: &Api,
    kind: &'static Arc<Kind>,
    namespace: &str,
    name: &str,
    change: impl FnOnce(&Value) -> Value,
) -> Result<(), BootstrapError> {
    let what = format!("{} {namespace}/{name}", kind.plural);
    let failed = |source| BootstrapError::Store {
        what: what.clone(),
        source,
    };
    let key = store_key(kind, namespace, name);
    let Some(kv) = api.store.get(&key).await.map_err(failed)? else {
        return Ok(());
    };
    let old = object::value_of(&kv).map_err(|source| BootstrapError::Damaged {
        what: what.clone(),
        source,
    })?;
    let new = change(&old);
    if new != old {
        api.store
            .write(Write {
                key,
                condition: Condition::ModRevision(kv.mod_revision),
                change: put(kind, &new),
            })
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Removes an object, if it is there.
pub async fn remove(
    api: &Api,
    kind: &'static Arc<Kind>,
    namespace: &str,
    name: &str,
) -> Result<(), BootstrapError> {
    let what = format!("{} {namespace}/{name}", kind.plural);
    let failed = |source| BootstrapError::Store {
        what: what.clone(),
        source,
    };
    let key = store_key(kind, namespace, name);
    if let Some(kv) = api.store.get(&key).await.map_err(failed)? {
        api.store
            .write(Write {
                key,
                condition: Condition::ModRevision(kv.mod_revision),
                change: Change::Delete,
            })
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Creates an object if it isn't there; says whether it did.
pub async fn create(
    api: &Api,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
) -> Result<bool, BootstrapError> {
    let name = text(&object, "metadata.name").to_string();
    let what = format!("{} {namespace}/{name}", kind.plural);
    let namespace = kind.namespaced.then_some(namespace);
    let refused = |source| BootstrapError::Refused {
        what: what.clone(),
        source: Box::new(source),
    };
    strategy::conform(kind, &mut object, namespace, None).map_err(refused)?;
    rhumb_api::default_object(kind, &mut object);
    if kind.is("", "Service") {
        service::default_families(&mut object, api.service_ips.families());
    }
    let context = CreateContext {
        namespace,
        now: jiff::Timestamp::now(),
        uid: &uuid::Uuid::new_v4().to_string(),
        suffix: "",
    };
    strategy::prepare_create(kind, &mut object, &context).map_err(refused)?;
    let outcome = api
        .store
        .write(Write {
            key: store_key(kind, namespace.unwrap_or(""), &name),
            condition: Condition::Absent,
            change: put(kind, &object),
        })
        .await
        .map_err(|source| BootstrapError::Store {
            what: what.clone(),
            source,
        })?;
    Ok(matches!(outcome, Outcome::Committed(_)))
}
