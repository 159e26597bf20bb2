//! From a connection and its headers to a user.

use rhumb_api::json;
use rhumb_api::registry;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::token::{Bound, Claims, ISSUER, Reference};
use super::{CREDENTIAL_ID, User};
use crate::cache::Cache;
use crate::server::Api;

/// For how long the token of a pod or service account that is being deleted still counts.
const DELETED_LEEWAY: i64 = 60;

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
    let digest = Sha256::digest(der);
    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    Some(User::named(name, groups).with_extra(CREDENTIAL_ID, &format!("X509SHA256={digest}")))
}

/// `Ok(None)`: no bearer token. `Err`: one that doesn't count, and why (for the log; the client
/// learns nothing).
pub fn from_headers(headers: &http::HeaderMap, api: &Api) -> Result<Option<User>, String> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| "a header that is no text")?;
    let Some((scheme, given)) = value.split_once(' ') else {
        return Err("an Authorization header without a scheme".into());
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("an Authorization header that is no bearer token".into());
    }
    token(api, given.trim(), &[]).map(|(user, _)| Some(user))
}

/// Whose token it is, and for which of the audiences ([] stands for this API's).
pub fn token(api: &Api, token: &str, audiences: &[&str]) -> Result<(User, Vec<String>), String> {
    let wanted = match audiences {
        [] => &[ISSUER],
        given => given,
    };
    if let Some(user) = api.token_file.user(token) {
        // Such a token is for this API and no other.
        return match wanted.contains(&ISSUER) {
            true => Ok((user.clone(), vec![ISSUER.into()])),
            false => Err(format!("the token is not for the audiences {wanted:?}")),
        };
    }
    let (claims, audiences) = api
        .tokens
        .verify(token, wanted)
        .map_err(|e| e.to_string())?;
    still_there(&claims.bound, &api.cache, jiff::Timestamp::now())?;
    Ok((service_account(&claims), audiences))
}

fn service_account(claims: &Claims) -> User {
    let bound = &claims.bound;
    let of = |reference: &Option<Reference>| match reference {
        Some(Reference { name, uid }) => (name.clone(), uid.clone()),
        None => Default::default(),
    };
    let ((pod, pod_uid), (node, node_uid)) = (of(&bound.pod), of(&bound.node));
    let mut user = User::service_account(&bound.namespace, &bound.serviceaccount.name);
    user.uid = bound.serviceaccount.uid.clone();
    let extra = |what: &str| format!("authentication.kubernetes.io/{what}");
    user.with_extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti))
        .with_extra(&extra("node-name"), &node)
        .with_extra(&extra("node-uid"), &node_uid)
        .with_extra(&extra("pod-name"), &pod)
        .with_extra(&extra("pod-uid"), &pod_uid)
}

/// A token ends with its service account and with what it is bound to.
fn still_there(bound: &Bound, cache: &Cache, now: jiff::Timestamp) -> Result<(), String> {
    let check = |plural: &str, namespace: &str, wanted: &Reference| -> Result<(), String> {
        let what = format!("its {plural} {namespace}/{}", wanted.name);
        let kind = registry::find("", "v1", plural).ok_or("an unknown kind")?;
        let object = cache
            .collection(kind)
            .and_then(|c| c.get(namespace, &wanted.name))
            .ok_or_else(|| format!("{what} is gone"))?
            .value();
        if json::text(&object, "metadata.uid") != wanted.uid {
            return Err(format!("{what} is another"));
        }
        let deleted: Option<jiff::Timestamp> = json::text(&object, "metadata.deletionTimestamp")
            .parse()
            .ok();
        match deleted {
            Some(at) if at.as_second() + DELETED_LEEWAY < now.as_second() => {
                Err(format!("{what} has been deleted"))
            }
            _ => Ok(()),
        }
    };
    check("serviceaccounts", &bound.namespace, &bound.serviceaccount)?;
    match (&bound.secret, &bound.pod, &bound.node) {
        (Some(secret), _, _) => check("secrets", &bound.namespace, secret),
        // The node of a pod's token is told, not checked: it goes with the pod.
        (None, Some(pod), _) => check("pods", &bound.namespace, pod),
        (None, None, Some(node)) => check("nodes", "", node),
        (None, None, None) => Ok(()),
    }
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
            let mut user = from_certificate(der.contents()).unwrap();
            let id = user.extra.remove(CREDENTIAL_ID).unwrap();
            assert!(id[0].starts_with("X509SHA256=") && id[0].len() == 11 + 64);
            assert_eq!(user, User::named("system:node:n1", identity.groups));
        }
        assert_eq!(from_certificate(b"nonsense"), None);
    }
}
