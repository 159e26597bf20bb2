//! `Impersonate-…` headers: acting as somebody else, with the right to do so asked for each part.
//! Source: apiserver `pkg/endpoints/filters/impersonation`.

use http::HeaderMap;
use rhumb_api::status::{ApiError, Result};

use super::authorize::{Attributes, Authorizer};
use super::{AUTHENTICATED, UNAUTHENTICATED, User};

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>> {
    let texts = headers.get_all(name).into_iter().map(|v| v.to_str());
    texts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ApiError::bad_request(format!("the header {name} is not ASCII text")))
}

/// What one part of the impersonated user needs.
fn part<'a>(group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes {
        verb: "impersonate",
        group,
        resource,
        name,
        ..Default::default()
    }
}

/// The user that the headers name; `None` if there are no such headers.
pub fn impersonated(
    user: &User,
    headers: &HeaderMap,
    authorizer: &Authorizer,
) -> Result<Option<User>> {
    if !headers
        .keys()
        .any(|k| k.as_str().starts_with("impersonate-"))
    {
        return Ok(None);
    }
    let name = values(headers, "impersonate-user")?;
    let name = name.first().copied().unwrap_or("");
    let groups = values(headers, "impersonate-group")?;
    let uid = values(headers, "impersonate-uid")?;
    let uid = uid.first().copied().unwrap_or("");
    let mut extra: Vec<(String, &str)> = Vec::new();
    for key in headers.keys() {
        let Some(encoded) = key.as_str().strip_prefix(EXTRA) else {
            continue;
        };
        // Keys may be percent-encoded, since a header's name can't hold a slash.
        let decoded = crate::route::decode(encoded).unwrap_or_else(|| encoded.to_string());
        for value in values(headers, key.as_str())? {
            extra.push((decoded.to_lowercase(), value));
        }
    }
    if name.is_empty() {
        return Err(ApiError::bad_request(
            "requested impersonation of groups, a uid or extra data without impersonating a user",
        ));
    }

    let check = |attributes: Attributes<'_>| {
        let decision = authorizer.resource(user, &attributes);
        match decision.allowed {
            true => Ok(()),
            false => Err(super::refused(user, &attributes, &decision.reason)),
        }
    };
    let mut acting = User {
        name: name.into(),
        uid: uid.into(),
        groups: groups.iter().map(|g| g.to_string()).collect(),
        ..Default::default()
    };
    match acting.as_service_account() {
        Some((namespace, account)) => {
            check(Attributes {
                namespace,
                ..part("", "serviceaccounts", account)
            })?;
            if groups.is_empty() {
                acting.groups = User::service_account_groups(namespace);
            }
        }
        None => check(part("", "users", name))?,
    }
    for group in &groups {
        check(part("", "groups", group))?;
    }
    if !uid.is_empty() {
        check(part(AUTHENTICATION, "uids", uid))?;
    }
    for (key, value) in &extra {
        check(Attributes {
            subresource: key,
            ..part(AUTHENTICATION, "userextras", value)
        })?;
        let values = acting.extra.entry(key.clone()).or_default();
        values.push(value.to_string());
    }
    if !acting.is_in(AUTHENTICATED) && !acting.is_in(UNAUTHENTICATED) {
        let group = match acting.name.as_str() {
            super::ANONYMOUS => UNAUTHENTICATED,
            _ => AUTHENTICATED,
        };
        acting.groups.push(group.into());
    }
    Ok(Some(acting))
}
