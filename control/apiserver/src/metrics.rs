//! Counters of the server, in Prometheus' text form.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::cache::Cache;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    resource: String,
    code: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<VerbLabels, Histogram>,
    objects: Family<ResourceLabels, Gauge>,
    revision: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let requests = Family::default();
        let seconds = Family::<VerbLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 2.0, 14))
        });
        let objects = Family::default();
        let revision = Gauge::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and HTTP code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from a request's head to its answer's",
            seconds.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Objects of each resource",
            objects.clone(),
        );
        registry.register(
            "apiserver_storage_revision",
            "Last revision that readers see",
            revision.clone(),
        );
        Metrics {
            registry,
            requests,
            seconds,
            objects,
            revision,
        }
    }
}

impl Metrics {
    pub fn count(&self, verb: &str, resource: &str, code: u16, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels {
                verb: verb.into(),
                resource: resource.into(),
                code: code.into(),
            })
            .inc();
        self.seconds
            .get_or_create(&VerbLabels { verb: verb.into() })
            .observe(took.as_secs_f64());
    }

    pub fn render(&self, cache: &Cache) -> Result<String, std::fmt::Error> {
        for collection in cache.collections() {
            self.objects
                .get_or_create(&ResourceLabels {
                    resource: collection.kind.qualified_resource(),
                })
                .set(i64::try_from(collection.len()).unwrap_or(i64::MAX));
        }
        self.revision
            .set(i64::try_from(cache.applied()).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
