//! From a connection and its headers to a user.

use rhumb_api::json;
use rhumb_api::registry;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::User;
use super::token::{Claims, Tokens};
use crate::cache::Cache;

/// The user of a client certificate that TLS has verified: common name and organizations.
/// `None` if it has no common name.
pub fn from_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .map(str::to_string)
        .collect();
    Some(User::named(name, groups))
}

/// `Ok(None)`: no bearer token. `Err`: one that doesn't count, and why (for the log; the client
/// learns nothing).
pub fn from_headers(
    headers: &http::HeaderMap,
    tokens: &Tokens,
    cache: &Cache,
) -> Result<Option<User>, String> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| "a header that is no text")?;
    let Some((scheme, token)) = value.split_once(' ') else {
        return Err("an Authorization header without a scheme".into());
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("an Authorization header that is no bearer token".into());
    }
    let claims = tokens.verify(token.trim()).map_err(|e| e.to_string())?;
    still_there(&claims, cache)?;
    let bound = claims.bound;
    Ok(Some(User::service_account(
        &bound.namespace,
        &bound.serviceaccount.name,
        bound.pod.map(|pod| pod.name),
    )))
}

/// A token ends with its service account and with its pod.
fn still_there(claims: &Claims, cache: &Cache) -> Result<(), String> {
    let bound = &claims.bound;
    let check = |plural: &str, name: &str, uid: &str| -> Result<(), String> {
        let kind = registry::find("", "v1", plural).ok_or("an unknown kind")?;
        let object = cache
            .collection(kind)
            .and_then(|c| c.get(&bound.namespace, name))
            .ok_or_else(|| format!("its {plural} {}/{name} is gone", bound.namespace))?;
        if json::text(&object.value(), "metadata.uid") != uid {
            return Err(format!(
                "its {plural} {}/{name} is another",
                bound.namespace
            ));
        }
        Ok(())
    };
    check(
        "serviceaccounts",
        &bound.serviceaccount.name,
        &bound.serviceaccount.uid,
    )?;
    if let Some(pod) = &bound.pod {
        check("pods", &pod.name, &pod.uid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Identity};

    #[test]
    fn names_and_groups_of_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        for groups in [vec![], vec!["system:nodes"], vec!["a", "b:c"]] {
            let identity = Identity {
                user: "system:node:n1".into(),
                groups: groups.iter().map(|g| g.to_string()).collect(),
            };
            let pair = authority.issue(&identity, &[]).unwrap();
            let der = pem::parse(&pair.certificate).unwrap();
            let user = from_certificate(der.contents()).unwrap();
            assert_eq!(user, User::named("system:node:n1", identity.groups));
        }
        assert_eq!(from_certificate(b"nonsense"), None);
    }
}
