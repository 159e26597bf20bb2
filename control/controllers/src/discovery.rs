//! The kinds that the server has now, as far as controllers for all kinds can handle them.

use kube::{
    Client,
    discovery::{ApiResource, Discovery, Scope, verbs},
};

#[derive(Debug, Clone)]
pub struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub deletes_collections: bool,
}

impl Kind {
    /// `pods`, `deployments.apps`.
    pub fn name(&self) -> String {
        if self.resource.group.is_empty() {
            self.resource.plural.clone()
        } else {
            format!("{}.{}", self.resource.plural, self.resource.group)
        }
    }

    pub fn is_event(&self) -> bool {
        self.resource.kind == "Event"
    }
}

/// Every kind that can be listed, watched and deleted, in the version that the server prefers. An error, not
/// a shorter list, if a part of the discovery fails.
pub async fn kinds(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut out = Vec::new();
    for group in discovery.groups() {
        for (resource, caps) in group.recommended_resources() {
            let can = |verb: &str| caps.supports_operation(verb);
            if can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE) {
                out.push(Kind {
                    resource,
                    namespaced: caps.scope == Scope::Namespaced,
                    deletes_collections: can(verbs::DELETE_COLLECTION),
                });
            }
        }
    }
    Ok(out)
}
