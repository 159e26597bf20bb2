//! Sums of resources: what nodes offer and pods request.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::quantity::{milli, whole};

type List = BTreeMap<String, Quantity>;

/// CPU in thousandths of a core, the rest in bytes or pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Huge pages and extended resources.
    pub other: BTreeMap<Arc<str>, i64>,
}

impl Resources {
    fn of(list: &List) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => out.milli_cpu = milli(quantity),
                "memory" => out.memory = whole(quantity),
                "ephemeral-storage" => out.ephemeral_storage = whole(quantity),
                "pods" => {}
                _ => {
                    out.other.insert(name.as_str().into(), whole(quantity));
                }
            }
        }
        out
    }

    pub fn add(&mut self, more: &Resources) {
        self.each(more, i64::saturating_add);
    }

    pub fn sub(&mut self, less: &Resources) {
        self.each(less, i64::saturating_sub);
        self.other.retain(|_, n| *n != 0);
    }

    fn raise_to(&mut self, floor: &Resources) {
        self.each(floor, i64::max);
    }

    fn each(&mut self, by: &Resources, f: fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, by.milli_cpu);
        self.memory = f(self.memory, by.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, by.ephemeral_storage);
        for (name, n) in &by.other {
            let mine = self.other.entry(name.clone()).or_insert(0);
            *mine = f(*mine, *n);
        }
    }

    /// Names each resource of which `whole` less `used` is too little for this.
    pub fn lacking(&self, whole: &Resources, used: &Resources, mut short: impl FnMut(Arc<str>)) {
        let lacks =
            |wanted: i64, whole: i64, used: i64| wanted > 0 && wanted > whole.saturating_sub(used);
        if lacks(self.milli_cpu, whole.milli_cpu, used.milli_cpu) {
            short("cpu".into());
        }
        if lacks(self.memory, whole.memory, used.memory) {
            short("memory".into());
        }
        if lacks(
            self.ephemeral_storage,
            whole.ephemeral_storage,
            used.ephemeral_storage,
        ) {
            short("ephemeral-storage".into());
        }
        for (name, wanted) in &self.other {
            let of = |r: &Resources| r.other.get(name).copied().unwrap_or(0);
            if lacks(*wanted, of(whole), of(used)) {
                short(name.clone());
            }
        }
    }
}

/// What a pod takes of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    pub resources: Resources,
    /// Milli-CPU and bytes, where a container that requests none counts with a default: else all pods
    /// without requests would look free and pile up on one node.
    pub nonzero: (i64, i64),
}

/// kube-scheduler's defaults for what is not requested.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Requests of one container; a limit without a request counts as the request (the server defaults it so).
fn of_requirements(requirements: Option<&ResourceRequirements>) -> (Resources, bool, bool) {
    let mut list = List::new();
    if let Some(r) = requirements {
        list.extend(r.limits.clone().unwrap_or_default());
        list.extend(r.requests.clone().unwrap_or_default());
    }
    let (cpu, memory) = (list.contains_key("cpu"), list.contains_key("memory"));
    (Resources::of(&list), cpu, memory)
}

fn of_container(container: &Container) -> (Resources, (i64, i64)) {
    let (resources, cpu, memory) = of_requirements(container.resources.as_ref());
    let nonzero = (
        if cpu {
            resources.milli_cpu
        } else {
            DEFAULT_MILLI_CPU
        },
        if memory {
            resources.memory
        } else {
            DEFAULT_MEMORY
        },
    );
    (resources, nonzero)
}

