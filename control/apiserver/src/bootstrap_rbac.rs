//! The roles and bindings that every cluster has, brought up to date at start.

use futures::future::try_join_all;
use rhumb_api::json::text;
use rhumb_api::rbac::{GROUP, bootstrap, reconcile_binding, reconcile_role};
use serde_json::Value;

use crate::bootstrap::{BootstrapError, amend, create, kind, remove};
use crate::server::Api;

pub async fn run(api: &Api) -> Result<(), BootstrapError> {
    // All at once: the store writes what comes together in one transaction.
    try_join_all(bootstrap::cluster_roles().into_iter().map(|r| role(api, r))).await?;
    let bindings = bootstrap::cluster_role_bindings();
    try_join_all(bindings.into_iter().map(|b| binding(api, b))).await?;
    Ok(())
}

async fn role(api: &Api, expected: Value) -> Result<(), BootstrapError> {
    let kind = kind(GROUP, "clusterroles")?;
    if create(api, kind, "", expected.clone()).await? {
        return Ok(());
    }
    let name = text(&expected, "metadata.name");
    amend(api, kind, "", name, |old| reconcile_role(old, &expected)).await
}

async fn binding(api: &Api, expected: Value) -> Result<(), BootstrapError> {
    let kind = kind(GROUP, "clusterrolebindings")?;
    if create(api, kind, "", expected.clone()).await? {
        return Ok(());
    }
    let name = text(&expected, "metadata.name");
    let mut other_role = false;
    amend(api, kind, "", name, |old| {
        reconcile_binding(old, &expected).unwrap_or_else(|| {
            other_role = true;
            old.clone()
        })
    })
    .await?;
    if other_role {
        tracing::warn!(
            name,
            "a bootstrap binding was of another role; it is made anew"
        );
        remove(api, kind, "", name).await?;
        create(api, kind, "", expected).await?;
    }
    Ok(())
}
