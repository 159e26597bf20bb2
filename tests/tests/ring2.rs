//! Ring 2: agents and the plugin on several nodes, against the real kernel and our API server,
//! without a container runtime: pods are namespaces that the test attaches as a runtime does.
//! Needs root.

mod ring2 {
    mod agent;
    mod cluster;
    mod hostport;
    mod policy;
    mod reach;
    mod restart;
    mod service;
}
