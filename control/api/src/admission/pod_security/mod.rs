//! The Pod Security Standards: which level a namespace asks of its pods, and what a pod breaks of it.
//! Source: Kubernetes `staging/src/k8s.io/pod-security-admission`.

mod checks;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

use crate::json::{at, list, map, text};
use crate::status::Errors;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// The version of the standards, `v1.<minor>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    #[default]
    Latest,
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

/// What a namespace's labels ask for. The default is privileged throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

/// One thing that a pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain =
        minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok().map(Version::Minor))?
}

/// The policy that a namespace's labels ask for. Where a label can't be read the policy is the
/// restricted one for `enforce`, and none for the others.
pub fn policy(namespace: &Value) -> (Policy, Errors) {
    let mut policy = Policy::default();
    let mut errors = Errors::default();
    let Some(labels) = map(namespace, "metadata.labels") else {
        return (policy, errors);
    };
    let mut read = |mode: &str, standard: &mut Standard, otherwise: Level| {
        let mut bad = |key: &str, value: &str, why: &str| {
            errors.invalid(&format!("metadata.labels[{key}]"), value, why);
        };
        let key = format!("{PREFIX}{mode}");
        if let Some(value) = labels.get(&key).and_then(Value::as_str) {
            standard.level = level(value).unwrap_or_else(|| {
                bad(
                    &key,
                    value,
                    "must be one of privileged, baseline, restricted",
                );
                otherwise
            });
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(value) = labels.get(&key).and_then(Value::as_str) {
            standard.version = version(value).unwrap_or_else(|| {
                bad(&key, value, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            });
        }
    };
    read("enforce", &mut policy.enforce, Level::Restricted);
    read("audit", &mut policy.audit, Level::Privileged);
    read("warn", &mut policy.warn, Level::Privileged);
    (policy, errors)
}

/// The pod that an object holds: itself, or its template; `None` for kinds without one.
pub fn pod_of<'a>(group: &str, kind: &str, object: &'a Value) -> Option<&'a Value> {
    let path = match (group, kind) {
        ("", "Pod") => return Some(object),
        ("", "PodTemplate") => "template",
        ("batch", "CronJob") => "spec.jobTemplate.spec.template",
        ("", "ReplicationController")
        | ("apps", "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => "spec.template",
        _ => return None,
    };
    at(object, path)
}

/// What the pod breaks of the standard, in Kubernetes' order.
pub fn evaluate(standard: Standard, pod: &Value) -> Vec<Violation> {
    checks::run(standard, pod)
}

/// `allowPrivilegeEscalation != false (container "c" must set …), …`
pub fn details(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations
        .iter()
        .map(|v| match v.detail.as_str() {
            "" => v.reason.clone(),
            detail => format!("{} ({detail})", v.reason),
        })
        .collect();
    texts.join(", ")
}

/// Whether an update of a pod can change what it breaks: images, the number of containers, and
/// the old seccomp annotations are all that can.
pub fn is_significant_update(new: &Value, old: &Value) -> bool {
    let annotation = |pod: &Value, key: &str| {
        let annotations = map(pod, "metadata.annotations").cloned();
        annotations.and_then(|a: Map<String, Value>| a.get(key).cloned())
    };
    let differs = |key: &str| annotation(new, key) != annotation(old, key);
    let changed = |new: &Value, old: &Value| {
        text(new, "image") != text(old, "image")
            || differs(&format!(
                "{}{}",
                checks::SECCOMP_CONTAINER,
                text(new, "name")
            ))
    };
    if differs(checks::SECCOMP_POD) {
        return true;
    }
    for path in ["spec.containers", "spec.initContainers"] {
        let (new, old) = (list(new, path), list(old, path));
        if new.len() != old.len() || new.iter().zip(old).any(|(n, o)| changed(n, o)) {
            return true;
        }
    }
    let before = list(old, "spec.ephemeralContainers");
    list(new, "spec.ephemeralContainers").iter().any(|c| {
        let same = before.iter().find(|o| text(o, "name") == text(c, "name"));
        same.is_none_or(|o| changed(c, o))
    })
}

/// Whether the pods of a namespace are to be looked at when its `enforce` changes: not if it was
/// only relaxed.
pub fn tightens(new: Standard, old: Standard) -> bool {
    new != old
        && new.level != Level::Privileged
        && !(new.version == old.version && new.level <= old.level)
}

/// As many pods as are looked at when a namespace's level changes.
pub const MOST_PODS: usize = 3000;

/// The warnings about pods that break a namespace's new level.
pub fn existing(namespace: &str, standard: Standard, pods: &[Value]) -> Vec<String> {
    // Reason, first name, number of pods.
    let mut found: Vec<(String, &str, usize)> = Vec::new();
    let checked = &pods[..pods.len().min(MOST_PODS)];
    for pod in checked {
        let violations = evaluate(standard, pod);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = violations.iter().map(|v| v.reason.as_str()).collect();
        let (reason, name) = (reasons.join(", "), text(pod, "metadata.name"));
        match found.iter_mut().find(|(r, ..)| *r == reason) {
            Some((_, first, count)) => {
                *first = (*first).min(name);
                *count += 1;
            }
            None => found.push((reason, name, 1)),
        }
    }
    let mut warnings = Vec::new();
    if checked.len() < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {} existing pods",
            checked.len(),
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut about: Vec<String> = found
        .into_iter()
        .map(|(reason, name, count)| match count {
            1 => format!("{name}: {reason}"),
            2 => format!("{name} (and 1 other pod): {reason}"),
            n => format!("{name} (and {} other pods): {reason}", n - 1),
        })
        .collect();
    about.sort();
    warnings.append(&mut about);
    warnings
}
