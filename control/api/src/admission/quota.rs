//! ResourceQuotas: what an object uses, which quotas count it, and whether that fits.
//! Source: Kubernetes `pkg/quota/v1` and apiserver `pkg/admission/plugin/resourcequota`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::resources::{Amounts, add, amounts, with_overhead};
use crate::json::{self, at, int, list, text};
use crate::pod::qos_class;
use crate::quantity::Quantity;

/// The kinds that have names of their own besides `count/…`.
const CLASSIC: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// A kind as quotas know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    pub group: &'a str,
    pub plural: &'a str,
}

impl Counted<'_> {
    /// `count/pods`, `count/deployments.apps`
    pub fn count_name(&self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    fn is(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether a resource of a quota is about this kind.
    pub fn is_measured_by(&self, resource: &str) -> bool {
        if resource == self.count_name() {
            return true;
        }
        if !self.group.is_empty() {
            return false;
        }
        match self.plural {
            "pods" => is_of_pods(resource),
            "services" => matches!(
                resource,
                "services" | "services.nodeports" | "services.loadbalancers"
            ),
            "persistentvolumeclaims" => {
                resource == "persistentvolumeclaims"
                    || resource == "requests.storage"
                    || resource.contains(CLASS_SUFFIX)
            }
            plural => CLASSIC.contains(&plural) && resource == plural,
        }
    }

    /// Whether an update of the kind can use more.
    pub fn grows(&self) -> bool {
        self.is("services") || self.is("persistentvolumeclaims")
    }
}

fn is_of_pods(resource: &str) -> bool {
    match resource {
        "pods"
        | "cpu"
        | "memory"
        | "ephemeral-storage"
        | "limits.cpu"
        | "limits.memory"
        | "limits.ephemeral-storage" => true,
        "requests.storage" => false,
        other => {
            other.starts_with("hugepages-")
                || other.starts_with("requests.") && !other.contains(CLASS_SUFFIX)
        }
    }
}

/// What an object uses, under each of the names that a quota can have for it.
pub fn usage(kind: Counted<'_>, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([(kind.count_name(), one)]);
    if !kind.group.is_empty() {
        return used;
    }
    match kind.plural {
        "pods" if lives(object, now) => {
            used.insert("pods".into(), one);
            let requests = with_overhead(object, "requests");
            let limits = with_overhead(object, "limits");
            add(&mut used, &compute(&requests, &limits));
        }
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        plural if CLASSIC.contains(&plural) => {
            used.insert(plural.into(), one);
        }
        _ => {}
    }
    used
}

/// Pods that have ended, or should have by now, use nothing.
fn lives(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return false;
    }
    let deleted: Option<Timestamp> = text(pod, "metadata.deletionTimestamp").parse().ok();
    let grace = int(pod, "metadata.deletionGracePeriodSeconds");
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => {
            deleted.as_second().saturating_add(grace) >= now.as_second()
        }
        _ => true,
    }
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut out = Amounts::new();
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if plain {
            out.insert(name.clone(), *amount);
        }
        out.insert(format!("requests.{name}"), *amount);
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            out.insert(format!("limits.{name}"), *amount);
        }
    }
    out
}

