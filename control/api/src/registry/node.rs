//! The kinds of the group `node.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row};
use crate::{table, validation};

pub static ROWS: &[Row] = &[Row {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    schema_name: schema!(k8s::node::v1::RuntimeClass).0,
    schema: schema!(k8s::node::v1::RuntimeClass).1,
    validate: validation::policy::runtime_class,
    validate_update: validation::policy::runtime_class_update,
    columns: table::workloads::RUNTIME_CLASS,
    cells: table::workloads::runtime_class,
    ..PLAIN
}];
