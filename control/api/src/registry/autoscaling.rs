//! The kinds of the group `autoscaling`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[status_of("autoscaling", "v2", "HorizontalPodAutoscaler")],
        status: StatusRule::Subresource,
        schema_name: schema!(k8s::autoscaling::v2::HorizontalPodAutoscaler).0,
        schema: schema!(k8s::autoscaling::v2::HorizontalPodAutoscaler).1,
        defaults: defaults::policy::autoscaler,
        validate: validation::autoscaling::autoscaler,
        columns: table::workloads::AUTOSCALER,
        cells: table::workloads::autoscaler,
        ..PLAIN
    },
    Row {
        group: "autoscaling",
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[status_of("autoscaling", "v1", "HorizontalPodAutoscaler")],
        status: StatusRule::Subresource,
        schema_name: schema!(k8s::autoscaling::v1::HorizontalPodAutoscaler).0,
        schema: schema!(k8s::autoscaling::v1::HorizontalPodAutoscaler).1,
        defaults: defaults::policy::autoscaler_v1,
        validate: validation::autoscaling::autoscaler,
        columns: table::workloads::AUTOSCALER,
        cells: table::workloads::autoscaler,
        stored_as: Some(("autoscaling", "horizontalpodautoscalers")),
        ..PLAIN
    },
];