fn service(service: &Value, used: &mut Amounts) {
    let count = |n: usize| Quantity::from_units(n as i64);
    used.insert("services".into(), count(1));
    let ports = list(service, "spec.ports");
    match text(service, "spec.type") {
        "NodePort" => {
            used.insert("services.nodeports".into(), count(ports.len()));
        }
        "LoadBalancer" => {
            used.insert("services.loadbalancers".into(), count(1));
            let all =
                at(service, "spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
            let held = ports
                .iter()
                .filter(|p| all || int(p, "nodePort").unwrap_or(0) != 0);
            used.insert("services.nodeports".into(), count(held.count()));
        }
        _ => {}
    }
}

fn claim(claim: &Value, used: &mut Amounts) {
    let one = Quantity::from_units(1);
    let class = text(claim, "spec.storageClassName");
    let mut count = |name: &str, amount: Quantity| {
        used.insert(name.into(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{CLASS_SUFFIX}{name}"), amount);
        }
    };
    count("persistentvolumeclaims", one);
    if let Some(size) = amounts(claim, "spec.resources.requests").get("storage") {
        count("requests.storage", *size);
    }
}

/// Whether the scopes of a quota take the object in.
pub fn in_scope(quota: &Value, kind: Counted<'_>, object: &Value) -> bool {
    let plain = list(quota, "spec.scopes")
        .iter()
        .filter_map(Value::as_str)
        .map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = list(quota, "spec.scopeSelector.matchExpressions")
        .iter()
        .cloned();
    let mut all = plain.chain(selected).peekable();
    match kind.is("pods") {
        true => all.all(|scope| pod_in_scope(&scope, object)),
        // The scopes are those of pods.
        false => all.peek().is_none(),
    }
}

fn pod_in_scope(scope: &Value, pod: &Value) -> bool {
    let terminates = int(pod, "spec.activeDeadlineSeconds").is_some_and(|s| s >= 0);
    let best_effort = qos_class(pod) == "BestEffort";
    match text(scope, "scopeName") {
        "Terminating" => terminates,
        "NotTerminating" => !terminates,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = text(pod, "spec.priorityClassName");
            let named = list(scope, "values").iter().any(|v| v == class);
            match text(scope, "operator") {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => !class.is_empty() && named,
                // Kubernetes' selector takes in what has no such label.
                "NotIn" => !named,
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !list(term, "namespaces").is_empty() || at(term, "namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|which| {
        let path = |rest: &str| format!("spec.affinity.{which}.{rest}");
        let required = path("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = path("preferredDuringSchedulingIgnoredDuringExecution");
        list(pod, &required).iter().any(crosses)
            || list(pod, &preferred)
                .iter()
                .filter_map(|p| at(p, "podAffinityTerm"))
                .any(crosses)
    })
}

/// What a write adds to a quota's `status.used`: nothing, some amounts, or a refusal's reason.
/// The object of before, if there is one, gives back what it uses.
pub fn charge(
    quota: &Value,
    kind: Counted<'_>,
    new: &Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<Amounts, String> {
    let name = text(quota, "metadata.name");
    let mut hard = amounts(quota, "status.hard");
    hard.retain(|resource, _| kind.is_measured_by(resource));
    if hard.is_empty() || !in_scope(quota, kind, new) {
        return Ok(Amounts::new());
    }
    if kind.is("pods") {
        constraints(&hard, new).map_err(|why| format!("failed quota: {name}: {why}"))?;
    }
    let used = amounts(quota, "status.used");
    let unknown: Vec<&str> = hard
        .keys()
        .filter(|resource| !used.contains_key(*resource))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "status unknown for quota: {name}, resources: {}",
            unknown.join(",")
        ));
    }
    let mut delta = usage(kind, new, now);
    if let Some(old) = old {
        let before = usage(kind, old, now);
        for (resource, amount) in &mut delta {
            let before = before.get(resource).copied().unwrap_or(Quantity::ZERO);
            *amount = amount.saturating_sub(before).max(Quantity::ZERO);
        }
    }
    delta.retain(|resource, amount| hard.contains_key(resource) && !amount.is_zero());
    let exceeded: Vec<&String> = delta
        .iter()
        .filter(|(resource, amount)| used[*resource].saturating_add(**amount) > hard[*resource])
        .map(|(resource, _)| resource)
        .collect();
    if exceeded.is_empty() {
        return Ok(delta);
    }
    let pretty = |from: &Amounts| {
        let texts: Vec<String> = exceeded
            .iter()
            .map(|r| format!("{r}={}", from[*r]))
            .collect();
        texts.join(",")
    };
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        pretty(&delta),
        pretty(&used),
        pretty(&hard)
    ))
}

