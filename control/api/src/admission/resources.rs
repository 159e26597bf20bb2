//! What pods ask for and may have, as admission sums it up.
//! Source: Kubernetes `component-helpers/resource/helpers.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{list, map};
use crate::pod::is_sidecar;
use crate::quantity::Quantity;

/// Quantities by the names of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// A resource list; what can't be read is left out, since validation has refused it.
pub fn amounts(object: &Value, path: &str) -> Amounts {
    map(object, path)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let amount = match value {
                Value::String(text) => Quantity::parse(text),
                other => Quantity::parse(&other.to_string()),
            };
            Some((name.clone(), amount.ok()?))
        })
        .collect()
}

pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |a| a.saturating_add(*amount));
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let there = to.entry(name.clone()).or_insert(*amount);
        *there = (*there).max(*amount);
    }
}

/// What a pod's containers need together: all that run, or, if that is more, an init container with
/// the sidecars that started before it. `which`: `requests` or `limits`. What the pod itself says
/// counts more.
pub fn of_pod(pod: &Value, which: &str) -> Amounts {
    let path = format!("resources.{which}");
    let mut running = Amounts::new();
    for container in list(pod, "spec.containers") {
        add(&mut running, &amounts(container, &path));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in list(pod, "spec.initContainers") {
        let own = amounts(container, &path);
        let mut then = sidecars.clone();
        add(&mut then, &own);
        raise(&mut starting, &then);
        if is_sidecar(container) {
            sidecars = then;
        }
    }
    add(&mut running, &sidecars);
    raise(&mut running, &starting);
    running.extend(amounts(pod, &format!("spec.resources.{which}")));
    running
}

/// As [`of_pod`], with what the pod's runtime takes for itself.
pub fn with_overhead(pod: &Value, which: &str) -> Amounts {
    let mut sum = of_pod(pod, which);
    let mut overhead = amounts(pod, "spec.overhead");
    if which == "limits" {
        // Without a limit there is nothing to add to.
        overhead.retain(|name, _| sum.get(name).is_some_and(|a| !a.is_zero()));
    }
    add(&mut sum, &overhead);
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_and_sidecars() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = of("100m");
        sidecar["restartPolicy"] = "Always".into();
        let mut pod = json!({"spec": {
            "initContainers": [of("300m"), sidecar, of("350m")],
            "containers": [of("100m"), of("200m")],
            "overhead": {"cpu": "1", "memory": "1Mi"},
        }});
        let cpu = |amounts: Amounts| amounts["cpu"].millis();
        // 350m beside the sidecar is more than what runs later (300m with it).
        assert_eq!(cpu(of_pod(&pod, "requests")), 450);
        assert_eq!(cpu(with_overhead(&pod, "requests")), 1450);
        assert!(with_overhead(&pod, "limits").is_empty());
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(cpu(of_pod(&pod, "requests")), 2000);
    }
}
