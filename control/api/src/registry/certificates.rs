//! The kinds of the group `certificates.k8s.io`.

use k8s_openapi::api::certificates::v1;

use super::schema;
use super::{ALL, NameRule, Row, STATUS_VERBS, StatusRule, Subresource, status_of};
use crate::{defaults, table, validation};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";

pub static ROWS: &[Row] = &[Row {
    group: GROUP,
    version: "v1",
    kind: KIND,
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    namespaced: false,
    verbs: ALL,
    subresources: &[
        Subresource {
            name: "approval",
            group: GROUP,
            version: "v1",
            kind: KIND,
            verbs: STATUS_VERBS,
        },
        status_of(GROUP, "v1", KIND),
    ],
    name_rule: NameRule::PathSegment,
    generation: false,
    status: StatusRule::Subresource,
    fields: &[("spec.signerName", "spec.signerName", "")],
    schema_name: schema!(v1::CertificateSigningRequest).0,
    schema: schema!(v1::CertificateSigningRequest).1,
    defaults: defaults::nothing,
    validate: validation::certificates::signing_request,
    validate_update: validation::nothing_update,
    columns: table::certificates::SIGNING_REQUEST,
    cells: table::certificates::signing_request,
    stored_as: None,
}];
