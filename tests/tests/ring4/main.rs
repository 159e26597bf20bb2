//! Ring 4: a whole two-node cluster, driven by kubectl and kube-rs.
//!
//! The tests share one cluster, so this binary has a main of its own: it starts the cluster, runs
//! the tests one after the other, each in a Kubernetes namespace of its own, and takes the cluster
//! away. What the cluster must look like again after all of them is the last test.

mod access;
mod addresses;
mod apply;
mod bad_input;
mod baseline;
mod debug;
mod definitions;
mod deploy;
mod images;
mod kube_rs;
mod kubectl;
mod kubelet;
mod pods;
mod policy;
mod proxy;
mod restarts;
mod services;
mod streams;
mod support;
#[path = "../../../control/apiserver/tests/api/webhook_server.rs"]
mod webhook_server;
mod webhooks;
mod workloads;

use anyhow::Context;
use libtest_mimic::{Arguments, Trial};
use rhumb_harness::cluster::{Built, Cluster};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use support::Suite;

const NAME: &str = "ring4";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests restart daemons of the shared cluster.
    arguments.test_threads = Some(1);
    let shared: Shared = Arc::default();
    let mut trials = Vec::new();
    for (name, test) in TESTS {
        let shared = shared.clone();
        trials.push(Trial::test(*name, move || run(&shared, name, *test)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if shared.get().is_some()
        && let Err(error) = built().and_then(|built| Cluster::down(&built, NAME))
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

type Test = fn(&Suite) -> anyhow::Result<()>;
type Shared = Arc<OnceLock<Result<Suite, String>>>;

/// In the order in which they run; the last one looks at what the others left behind.
const TESTS: &[(&str, Test)] = &[
    ("nodes_have_what_kubernetes_expects", pods::nodes),
    (
        "six_pods_reach_each_other_and_the_service",
        services::six_pods,
    ),
    (
        "services_without_endpoints_refuse_at_once",
        services::no_endpoints,
    ),
    (
        "default_deny_cuts_and_an_allow_restores",
        policy::deny_and_allow,
    ),
    ("egress_policy_by_pod_and_block", policy::egress),
    ("logs_exec_env_volumes_and_tokens", pods::features),
    ("init_containers_probes_and_restarts", pods::lifecycle),
    ("unsupported_fields_fail_the_pod_by_name", pods::unsupported),
    ("sidecars_and_lifecycle_hooks", kubelet::sidecars_and_hooks),
    ("volumes_of_every_kind", kubelet::volumes),
    ("ways_for_a_pod_to_fail", kubelet::ways_to_fail),
    (
        "probes_by_network_and_dead_sandboxes",
        kubelet::probes_and_sandboxes,
    ),
    ("exec_streams", kubelet::exec_streams),
    ("daemon_sets_on_every_node", workloads::daemon_sets),
    ("evictions_keep_to_budgets", workloads::budgets),
    ("attach_streams", streams::attach),
    ("port_forward", streams::port_forward),
    ("debug_adds_containers_and_copies_pods", debug::debug),
    ("pods_services_and_nodes_by_proxy", proxy::proxy),
    ("images_are_pulled_from_a_registry", images::pull),
    ("everyday_kubectl", kubectl::everyday),
    ("custom_kinds_come_live_and_go", definitions::life),
    ("patches_of_every_kind", kubectl::patches),
    ("server_side_apply_diff_and_prune", apply::server_side),
    ("roles_and_impersonation", access::roles),
    ("roles_approve_and_sign_certificates", access::certificates),
    ("tokens_of_pods_do_what_roles_say", access::service_accounts),
    ("webhooks_behind_a_service", webhooks::service),
    ("admission_policies_with_parameters", webhooks::policies),
    ("kube_rs_lists_watches_and_conflicts", kubectl::kube_rs),
    ("kube_rs_reflectors", kube_rs::reflectors),
    ("kube_rs_dynamic_kinds", kube_rs::dynamic),
    ("kube_rs_pods", kube_rs::pods),
    ("our_own_manifests_apply", deploy::manifests),
    ("the_image_runs_as_a_daemonset", deploy::daemonset),
    ("bad_input_is_refused_by_name", bad_input::refused),
    ("outside_clients_and_masquerade", services::outside),
    ("host_ports_lead_to_pods", services::host_ports),
    ("what_a_runtime_forgets_is_found", addresses::leaks),
    ("a_lost_journal_is_made_anew", addresses::lost_journal),
    (
        "an_agent_killed_loses_no_connection",
        restarts::agent_during_stream,
    ),
    (
        "an_agent_killed_loses_no_pod",
        restarts::agent_during_creation,
    ),
    (
        "kubelet_and_containerd_restart",
        restarts::kubelet_and_containerd,
    ),
    ("the_control_plane_restarts", restarts::control_plane),
    ("everything_deleted_leaves_nothing", baseline::nothing_left),
];

fn run(shared: &Shared, name: &str, test: Test) -> Result<(), libtest_mimic::Failed> {
    let suite = match shared.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(suite) => suite,
        Err(error) => return Err(format!("the cluster did not start: {error}").into()),
    };
    test(suite).map_err(|error| {
        let error = format!("{error:#}\n{}", suite.diagnosis());
        eprintln!("--- {name} failed");
        libtest_mimic::Failed::from(error)
    })
}

fn start() -> anyhow::Result<Suite> {
    let built = built()?;
    // What an earlier run left behind when it was killed.
    Cluster::down(&built, NAME)?;
    Suite::new(Cluster::up(&built, NAME, 2)?)
}

fn built() -> anyhow::Result<Built> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests are in a workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Built::new(&workspace.join(PathBuf::from(target)))
}
