//! The kinds of the group `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1;

use super::schema;
use super::{ALL, NameRule, Row, StatusRule};
use crate::{defaults, table, validation};

const fn base(kind: &'static str, plural: &'static str, singular: &'static str) -> Row {
    Row {
        group: crate::rbac::GROUP,
        version: "v1",
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: false,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::PathSegment,
        generation: false,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(v1::ClusterRole).0,
        schema: schema!(v1::ClusterRole).1,
        defaults: defaults::nothing,
        validate: validation::rbac::cluster_role,
        validate_update: validation::nothing_update,
        columns: table::rbac::ROLE,
        cells: table::rbac::role,
        stored_as: None,
    }
}

pub static ROWS: &[Row] = &[
    base("ClusterRole", "clusterroles", "clusterrole"),
    Row {
        schema_name: schema!(v1::ClusterRoleBinding).0,
        schema: schema!(v1::ClusterRoleBinding).1,
        defaults: defaults::role_binding,
        validate: validation::rbac::cluster_role_binding,
        validate_update: validation::rbac::binding_update,
        columns: table::rbac::BINDING,
        cells: table::rbac::binding,
        ..base(
            "ClusterRoleBinding",
            "clusterrolebindings",
            "clusterrolebinding",
        )
    },
    Row {
        namespaced: true,
        schema_name: schema!(v1::Role).0,
        schema: schema!(v1::Role).1,
        validate: validation::rbac::role,
        ..base("Role", "roles", "role")
    },
    Row {
        namespaced: true,
        schema_name: schema!(v1::RoleBinding).0,
        schema: schema!(v1::RoleBinding).1,
        defaults: defaults::role_binding,
        validate: validation::rbac::role_binding,
        validate_update: validation::rbac::binding_update,
        columns: table::rbac::BINDING,
        cells: table::rbac::binding,
        ..base("RoleBinding", "rolebindings", "rolebinding")
    },
];
