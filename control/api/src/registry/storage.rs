//! The kinds of the group `storage.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{PLAIN, Row, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        namespaced: false,
        generation: true,
        schema_name: schema!(k8s::storage::v1::CSIDriver).0,
        schema: schema!(k8s::storage::v1::CSIDriver).1,
        defaults: defaults::storage::csi_driver,
        validate: validation::storage::csi_driver,
        validate_update: validation::storage::csi_driver_update,
        columns: table::storage::CSI_DRIVER,
        cells: table::storage::csi_driver,
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        namespaced: false,
        schema_name: schema!(k8s::storage::v1::CSINode).0,
        schema: schema!(k8s::storage::v1::CSINode).1,
        validate: validation::storage::csi_node,
        validate_update: validation::storage::csi_node_update,
        columns: table::storage::CSI_NODE,
        cells: table::storage::csi_node,
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        schema_name: schema!(k8s::storage::v1::CSIStorageCapacity).0,
        schema: schema!(k8s::storage::v1::CSIStorageCapacity).1,
        validate: validation::storage::storage_capacity,
        validate_update: validation::storage::storage_capacity_update,
        columns: table::storage::STORAGE_CAPACITY,
        cells: table::storage::storage_capacity,
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        namespaced: false,
        schema_name: schema!(k8s::storage::v1::StorageClass).0,
        schema: schema!(k8s::storage::v1::StorageClass).1,
        defaults: defaults::storage::storage_class,
        validate: validation::storage::storage_class,
        validate_update: validation::storage::storage_class_update,
        columns: table::storage::STORAGE_CLASS,
        cells: table::storage::storage_class,
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        namespaced: false,
        subresources: &[status_of("storage.k8s.io", "v1", "VolumeAttachment")],
        status: StatusRule::Subresource,
        schema_name: schema!(k8s::storage::v1::VolumeAttachment).0,
        schema: schema!(k8s::storage::v1::VolumeAttachment).1,
        validate: validation::storage::attachment,
        validate_update: validation::storage::attachment_update,
        columns: table::storage::ATTACHMENT,
        cells: table::storage::attachment,
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        version: "v1",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short_names: &["vac"],
        namespaced: false,
        schema_name: schema!(k8s::storage::v1::VolumeAttributesClass).0,
        schema: schema!(k8s::storage::v1::VolumeAttributesClass).1,
        validate: validation::storage::attributes_class,
        validate_update: validation::storage::attributes_class_update,
        columns: table::storage::ATTRIBUTES_CLASS,
        cells: table::storage::attributes_class,
        ..PLAIN
    },
];
