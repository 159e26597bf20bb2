//! The kinds of the group `networking.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, Row, StatusRule};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    name_rule: NameRule::Dns1123Subdomain,
    generation: true,
    status: StatusRule::None,
    fields: &[],
    schema_name: schema!(k8s::networking::v1::NetworkPolicy).0,
    schema: schema!(k8s::networking::v1::NetworkPolicy).1,
    defaults: defaults::network_policy,
    validate: validation::network_policy::network_policy,
    validate_update: validation::nothing_update,
    columns: table::NETWORK_POLICY,
    cells: table::network_policy,
    stored_as: None,
}];
