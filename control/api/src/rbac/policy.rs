//! The roles and bindings of a cluster, ready to be asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::{Action, GROUP, Rule, is_subject};
use crate::json::{list, text};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub name: &'a str,
    pub groups: &'a [String],
}

/// Whether something is allowed, and why, or what stood in the way of finding out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

type Rules = Arc<[Rule]>;

#[derive(Debug)]
struct Binding {
    role_kind: String,
    role_name: String,
    subjects: Vec<Value>,
}

/// All roles and bindings, kept up to date object by object.
#[derive(Debug, Default)]
pub struct Policy {
    cluster_roles: HashMap<String, Rules>,
    /// Namespace, name.
    roles: HashMap<String, HashMap<String, Rules>>,
    cluster_bindings: BTreeMap<String, Binding>,
    bindings: HashMap<String, BTreeMap<String, Binding>>,
}

/// By which binding and subject a rule is somebody's.
#[derive(Debug)]
pub struct Source<'a> {
    /// "" for a ClusterRoleBinding.
    namespace: &'a str,
    binding: &'a str,
    role_kind: &'a str,
    role_name: &'a str,
    subject: &'a Value,
}

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace {
            "" => write!(f, "ClusterRoleBinding {:?}", self.binding)?,
            namespace => write!(f, "RoleBinding \"{}/{namespace}\"", self.binding)?,
        }
        write!(f, " of {} {:?} to ", self.role_kind, self.role_name)?;
        let (kind, name) = (text(self.subject, "kind"), text(self.subject, "name"));
        if kind != "ServiceAccount" {
            return write!(f, "{kind} {name:?}");
        }
        let namespace = match text(self.subject, "namespace") {
            "" => self.namespace,
            namespace => namespace,
        };
        write!(f, "{kind} \"{name}/{namespace}\"")
    }
}

impl Binding {
    fn of(object: &Value) -> Binding {
        Binding {
            role_kind: text(object, "roleRef.kind").into(),
            role_name: text(object, "roleRef.name").into(),
            subjects: list(object, "subjects").to_vec(),
        }
    }
}

fn set<T>(map: &mut HashMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => {
            map.insert(name.into(), value);
        }
        None => {
            map.remove(name);
        }
    }
}

impl Policy {
    /// Notes an object of one of the four kinds, or (`None`) that it is gone.
    pub fn put(&mut self, plural: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let rules = || object.map(|o| Rules::from(Rule::all_of(o)));
        match plural {
            "clusterroles" => set(&mut self.cluster_roles, name, rules()),
            "roles" => {
                let roles = self.roles.entry(namespace.into()).or_default();
                set(roles, name, rules());
                if roles.is_empty() {
                    self.roles.remove(namespace);
                }
            }
            "clusterrolebindings" => match object {
                Some(object) => {
                    self.cluster_bindings
                        .insert(name.into(), Binding::of(object));
                }
                None => {
                    self.cluster_bindings.remove(name);
                }
            },
            "rolebindings" => {
                let bindings = self.bindings.entry(namespace.into()).or_default();
                match object {
                    Some(object) => {
                        bindings.insert(name.into(), Binding::of(object));
                    }
                    None => {
                        bindings.remove(name);
                    }
                }
                if bindings.is_empty() {
                    self.bindings.remove(namespace);
                }
            }
            _ => {}
        }
    }

    /// Forgets all objects of one of the four kinds.
    pub fn clear(&mut self, plural: &str) {
        match plural {
            "clusterroles" => self.cluster_roles.clear(),
            "roles" => self.roles.clear(),
            "clusterrolebindings" => self.cluster_bindings.clear(),
            "rolebindings" => self.bindings.clear(),
            _ => {}
        }
    }

    /// The rules of a roleRef, or why there are none. `namespace` is the binding's.
    pub fn rules_of(&self, kind: &str, name: &str, namespace: &str) -> Result<Rules, String> {
        let found = match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            "Role" => self.roles.get(namespace).and_then(|roles| roles.get(name)),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        found.cloned().ok_or_else(|| {
            let kind = kind.to_lowercase();
            format!("{kind}.{GROUP} {name:?} not found")
        })
    }

