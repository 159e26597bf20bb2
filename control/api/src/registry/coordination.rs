//! The kinds of the group `coordination.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, Row, StatusRule};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    name_rule: NameRule::Dns1123Subdomain,
    generation: false,
    status: StatusRule::None,
    fields: &[],
    schema_name: schema!(k8s::coordination::v1::Lease).0,
    schema: schema!(k8s::coordination::v1::Lease).1,
    defaults: defaults::nothing,
    validate: validation::lease,
    validate_update: validation::nothing_update,
    columns: table::LEASE,
    cells: table::lease,
    stored_as: None,
}];
