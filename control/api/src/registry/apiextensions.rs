//! The kinds of the group `apiextensions.k8s.io`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions as extensions;

use super::{ALL, NameRule, Row, StatusRule, schema, status_of};
use crate::{crd, table};

pub static ROWS: &[Row] = &[Row {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL,
    subresources: &[status_of(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    )],
    name_rule: NameRule::Dns1123Subdomain,
    generation: true,
    status: StatusRule::Subresource,
    fields: &[],
    schema_name: schema!(extensions::v1::CustomResourceDefinition).0,
    schema: schema!(extensions::v1::CustomResourceDefinition).1,
    defaults: crd::definition::defaults,
    validate: crd::definition::validate,
    validate_update: crd::definition::validate_update,
    columns: table::CUSTOM_RESOURCE_DEFINITION,
    cells: crd::definition::cells,
    stored_as: None,
}];
