//! IPAddress objects: what is held of the service ranges, for people and tools to see. Services are
//! the record; an address has its object from before its Service is answered until after the
//! Service is gone and before anybody else can get the address. What a crash leaves in between is
//! put right at start, before anything is served.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::StreamExt as _;
use rhumb_api::json::{at, text};
use rhumb_api::{registry, service};
use serde_json::Value;

use crate::bootstrap::{self, BootstrapError};
use crate::server::Api;
use crate::verbs::admit;

/// Writes under way at once when many objects are missing.
const AT_ONCE: usize = 64;

fn kind() -> Result<&'static std::sync::Arc<registry::Kind>, BootstrapError> {
    bootstrap::kind("networking.k8s.io", "ipaddresses")
}

/// Makes the object of an address that nobody else holds.
async fn hold_one(api: &Api, object: Value) -> Result<(), BootstrapError> {
    let kind = kind()?;
    if bootstrap::create(api, kind, "", object.clone()).await? {
        return Ok(());
    }
    // A former holder's.
    bootstrap::remove(api, kind, "", text(&object, "metadata.name")).await?;
    bootstrap::create(api, kind, "", object).await?;
    Ok(())
}

async fn hold_all(api: &Api, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let writes = objects.into_iter().map(|object| hold_one(api, object));
    let mut writes = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

/// Makes the objects of addresses that a Service has been given.
pub async fn hold(api: &Api, addresses: &[IpAddr], service: &Value) -> Result<(), BootstrapError> {
    let objects = addresses.iter().map(|ip| service::ip_address(*ip, service));
    hold_all(api, objects.collect()).await
}

/// Removes the objects of addresses that are about to be free.
pub async fn let_go(api: &Api, addresses: &[IpAddr]) -> Result<(), BootstrapError> {
    for ip in addresses {
        bootstrap::remove(api, kind()?, "", &ip.to_string()).await?;
    }
    Ok(())
}

/// Makes the objects those of the stored Services.
pub async fn repair(api: &Api) -> Result<(), BootstrapError> {
    let kind = kind()?;
    let services = bootstrap::kind("", "services")?;
    let objects = |kind| api.cache.collection(kind).into_iter();
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for service in objects(services).flat_map(|c| c.list("")) {
        let service = service.value();
        for ip in admit::held_ips(&service) {
            wanted.insert(ip.to_string(), service::ip_address(ip, &service));
        }
    }
    for object in objects(kind).flat_map(|c| c.list("")) {
        let same = wanted
            .get(object.name())
            .is_some_and(|w| at(w, "spec") == at(&object.value(), "spec"));
        if same {
            wanted.remove(object.name());
        } else if !wanted.contains_key(object.name()) {
            bootstrap::remove(api, kind, "", object.name()).await?;
        }
    }
    hold_all(api, wanted.into_values().collect()).await
}
