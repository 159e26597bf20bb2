//! The kinds of the group `policy`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row, StatusRule, status_of};
use crate::{table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[status_of("policy", "v1", "PodDisruptionBudget")],
    generation: true,
    status: StatusRule::Subresource,
    schema_name: schema!(k8s::policy::v1::PodDisruptionBudget).0,
    schema: schema!(k8s::policy::v1::PodDisruptionBudget).1,
    validate: validation::policy::disruption_budget,
    columns: table::workloads::DISRUPTION_BUDGET,
    cells: table::workloads::disruption_budget,
    ..PLAIN
}];
