//! `pods/eviction`: a delete that asks the pod's disruption budget first.
//! Source: Kubernetes `pkg/registry/core/pod/storage/eviction.go`.

use http::{Response, StatusCode};
use rhumb_api::codec;
use rhumb_api::json::{at, int, list, text};
use rhumb_api::registry::{self, Kind};
use rhumb_api::selector::LabelSelector;
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy::DeleteOptions;
use rhumb_api::{disruption, per_kind};
use rhumb_store::{Condition, KeyValue, Outcome, Write};
use serde_json::{Value, json};

use super::admission::dynamic::{self, Own};
use super::delete::delete_one;
use super::write::put;
use super::{ATTEMPTS, Request, store_error};
use crate::http::reply::{self, Body};
use crate::object;

const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";

const OWN: Own = Own {
    group: "policy",
    version: "v1",
    kind: "Eviction",
    schema: EVICTION,
};

pub async fn create(request: &Request) -> Result<Response<Body>> {
    let validation = request.field_validation()?;
    let parsed = codec::parse(request.content_type(), &request.body)?;
    let mut eviction = codec::decode_named(EVICTION, parsed, validation)?.object;
    let name = request.resource.name.as_str();
    let given = text(&eviction, "metadata.name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let of_query = request.dry_run()?;
    let dry_run = of_query || !list(&eviction, "deleteOptions.dryRun").is_empty();
    dynamic::post(request, &OWN, &mut eviction, dry_run).await?;
    let mut options = match at(&eviction, "deleteOptions") {
        Some(options) => DeleteOptions::from_value(options)?,
        None => DeleteOptions::default(),
    };
    options.dry_run |= of_query;
    evict(request, &options).await?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(reply::object(StatusCode::CREATED, request.accept, &status))
}

async fn evict(request: &Request, options: &DeleteOptions) -> Result<()> {
    let (name, namespace) = (
        request.resource.name.as_str(),
        request.resource.namespace.as_str(),
    );
    let delete = async |options: &DeleteOptions| {
        delete_one(request, namespace, name, options)
            .await
            .map(|_| ())
    };
    let asked_version = options.resource_version.is_some();
    for _ in 0..ATTEMPTS {
        let (_, pod) = request.current(name).await?;
        super::admit::evict(request, &pod)?;
        if !disruption::needs_budget(&pod) {
            let mut options = options.clone();
            if !asked_version && !disruption::is_ended(&pod) {
                // It must not have become ready meanwhile.
                options.resource_version = Some(text(&pod, "metadata.resourceVersion").into());
            }
            match delete(&options).await {
                Err(error) if error.code == 409 && !asked_version => continue,
                other => return other,
            }
        }
        let Some(budget) = budget_of(request, &pod).await? else {
            return delete(options).await;
        };
        if disruption::may_go_unready(&pod, &budget.1) {
            let mut options = options.clone();
            if !asked_version {
                options.resource_version = Some(text(&pod, "metadata.resourceVersion").into());
            }
            return match delete(&options).await {
                Err(error) if error.code == 409 && !asked_version => Err(
                    ApiError::disruption_budget(processing(text(&budget.1, "metadata.name")), 10),
                ),
                other => other,
            };
        }
        take_one(request, budget, options.dry_run).await?;
        return delete(options).await;
    }
    Err(ApiError::modified(&request.kind, name))
}

fn processing(budget: &str) -> String {
    format!("The disruption budget {budget} is still being processed by the server.")
}

fn budgets() -> Result<&'static Kind> {
    let kind = registry::find("policy", "v1", "poddisruptionbudgets");
    kind.map(|k| &**k).ok_or_else(ApiError::no_such_path)
}

/// The budget that selects the pod, from the store: the cache may be behind the last eviction.
async fn budget_of(request: &Request, pod: &Value) -> Result<Option<(KeyValue, Value)>> {
    let prefix = format!(
        "{}/{}/",
        budgets()?.storage_prefix(),
        request.resource.namespace
    );
    let all = request
        .api
        .store
        .list(rhumb_store::ListRequest {
            prefix: prefix.into(),
            after: None,
            limit: 0,
            at: None,
        })
        .await
        .map_err(store_error)?;
    let mut found = Vec::new();
    for kv in all.items {
        let budget = object::value_of(&kv).map_err(ApiError::internal)?;
        let selects = at(&budget, "spec.selector")
            .is_some_and(|s| LabelSelector::from_object(Some(s)).matches(pod));
        if selects {
            found.push((kv, budget));
        }
    }
    if found.len() > 1 {
        return Err(ApiError::internal_message(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(found.pop())
}

/// Takes one disruption off the budget, and notes that this pod goes by it.
async fn take_one(request: &Request, budget: (KeyValue, Value), dry_run: bool) -> Result<()> {
    let kind = budgets()?;
    let name = text(&budget.1, "metadata.name").to_string();
    let pod = request.resource.name.as_str();
    let mut current = Some(budget);
    for _ in 0..ATTEMPTS {
        let Some((kv, budget)) = current.take() else {
            // The budget is gone: nothing forbids it.
            return Ok(());
        };
        check(kind, &budget)?;
        if dry_run {
            return Ok(());
        }
        let taken = disruption::take_one(&budget, pod, jiff::Timestamp::now());
        let written = request
            .api
            .store
            .write(Write {
                key: kv.key.clone(),
                condition: Condition::ModRevision(kv.mod_revision),
                change: put(kind, &taken),
            })
            .await
            .map_err(store_error)?;
        match written {
            Outcome::Committed(_) => return Ok(()),
            Outcome::Conflict(None) => return Ok(()),
            Outcome::Conflict(Some(_)) => {
                let stored = request.api.store.get(&kv.key).await.map_err(store_error)?;
                current = match stored {
                    Some(kv) => {
                        let value = object::value_of(&kv).map_err(ApiError::internal)?;
                        Some((kv, value))
                    }
                    None => None,
                };
            }
        }
    }
    Err(ApiError::timeout(format!(
        "Timeout: couldn't update PodDisruptionBudget {name:?} due to conflicts"
    ))
    .with_retry_after(10))
}

/// More evictions under way than this, and the controller isn't keeping up.
const MAX_DISRUPTED: usize = 2000;

fn check(kind: &Kind, budget: &Value) -> Result<()> {
    let name = text(budget, "metadata.name");
    if !per_kind::observed(budget) {
        return Err(ApiError::disruption_budget(processing(name), 10));
    }
    let allowed = int(budget, "status.disruptionsAllowed").unwrap_or(0);
    if allowed < 0 {
        return Err(ApiError::forbidden(
            kind,
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    if rhumb_api::json::map(budget, "status.disruptedPods").is_some_and(|d| d.len() > MAX_DISRUPTED)
    {
        return Err(ApiError::forbidden(
            kind,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed > 0 {
        return Ok(());
    }
    let failed = list(budget, "status.conditions")
        .iter()
        .find(|c| text(c, "type") == "DisruptionAllowed" && text(c, "reason") == "SyncFailed");
    let why = match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text(condition, "message")
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            int(budget, "status.desiredHealthy").unwrap_or(0),
            int(budget, "status.currentHealthy").unwrap_or(0)
        ),
    };
    Err(ApiError::disruption_budget(why, 0))
}
