//! The kinds of the group `scheduling.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    generation: true,
    schema_name: schema!(k8s::scheduling::v1::PriorityClass).0,
    schema: schema!(k8s::scheduling::v1::PriorityClass).1,
    defaults: defaults::policy::priority_class,
    validate: validation::policy::priority_class,
    validate_update: validation::policy::priority_class_update,
    columns: table::workloads::PRIORITY_CLASS,
    cells: table::workloads::priority_class,
    ..PLAIN
}];
