//! The kinds of the group `batch`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "batch",
        version: "v1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[status_of("batch", "v1", "CronJob")],
        generation: true,
        status: StatusRule::Subresource,
        schema_name: schema!(k8s::batch::v1::CronJob).0,
        schema: schema!(k8s::batch::v1::CronJob).1,
        defaults: defaults::workloads::cron_job,
        validate: validation::batch::cron_job,
        columns: table::workloads::CRON_JOB,
        cells: table::workloads::cron_job,
        ..PLAIN
    },
    Row {
        group: "batch",
        version: "v1",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &[status_of("batch", "v1", "Job")],
        generation: true,
        status: StatusRule::Subresource,
        fields: &[("status.successful", "status.succeeded", "0")],
        schema_name: schema!(k8s::batch::v1::Job).0,
        schema: schema!(k8s::batch::v1::Job).1,
        defaults: defaults::workloads::job,
        validate: validation::batch::job,
        validate_update: validation::batch::job_update,
        columns: table::workloads::JOB,
        cells: table::workloads::job,
        ..PLAIN
    },
];
