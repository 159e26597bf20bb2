//! Events have two views of one stored object: core/v1 and events.k8s.io/v1.
//! Source: Kubernetes `pkg/apis/core/v1` and `pkg/apis/events/v1` conversions.

use serde_json::Value;

use crate::json::{put, remove};

/// (events.k8s.io name, core name)
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// An events.k8s.io event in core's form.
pub fn to_core(mut event: Value) -> Value {
    for (new, core) in RENAMED {
        let value = remove(&mut event, new);
        if value.is_some() {
            put(&mut event, core, value);
        }
    }
    put(&mut event, "apiVersion", Some("v1".into()));
    event
}

/// A core event in events.k8s.io's form.
pub fn from_core(mut event: Value) -> Value {
    for (new, core) in RENAMED {
        let value = remove(&mut event, core);
        if value.is_some() {
            put(&mut event, new, value);
        }
    }
    put(&mut event, "apiVersion", Some("events.k8s.io/v1".into()));
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_ways() {
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "hi", "reason": "R",
            "reportingController": "c", "deprecatedCount": 2,
        });
        let core = to_core(new.clone());
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["message"], "hi");
        assert_eq!(core["reportingComponent"], "c");
        assert_eq!(core["count"], 2);
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(from_core(core), new);
    }
}
