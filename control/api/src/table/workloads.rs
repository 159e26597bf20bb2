//! Tables of workloads and of what bounds, scales and exposes them.

use serde_json::Value;

use super::{
    AGE, CONTAINERS, Column, IMAGES, NAME, Now, SELECTOR, age, col, containers_and_images, labels,
    name, or_none, wide,
};
use crate::json::{at, flag, int, list, map, text};
use crate::quantity::Quantity;
use crate::selector::LabelSelector;
use crate::time;

const fn number(name: &'static str, description: &'static str) -> Column {
    col(name, "integer", description)
}

fn count(o: &Value, path: &str) -> Value {
    int(o, path).unwrap_or(0).into()
}

fn selector(o: &Value, path: &str) -> Value {
    LabelSelector::from_object(at(o, path)).to_string().into()
}

/// The columns of kinds without any of their own.
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];
pub fn name_and_age(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), age(o, now)]
}

/// Some older kinds show when they were made.
pub const NAME_AND_TIME: &[Column] = &[
    NAME,
    Column {
        format: "",
        ..col(
            "Created At",
            "date",
            "CreationTimestamp is a timestamp representing the server time when this object was created.",
        )
    },
];
pub fn name_and_time(o: &Value, _: Now) -> Vec<Value> {
    vec![name(o), text(o, "metadata.creationTimestamp").into()]
}

