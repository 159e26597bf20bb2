//! The kinds of the group `events.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, Row, StatusRule};
use crate::{defaults, table, validation};

const REGARDING_FIELDS: &[(&str, &str, &str)] = &[
    ("regarding.kind", "involvedObject.kind", ""),
    ("regarding.namespace", "involvedObject.namespace", ""),
    ("regarding.name", "involvedObject.name", ""),
    ("regarding.uid", "involvedObject.uid", ""),
    ("regarding.apiVersion", "involvedObject.apiVersion", ""),
    (
        "regarding.resourceVersion",
        "involvedObject.resourceVersion",
        "",
    ),
    ("regarding.fieldPath", "involvedObject.fieldPath", ""),
    ("reason", "reason", ""),
    ("reportingController", "reportingComponent", ""),
    ("type", "type", ""),
];

pub static ROWS: &[Row] = &[Row {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    name_rule: NameRule::Dns1123Subdomain,
    generation: false,
    status: StatusRule::None,
    fields: REGARDING_FIELDS,
    schema_name: schema!(k8s::events::v1::Event).0,
    schema: schema!(k8s::events::v1::Event).1,
    defaults: defaults::nothing,
    validate: validation::event::event,
    validate_update: validation::event::event_update,
    columns: table::EVENT,
    cells: table::event,
    stored_as: Some(("", "events")),
}];
