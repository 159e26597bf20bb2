//! What `/metrics` counts by itself; drops are read from the kernel's counters at each scrape.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use rhumb_core::tables::Step;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    pub kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PolicyDrop {
    pub direction: &'static str,
    /// The policies that isolate the pod, or the rule that denied.
    pub by: String,
}

#[derive(Debug)]
pub struct Metrics {
    pub watch_errors: Family<Kind, Counter>,
    pub objects: Family<Kind, Counter>,
    pub invalid_objects: Family<Kind, Counter>,
    pub policy_drops: Family<PolicyDrop, Counter>,
    pub events: Counter,
    pub apply_errors: Counter,
    pub route_errors: Counter,
    pub applies: Counter,
    pub steps: Counter,
    pub deletes: Counter,
    pub apply_seconds: Histogram,
    pub plan_seconds: Histogram,
    pub cni_seconds: Histogram,
    pub cni_failures: Counter,
    pub start_seconds: Gauge<f64, AtomicU64>,
    pub programs_restored: Counter,
    pub leaked_attachments: Counter,
    pub journals_recovered: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            watch_errors: Family::default(),
            objects: Family::default(),
            invalid_objects: Family::default(),
            policy_drops: Family::default(),
            events: Counter::default(),
            apply_errors: Counter::default(),
            route_errors: Counter::default(),
            applies: Counter::default(),
            steps: Counter::default(),
            deletes: Counter::default(),
            apply_seconds: seconds(),
            plan_seconds: seconds(),
            cni_seconds: seconds(),
            cni_failures: Counter::default(),
            start_seconds: Gauge::default(),
            programs_restored: Counter::default(),
            leaked_attachments: Counter::default(),
            journals_recovered: Counter::default(),
        }
    }
}

impl Metrics {
    pub fn applied(&self, steps: &[Step], planned: Duration, total: Duration) {
        self.applies.inc();
        self.steps.inc_by(steps.len() as u64);
        self.deletes
            .inc_by(steps.iter().filter(|s| s.is_delete()).count() as u64);
        self.plan_seconds.observe(planned.as_secs_f64());
        self.apply_seconds.observe(total.as_secs_f64());
    }

    pub fn register(&self, r: &mut Registry) {
        r.register(
            "watch_errors",
            "Watches that ended with an error",
            self.watch_errors.clone(),
        );
        r.register(
            "objects",
            "Objects and deletions seen",
            self.objects.clone(),
        );
        r.register(
            "invalid_objects",
            "Objects that were left out, wholly or in part",
            self.invalid_objects.clone(),
        );
        r.register(
            "policy_drops",
            "Denied packets that were told of, by who isolates the pod",
            self.policy_drops.clone(),
        );
        r.register(
            "drop_events",
            "Drops that the kernel told of in detail",
            self.events.clone(),
        );
        r.register(
            "apply_errors",
            "Writes of the kernel's tables that failed",
            self.apply_errors.clone(),
        );
        r.register(
            "route_errors",
            "Routes that could not be set or removed",
            self.route_errors.clone(),
        );
        r.register("applies", "Batches written", self.applies.clone());
        r.register(
            "apply_steps",
            "Map entries written or deleted",
            self.steps.clone(),
        );
        r.register("apply_deletes", "Map entries deleted", self.deletes.clone());
        r.register(
            "apply_seconds",
            "Time from a batch's begin to its last write",
            self.apply_seconds.clone(),
        );
        r.register(
            "plan_seconds",
            "Part of it that went into deciding",
            self.plan_seconds.clone(),
        );
        r.register(
            "cni_add_seconds",
            "Time that the plugin waited for a pod's policy",
            self.cni_seconds.clone(),
        );
        r.register(
            "cni_add_failures",
            "ADDs that were answered without the pod's policy in force",
            self.cni_failures.clone(),
        );
        r.register(
            "start_seconds",
            "Time from start to the first full write",
            self.start_seconds.clone(),
        );
        r.register(
            "programs_restored",
            "Pods whose programs somebody had taken away, and that got them back",
            self.programs_restored.clone(),
        );
        r.register(
            "leaked_attachments",
            "Attachments that the runtime had forgotten, and that were taken down",
            self.leaked_attachments.clone(),
        );
        r.register(
            "journals_recovered",
            "Times that the plugin's journal was damaged or lost, and made anew",
            self.journals_recovered.clone(),
        );
    }
}
