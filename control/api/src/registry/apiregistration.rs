//! The kinds of the group `apiregistration.k8s.io`.

use super::schema;
use super::{NameRule, PLAIN, READ, Row};
use crate::table;

pub static ROWS: &[Row] = &[Row {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    verbs: READ,
    name_rule: NameRule::PathSegment,
    schema_name: schema!(k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService)
        .0,
    schema: schema!(k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService).1,
    columns: table::storage::API_SERVICE,
    cells: table::storage::api_service,
    ..PLAIN
}];
