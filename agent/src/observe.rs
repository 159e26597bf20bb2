//! `/healthz /readyz /metrics /dump/… /log` over HTTP. Dumps are read from the kernel's maps, not
//! from what the agent believes of them.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use prometheus_client::registry::Registry;
use rhumb_common::{addr::Ip, flow::flow_flag};
use rhumb_core::{dump, model::protocol};
use tokio::net::TcpListener;

use crate::{
    dataplane::bpf::{self, Maps},
    engine::Shared,
    metrics::Metrics,
};

/// Changes the log filter of the running process.
pub type SetLog = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
pub struct Observer {
    pub world: Shared,
    pub metrics: Arc<Metrics>,
    pub bpf_dir: PathBuf,
    pub set_log: SetLog,
}

pub const DUMPS: [&str; 9] = [
    "all",
    "services",
    "backends",
    "endpoints",
    "peers",
    "policy",
    "routes",
    "counters",
    "flows",
];

impl Observer {
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let app = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/dump", get(async || DUMPS.join("\n") + "\n"))
            .route("/dump/{what}", get(dump_one))
            .route("/log", put(set_log))
            .with_state(self);
        axum::serve(listener, app).await
    }

    /// One of [`DUMPS`] as text; `None` for another name.
    pub fn dump(&self, what: &str) -> Option<Result<String, bpf::Error>> {
        if !DUMPS.contains(&what) {
            return None;
        }
        Some(self.dump_known(what))
    }

    fn dump_known(&self, what: &str) -> Result<String, bpf::Error> {
        let maps = Maps::open(&self.bpf_dir)?;
        match what {
            "endpoints" => return endpoints(&maps),
            "counters" => return counters(&maps),
            "flows" => return flows(&maps),
            _ => {}
        }
        let tables = maps.read()?;
        // Held for as long as the ids are needed only; the tables were read before.
        let world = self.world.read();
        let ids = world.planner.ids();
        Ok(match what {
            "services" => dump::services(&tables),
            "backends" => dump::backends(&tables),
            "peers" => dump::peers(&tables, ids),
            "policy" => dump::policy(&tables, ids),
            "routes" => dump::routes(&tables),
            _ => dump::everything(&tables, ids),
        })
    }

    /// Why the agent is not ready; empty if it is.
    pub fn not_ready(&self) -> String {
        let world = self.world.read();
        let missing: Vec<&str> = world.gate.missing().iter().map(|s| s.name()).collect();
        let mut why = String::new();
        if !missing.is_empty() {
            let _ = writeln!(why, "not synced: {}", missing.join(", "));
        } else if world.applied == 0 {
            let _ = writeln!(why, "nothing written yet");
        }
        if let Some(error) = &world.last_error {
            let _ = writeln!(why, "{error}");
        }
        why
    }
}

fn endpoints(maps: &Maps) -> Result<String, bpf::Error> {
    let mut lines: Vec<String> = maps
        .endpoints
        .entries()?
        .into_iter()
        .map(|(ip, e)| {
            let m = e.pod_mac.to_ne_bytes();
            format!(
                "{ip} ifindex {} mac {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x} netns-cookie {} revision {}{}\n",
                e.ifindex, m[0], m[1], m[2], m[3], m[4], m[5], e.netns_cookie, e.revision,
                if e.flags & rhumb_common::maps::endpoint_flag::OPEN != 0 { " open" } else { "" }
            )
        })
        .collect();
    lines.sort();
    Ok(lines.concat())
}

fn counters(maps: &Maps) -> Result<String, bpf::Error> {
    Ok(maps
        .read_counters()?
        .into_iter()
        .map(|(reason, packets, bytes)| {
            format!("{} {packets} packets {bytes} bytes\n", reason.text())
        })
        .collect())
}

