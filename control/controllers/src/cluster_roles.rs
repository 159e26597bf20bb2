//! ClusterRoles with an `aggregationRule` have the rules of the roles that it selects.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use rhumb_api::rbac::{Rule, aggregated};
use rhumb_client::{Informer, ObjectKey, WorkQueue};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::context::{Context, run_queue};

pub struct ClusterRoleAggregation {
    ctx: Arc<Context>,
    roles: Informer<ClusterRole>,
    queue: WorkQueue<ObjectKey>,
}

/// The patch that gives a role the rules that it should have; `None` if it has them.
fn correction(role: &Value, all: &[Value]) -> Option<Value> {
    let rules = aggregated(role, all)?;
    if rules == Rule::all_of(role) {
        return None;
    }
    let rules: Vec<Value> = rules.iter().map(Rule::to_value).collect();
    // The version makes sure that the rule which was read is still the one.
    let version = role["metadata"]["resourceVersion"].clone();
    Some(json!({"metadata": {"resourceVersion": version}, "rules": rules}))
}

fn value(role: &ClusterRole) -> Value {
    serde_json::to_value(role).unwrap_or_else(|error| {
        // Every field of the type has a form in JSON.
        warn!(%error, "a ClusterRole can't be read");
        Value::Null
    })
}

impl ClusterRoleAggregation {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            ctx: ctx.clone(),
            roles: Informer::new(),
            queue: WorkQueue::new(),
        })
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let this = self.clone();
        // Which roles gather the one that changed, its old labels and its new ones say; there are
        // few that gather, so all of them look.
        self.roles.on_change(move |_| {
            for role in this.roles.all() {
                if role.aggregation_rule.is_some() {
                    this.queue.add(ObjectKey::of(role.as_ref()));
                }
            }
        });
        let api = Api::all(self.ctx.client.clone());
        let config = watcher::Config::default();
        let watch = self.roles.run(api, config, |_| {}, shutdown.clone());
        let queue = self.queue.clone();
        let work = async {
            self.roles.synced().await;
            // The last role of the first list may have been told before the others were there.
            for role in self.roles.all() {
                self.queue.add(ObjectKey::of(role.as_ref()));
            }
            let this = self.clone();
            run_queue(
                queue,
                1,
                "clusterrole-aggregation",
                shutdown.clone(),
                move |key| {
                    let this = this.clone();
                    async move { this.reconcile(&key.name).await }
                },
            )
            .await;
        };
        tokio::join!(watch, work);
    }

    async fn reconcile(&self, name: &str) -> anyhow::Result<Option<Duration>> {
        let Some(role) = self.roles.get(&ObjectKey::new("", name)) else {
            return Ok(None);
        };
        let all: Vec<Value> = self.roles.all().iter().map(|r| value(r)).collect();
        if let Some(patch) = correction(&value(&role), &all) {
            let api: Api<ClusterRole> = Api::all(self.ctx.client.clone());
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .context("writing the gathered rules")?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let part = json!({"metadata": {"name": "a", "labels": {"x": "y"}},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let mut top = json!({"metadata": {"name": "t", "resourceVersion": "7"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}});
        let all = [part.clone(), top.clone()];
        let patch = correction(&top, &all).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["rules"], part["rules"]);
        top["rules"] = part["rules"].clone();
        assert_eq!(correction(&top, &all), None);
        assert_eq!(correction(&part, &all), None);
        // When the last part has gone, so have the rules.
        assert_eq!(
            correction(&top, &[top.clone()]).unwrap()["rules"],
            json!([])
        );
    }
}
