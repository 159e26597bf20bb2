//! The kinds of the group `discovery.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, Row, StatusRule};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    name_rule: NameRule::Dns1123Subdomain,
    generation: true,
    status: StatusRule::None,
    fields: &[],
    schema_name: schema!(k8s::discovery::v1::EndpointSlice).0,
    schema: schema!(k8s::discovery::v1::EndpointSlice).1,
    defaults: defaults::endpoint_slice,
    validate: validation::endpoint_slice::endpoint_slice,
    validate_update: validation::endpoint_slice::endpoint_slice_update,
    columns: table::ENDPOINT_SLICE,
    cells: table::endpoint_slice,
    stored_as: None,
}];