/// Containers and sidecars together, or the most that an init container needs while it runs beside the
/// sidecars started before it, whichever is more; plus overhead.
pub fn pod_requests(spec: &PodSpec) -> Requests {
    let plus = |a: (i64, i64), b: (i64, i64)| (a.0 + b.0, a.1 + b.1);
    let most = |a: (i64, i64), b: (i64, i64)| (a.0.max(b.0), a.1.max(b.1));

    let mut sum = Requests::default();
    for container in &spec.containers {
        let (r, n) = of_container(container);
        sum.resources.add(&r);
        sum.nonzero = plus(sum.nonzero, n);
    }
    let mut sidecars = Requests::default();
    let mut init = Requests::default();
    for container in spec.init_containers.iter().flatten() {
        let (r, n) = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.resources.add(&r);
            sidecars.nonzero = plus(sidecars.nonzero, n);
            init.resources.raise_to(&sidecars.resources);
            init.nonzero = most(init.nonzero, sidecars.nonzero);
        } else {
            let mut now = sidecars.resources.clone();
            now.add(&r);
            init.resources.raise_to(&now);
            init.nonzero = most(init.nonzero, plus(sidecars.nonzero, n));
        }
    }
    sum.resources.add(&sidecars.resources);
    sum.nonzero = plus(sum.nonzero, sidecars.nonzero);
    sum.resources.raise_to(&init.resources);
    sum.nonzero = most(sum.nonzero, init.nonzero);

    if let Some(pod_level) = &spec.resources {
        let (r, cpu, memory) = of_requirements(Some(pod_level));
        if cpu {
            sum.resources.milli_cpu = r.milli_cpu;
            sum.nonzero.0 = r.milli_cpu;
        }
        if memory {
            sum.resources.memory = r.memory;
            sum.nonzero.1 = r.memory;
        }
        sum.resources.other.extend(r.other);
    }
    if let Some(overhead) = &spec.overhead {
        let overhead = Resources::of(overhead);
        sum.nonzero = plus(sum.nonzero, (overhead.milli_cpu, overhead.memory));
        sum.resources.add(&overhead);
    }
    sum
}

/// What a node's `allocatable` offers, and how many pods.
pub fn node_allocatable(list: &List) -> (Resources, i64) {
    (Resources::of(list), list.get("pods").map_or(0, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, memory: &str, sidecar: bool) -> Container {
        let mut requests = List::new();
        for (name, value) in [("cpu", cpu), ("memory", memory)] {
            if !value.is_empty() {
                requests.insert(name.into(), Quantity(value.into()));
            }
        }
        Container {
            resources: Some(ResourceRequirements {
                requests: Some(requests),
                ..Default::default()
            }),
            restart_policy: sidecar.then(|| "Always".into()),
            ..Default::default()
        }
    }

    #[test]
    fn init_containers_count_by_their_most_and_sidecars_add_up() {
        let spec = PodSpec {
            containers: vec![
                container("100m", "10Mi", false),
                container("200m", "", false),
            ],
            init_containers: Some(vec![
                container("2", "1Mi", false),
                container("50m", "1Mi", true),
                container("1", "100Mi", false),
            ]),
            overhead: Some([("cpu".to_string(), Quantity("10m".into()))].into()),
            ..Default::default()
        };
        let r = pod_requests(&spec);
        // CPU: max(300 + 50, max(2000, 50 + 1000)) + 10; memory: max(10 + 1, 1 + 100).
        assert_eq!(r.resources.milli_cpu, 2010);
        assert_eq!(r.resources.memory, 101 << 20);
        assert_eq!(r.nonzero.1, (10 << 20) + DEFAULT_MEMORY + (1 << 20));
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let spec = PodSpec {
            containers: vec![container("100m", "10Mi", false)],
            resources: container("1", "", false).resources,
            ..Default::default()
        };
        let r = pod_requests(&spec);
        assert_eq!(
            (r.resources.milli_cpu, r.resources.memory),
            (1000, 10 << 20)
        );
    }

    #[test]
    fn what_is_lacking_is_named() {
        let list = |pairs: &[(&str, &str)]| {
            Resources::of(
                &pairs
                    .iter()
                    .map(|(k, v)| (k.to_string(), Quantity(v.to_string())))
                    .collect(),
            )
        };
        let whole = list(&[("cpu", "2"), ("memory", "1Gi"), ("example.com/gpu", "1")]);
        let used = list(&[("cpu", "1500m"), ("example.com/gpu", "1")]);
        let wanted = list(&[
            ("cpu", "600m"),
            ("memory", "1Gi"),
            ("example.com/gpu", "1"),
            ("example.com/x", "1"),
        ]);
        let mut names = Vec::new();
        wanted.lacking(&whole, &used, |n| names.push(n.to_string()));
        assert_eq!(names, ["cpu", "example.com/gpu", "example.com/x"]);
    }
}
