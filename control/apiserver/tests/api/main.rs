//! The server as clients see it: HTTPS on loopback, in this process.
#![expect(clippy::unwrap_used, reason = "a test says what failed by its line")]

mod access;
mod apply;
mod bad_input;
mod certificates;
mod client;
mod definitions;
mod deletion;
mod ephemeral;
mod evictions;
mod failure;
mod fuzz;
mod kinds;
mod kubelet;
mod lists;
mod pod_security;
mod policies;
mod proxy;
mod quota;
mod rbac;
mod safety;
mod services;
mod tokens;
mod watches;
mod webhook_server;
mod webhooks;
mod writes;
