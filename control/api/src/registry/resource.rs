//! The kinds of the group `resource.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, READ, Row};

pub static ROWS: &[Row] = &[
    Row {
        group: "resource.k8s.io",
        version: "v1",
        kind: "DeviceClass",
        plural: "deviceclasses",
        singular: "deviceclass",
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::resource::v1::DeviceClass).0,
        schema: schema!(k8s::resource::v1::DeviceClass).1,
        ..PLAIN
    },
    Row {
        group: "resource.k8s.io",
        version: "v1",
        kind: "ResourceClaim",
        plural: "resourceclaims",
        singular: "resourceclaim",
        verbs: READ,
        schema_name: schema!(k8s::resource::v1::ResourceClaim).0,
        schema: schema!(k8s::resource::v1::ResourceClaim).1,
        ..PLAIN
    },
    Row {
        group: "resource.k8s.io",
        version: "v1",
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        singular: "resourceclaimtemplate",
        verbs: READ,
        schema_name: schema!(k8s::resource::v1::ResourceClaimTemplate).0,
        schema: schema!(k8s::resource::v1::ResourceClaimTemplate).1,
        ..PLAIN
    },
    Row {
        group: "resource.k8s.io",
        version: "v1",
        kind: "ResourceSlice",
        plural: "resourceslices",
        singular: "resourceslice",
        namespaced: false,
        verbs: READ,
        fields: &[
            ("spec.nodeName", "spec.nodeName", ""),
            ("spec.driver", "spec.driver", ""),
        ],
        schema_name: schema!(k8s::resource::v1::ResourceSlice).0,
        schema: schema!(k8s::resource::v1::ResourceSlice).1,
        ..PLAIN
    },
];
