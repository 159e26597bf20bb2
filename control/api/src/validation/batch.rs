//! Jobs and CronJobs. Source: Kubernetes `pkg/apis/batch/validation`.

use serde_json::{Value, json};

use super::metadata::{invalid_each, qualified_name_faults};
use super::{IMMUTABLE, non_negative, one_of, selector, workloads};
use crate::json::{at, flag, int, list, text};
use crate::schedule;
use crate::selector::LabelSelector;
use crate::status::Errors;

/// Of an indexed job.
const MAX_PARALLELISM: i64 = 100_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
/// A CronJob's name leaves room for the time in those of its jobs.
const MAX_CRON_NAME: usize = 52;

pub fn job(job: &Value, errors: &mut Errors) {
    generated_selector(job, errors);
    let spec = at(job, "spec").unwrap_or(&Value::Null);
    job_spec("spec", spec, errors);
    let Some(found) = at(spec, "selector") else {
        errors.required("spec.selector", "");
        return;
    };
    selector::label_selector("spec.selector", found, errors);
    let template = at(spec, "template").unwrap_or(&Value::Null);
    if !LabelSelector::from_object(Some(found)).matches(template) {
        errors.invalid(
            "spec.template.metadata.labels",
            at(template, "metadata.labels")
                .cloned()
                .unwrap_or(Value::Null),
            "`selector` does not match template `labels`",
        );
    }
}

/// The selector of a job, unless it is chosen by hand, is the one that was made from its uid.
fn generated_selector(job: &Value, errors: &mut Errors) {
    if flag(job, "spec.manualSelector") {
        return;
    }
    let uid = text(job, "metadata.uid");
    let selects = LabelSelector::from_object(at(job, "spec.selector"));
    let expected = json!({"metadata": {"labels": {
        "controller-uid": uid,
        "job-name": text(job, "metadata.name"),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": text(job, "metadata.name"),
    }}});
    if at(job, "spec.selector").is_some() && !selects.matches(&expected) {
        errors.invalid(
            "spec.selector",
            at(job, "spec.selector").cloned().unwrap_or(Value::Null),
            "`selector` not auto-generated",
        );
    }
}