/// The direction of the initiator: tuple, what it is translated to, and how far it has come.
fn flows(maps: &Maps) -> Result<String, bpf::Error> {
    let socket = |addr: Ip, port_be: u16| {
        std::net::SocketAddr::new(addr.to_std(), u16::from_be(port_be)).to_string()
    };
    let mut lines: Vec<String> = maps
        .flows
        .entries()?
        .into_iter()
        .filter(|(_, f)| f.flags & flow_flag::REPLY == 0)
        .map(|(k, f)| {
            let protocol = protocol::name(k.protocol as u8);
            let mut line = format!(
                "{protocol} {} -> {}",
                socket(k.src, k.sport_be),
                socket(k.dst, k.dport_be)
            );
            let to = (f.to_src, f.to_sport_be, f.to_dst, f.to_dport_be);
            if to != (k.src, k.sport_be, k.dst, k.dport_be) {
                let _ = write!(
                    line,
                    " as {} -> {}",
                    socket(f.to_src, f.to_sport_be),
                    socket(f.to_dst, f.to_dport_be)
                );
            }
            for (flag, name) in [
                (flow_flag::REPLIED, " replied"),
                (flow_flag::FIN_ORIGINAL, " fin"),
                (flow_flag::FIN_REPLY, " fin-reply"),
                (flow_flag::RST, " reset"),
                (flow_flag::EXEMPT, " exempt"),
            ] {
                if f.flags & flag != 0 {
                    line.push_str(name);
                }
            }
            line.push('\n');
            line
        })
        .collect();
    lines.sort();
    Ok(lines.concat())
}

async fn readyz(State(o): State<Observer>) -> Response {
    let why = o.not_ready();
    if why.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

async fn dump_one(State(o): State<Observer>, Path(what): Path<String>) -> Response {
    let result = tokio::task::spawn_blocking(move || o.dump(&what)).await;
    match result {
        Ok(Some(Ok(text))) => text.into_response(),
        Ok(Some(Err(error))) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{:#}\n", anyhow::Error::from(error)),
        )
            .into_response(),
        Ok(None) => (
            StatusCode::NOT_FOUND,
            format!("no such dump; there are {}\n", DUMPS.join(", ")),
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn set_log(State(o): State<Observer>, body: String) -> Response {
    match (o.set_log)(body.trim()) {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(o): State<Observer>) -> Response {
    let mut registry = Registry::with_prefix("rhumb");
    o.metrics.register(&mut registry);
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    // The exposition ends with a mark of its own; ours go before it.
    let mut text = text.trim_end().trim_end_matches("# EOF").to_owned();
    {
        let world = o.world.read();
        let gauges = [
            ("revision", world.snapshot.revision),
            ("revision_applied", world.applied),
            ("synced", u64::from(world.gate.proof().is_some())),
            ("services", world.planner.balancer().len() as u64),
            ("backends", world.planner.balancer().backend_count() as u64),
            ("pods", world.snapshot.pods.len() as u64),
            ("endpoints", world.snapshot.endpoints.len() as u64),
            ("policies", world.snapshot.policies.len() as u64),
            ("policy_rows", world.planner.rows().len() as u64),
            ("peers", world.planner.actual().peers.len() as u64),
        ];
        for (name, value) in gauges {
            let _ = write!(text, "# TYPE rhumb_{name} gauge\nrhumb_{name} {value}\n");
        }
    }
    match Maps::open(&o.bpf_dir).and_then(|m| m.read_counters()) {
        Ok(counters) => {
            text.push_str("# TYPE rhumb_packets counter\n");
            for (reason, packets, _) in &counters {
                let _ = writeln!(
                    text,
                    "rhumb_packets_total{{reason=\"{}\"}} {packets}",
                    reason.text()
                );
            }
            text.push_str("# TYPE rhumb_packet_bytes counter\n");
            for (reason, _, bytes) in &counters {
                let _ = writeln!(
                    text,
                    "rhumb_packet_bytes_total{{reason=\"{}\"}} {bytes}",
                    reason.text()
                );
            }
        }
        Err(error) => tracing::warn!(%error, "the kernel's counters can't be read"),
    }
    text.push_str("# EOF\n");
    (
        [(
            "content-type",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