pub const DAEMON_SET: &[Column] = &[
    NAME,
    number(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod).",
    ),
    number(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
    ),
    number(
        "Ready",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    number(
        "Up-to-date",
        "The total number of nodes that are running updated daemon pod",
    ),
    number(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available",
    ),
    col(
        "Node Selector",
        "string",
        "NodeSelector is a selector which must be true for the pod to fit on a node.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn daemon_set(o: &Value, now: Now) -> Vec<Value> {
    let (containers, images) = containers_and_images(o);
    vec![
        name(o),
        count(o, "status.desiredNumberScheduled"),
        count(o, "status.currentNumberScheduled"),
        count(o, "status.numberReady"),
        count(o, "status.updatedNumberScheduled"),
        count(o, "status.numberAvailable"),
        labels(o, "spec.template.spec.nodeSelector").into(),
        age(o, now),
        containers,
        images,
        selector(o, "spec.selector"),
    ]
}

pub const STATEFUL_SET: &[Column] = &[
    NAME,
    col("Ready", "string", "Number of the pod with ready state"),
    AGE,
    CONTAINERS,
    IMAGES,
];
pub fn stateful_set(o: &Value, now: Now) -> Vec<Value> {
    let (containers, images) = containers_and_images(o);
    let ready = format!(
        "{}/{}",
        int(o, "status.readyReplicas").unwrap_or(0),
        int(o, "spec.replicas").unwrap_or(0)
    );
    vec![name(o), ready.into(), age(o, now), containers, images]
}

pub const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    col("Controller", "string", "Controller of the object"),
    col(
        "Revision",
        "string",
        "Revision indicates the revision of the state represented by Data.",
    ),
    AGE,
];
pub fn controller_revision(o: &Value, now: Now) -> Vec<Value> {
    let controller = list(o, "metadata.ownerReferences")
        .iter()
        .find(|owner| flag(owner, "controller"))
        .map(|owner| {
            let kind = text(owner, "kind").to_lowercase();
            let name = text(owner, "name");
            match text(owner, "apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        });
    vec![
        name(o),
        or_none(&controller.unwrap_or_default()),
        count(o, "revision"),
        age(o, now),
    ]
}

pub const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    number("Desired", "Replicas is the number of desired replicas."),
    number(
        "Current",
        "Replicas is the most recently observed number of replicas.",
    ),
    number(
        "Ready",
        "The number of ready replicas for this replication controller.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn replication_controller(o: &Value, now: Now) -> Vec<Value> {
    let (containers, images) = containers_and_images(o);
    vec![
        name(o),
        count(o, "spec.replicas"),
        count(o, "status.replicas"),
        count(o, "status.readyReplicas"),
        age(o, now),
        containers,
        images,
        labels(o, "spec.selector").into(),
    ]
}

pub const POD_TEMPLATE: &[Column] = &[
    NAME,
    col(
        "Containers",
        "string",
        "Names of each container in the template.",
    ),
    col(
        "Images",
        "string",
        "Images referenced by each container in the template.",
    ),
    col("Pod Labels", "string", "The labels for the pod template."),
];
pub fn pod_template(o: &Value, _: Now) -> Vec<Value> {
    let containers = list(o, "template.spec.containers");
    let join = |field: &str| {
        let all: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
        Value::from(all.join(","))
    };
    vec![
        name(o),
        join("name"),
        join("image"),
        labels(o, "template.metadata.labels").into(),
    ]
}

pub const JOB: &[Column] = &[
    NAME,
    col("Status", "string", "Status of the job."),
    col(
        "Completions",
        "string",
        "Specifies the desired number of successfully finished pods the job should be run with.",
    ),
    col("Duration", "string", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn job(o: &Value, now: Now) -> Vec<Value> {
    let (containers, images) = containers_and_images(o);
    let condition = |ty: &str| {
        list(o, "status.conditions")
            .iter()
            .find(|c| text(c, "type") == ty && text(c, "status") == "True")
    };
    let status = if condition("Complete").is_some() {
        "Complete"
    } else if condition("Failed").is_some() {
        "Failed"
    } else if at(o, "metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else if condition("Suspended").is_some() {
        "Suspended"
    } else if condition("FailureTarget").is_some() {
        "FailureTarget"
    } else if condition("SuccessCriteriaMet").is_some() {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let succeeded = int(o, "status.succeeded").unwrap_or(0);
    let completions = match int(o, "spec.completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match int(o, "spec.parallelism").unwrap_or(1) {
            parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let start = time::parse(text(o, "status.startTime"));
    let failed = condition("Failed").map_or("", |c| text(c, "lastTransitionTime"));
    let end = time::parse(text(o, "status.completionTime")).or_else(|| time::parse(failed));
    let duration = match start {
        None => String::new(),
        Some(start) => {
            let end = end.unwrap_or(now);
            time::human(end.as_second().saturating_sub(start.as_second()))
        }
    };
    vec![
        name(o),
        status.into(),
        completions.into(),
        duration.into(),
        age(o, now),
        containers,
        images,
        selector(o, "spec.selector"),
    ]
}

pub const CRON_JOB: &[Column] = &[
    NAME,
    col(
        "Schedule",
        "string",
        "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
    ),
    col(
        "Timezone",
        "string",
        "The time zone name for the given schedule.",
    ),
    col(
        "Suspend",
        "boolean",
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions. Defaults to false.",
    ),
    number("Active", "A list of pointers to currently running jobs."),
    col(
        "Last Schedule",
        "string",
        "Information when was the last time the job was successfully scheduled.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn cron_job(o: &Value, now: Now) -> Vec<Value> {
    let job = at(o, "spec.jobTemplate").unwrap_or(&Value::Null);
    let (containers, images) = containers_and_images(job);
    let last = match at(o, "status.lastScheduleTime") {
        Some(last) => time::age(Some(last), now),
        None => "<none>".to_string(),
    };
    let suspended = if flag(o, "spec.suspend") {
        "True"
    } else {
        "False"
    };
    vec![
        name(o),
        text(o, "spec.schedule").into(),
        or_none(text(o, "spec.timeZone")),
        suspended.into(),
        list(o, "status.active").len().into(),
        last.into(),
        age(o, now),
        containers,
        images,
        selector(job, "spec.selector"),
    ]
}

pub const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    col(
        "Min Available",
        "string",
        "The minimum number of pods that must be available.",
    ),
    col(
        "Max Unavailable",
        "string",
        "The maximum number of pods that may be unavailable.",
    ),
    number(
        "Allowed Disruptions",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    AGE,
];
pub fn disruption_budget(o: &Value, now: Now) -> Vec<Value> {
    let amount = |path: &str| match at(o, path) {
        Some(Value::String(percent)) => percent.clone(),
        Some(number) => number.to_string(),
        None => "N/A".to_string(),
    };
    vec![
        name(o),
        amount("spec.minAvailable").into(),
        amount("spec.maxUnavailable").into(),
        count(o, "status.disruptionsAllowed"),
        age(o, now),
    ]
}

pub const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number(
        "Value",
        "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
    ),
    col(
        "Global-Default",
        "boolean",
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class.",
    ),
    AGE,
    col(
        "PreemptionPolicy",
        "string",
        "preemptionPolicy is the Policy for preempting pods with lower priority.",
    ),
];
pub fn priority_class(o: &Value, now: Now) -> Vec<Value> {
    vec![
        name(o),
        count(o, "value"),
        flag(o, "globalDefault").into(),
        age(o, now),
        text(o, "preemptionPolicy").into(),
    ]
}

pub const RUNTIME_CLASS: &[Column] = &[
    NAME,
    col(
        "Handler",
        "string",
        "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class.",
    ),
    AGE,
];
pub fn runtime_class(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), text(o, "handler").into(), age(o, now)]
}

pub const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    col(
        "Request",
        "string",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    col(
        "Limit",
        "string",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];
pub fn resource_quota(o: &Value, now: Now) -> Vec<Value> {
    let shown = |limits: bool| {
        let mut parts: Vec<String> = map(o, "status.hard")
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.starts_with("limits") == limits)
            .map(|(name, hard)| {
                let used = map(o, "status.used")
                    .and_then(|u| u.get(name))
                    .and_then(Value::as_str)
                    .unwrap_or("0");
                format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"))
            })
            .collect();
        parts.sort();
        parts.join(", ")
    };
    vec![
        name(o),
        shown(false).into(),
        shown(true).into(),
        age(o, now),
    ]
}

pub const AUTOSCALER: &[Column] = &[
    NAME,
    col(
        "Reference",
        "string",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    col(
        "Targets",
        "string",
        "metrics contains the specifications for which to use to calculate the desired replica count.",
    ),
    col(
        "MinPods",
        "string",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.",
    ),
    col(
        "MaxPods",
        "string",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up.",
    ),
    col(
        "Replicas",
        "string",
        "currentReplicas is current number of replicas of pods managed by this autoscaler.",
    ),
    AGE,
];
/// Of the stored form, `autoscaling/v2`.
pub fn autoscaler(o: &Value, now: Now) -> Vec<Value> {
    let reference = format!(
        "{}/{}",
        text(o, "spec.scaleTargetRef.kind"),
        text(o, "spec.scaleTargetRef.name")
    );
    let min = match int(o, "spec.minReplicas") {
        Some(min) => min.to_string(),
        None => "<unset>".to_string(),
    };
    vec![
        name(o),
        reference.into(),
        targets(o).into(),
        min.into(),
        count(o, "spec.maxReplicas"),
        count(o, "status.currentReplicas"),
        age(o, now),
    ]
}

/// `cpu: 10%/80%, 3/5 (avg) + 1 more...`
fn targets(o: &Value) -> String {
    let metrics = list(o, "spec.metrics");
    if metrics.is_empty() {
        return "<none>".to_string();
    }
    let current = list(o, "status.currentMetrics");
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(i, metric)| target(metric, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    match shown.len() {
        n if n > 2 => format!("{} + {} more...", shown[..2].join(", "), n - 2),
        _ => shown.join(", "),
    }
}

fn target(metric: &Value, current: &Value) -> String {
    let field = match text(metric, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_string(),
    };
    let amount = |source: &Value, path: &str| {
        at(source, path)
            .and_then(Value::as_str)
            .and_then(|q| Quantity::parse(q).ok())
            .map(|q| q.to_string())
    };
    let unknown = || "<unknown>".to_string();
    let now =
        |part: &str| amount(current, &format!("{field}.current.{part}")).unwrap_or_else(unknown);
    let wanted = |part: &str| amount(metric, &format!("{field}.target.{part}"));
    if matches!(field, "resource" | "containerResource") {
        let name = text(metric, &format!("{field}.name"));
        return match wanted("averageValue") {
            Some(wanted) => format!("{name}: {}/{wanted}", now("averageValue")),
            None => {
                let percent = |v: Option<i64>, none: &str| match v {
                    Some(p) => format!("{p}%"),
                    None => none.to_string(),
                };
                let current = int(current, &format!("{field}.current.averageUtilization"));
                let wanted = int(metric, &format!("{field}.target.averageUtilization"));
                format!(
                    "{name}: {}/{}",
                    percent(current, "<unknown>"),
                    percent(wanted, "<auto>")
                )
            }
        };
    }
    match (field, wanted("averageValue")) {
        ("pods", average) => {
            format!(
                "{}/{}",
                now("averageValue"),
                average.unwrap_or_else(|| "0".into())
            )
        }
        (_, Some(average)) => format!("{}/{average} (avg)", now("averageValue")),
        (_, None) => format!(
            "{}/{}",
            now("value"),
            wanted("value").unwrap_or_else(|| "0".into())
        ),
    }
}

pub const INGRESS: &[Column] = &[
    NAME,
    col(
        "Class",
        "string",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    col(
        "Hosts",
        "string",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    col(
        "Address",
        "string",
        "Address is a list containing ingress points for the load-balancer",
    ),
    col("Ports", "string", "Ports of TLS configurations that open"),
    AGE,
];
pub fn ingress(o: &Value, now: Now) -> Vec<Value> {
    let rules = list(o, "spec.rules");
    let hosts: Vec<&str> = rules
        .iter()
        .take(3)
        .map(|rule| text(rule, "host"))
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = match (hosts.is_empty(), rules.len()) {
        (true, _) => "*".to_string(),
        (false, n) if n > 3 => format!("{} + {} more...", hosts.join(","), n - 3),
        _ => hosts.join(","),
    };
    let mut addresses: Vec<&str> = list(o, "status.loadBalancer.ingress")
        .iter()
        .map(|point| match text(point, "ip") {
            "" => text(point, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let ports = if list(o, "spec.tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(o),
        or_none(text(o, "spec.ingressClassName")),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        age(o, now),
    ]
}

pub const INGRESS_CLASS: &[Column] = &[
    NAME,
    col(
        "Controller",
        "string",
        "Controller that is responsible for handling this class",
    ),
    col(
        "Parameters",
        "string",
        "A reference to a resource with additional parameters",
    ),
    AGE,
];
pub fn ingress_class(o: &Value, now: Now) -> Vec<Value> {
    let parameters = at(o, "spec.parameters").map(|p| {
        let kind = match text(p, "apiGroup") {
            "" => text(p, "kind").to_string(),
            group => format!("{}.{group}", text(p, "kind")),
        };
        format!("{kind}/{}", text(p, "name"))
    });
    vec![
        name(o),
        text(o, "spec.controller").into(),
        or_none(&parameters.unwrap_or_default()),
        age(o, now),
    ]
}

pub const ENDPOINTS: &[Column] = &[
    NAME,
    col(
        "Endpoints",
        "string",
        "The set of all endpoints is the union of all subsets.",
    ),
    AGE,
];
pub fn endpoints(o: &Value, now: Now) -> Vec<Value> {
    let mut shown = Vec::new();
    for subset in list(o, "subsets") {
        let ports: Vec<Option<i64>> = match list(subset, "ports") {
            [] => vec![None],
            ports => ports.iter().map(|p| int(p, "port")).collect(),
        };
        for port in ports {
            for address in list(subset, "addresses") {
                let ip = text(address, "ip");
                shown.push(match port {
                    None => ip.to_string(),
                    Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
                    Some(port) => format!("{ip}:{port}"),
                });
            }
        }
    }
    let shown = match shown.len() {
        0 => "<none>".to_string(),
        n if n > 3 => format!("{} + {} more...", shown[..3].join(","), n - 3),
        _ => shown.join(","),
    };
    vec![name(o), shown.into(), age(o, now)]
}

/// Kept for tables whose last columns are wide.
pub(super) const VOLUME_MODE: Column = wide(
    "VolumeMode",
    "string",
    "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Now {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn workloads() {
        let template = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"x": "y"}},
        });
        let selector = json!({"matchLabels": {"a": "b"}});
        let made = json!({"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(
            Value::from(daemon_set(
                &json!({
                    "metadata": made, "spec": {"template": template, "selector": selector},
                    "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1},
                }),
                now()
            )),
            json!(["n", 3, 2, 1, 0, 0, "x=y", "60m", "c", "i", "a=b"])
        );
        assert_eq!(
            Value::from(stateful_set(
                &json!({"metadata": made, "spec": {"template": template, "replicas": 2}}),
                now()
            )),
            json!(["n", "0/2", "60m", "c", "i"])
        );
        assert_eq!(
            Value::from(controller_revision(
                &json!({"metadata": {"name": "n", "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true},
                ]}, "revision": 2}),
                now()
            )),
            json!(["n", "daemonset.apps/d", 2, "<unknown>"])
        );
    }

    #[test]
    fn jobs() {
        let spec = json!({"completions": 3, "selector": {"matchLabels": {"a": "b"}},
                          "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        let row = |status: Value| {
            Value::from(job(
                &json!({"metadata": {"name": "n"}, "spec": spec, "status": status}),
                now(),
            ))
        };
        assert_eq!(
            row(json!({"startTime": "2026-01-01T00:59:00Z", "succeeded": 1})),
            json!(["n", "Running", "1/3", "60s", "<unknown>", "c", "i", "a=b"])
        );
        assert_eq!(
            row(json!({
                "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z",
                "succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}],
            }))[1],
            "Complete"
        );
        let cron = json!({"metadata": {"name": "n"}, "spec": {
            "schedule": "* * * * *", "suspend": true, "jobTemplate": {"spec": spec},
        }, "status": {"active": [{}]}});
        assert_eq!(
            Value::from(cron_job(&cron, now())),
            json!([
                "n",
                "* * * * *",
                "<none>",
                "True",
                1,
                "<none>",
                "<unknown>",
                "c",
                "i",
                "a=b"
            ])
        );
    }

    #[test]
    fn bounds_and_scales() {
        assert_eq!(
            Value::from(disruption_budget(
                &json!({"metadata": {"name": "n"}, "spec": {"minAvailable": "50%"},
                        "status": {"disruptionsAllowed": 1}}),
                now()
            )),
            json!(["n", "50%", "N/A", 1, "<unknown>"])
        );
        assert_eq!(
            Value::from(autoscaler(
                &json!({"metadata": {"name": "n"}, "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 5,
                    "metrics": [
                        {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                        {"type": "External", "external": {"target": {"averageValue": "3"}}},
                        {"type": "Pods", "pods": {"target": {"averageValue": "3"}}},
                    ],
                }, "status": {"currentReplicas": 2, "currentMetrics": [
                    {"type": "Resource", "resource": {"current": {"averageUtilization": 10}}},
                ]}}),
                now()
            )),
            json!([
                "n",
                "Deployment/d",
                "cpu: 10%/80%, <unknown>/3 (avg) + 1 more...",
                "<unset>",
                5,
                2,
                "<unknown>"
            ])
        );
        assert_eq!(
            Value::from(resource_quota(
                &json!({"metadata": {"name": "n"}, "status": {
                    "hard": {"requests.cpu": "2", "pods": "4", "limits.cpu": "3"},
                    "used": {"pods": "1"},
                }}),
                now()
            )),
            json!([
                "n",
                "pods: 1/4, requests.cpu: 0/2",
                "limits.cpu: 0/3",
                "<unknown>"
            ])
        );
    }

    #[test]
    fn ways_in() {
        let rules: Vec<Value> = ["a", "b", "c", "d"]
            .iter()
            .map(|host| json!({"host": host}))
            .collect();
        assert_eq!(
            Value::from(ingress(
                &json!({"metadata": {"name": "n"}, "spec": {"rules": rules, "tls": [{}], "ingressClassName": "k"},
                        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
                now()
            )),
            json!([
                "n",
                "k",
                "a,b,c + 1 more...",
                "1.2.3.4",
                "80, 443",
                "<unknown>"
            ])
        );
        assert_eq!(
            Value::from(endpoints(
                &json!({"metadata": {"name": "n"}, "subsets": [{
                    "addresses": [{"ip": "1.2.3.4"}, {"ip": "fd00::1"}], "ports": [{"port": 80}],
                }]}),
                now()
            )),
            json!(["n", "1.2.3.4:80,[fd00::1]:80", "<unknown>"])
        );
    }
}