    /// Shows each rule that the user has in a namespace ("" for those of the whole cluster only),
    /// until `visit` says false. Returns what could not be resolved.
    fn visit<'a>(
        &'a self,
        user: &Subject<'_>,
        namespace: &'a str,
        mut visit: impl FnMut(Source<'a>, &Rule) -> bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let local = (!namespace.is_empty())
            .then(|| self.bindings.get(namespace))
            .flatten();
        let all = self
            .cluster_bindings
            .iter()
            .map(|b| ("", b))
            .chain(local.into_iter().flatten().map(|b| (namespace, b)));
        for (namespace, (name, binding)) in all {
            let mut subjects = binding.subjects.iter();
            let Some(subject) = subjects.find(|s| is_subject(s, user, namespace)) else {
                continue;
            };
            match self.rules_of(&binding.role_kind, &binding.role_name, namespace) {
                Ok(rules) => {
                    for rule in rules.iter() {
                        let source = Source {
                            namespace,
                            binding: name,
                            role_kind: &binding.role_kind,
                            role_name: &binding.role_name,
                            subject,
                        };
                        if !visit(source, rule) {
                            return faults;
                        }
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        faults
    }

    /// Whether some rule of the user's allows it.
    pub fn decide(&self, user: &Subject<'_>, action: &Action<'_>) -> Decision {
        let mut allowed_by = None;
        let faults = self.visit(user, action.namespace(), |source, rule| {
            if rule.allows(action) {
                allowed_by = Some(source.to_string());
            }
            allowed_by.is_none()
        });
        match (allowed_by, faults.as_slice()) {
            (Some(by), _) => Decision {
                allowed: true,
                reason: format!("RBAC: allowed by {by}"),
            },
            (None, []) => Decision::default(),
            (None, [one]) => Decision {
                allowed: false,
                reason: format!("RBAC: {one}"),
            },
            (None, many) => Decision {
                allowed: false,
                reason: format!("RBAC: [{}]", many.join(", ")),
            },
        }
    }

    /// All rules of the user in a namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &Subject<'_>, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut rules = Vec::new();
        let faults = self.visit(user, namespace, |_, rule| {
            rules.push(rule.clone());
            true
        });
        (rules, faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy() -> Policy {
        let mut policy = Policy::default();
        let rules = |resources: Value| json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": resources}]});
        let mut put = |plural: &str, namespace: &str, name: &str, object: Value| {
            policy.put(plural, namespace, name, Some(&object));
        };
        put("clusterroles", "", "nodes", rules(json!(["nodes", "pods"])));
        put("clusterroles", "", "secrets", rules(json!(["secrets"])));
        put("roles", "a", "maps", rules(json!(["configmaps"])));
        let binding = |kind: &str, role: &str, subjects: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects});
        put(
            "clusterrolebindings",
            "",
            "all-nodes",
            binding(
                "ClusterRole",
                "nodes",
                json!([
                {"kind": "Group", "name": "ops"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "a"}]),
            ),
        );
        put(
            "rolebindings",
            "a",
            "s",
            binding(
                "ClusterRole",
                "secrets",
                json!([{"kind": "User", "name": "anna"}]),
            ),
        );
        put(
            "rolebindings",
            "a",
            "m",
            binding(
                "Role",
                "maps",
                json!([{"kind": "ServiceAccount", "name": "sa"}]),
            ),
        );
        put(
            "rolebindings",
            "b",
            "broken",
            binding("Role", "maps", json!([{"kind": "User", "name": "anna"}])),
        );
        policy
    }

    fn get(policy: &Policy, name: &str, groups: &[&str], resource: &str, ns: &str) -> Decision {
        let groups: Vec<String> = groups.iter().map(|g| g.to_string()).collect();
        let user = Subject {
            name,
            groups: &groups,
        };
        let action = Action::Resource {
            verb: "get",
            group: "",
            resource,
            subresource: "",
            namespace: ns,
            name: "x",
        };
        policy.decide(&user, &action)
    }

    #[test]
    fn bindings_give_rules_where_they_are() {
        let p = policy();
        let sa = "system:serviceaccount:a:sa";
        for (user, groups, resource, ns, allowed) in [
            // A ClusterRoleBinding counts everywhere.
            ("otto", &["ops"][..], "nodes", "", true),
            ("otto", &["ops"], "pods", "b", true),
            ("otto", &[], "nodes", "", false),
            // The name of a group is no user's name.
            ("ops", &[], "nodes", "", false),
            (sa, &[], "nodes", "", true),
            ("system:serviceaccount:b:sa", &[], "nodes", "", false),
            // A RoleBinding gives a ClusterRole's rules in its namespace only.
            ("anna", &[], "secrets", "a", true),
            ("anna", &[], "secrets", "b", false),
            ("anna", &[], "secrets", "", false),
            // A subject without a namespace is of the binding's.
            (sa, &[], "configmaps", "a", true),
            (sa, &[], "configmaps", "b", false),
            ("system:serviceaccount:b:sa", &[], "configmaps", "a", false),
        ] {
            let decision = get(&p, user, groups, resource, ns);
            assert_eq!(decision.allowed, allowed, "{user} {resource} {ns:?}");
        }
    }

    #[test]
    fn reasons() {
        let p = policy();
        assert_eq!(
            get(&p, "otto", &["ops"], "nodes", "").reason,
            "RBAC: allowed by ClusterRoleBinding \"all-nodes\" of ClusterRole \"nodes\" to Group \"ops\""
        );
        let sa = "system:serviceaccount:a:sa";
        assert_eq!(
            get(&p, sa, &[], "configmaps", "a").reason,
            "RBAC: allowed by RoleBinding \"m/a\" of Role \"maps\" to ServiceAccount \"sa/a\""
        );
        assert_eq!(
            get(&p, "anna", &[], "pods", "b").reason,
            "RBAC: role.rbac.authorization.k8s.io \"maps\" not found"
        );
        assert_eq!(get(&p, "x", &[], "pods", "b"), Decision::default());
    }

    #[test]
    fn what_is_gone_gives_nothing() {
        let mut p = policy();
        p.put("rolebindings", "a", "s", None);
        assert!(!get(&p, "anna", &[], "secrets", "a").allowed);
        p.put("clusterroles", "", "nodes", None);
        assert!(!get(&p, "otto", &["ops"], "nodes", "").allowed);
        p.put("rolebindings", "a", "m", None);
        p.clear("rolebindings");
        p.clear("clusterrolebindings");
        p.put("roles", "a", "maps", None);
        assert!(p.bindings.is_empty() && p.roles.is_empty());
        let all = policy();
        let user = Subject {
            name: "anna",
            groups: &["ops".into()],
        };
        let (rules, faults) = all.rules_for(&user, "a");
        assert_eq!((rules.len(), faults.len()), (2, 0));
        let (rules, faults) = all.rules_for(&user, "b");
        assert_eq!((rules.len(), faults.len()), (1, 1));
    }
}
