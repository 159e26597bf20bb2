//! The kinds of the group `apps`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, Row, SCALE, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::Subresource,
        fields: &[],
        schema_name: schema!(k8s::apps::v1::Deployment).0,
        schema: schema!(k8s::apps::v1::Deployment).1,
        defaults: defaults::deployment,
        validate: validation::apps::deployment,
        validate_update: validation::apps::selector_update,
        columns: table::DEPLOYMENT,
        cells: table::deployment,
        stored_as: None,
    },
    Row {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::Subresource,
        fields: &[("status.replicas", "status.replicas", "0")],
        schema_name: schema!(k8s::apps::v1::ReplicaSet).0,
        schema: schema!(k8s::apps::v1::ReplicaSet).1,
        defaults: defaults::replica_set,
        validate: validation::apps::replica_set,
        validate_update: validation::apps::selector_update,
        columns: table::REPLICA_SET,
        cells: table::replica_set,
        stored_as: None,
    },
];
