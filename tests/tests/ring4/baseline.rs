//! What the nodes hold: when everything is deleted, it must be what it was in the beginning.

use crate::support::Suite;
use anyhow::{Context, ensure};
use aya::maps::MapData;
use rhumb_cni::ipam::store::Store;
use rhumb_common::maps::name;
use rhumb_harness::cluster::Cluster;
use rhumb_harness::cluster::layout::Node;
use rhumb_harness::{Netns, cgroup, link};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Maps that hold what the API and the plugin say. Flows and sockets age by themselves.
const MAPS: &[&str] = &[
    name::ENDPOINTS,
    name::ENDPOINT_POLICY,
    name::PEERS,
    name::PEER_CIDRS,
    name::POLICY,
    name::ROUTES,
    name::SERVICES,
    name::SERVICE_SLOTS,
    name::BACKENDS,
    name::ISOLATED_NAMESPACES,
];

/// Counts by node and by what is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Baseline(BTreeMap<String, BTreeMap<String, usize>>);

impl Baseline {
    /// Counts once nothing changes any more.
    pub fn settled(cluster: &Cluster) -> anyhow::Result<Self> {
        let end = Instant::now() + Duration::from_secs(30);
        let mut last = Self::now(cluster)?;
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = Self::now(cluster)?;
            if now == last {
                return Ok(now);
            }
            ensure!(
                Instant::now() < end,
                "the new cluster does not settle: {now:?}"
            );
            last = now;
        }
    }

    fn now(cluster: &Cluster) -> anyhow::Result<Self> {
        let nodes = cluster.nodes.iter();
        let counts = nodes.map(|node| anyhow::Ok((node.name.clone(), count(node)?)));
        Ok(Self(counts.collect::<Result<_, _>>()?))
    }
}

fn count(node: &Node) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for map in MAPS {
        let path = node.bpf_dir().join("maps").join(map);
        let map_data =
            MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        counts.insert(format!("map {map}"), entries(&map_data)?);
    }
    let netns = Netns::open(&node.netns)?;
    let veths = link::list(&netns)?
        .iter()
        .filter(|link| link.name.starts_with("rh"))
        .count();
    counts.insert("veths".to_owned(), veths);
    for v6 in [false, true] {
        let routes = link::routes(&netns, v6)?
            .iter()
            .filter(|route| u8::from(route.header.protocol) == 82)
            .count();
        counts.insert(format!("routes {}", if v6 { "v6" } else { "v4" }), routes);
    }
    let journal = Store::open(node.state_dir().join("ipam"))?.snapshot()?;
    counts.insert("addresses held".to_owned(), journal.attachments.len());
    let processes = cgroup::processes(&format!("{}/pods", node.cgroup))?.len();
    counts.insert("processes of pods".to_owned(), processes);
    let links = node.bpf_dir().join("links");
    let links =
        std::fs::read_dir(&links).with_context(|| format!("listing {}", links.display()))?;
    counts.insert("pinned links".to_owned(), links.count());
    Ok(counts)
}

/// Counts a map's entries by walking its keys: bpf(2), BPF_MAP_GET_NEXT_KEY.
fn entries(map: &MapData) -> anyhow::Result<usize> {
    #[repr(C)]
    #[derive(Default)]
    struct NextKey {
        map_fd: u32,
        padding: u32,
        key: u64,
        next_key: u64,
        flags: u64,
    }
    const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
    let size = map.info()?.key_size() as usize;
    let (mut key, mut next) = (vec![0_u8; size], vec![0_u8; size]);
    let mut count = 0;
    loop {
        let mut attributes = NextKey {
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            // No key asks for the first one.
            key: if count == 0 { 0 } else { key.as_ptr() as u64 },
            next_key: next.as_mut_ptr() as u64,
            ..NextKey::default()
        };
        // SAFETY: the attributes have the layout that the kernel reads, and both buffers have the
        // map's key size.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_GET_NEXT_KEY,
                &mut attributes,
                size_of::<NextKey>(),
            )
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            ensure!(
                error.raw_os_error() == Some(libc::ENOENT),
                "walking a map: {error}"
            );
            return Ok(count);
        }
        count += 1;
        ensure!(count < 1_000_000, "walking a map does not end");
        std::mem::swap(&mut key, &mut next);
    }
}

pub fn nothing_left(suite: &Suite) -> anyhow::Result<()> {
    let cluster = &suite.cluster;
    cluster.wait("the tests' namespaces are gone", 60, || {
        let left = cluster.kubectl_run(&["get", "namespaces", "-o", "name"])?;
        let own = left
            .lines()
            .map(|line| line.trim_start_matches("namespace/"))
            .filter(|name| *name != "default" && !name.starts_with("kube-"))
            .collect::<Vec<_>>();
        ensure!(own.is_empty(), "left: {own:?}");
        Ok(Some(()))
    })?;
    let pods = cluster.kubectl_run(&["get", "pods", "-A", "-o", "name"])?;
    ensure!(pods.trim().is_empty(), "pods are left: {pods}");
    cluster.wait("the nodes hold what they held in the beginning", 30, || {
        let now = Baseline::now(cluster)?;
        for (node, counts) in &now.0 {
            for (what, count) in counts {
                let before = suite.baseline.0[node][what];
                ensure!(*count == before, "{node}: {what}: {before}, then {count}");
            }
        }
        Ok(Some(()))
    })
}
