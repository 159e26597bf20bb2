//! The variable `authorizer` of expressions: what the request's user, or a service account, may do.

use std::sync::Arc;

use rhumb_api::cel::{self, Asked, Authorize, Decision, Question};
use rhumb_api::registry::Kind;
use rhumb_api::selector::FieldSelector;

use super::subject::Subject;
use crate::auth::User;
use crate::auth::authorize::Attributes;
use crate::server::Api;

struct Asker {
    api: Arc<Api>,
    user: Arc<User>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the authorizer for {}", self.user.name)
    }
}

/// The authorizer for the user of a request.
pub fn authorizer(subject: &Subject<'_>) -> cel::Value {
    let attributes = &subject.attributes;
    // What the request is about; `check` names its verb.
    let request = Asked {
        group: attributes.resource.group.clone(),
        resource: attributes.resource.name.clone(),
        subresource: attributes.subresource.clone(),
        namespace: attributes.namespace.clone(),
        name: attributes.name.clone(),
        ..Asked::default()
    };
    let asker = Asker {
        api: subject.request.api.clone(),
        user: subject.request.user.clone(),
    };
    Question::authorizer(Arc::new(asker), request)
}

impl Authorize for Asker {
    fn check(&self, asked: &Asked) -> Decision {
        let account = asked
            .service_account
            .as_ref()
            .map(|(namespace, name)| User::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(&self.user);
        let authorizer = &self.api.authorizer;
        let decision = match &asked.path {
            Some(path) => authorizer.path(user, &asked.verb, path),
            None => {
                let kind = self.kind(asked);
                let selector = kind
                    .as_ref()
                    .and_then(|kind| FieldSelector::parse(kind, &asked.field_selector).ok());
                let attributes = Attributes {
                    verb: &asked.verb,
                    group: &asked.group,
                    resource: &asked.resource,
                    subresource: &asked.subresource,
                    namespace: &asked.namespace,
                    name: &asked.name,
                    node_field: selector.as_ref().and_then(|s| s.required("spec.nodeName")),
                };
                authorizer.resource(user, &attributes)
            }
        };
        Decision {
            allowed: decision.allowed,
            reason: decision.reason,
            error: String::new(),
        }
    }
}

impl Asker {
    /// The kind that a field selector is about.
    fn kind(&self, asked: &Asked) -> Option<Arc<Kind>> {
        let registry = self.api.registry();
        let mut kinds = registry.kinds().iter();
        kinds
            .find(|k| k.group == asked.group && k.plural == asked.resource)
            .cloned()
    }
}
