//! The kinds of the group `networking.k8s.io`.

use k8s_openapi::api as k8s;

use super::schema;
use super::{ALL, NameRule, PLAIN, READ, Row, StatusRule, status_of};
use crate::{defaults, table, validation};

pub static ROWS: &[Row] = &[
    Row {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::networking::v1::NetworkPolicy).0,
        schema: schema!(k8s::networking::v1::NetworkPolicy).1,
        defaults: defaults::network_policy,
        validate: validation::network_policy::network_policy,
        validate_update: validation::nothing_update,
        columns: table::NETWORK_POLICY,
        cells: table::network_policy,
        stored_as: None,
    },
    Row {
        group: "networking.k8s.io",
        version: "v1",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        namespaced: false,
        generation: true,
        schema_name: schema!(k8s::networking::v1::IngressClass).0,
        schema: schema!(k8s::networking::v1::IngressClass).1,
        defaults: defaults::policy::ingress_class,
        validate: validation::ingress::ingress_class,
        validate_update: validation::ingress::ingress_class_update,
        columns: table::workloads::INGRESS_CLASS,
        cells: table::workloads::ingress_class,
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        version: "v1",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[status_of("networking.k8s.io", "v1", "Ingress")],
        generation: true,
        status: StatusRule::Subresource,
        schema_name: schema!(k8s::networking::v1::Ingress).0,
        schema: schema!(k8s::networking::v1::Ingress).1,
        validate: validation::ingress::ingress,
        columns: table::workloads::INGRESS,
        cells: table::workloads::ingress,
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        version: "v1",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        namespaced: false,
        verbs: READ,
        // IPv6 has colons.
        name_rule: NameRule::PathSegment,
        schema_name: schema!(k8s::networking::v1::IPAddress).0,
        schema: schema!(k8s::networking::v1::IPAddress).1,
        columns: table::storage::IP_ADDRESS,
        cells: table::storage::ip_address,
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        version: "v1",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        namespaced: false,
        verbs: READ,
        schema_name: schema!(k8s::networking::v1::ServiceCIDR).0,
        schema: schema!(k8s::networking::v1::ServiceCIDR).1,
        columns: table::storage::SERVICE_CIDR,
        cells: table::storage::service_cidr,
        ..PLAIN
    },
];