fn job_spec(path: &str, spec: &Value, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        if let Some(number) = int(spec, field) {
            non_negative(&format!("{path}.{field}"), number, errors);
        }
    }
    let mode = text(spec, "completionMode");
    // Templates of CronJobs have no defaults of jobs.
    if !mode.is_empty() {
        one_of(
            &format!("{path}.completionMode"),
            mode,
            &["NonIndexed", "Indexed"],
            errors,
        );
    }
    if mode == "Indexed" {
        if at(spec, "completions").is_none() {
            errors.required(
                &format!("{path}.completions"),
                "when completion mode is Indexed",
            );
        }
        if let Some(parallelism) = int(spec, "parallelism").filter(|p| *p > MAX_PARALLELISM) {
            errors.invalid(
                &format!("{path}.parallelism"),
                parallelism,
                "must be less than or equal to 100000 when completion mode is Indexed",
            );
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(given) = at(spec, field) {
                errors.invalid(
                    &format!("{path}.{field}"),
                    given.clone(),
                    "requires indexed completion mode",
                );
            }
        }
        if let Some(given) = at(spec, "successPolicy") {
            errors.invalid(
                &format!("{path}.successPolicy"),
                given.clone(),
                "requires indexed completion mode",
            );
        }
    }
    if at(spec, "maxFailedIndexes").is_some() && at(spec, "backoffLimitPerIndex").is_none() {
        errors.required(
            &format!("{path}.backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
    failure_policy(path, spec, errors);
    replacement_policy(path, spec, errors);
    managed_by(path, spec, errors);
    let template = at(spec, "template").unwrap_or(&Value::Null);
    workloads::pod_template_spec(&format!("{path}.template"), template, errors);
    restart_policy(path, text(template, "spec.restartPolicy"), errors);
}

fn restart_policy(path: &str, policy: &str, errors: &mut Errors) {
    let path = format!("{path}.template.spec.restartPolicy");
    match policy {
        "OnFailure" | "Never" => {}
        // What it is by default.
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}

fn replacement_policy(path: &str, spec: &Value, errors: &mut Errors) {
    let policy = text(spec, "podReplacementPolicy");
    if policy.is_empty() {
        return;
    }
    let path = format!("{path}.podReplacementPolicy");
    if at(spec, "podFailurePolicy").is_some() {
        one_of(&path, policy, &["Failed"], errors);
    } else {
        one_of(&path, policy, &["Failed", "TerminatingOrFailed"], errors);
    }
}

fn managed_by(path: &str, spec: &Value, errors: &mut Errors) {
    let Some(manager) = at(spec, "managedBy").and_then(Value::as_str) else {
        return;
    };
    let path = format!("{path}.managedBy");
    if !manager.contains('/') {
        errors.invalid(
            &path,
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
    } else {
        invalid_each(&path, manager, qualified_name_faults(manager), errors);
    }
    if manager.len() > 63 {
        errors.too_long(&path, 63);
    }
}

fn failure_policy(path: &str, spec: &Value, errors: &mut Errors) {
    let Some(policy) = at(spec, "podFailurePolicy") else {
        return;
    };
    if text(spec, "template.spec.restartPolicy") != "Never" {
        errors.invalid(
            &format!("{path}.podFailurePolicy"),
            text(spec, "template.spec.restartPolicy"),
            "only \"Never\" is supported when podFailurePolicy is specified",
        );
    }
    let rules = list(policy, "rules");
    let path = format!("{path}.podFailurePolicy.rules");
    if rules.len() > MAX_RULES {
        errors.too_many(&path, rules.len(), MAX_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let action = text(rule, "action");
        if action.is_empty() {
            errors.required(
                &format!("{path}.action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            );
        } else {
            let known = ["Count", "FailIndex", "FailJob", "Ignore"];
            one_of(&format!("{path}.action"), action, &known, errors);
        }
        if action == "FailIndex" && at(spec, "backoffLimitPerIndex").is_none() {
            errors.invalid(
                &format!("{path}.action"),
                action,
                "requires the backoffLimitPerIndex to be set",
            );
        }
        let codes = at(rule, "onExitCodes");
        let conditions = list(rule, "onPodConditions");
        match (codes, conditions.is_empty()) {
            (None, true) => errors.invalid(
                &path,
                rule.clone(),
                "specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (Some(_), false) => errors.invalid(
                &path,
                rule.clone(),
                "specifying both OnExitCodes and OnPodConditions is not supported",
            ),
            _ => {}
        }
        if let Some(codes) = codes {
            exit_codes(&format!("{path}.onExitCodes"), codes, errors);
        }
    }
}

fn exit_codes(path: &str, codes: &Value, errors: &mut Errors) {
    let operator = text(codes, "operator");
    one_of(
        &format!("{path}.operator"),
        operator,
        &["In", "NotIn"],
        errors,
    );
    let values = list(codes, "values");
    let path = format!("{path}.values");
    if values.is_empty() {
        errors.invalid(&path, json!([]), "at least one value is required");
    } else if values.len() > MAX_EXIT_CODES {
        errors.too_many(&path, values.len(), MAX_EXIT_CODES);
    }
    for (i, value) in values.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if values[..i].contains(value) {
            errors.duplicate(&path, value.clone());
        }
        if operator == "In" && value.as_i64() == Some(0) {
            errors.invalid(&path, 0, "must not be 0 for the In operator");
        }
    }
}

pub fn job_update(new: &Value, old: &Value, errors: &mut Errors) {
    completions_update(new, old, errors);
    for field in [
        "selector",
        "template",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        let path = format!("spec.{field}");
        if at(new, &path) != at(old, &path) {
            errors.invalid(
                &path,
                at(new, &path).cloned().unwrap_or(Value::Null),
                IMMUTABLE,
            );
        }
    }
}

/// Completions stay, but for indexed jobs whose parallelism grows along with them.
fn completions_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (path, parallelism) = ("spec.completions", "spec.parallelism");
    if at(new, path) == at(old, path) {
        return;
    }
    let elastic = text(new, "spec.completionMode") == "Indexed"
        && at(new, path).is_some()
        && at(old, path).is_some()
        && at(new, path) == at(new, parallelism)
        && at(old, path) == at(old, parallelism);
    if !elastic {
        errors.invalid(
            path,
            at(new, path).cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        );
    }
}

pub fn cron_job(cron: &Value, errors: &mut Errors) {
    let name = text(cron, "metadata.name");
    if name.len() > MAX_CRON_NAME {
        errors.invalid("metadata.name", name, "must be no more than 52 characters");
    }
    let given = text(cron, "spec.schedule");
    if given.is_empty() {
        errors.required("spec.schedule", "");
    } else {
        if let Err(fault) = schedule::Schedule::parse(given) {
            errors.invalid("spec.schedule", given, fault.to_string());
        }
        if given.contains("TZ") && at(cron, "spec.timeZone").is_some() {
            errors.invalid(
                "spec.schedule",
                given,
                "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            );
        } else if given.contains("TZ") {
            errors.invalid(
                "spec.schedule",
                given,
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            );
        }
    }
    for field in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        let path = format!("spec.{field}");
        if let Some(number) = int(cron, &path) {
            non_negative(&path, number, errors);
        }
    }
    one_of(
        "spec.concurrencyPolicy",
        text(cron, "spec.concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
        errors,
    );
    time_zone(cron, errors);
    let spec = at(cron, "spec.jobTemplate.spec").unwrap_or(&Value::Null);
    let path = "spec.jobTemplate.spec";
    job_spec(path, spec, errors);
    if let Some(given) = at(spec, "selector") {
        errors.invalid(
            &format!("{path}.selector"),
            given.clone(),
            "`selector` will be auto-generated",
        );
    }
    if flag(spec, "manualSelector") {
        errors.not_supported(&format!("{path}.manualSelector"), true, &["nil", "false"]);
    }
}

fn time_zone(cron: &Value, errors: &mut Errors) {
    let Some(zone) = at(cron, "spec.timeZone").and_then(Value::as_str) else {
        return;
    };
    let path = "spec.timeZone";
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("Local") {
        errors.invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::workloads as defaults;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn good() -> Value {
        json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {
                "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                "template": {
                    "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
                },
            },
        })
    }

    fn faults(edit: impl Fn(&mut Value)) -> Vec<String> {
        let mut object = good();
        edit(&mut object);
        defaults::job(&mut object);
        let mut errors = Errors::default();
        job(&object, &mut errors);
        shown(&errors)
    }

    #[test]
    fn jobs() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
        assert_eq!(
            faults(|j| j["spec"]["template"]["spec"]["restartPolicy"] = json!("Always")),
            [
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
            ]
        );
        assert_eq!(
            faults(|j| j["spec"]["selector"] = json!({"matchLabels": {"a": "b"}})),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\"}: `selector` does not match template `labels`",
            ]
        );
        assert_eq!(
            faults(|j| {
                j["spec"]["completionMode"] = json!("Indexed");
                j["spec"]["parallelism"] = json!(100_001);
            }),
            [
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ]
        );
        assert_eq!(
            faults(|j| j["spec"]["podFailurePolicy"] = json!({"rules": [{"action": "Ignore"}]})),
            [
                "spec.podFailurePolicy.rules[0]: Invalid value: {\"action\":\"Ignore\"}: specifying one of OnExitCodes and OnPodConditions is required"
            ]
        );
    }

    #[test]
    fn what_of_a_job_may_change() {
        let check = |edit: &dyn Fn(&mut Value)| {
            let (old, mut new) = (good(), good());
            edit(&mut new);
            let mut errors = Errors::default();
            job_update(&new, &old, &mut errors);
            shown(&errors)
        };
        assert!(check(&|j| j["spec"]["parallelism"] = json!(3)).is_empty());
        assert_eq!(
            check(&|j| j["spec"]["completions"] = json!(3)),
            ["spec.completions: Invalid value: 3: field is immutable"]
        );
        assert!(
            check(&|j| j["spec"]["template"] = json!({}))[0]
                .starts_with("spec.template: Invalid value")
        );
    }

    #[test]
    fn cron_jobs() {
        let check = |edit: &dyn Fn(&mut Value)| {
            let mut template = good()["spec"]["template"].clone();
            template["metadata"] = json!({});
            let mut cron = json!({
                "metadata": {"name": "c"},
                "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}},
            });
            edit(&mut cron);
            defaults::cron_job(&mut cron);
            let mut errors = Errors::default();
            cron_job(&cron, &mut errors);
            shown(&errors)
        };
        assert_eq!(check(&|_| {}), Vec::<String>::new());
        assert_eq!(
            check(&|c| c["spec"]["schedule"] = json!("* * *")),
            [
                "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"
            ]
        );
        assert_eq!(
            check(&|c| c["metadata"]["name"] = json!("x".repeat(53))),
            [format!(
                "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
                "x".repeat(53)
            )]
        );
        assert_eq!(
            check(&|c| c["spec"]["concurrencyPolicy"] = json!("Maybe")),
            [
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\""
            ]
        );
        assert_eq!(
            check(&|c| c["spec"]["timeZone"] = json!("Mars/Base")),
            ["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"]
        );
    }
}
