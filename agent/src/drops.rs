//! Drops from the kernel's ring buffer to log, metrics and subscribers, each with the name of the
//! rule or policies behind it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rhumb_common::event::{Event, Reason, hook};
use rhumb_core::model::protocol;
use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::{
    dataplane::bpf::Events,
    engine::Shared,
    metrics::{Metrics, PolicyDrop},
};

/// Lines a second in the log; what is beyond is counted.
const LOG_RATE: u32 = 20;

/// A drop, resolved for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    pub reason: &'static str,
    pub hook: &'static str,
    pub protocol: String,
    pub src: String,
    pub dst: String,
    /// The rule that denied, or the policies that isolate the pod; empty for other reasons.
    pub by: String,
    pub len: u32,
}

fn hook_name(hook: u8) -> &'static str {
    match hook {
        hook::FROM_POD => "from_pod",
        hook::TO_POD => "to_pod",
        hook::FROM_UPLINK => "from_uplink",
        hook::SOCKET => "socket",
        _ => "?",
    }
}

fn reason(n: u32) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|r| *r as u32 == n)
}

pub fn resolve(event: &Event, world: &Shared) -> Drop {
    let reason = reason(event.reason);
    let socket = |addr: rhumb_common::addr::Ip, port_be: u16| {
        std::net::SocketAddr::new(addr.to_std(), u16::from_be(port_be)).to_string()
    };
    let by = match reason {
        Some(Reason::PolicyIngress | Reason::PolicyEgress) => {
            let world = world.read();
            let ids = world.planner.ids();
            if event.rule != 0 {
                ids.rule(event.rule).map(ToString::to_string)
            } else {
                ids.set(event.set)
                    .map(|s| format!("default deny of {}", s.policies.join(", ")))
            }
            .unwrap_or_else(|| format!("set {} rule {}", event.set, event.rule))
        }
        _ => String::new(),
    };
    Drop {
        reason: reason.map_or("unknown", Reason::text),
        hook: hook_name(event.hook),
        protocol: match event.protocol {
            known @ (6 | 17 | 132 | 1 | 58) => protocol::name(known).to_owned(),
            other => other.to_string(),
        },
        src: socket(event.src, event.sport_be),
        dst: socket(event.dst, event.dport_be),
        by,
        len: event.len,
    }
}

/// Reads the ring buffer on a thread of its own.
pub fn start(
    ring: Events,
    world: Shared,
    metrics: Arc<Metrics>,
    subscribers: broadcast::Sender<Arc<Drop>>,
) -> std::io::Result<()> {
    thread::Builder::new()
        .name("drops".into())
        .spawn(move || read(ring, &world, &metrics, &subscribers))
        .map(drop)
}

fn read(
    mut ring: Events,
    world: &Shared,
    metrics: &Metrics,
    subscribers: &broadcast::Sender<Arc<Drop>>,
) {
    let mut second = Instant::now();
    let (mut logged, mut left_out) = (0u32, 0u64);
    loop {
        ring.wait(Duration::from_secs(1));
        if second.elapsed() >= Duration::from_secs(1) {
            if left_out > 0 {
                warn!(count = left_out, "further drops are not logged one by one");
            }
            (second, logged, left_out) = (Instant::now(), 0, 0);
        }
        while let Some(event) = ring.next() {
            metrics.events.inc();
            let d = resolve(&event, world);
            if !d.by.is_empty() {
                let direction = match reason(event.reason) {
                    Some(Reason::PolicyIngress) => "ingress",
                    _ => "egress",
                };
                metrics
                    .policy_drops
                    .get_or_create(&PolicyDrop {
                        direction,
                        by: d.by.clone(),
                    })
                    .inc();
            }
            if logged < LOG_RATE {
                logged += 1;
                info!(
                    reason = d.reason,
                    hook = d.hook,
                    protocol = d.protocol,
                    src = d.src,
                    dst = d.dst,
                    by = d.by,
                    "drop"
                );
            } else {
                left_out += 1;
            }
            // Nobody listening is no error.
            let _ = subscribers.send(Arc::new(d));
        }
    }
}
