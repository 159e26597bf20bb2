//! The status of a CustomResourceDefinition: which names it got, and whether it is served.
//! Source: apiextensions-apiserver `pkg/controller/{status,establish,finalizer}`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{self, at, list, text};
use crate::registry::KINDS;
use crate::time;

/// Keeps a definition until all its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The annotation by which a group of the community's is approved.
pub const APPROVED: &str = "api-approved.kubernetes.io";

/// The status of a new definition.
pub fn initial(crd: &Value) -> Value {
    let stored: Vec<&str> = storage_version(crd).into_iter().collect();
    json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored})
}

pub fn storage_version(crd: &Value) -> Option<&str> {
    let versions = list(crd, "spec.versions");
    let found = versions.iter().find(|v| json::flag(v, "storage"))?;
    found.get("name").and_then(Value::as_str)
}

pub fn condition<'a>(crd: &'a Value, ty: &str) -> Option<&'a Value> {
    list(crd, "status.conditions")
        .iter()
        .find(|c| text(c, "type") == ty)
}

pub fn holds(crd: &Value, ty: &str) -> bool {
    condition(crd, ty).is_some_and(|c| text(c, "status") == "True")
}

/// Sets a condition; its time changes with its status only.
pub fn set_condition(
    crd: &mut Value,
    ty: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let since = condition(crd, ty)
        .filter(|c| text(c, "status") == status)
        .map_or_else(
            || time::format(now),
            |c| text(c, "lastTransitionTime").to_string(),
        );
    let new = json!({"type": ty, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    let Some(object) = json::child(crd, "status") else {
        return;
    };
    json::default(object, "conditions", json!([]));
    let Some(conditions) = json::list_mut(object, "conditions") else {
        return;
    };
    match conditions.iter_mut().find(|c| text(c, "type") == ty) {
        Some(there) => *there = new,
        None => conditions.push(new),
    }
}

/// The definition with the status that it should have, given all others of the cluster.
pub fn decide(crd: &Value, others: &[Value], now: Timestamp) -> Value {
    let mut decided = crd.clone();
    let taken = taken(crd, others);
    let wanted = at(crd, "spec.names").cloned().unwrap_or_default();
    let mut accepted = at(crd, "status.acceptedNames")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut conflict: Option<(&str, String)> = None;
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        let name = text(&wanted, field);
        let used = match field {
            "kind" | "listKind" => &taken.kinds,
            _ => &taken.resources,
        };
        if used.iter().any(|u| u == name) {
            conflict.get_or_insert((reason, name.to_string()));
        } else {
            json::put(&mut accepted, field, wanted.get(field).cloned());
        }
    }
    let short: Vec<&str> = list(&wanted, "shortNames")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match short
        .iter()
        .find(|s| taken.resources.iter().any(|u| u == **s))
    {
        Some(name) => {
            conflict.get_or_insert(("ShortNamesConflict", (*name).to_string()));
        }
        None => json::put(
            &mut accepted,
            "shortNames",
            wanted.get("shortNames").cloned(),
        ),
    }
    json::put(
        &mut accepted,
        "categories",
        wanted.get("categories").cloned(),
    );
    if let Some(status) = json::child(&mut decided, "status") {
        json::put(status, "acceptedNames", Some(accepted));
    }
    match &conflict {
        None => set_condition(
            &mut decided,
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found",
            now,
        ),
        Some((reason, name)) => set_condition(
            &mut decided,
            "NamesAccepted",
            false,
            reason,
            &format!("{name:?} is already in use"),
            now,
        ),
    }
    // Once established a definition stays so: its objects must stay within reach.
    if !holds(crd, "Established") {
        match conflict {
            None => set_condition(
                &mut decided,
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            ),
            Some(_) => set_condition(
                &mut decided,
                "Established",
                false,
                "NotAccepted",
                "not all names are accepted",
                now,
            ),
        }
    }
    approval(&mut decided, now);
    decided
}

fn approval(crd: &mut Value, now: Timestamp) {
    if !is_protected(text(crd, "spec.group")) {
        return;
    }
    let annotations = json::map(crd, "metadata.annotations");
    let found = annotations.and_then(|a| a.get(APPROVED)?.as_str());
    let found = found.unwrap_or("").to_string();
    let (holds, reason, message) = match found.starts_with("unapproved") {
        true => (
            false,
            "UnapprovedAnnotation",
            format!("not approved: {found:?}"),
        ),
        false => (true, "ApprovedAnnotation", format!("approved in {found}")),
    };
    set_condition(
        crd,
        "KubernetesAPIApprovalPolicyConformant",
        holds,
        reason,
        &message,
        now,
    );
}

/// Whether the group belongs to the Kubernetes community.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Names of a group that others have.
struct Taken {
    resources: Vec<String>,
    kinds: Vec<String>,
}

fn taken(crd: &Value, others: &[Value]) -> Taken {
    let group = text(crd, "spec.group");
    let mut taken = Taken {
        resources: Vec::new(),
        kinds: Vec::new(),
    };
    for kind in KINDS.iter().filter(|k| k.group == group) {
        let names = [&kind.plural, &kind.singular].into_iter();
        taken
            .resources
            .extend(names.chain(&kind.short_names).map(|n| n.to_string()));
        taken
            .kinds
            .extend([&kind.kind, &kind.list_kind].map(|n| n.to_string()));
    }
    let same = |other: &&Value| {
        text(other, "spec.group") == group
            && text(other, "metadata.name") != text(crd, "metadata.name")
    };
    for other in others.iter().filter(same) {
        let names = at(other, "status.acceptedNames")
            .cloned()
            .unwrap_or_default();
        let own = |field: &str| Some(text(&names, field).to_string()).filter(|n| !n.is_empty());
        taken.resources.extend(own("plural"));
        taken.resources.extend(own("singular"));
        taken.kinds.extend(own("kind"));
        taken.kinds.extend(own("listKind"));
        let short = list(&names, "shortNames").iter().filter_map(Value::as_str);
        taken.resources.extend(short.map(str::to_string));
    }
    taken
}

/// A definition that is being deleted waits for its objects.
pub fn mark_deleted(crd: &mut Value, now: Timestamp) {
    if let Some(metadata) = json::child(crd, "metadata") {
        json::default(metadata, "finalizers", json!([]));
        if let Some(finalizers) = json::list_mut(metadata, "finalizers")
            && !finalizers.iter().any(|f| f == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
    }
    set_condition(
        crd,
        "Terminating",
        true,
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        now,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "singular": kind.to_lowercase(),
                "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}},
        })
    }

    #[test]
    fn names_are_first_come_first_served() {
        let now = Timestamp::UNIX_EPOCH;
        let first = decide(&crd("widgets", "Widget", &["w"]), &[], now);
        assert!(holds(&first, "NamesAccepted") && holds(&first, "Established"));
        assert_eq!(first["status"]["acceptedNames"]["shortNames"], json!(["w"]));
        // Deciding again changes nothing, not even the times.
        let later = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(decide(&first, std::slice::from_ref(&first), later), first);
        let second = decide(
            &crd("whales", "Whale", &["w"]),
            std::slice::from_ref(&first),
            now,
        );
        assert!(!holds(&second, "NamesAccepted") && !holds(&second, "Established"));
        let why = condition(&second, "NamesAccepted").unwrap();
        assert_eq!(why["reason"], "ShortNamesConflict");
        assert_eq!(why["message"], "\"w\" is already in use");
        let mut third = crd("wheels", "Widget", &[]);
        third["spec"]["names"]["singular"] = "wheel".into();
        let third = decide(&third, &[first], now);
        assert_eq!(
            condition(&third, "NamesAccepted").unwrap()["reason"],
            "KindConflict"
        );
        // A built-in kind has its names too.
        let mut policy = crd("networkpolicies", "NetworkPolicy", &[]);
        policy["spec"]["group"] = "networking.k8s.io".into();
        assert!(!holds(&decide(&policy, &[], now), "Established"));
    }
}
