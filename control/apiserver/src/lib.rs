//! The Kubernetes API over HTTP: verbs generic over the registry of kinds, a watch cache,
//! authentication, authorization and the cluster's certificates.

mod audit;
mod auth;
mod bootstrap;
mod bootstrap_rbac;
mod cache;
mod definitions;
mod flows;
mod handler;
mod http;
mod ip_addresses;
mod kept;
mod kubelet;
mod metrics;
mod object;
mod openapi;
pub mod pki;
mod proxy;
mod route;
mod sealed;
mod server;
mod service_backend;
mod service_ips;
mod system;
mod tls;
mod verbs;
mod webhook_client;

pub use audit::AuditLog;
pub use server::{Config, Server, ServerError};
