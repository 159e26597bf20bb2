//! The kinds of the group `flowcontrol.apiserver.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, READ, Row};
use crate::table;

pub static ROWS: &[Row] = &[
    Row {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        kind: "FlowSchema",
        plural: "flowschemas",
        singular: "flowschema",
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::flowcontrol::v1::FlowSchema).0,
        schema: schema!(k8s::flowcontrol::v1::FlowSchema).1,
        columns: table::storage::FLOW_SCHEMA,
        cells: table::storage::flow_schema,
        ..PLAIN
    },
    Row {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        singular: "prioritylevelconfiguration",
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::flowcontrol::v1::PriorityLevelConfiguration).0,
        schema: schema!(k8s::flowcontrol::v1::PriorityLevelConfiguration).1,
        columns: table::storage::PRIORITY_LEVEL,
        cells: table::storage::priority_level,
        ..PLAIN
    },
];