/// Where cpu and memory are counted, each container says how much it wants.
fn constraints(hard: &Amounts, pod: &Value) -> Result<(), String> {
    const ASKED: &[&str] = &[
        "cpu",
        "memory",
        "requests.cpu",
        "requests.memory",
        "limits.cpu",
        "limits.memory",
    ];
    let whole = compute(
        &amounts(pod, "spec.resources.requests"),
        &amounts(pod, "spec.resources.limits"),
    );
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in ["spec.containers", "spec.initContainers"] {
        for container in list(pod, path) {
            let has = compute(
                &amounts(container, "resources.requests"),
                &amounts(container, "resources.limits"),
            );
            for resource in ASKED.iter().filter(|r| hard.contains_key(**r)) {
                if !has.contains_key(*resource) && !whole.contains_key(*resource) {
                    let names = missing.entry(resource).or_default();
                    names.insert(text(container, "name"));
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(resource, names)| {
            let names: Vec<&str> = names.into_iter().collect();
            format!("{resource} for: {}", names.join(","))
        })
        .collect();
    Err(format!("must specify {}", texts.join("; ")))
}

/// The kinds that the resources of a quota are about, by group and plural.
pub fn measured(quota: &Value) -> BTreeSet<(String, String)> {
    let mut kinds = BTreeSet::new();
    for resource in amounts(quota, "spec.hard").keys() {
        if let Some(counted) = resource.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            kinds.insert((group.to_string(), plural.to_string()));
            continue;
        }
        let own = CLASSIC.iter().copied().chain(["pods"]).find(|plural| {
            let kind = Counted { group: "", plural };
            kind.is_measured_by(resource)
        });
        kinds.extend(own.map(|plural| (String::new(), plural.to_string())));
    }
    kinds
}

/// Adds amounts to a quota's `status.used`.
pub fn add_used(quota: &mut Value, delta: &Amounts) {
    let mut used = amounts(quota, "status.used");
    add(&mut used, delta);
    if let Some(status) = json::child(quota, "status") {
        json::put(status, "used", Some(written(&used)));
    }
}

fn written(amounts: &Amounts) -> Value {
    let entries = amounts
        .iter()
        .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// A quota's status as it should be: `used` by the objects that are there, of each kind that the
/// quota measures.
pub fn status(quota: &Value, objects: &[(Counted<'_>, Vec<Value>)], now: Timestamp) -> Value {
    let hard = amounts(quota, "spec.hard");
    let mut used: Amounts = hard.keys().map(|r| (r.clone(), Quantity::ZERO)).collect();
    for (kind, objects) in objects {
        for object in objects.iter().filter(|o| in_scope(quota, *kind, o)) {
            let mut of_one = usage(*kind, object, now);
            of_one.retain(|resource, _| hard.contains_key(resource));
            add(&mut used, &of_one);
        }
    }
    json!({"hard": at(quota, "spec.hard").cloned().unwrap_or_else(|| json!({})), "used": written(&used)})
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Counted<'static> = Counted {
        group: "",
        plural: "pods",
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    fn charged(quota: &Value, pod: &Value) -> Result<Vec<String>, String> {
        let delta = charge(quota, PODS, pod, None, now())?;
        Ok(delta.iter().map(|(k, v)| format!("{k}={v}")).collect())
    }

    #[test]
    fn what_fits_is_charged_and_what_does_not_is_refused() {
        let small = quota(json!({"pods": "2"}), json!({"pods": "1"}));
        assert_eq!(charged(&small, &pod(json!({}))).unwrap(), ["pods=1"]);
        let full = quota(json!({"pods": "2"}), json!({"pods": "2"}));
        assert_eq!(
            charged(&full, &pod(json!({}))).unwrap_err(),
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        );
        let compute = quota(
            json!({"requests.cpu": "1", "limits.memory": "1Gi", "count/pods": "9"}),
            json!({"requests.cpu": "600m", "limits.memory": "900Mi", "count/pods": "0"}),
        );
        let wants = json!({"requests": {"cpu": "500m"}, "limits": {"memory": "200Mi"}});
        assert_eq!(
            charged(&compute, &pod(wants)).unwrap_err(),
            "exceeded quota: q, requested: limits.memory=200Mi,requests.cpu=500m, used: limits.memory=900Mi,requests.cpu=600m, limited: limits.memory=1Gi,requests.cpu=1"
        );
        assert_eq!(
            charged(&compute, &pod(json!({"requests": {"cpu": "1m"}}))).unwrap_err(),
            "failed quota: q: must specify limits.memory for: c"
        );
        let unknown = quota(json!({"pods": "2"}), json!({}));
        assert_eq!(
            charged(&unknown, &pod(json!({}))).unwrap_err(),
            "status unknown for quota: q, resources: pods"
        );
        let mut fresh = quota(json!({"pods": "0"}), json!({}));
        fresh["status"] = json!({});
        assert!(charged(&fresh, &pod(json!({}))).unwrap().is_empty());
    }

    #[test]
    fn scopes_choose_pods() {
        let with = |scopes: Value, selector: Value| {
            let mut quota = quota(json!({"pods": "0"}), json!({"pods": "0"}));
            quota["spec"]["scopes"] = scopes;
            quota["spec"]["scopeSelector"] = json!({"matchExpressions": selector});
            quota
        };
        let plain = pod(json!({}));
        let guaranteed = pod(json!({"limits": {"cpu": "1"}}));
        let mut short = plain.clone();
        short["spec"]["activeDeadlineSeconds"] = 5.into();
        let mut high = plain.clone();
        high["spec"]["priorityClassName"] = "high".into();
        let cases = [
            (with(json!(["BestEffort"]), json!([])), &plain, true),
            (with(json!(["BestEffort"]), json!([])), &guaranteed, false),
            (with(json!(["NotBestEffort"]), json!([])), &guaranteed, true),
            (with(json!(["Terminating"]), json!([])), &short, true),
            (
                with(json!(["Terminating", "BestEffort"]), json!([])),
                &plain,
                false,
            ),
            (with(json!(["NotTerminating"]), json!([])), &plain, true),
            (
                with(
                    json!([]),
                    json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]),
                ),
                &high,
                true,
            ),
            (
                with(
                    json!([]),
                    json!([{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]),
                ),
                &high,
                false,
            ),
            (
                with(
                    json!([]),
                    json!([{"scopeName": "PriorityClass", "operator": "Exists"}]),
                ),
                &plain,
                false,
            ),
            (
                with(
                    json!([]),
                    json!([{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]),
                ),
                &plain,
                true,
            ),
        ];
        for (quota, pod, matches) in cases {
            assert_eq!(charged(&quota, pod).is_err(), matches, "{quota} {pod}");
        }
        let services = Counted {
            group: "",
            plural: "services",
        };
        let scoped = with(json!(["BestEffort"]), json!([]));
        assert!(!in_scope(&scoped, services, &json!({})));
    }

    #[test]
    fn other_kinds_are_counted_by_name() {
        let of = |group: &'static str, plural: &'static str, object: Value| -> Vec<String> {
            let used = usage(Counted { group, plural }, &object, now());
            used.iter().map(|(k, v)| format!("{k}={v}")).collect()
        };
        assert_eq!(
            of("apps", "deployments", json!({})),
            ["count/deployments.apps=1"]
        );
        assert_eq!(
            of("", "secrets", json!({})),
            ["count/secrets=1", "secrets=1"]
        );
        let balancer = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            of("", "services", balancer),
            [
                "count/services=1",
                "services=1",
                "services.loadbalancers=1",
                "services.nodeports=2"
            ]
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            of("", "persistentvolumeclaims", claim),
            [
                "count/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/requests.storage=2Gi",
                "persistentvolumeclaims=1",
                "requests.storage=2Gi",
            ]
        );
        assert!(!PODS.is_measured_by("requests.storage"));
        assert!(PODS.is_measured_by("requests.example.com/gpu"));
        assert!(!PODS.is_measured_by("count/deployments.apps"));
    }

    #[test]
    fn a_quota_names_its_kinds() {
        let quota = quota(
            json!({"count/deployments.apps": "1", "count/pods": "1", "limits.cpu": "1",
                "services.nodeports": "1", "requests.storage": "1Gi", "secrets": "1",
                "a.storageclass.storage.k8s.io/requests.storage": "1Gi", "requests.example.com/gpu": "1"}),
            json!({}),
        );
        let kinds: Vec<String> = measured(&quota)
            .into_iter()
            .map(|(group, plural)| format!("{group}/{plural}"))
            .collect();
        assert_eq!(
            kinds,
            [
                "/persistentvolumeclaims",
                "/pods",
                "/secrets",
                "/services",
                "apps/deployments"
            ]
        );
    }

    #[test]
    fn an_update_pays_the_difference() {
        let claims = Counted {
            group: "",
            plural: "persistentvolumeclaims",
        };
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let quota = quota(
            json!({"requests.storage": "4Gi"}),
            json!({"requests.storage": "2Gi"}),
        );
        let pays = |new: &str| charge(&quota, claims, &claim(new), Some(&claim("2Gi")), now());
        assert_eq!(pays("3Gi").unwrap()["requests.storage"].to_string(), "1Gi");
        assert!(pays("1Gi").unwrap().is_empty());
        assert_eq!(
            pays("5Gi").unwrap_err(),
            "exceeded quota: q, requested: requests.storage=3Gi, used: requests.storage=2Gi, limited: requests.storage=4Gi"
        );
    }

    #[test]
    fn the_status_counts_what_lives() {
        let quota = quota(
            json!({"pods": "5", "count/pods": "9", "requests.cpu": "4"}),
            json!({}),
        );
        let lives = pod(json!({"requests": {"cpu": "250m"}}));
        let mut ended = lives.clone();
        ended["status"] = json!({"phase": "Failed"});
        let mut gone = lives.clone();
        gone["metadata"] =
            json!({"deletionTimestamp": "1970-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
        let status = status(
            &quota,
            &[(PODS, vec![lives.clone(), ended, gone, lives])],
            now(),
        );
        assert_eq!(
            status["used"],
            json!({"count/pods": "4", "pods": "2", "requests.cpu": "500m"})
        );
        assert_eq!(status["hard"]["pods"], "5");
        let mut quota = quota;
        quota["status"] = status;
        add_used(
            &mut quota,
            &Amounts::from([("pods".into(), Quantity::from_units(1))]),
        );
        assert_eq!(quota["status"]["used"]["pods"], "3");
    }
}
