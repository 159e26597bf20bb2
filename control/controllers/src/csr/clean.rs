//! Which requests are old enough to go. Source: `pkg/controller/certificates/cleaner`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{has, is_issued};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Why the request may go now; `None` if it stays.
pub fn reason(request: &CertificateSigningRequest, now: Timestamp) -> Option<&'static str> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let older = |since: Timestamp, limit: SignedDuration| now.duration_since(since) > limit;
    // Of a condition without a time, the request's own counts.
    let since = |kind: &str| {
        let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
        let times = conditions
            .into_iter()
            .flatten()
            .filter(|c| c.type_ == kind)
            .filter_map(|c| c.last_update_time.as_ref().map(|t| t.0));
        times.max().unwrap_or(created)
    };
    let issued = is_issued(request);
    if has(request, "Denied") {
        return older(since("Denied"), HOUR).then_some("it was denied an hour ago");
    }
    if has(request, "Failed") {
        return older(since("Failed"), HOUR).then_some("it failed an hour ago");
    }
    if has(request, "Approved") && issued {
        return older(since("Approved"), HOUR).then_some("its certificate was issued an hour ago");
    }
    older(created, DAY).then_some("nothing has come of it for a day")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_old_go() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let request = |created: &str, condition: &str, at: &str, issued: bool| {
            let mut value = json!({
                "metadata": {"name": "r", "creationTimestamp": created},
                "spec": {"request": "", "signerName": "a.b/c"},
                "status": {},
            });
            if !condition.is_empty() {
                value["status"]["conditions"] =
                    json!([{"type": condition, "status": "True", "lastUpdateTime": at}]);
            }
            if issued {
                value["status"]["certificate"] = "Y2VydA==".into();
            }
            let request: CertificateSigningRequest = serde_json::from_value(value).unwrap();
            reason(&request, now).is_some()
        };
        let (fresh, hours, days) = (
            "2026-01-02T11:30:00Z",
            "2026-01-02T09:00:00Z",
            "2026-01-01T09:00:00Z",
        );
        for (created, condition, at, issued, goes) in [
            (hours, "", "", false, false),
            (days, "", "", false, true),
            (days, "Denied", fresh, false, false),
            (days, "Denied", hours, false, true),
            (hours, "Failed", hours, false, true),
            (hours, "Approved", fresh, true, false),
            (hours, "Approved", hours, true, true),
            // Approved, and still without a certificate.
            (hours, "Approved", hours, false, false),
            (days, "Approved", hours, false, true),
        ] {
            assert_eq!(
                request(created, condition, at, issued),
                goes,
                "{created} {condition} {at} {issued}"
            );
        }
    }
}
