//! The kinds of the group `admissionregistration.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, READ, Row, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        singular: "mutatingadmissionpolicy",
        categories: &["api-extensions"],
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::admissionregistration::v1::MutatingAdmissionPolicy).0,
        schema: schema!(k8s::admissionregistration::v1::MutatingAdmissionPolicy).1,
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        singular: "mutatingadmissionpolicybinding",
        categories: &["api-extensions"],
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::admissionregistration::v1::MutatingAdmissionPolicyBinding).0,
        schema: schema!(k8s::admissionregistration::v1::MutatingAdmissionPolicyBinding).1,
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        defaults: defaults::admission::mutating_webhooks,
        validate: validation::webhook::mutating,
        schema_name: schema!(k8s::admissionregistration::v1::MutatingWebhookConfiguration).0,
        schema: schema!(k8s::admissionregistration::v1::MutatingWebhookConfiguration).1,
        columns: table::admission::WEBHOOKS,
        cells: table::admission::webhooks,
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        singular: "validatingadmissionpolicy",
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &[status_of(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
        )],
        status: StatusRule::Subresource,
        generation: true,
        defaults: defaults::admission::policy,
        validate: validation::admission_policy::policy,
        columns: table::admission::POLICY,
        cells: table::admission::policy,
        schema_name: schema!(k8s::admissionregistration::v1::ValidatingAdmissionPolicy).0,
        schema: schema!(k8s::admissionregistration::v1::ValidatingAdmissionPolicy).1,
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        singular: "validatingadmissionpolicybinding",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        defaults: defaults::admission::policy_binding,
        validate: validation::admission_policy::binding,
        columns: table::admission::BINDING,
        cells: table::admission::binding,
        schema_name: schema!(k8s::admissionregistration::v1::ValidatingAdmissionPolicyBinding).0,
        schema: schema!(k8s::admissionregistration::v1::ValidatingAdmissionPolicyBinding).1,
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        defaults: defaults::admission::validating_webhooks,
        validate: validation::webhook::validating,
        schema_name: schema!(k8s::admissionregistration::v1::ValidatingWebhookConfiguration).0,
        schema: schema!(k8s::admissionregistration::v1::ValidatingWebhookConfiguration).1,
        columns: table::admission::WEBHOOKS,
        cells: table::admission::webhooks,
        ..PLAIN
    },
];
