//! Certificate signing requests: approval of kubelets' own by the usual rules, and removal of old ones.
//! Signing needs the cluster's key, and so is not done here.

mod approve;
mod clean;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
    runtime::watcher,
};
use rhumb_client::{Informer, ObjectKey, WorkQueue, is_conflict, is_not_found};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::context::{Context, run_queue};

/// How often old requests are looked for.
const PERIOD: Duration = Duration::from_secs(600);

pub struct CertificateRequests {
    ctx: Arc<Context>,
    requests: Informer<CertificateSigningRequest>,
    queue: WorkQueue<ObjectKey>,
}

impl CertificateRequests {
    pub fn new(ctx: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            ctx: ctx.clone(),
            requests: Informer::new(),
            queue: WorkQueue::new(),
        })
    }

    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        self.requests
            .on_change(move |change| queue.add(ObjectKey::of(change.object().as_ref())));
        let api = Api::all(self.ctx.client.clone());
        let config = watcher::Config::default();
        let watch = self.requests.run(api, config, |_| {}, shutdown.clone());
        let this = self.clone();
        let work = run_queue(
            self.queue.clone(),
            1,
            "certificate-approval",
            shutdown.clone(),
            move |key| {
                let this = this.clone();
                async move {
                    if let Some(request) = this.requests.get(&key) {
                        approve::reconcile(&this.ctx.client, &request).await?;
                    }
                    Ok(None)
                }
            },
        );
        tokio::join!(watch, work, self.clean(shutdown));
    }

    async fn clean(&self, shutdown: CancellationToken) {
        self.requests.synced().await;
        loop {
            for request in self.requests.all() {
                if let Some(why) = clean::reason(&request, Timestamp::now()) {
                    self.remove(&request, why).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn remove(&self, request: &CertificateSigningRequest, why: &str) {
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let api: Api<CertificateSigningRequest> = Api::all(self.ctx.client.clone());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: request.metadata.uid.clone(),
                resource_version: request.metadata.resource_version.clone(),
            }),
            ..Default::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => info!(name, why, "removed a certificate signing request"),
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => warn!(
                name,
                error = rhumb_client::error::chain(&error.into()),
                "removing a certificate signing request"
            ),
        }
    }
}

/// Whether the request has the condition, and it is true.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == kind && c.status == "True")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.is_some_and(|c| !c.0.is_empty())
}
