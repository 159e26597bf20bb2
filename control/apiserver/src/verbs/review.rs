//! Reviews: questions that are answered, not stored. `kubectl auth whoami` and `kubectl auth can-i`.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use rhumb_api::codec::{self, FieldValidation};
use rhumb_api::json::{self, at, list, text};
use rhumb_api::registry::Review;
use rhumb_api::status::{ApiError, Result};
use serde_json::{Value, json};

use crate::auth::User;
use crate::auth::authorize::{self, Attributes, Lookup};
use crate::http::negotiate::{self, Target};
use crate::http::reply::{self, Body};
use crate::route::Query;

/// Answers a review of `user`'s, or, for a SubjectAccessReview, of the user that it names.
pub fn create(
    review: &Review,
    user: &User,
    query: &Query,
    headers: &HeaderMap,
    body: &[u8],
    lookup: &dyn Lookup,
) -> Result<Response<Body>> {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let validation = FieldValidation::parse(query.get("fieldValidation"))?;
    let parsed = codec::parse(media_type, body)?;
    let decoded = codec::decode_named(review.schema_name, parsed, validation)?;
    let mut object = decoded.object;
    let given = text(&object, "kind");
    if !given.is_empty() && given != review.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({given}) does not match the expected kind ({})",
            review.kind
        )));
    }
    object["kind"] = review.kind.into();
    object["apiVersion"] = format!("{}/{}", review.group, review.version).into();
    json::child(&mut object, "metadata");
    object["status"] = match review.kind {
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": user.name, "groups": user.groups}})
        }
        "SelfSubjectAccessReview" => access(user, &object, lookup)?,
        _ => {
            let named = text(&object, "spec.user");
            let groups: Vec<String> = list(&object, "spec.groups")
                .iter()
                .filter_map(|g| g.as_str().map(str::to_string))
                .collect();
            if named.is_empty() && groups.is_empty() {
                return Err(ApiError::bad_request(
                    "spec.user: Required value: at least one of user or group must be specified",
                ));
            }
            let asked = User {
                name: named.to_string(),
                groups,
                pod: None,
            };
            access(&asked, &object, lookup)?
        }
    };
    let accept = negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    let mut response = reply::object(StatusCode::CREATED, accept, &object);
    reply::warn(&mut response, &decoded.warnings);
    Ok(response)
}

fn access(user: &User, review: &Value, lookup: &dyn Lookup) -> Result<Value> {
    let resource = at(review, "spec.resourceAttributes");
    let path = at(review, "spec.nonResourceAttributes");
    let allowed = match (resource, path) {
        (Some(asked), None) => {
            let attributes = Attributes {
                verb: text(asked, "verb"),
                group: text(asked, "group"),
                resource: text(asked, "resource"),
                subresource: text(asked, "subresource"),
                namespace: text(asked, "namespace"),
                name: text(asked, "name"),
                node_field: None,
                name_field: None,
            };
            authorize::resource(user, &attributes, lookup)
        }
        (None, Some(asked)) => authorize::path(user, text(asked, "verb"), text(asked, "path")),
        _ => {
            return Err(ApiError::bad_request(
                "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    Ok(json!({"allowed": allowed}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::MASTERS;
    use rhumb_api::registry::find_review;

    struct Nothing;
    impl Lookup for Nothing {
        fn node_of(&self, _: &str, _: &str) -> Option<String> {
            None
        }
        fn node_uses(&self, _: &str, _: &str, _: &str, _: &str) -> bool {
            false
        }
    }

    fn ask(user: &User, asked: Value) -> Value {
        access(user, &json!({"spec": asked}), &Nothing).expect("a well-formed review")
    }

    #[test]
    fn access_reviews() {
        let admin = User::named("root", vec![MASTERS.into()]);
        let pods = json!({"resourceAttributes": {"verb": "create", "resource": "pods"}});
        assert_eq!(ask(&admin, pods.clone()), json!({"allowed": true}));
        let scheduler = User::named("system:kube-scheduler", vec![]);
        assert_eq!(ask(&scheduler, pods), json!({"allowed": false}));
        let bind = json!({"resourceAttributes":
            {"verb": "create", "resource": "pods", "subresource": "binding"}});
        assert_eq!(ask(&scheduler, bind), json!({"allowed": true}));
        let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
        assert_eq!(ask(&scheduler, path), json!({"allowed": true}));
        assert!(access(&admin, &json!({"spec": {}}), &Nothing).is_err());
    }

    #[test]
    fn who_am_i() {
        let review = find_review("authentication.k8s.io", "v1", "selfsubjectreviews");
        let review = review.expect("the review is served");
        let user = User::named("anna", vec![]);
        let query = Query::parse("");
        let created = create(review, &user, &query, &HeaderMap::new(), b"{}", &Nothing);
        assert_eq!(created.map(|r| r.status()), Ok(StatusCode::CREATED));
        let wrong = create(review, &user, &query, &HeaderMap::new(), b"[]", &Nothing);
        assert_eq!(wrong.map(|r| r.status()).unwrap_err().code, 400);
    }
}
