//! Which requests a webhook or a policy is about.
//! Source: apiserver `pkg/admission/plugin/webhook/predicates` and `pkg/admission/plugin/policy/matching`.

use serde_json::{Map, Value};

use super::Operation;
use crate::json::{at, list, text};
use crate::selector::LabelSelector;

/// What a request does, and where.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

impl Place<'_> {
    /// Whether it is about a Namespace itself, or a part of one.
    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }
}

#[derive(Clone, Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    /// Of policies: the only names that are meant, if there are any.
    names: Vec<String>,
}

fn texts(value: &Value, path: &str) -> Vec<String> {
    let values = list(value, path).iter().filter_map(Value::as_str);
    values.map(str::to_string).collect()
}

fn names(all: &[String], one: &str) -> bool {
    all.iter().any(|a| a == "*" || a == one)
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        Rule {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            scope: text(rule, "scope").to_string(),
            names: texts(rule, "resourceNames"),
        }
    }

    fn matches(&self, place: &Place<'_>, name: &str) -> bool {
        names(&self.operations, place.operation.name())
            && names(&self.groups, place.group)
            && names(&self.versions, place.version)
            && self.resource(place)
            && self.scope(place)
            && (self.names.is_empty() || self.names.iter().any(|n| n == name))
    }

    /// `pods` is without subresources, `pods/*` with all of them, `*` is all resources alone.
    fn resource(&self, place: &Place<'_>) -> bool {
        self.resources.iter().any(|r| {
            let (resource, subresource) = r.split_once('/').unwrap_or((r, ""));
            (resource == "*" || resource == place.resource)
                && (subresource == "*" || subresource == place.subresource)
        })
    }

    fn scope(&self, place: &Place<'_>) -> bool {
        let inside = !place.is_namespace() && !place.namespace.is_empty();
        match self.scope.as_str() {
            "Namespaced" => inside,
            "Cluster" => !inside,
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchPolicy {
    Exact,
    /// Also by another version, or group, under which the same objects are served.
    Equivalent,
}

/// The labels that selectors look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    /// The Namespace around the object, if it is in one.
    pub namespace: Option<&'a Value>,
}

impl<'a> Labels<'a> {
    fn of(object: &'a Value) -> Option<&'a Map<String, Value>> {
        crate::json::map(object, "metadata.labels")
    }
}

/// `namespaceSelector` and `objectSelector`.
#[derive(Clone, Debug)]
pub struct Selectors {
    namespace: LabelSelector,
    object: LabelSelector,
}

impl Selectors {
    /// An absent selector takes everything.
    pub fn of(value: &Value) -> Selectors {
        let selector = |path: &str| match at(value, path) {
            Some(selector) => LabelSelector::from_object(Some(selector)),
            None => LabelSelector::everything(),
        };
        Selectors {
            namespace: selector("namespaceSelector"),
            object: selector("objectSelector"),
        }
    }

    pub fn matches(&self, place: &Place<'_>, labels: &Labels<'_>) -> bool {
        self.in_namespace(place, labels) && self.of_object(labels)
    }

    fn in_namespace(&self, place: &Place<'_>, labels: &Labels<'_>) -> bool {
        if self.namespace.is_everything() {
            return true;
        }
        // A Namespace that is being written counts with the labels that it is to have.
        let written = matches!(place.operation, Operation::Create | Operation::Update);
        let own = (place.is_namespace() && place.subresource.is_empty() && written)
            .then_some(labels.object)
            .flatten();
        if own.is_none() && place.namespace.is_empty() {
            return true;
        }
        let around = own.or(labels.namespace).and_then(Labels::of);
        self.namespace.matches_labels(around)
    }

    /// The object as it was, or as it is to be.
    fn of_object(&self, labels: &Labels<'_>) -> bool {
        self.object.is_everything()
            || [labels.object, labels.old]
                .into_iter()
                .flatten()
                // The options of a connection are no objects that could have labels.
                .filter(|object| at(object, "metadata").is_some())
                .any(|object| self.object.matches_labels(Labels::of(object)))
    }
}

/// Everything that says which requests are meant, but for conditions.
#[derive(Clone, Debug)]
pub struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    policy: MatchPolicy,
    pub selectors: Selectors,
}

impl Constraints {
    /// Of a webhook.
    pub fn of_webhook(webhook: &Value) -> Constraints {
        Constraints::of(webhook, "rules")
    }

    /// Of `matchConstraints` or `matchResources`. Without rules, as bindings may be, all is meant.
    pub fn of_policy(resources: &Value) -> Constraints {
        let mut found = Constraints::of(resources, "resourceRules");
        if found.rules.is_empty() {
            let any = || vec!["*".to_string()];
            found.rules.push(Rule {
                operations: any(),
                groups: any(),
                versions: any(),
                resources: vec!["*/*".into()],
                scope: "*".into(),
                names: Vec::new(),
            });
        }
        found
    }

    fn of(value: &Value, rules: &str) -> Constraints {
        Constraints {
            rules: list(value, rules).iter().map(Rule::of).collect(),
            excluded: list(value, "excludeResourceRules")
                .iter()
                .map(Rule::of)
                .collect(),
            policy: match text(value, "matchPolicy") {
                "Exact" => MatchPolicy::Exact,
                _ => MatchPolicy::Equivalent,
            },
            selectors: Selectors::of(value),
        }
    }

    /// The place that a rule means: the request's own if any rule does, else one of those under
    /// which the same object is served too.
    pub fn find(&self, name: &str, own: &Place<'_>, others: &[Place<'_>]) -> Option<usize> {
        let others = match self.policy {
            MatchPolicy::Exact => &[],
            MatchPolicy::Equivalent => others,
        };
        // Of the other places, that of the earliest rule.
        let first = |rules: &[Rule]| {
            if rules.iter().any(|r| r.matches(own, name)) {
                return Some(0);
            }
            let other = |rule: &Rule| others.iter().position(|place| rule.matches(place, name));
            rules.iter().find_map(other).map(|i| i + 1)
        };
        match first(&self.excluded) {
            Some(_) => None,
            None => first(&self.rules),
        }
    }
}
