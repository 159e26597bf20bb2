//! Nobody may grant what they don't have: whether rules cover other rules.
//! Source: component-helpers `auth/rbac/validation/policy_comparator.go`.

use std::collections::BTreeSet;

use super::{Rule, Subject, has, url_covers};

/// Rules of one verb, group, resource and name each, which together say the same.
fn broken_down(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut out = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let plain = Rule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    ..Default::default()
                };
                if rule.names.is_empty() {
                    out.push(plain);
                    continue;
                }
                out.extend(rule.names.iter().map(|name| Rule {
                    names: one(name),
                    ..plain.clone()
                }));
            }
        }
    }
    for url in &rule.urls {
        out.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            urls: one(url),
            ..Default::default()
        }));
    }
    out
}

/// Whether a rule covers one that was broken down.
fn covers_one(owner: &Rule, asked: &Rule) -> bool {
    let all = |set: &[String], wanted: &[String]| {
        has(set, "*") || wanted.iter().all(|entry| has(set, entry))
    };
    let resource = |wanted: &String| {
        has(&owner.resources, "*")
            || has(&owner.resources, wanted)
            || wanted
                .split_once('/')
                .is_some_and(|(_, sub)| has(&owner.resources, &format!("*/{sub}")))
    };
    // "*" is an ordinary name among names.
    let names = owner.names.is_empty()
        || (!asked.names.is_empty() && asked.names.iter().all(|n| has(&owner.names, n)));
    let urls = asked
        .urls
        .iter()
        .all(|url| owner.urls.iter().any(|own| url_covers(own, url)));
    all(&owner.verbs, &asked.verbs)
        && all(&owner.groups, &asked.groups)
        && asked.resources.iter().all(resource)
        && names
        && urls
}

/// What of `asked` the rules of `owner` don't cover, broken down.
pub fn covers(owner: &[Rule], asked: &[Rule]) -> Vec<Rule> {
    asked
        .iter()
        .flat_map(broken_down)
        .filter(|one| !owner.iter().any(|rule| covers_one(rule, one)))
        .collect()
}

/// Rules that differ by their verbs only become one.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let simple = rule.names.is_empty() && rule.urls.is_empty();
        let same = out.iter_mut().find(|r| {
            simple
                && r.names.is_empty()
                && r.urls.is_empty()
                && (&r.groups, &r.resources) == (&rule.groups, &rule.resources)
        });
        match same {
            Some(same) => same.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// Go's `%q` of a list of strings.
fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|t| format!("{t:?}")).collect();
    format!("[{}]", texts.join(" "))
}

fn described(rule: &Rule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, texts)| !texts.is_empty())
    .map(|(name, texts)| format!("{name}:{}", quoted(texts)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

/// `Some(why)` if the user, who has the rules `owned`, would grant more than that.
/// `faults` is what could not be resolved of what the user has.
pub fn escalation(
    user: &Subject<'_>,
    owned: &[Rule],
    faults: &[String],
    granted: &[Rule],
) -> Option<String> {
    let missing = covers(owned, granted);
    if missing.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(described).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(user.groups),
        lines.join("\n")
    );
    if !faults.is_empty() {
        why += &format!("; resolution errors: [{}]", faults.join(", "));
    }
    Some(why)
}

/// Everything: what one has to have to make a role that gathers others.
pub fn full_authority() -> Vec<Rule> {
    let all = || vec!["*".to_string()];
    vec![
        Rule {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Default::default()
        },
        Rule {
            verbs: all(),
            urls: all(),
            ..Default::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "verbs groups resources [names]", each separated by commas; or "verbs url…".
    fn rule(text: &str) -> Rule {
        let words: Vec<&str> = text.split(' ').collect();
        let split = |i: usize| -> Vec<String> {
            let word = words.get(i).copied().unwrap_or("");
            word.split(',')
                .filter(|w| !w.is_empty())
                .map(|w| if w == "core" { "" } else { w }.to_string())
                .collect()
        };
        if words[1].starts_with('/') || words[1] == "url*" {
            let urls = split(1).iter().map(|u| u.replace("url*", "*")).collect();
            return Rule {
                verbs: split(0),
                urls,
                ..Default::default()
            };
        }
        Rule {
            verbs: split(0),
            groups: split(1),
            resources: split(2),
            names: split(3),
            urls: vec![],
        }
    }

    #[test]
    fn covering() {
        for (owner, asked, covered) in [
            ("get core pods", "get core pods", true),
            ("get core pods", "get,list core pods", false),
            ("* * *", "get,list core,apps pods,x/y a,b", true),
            ("get core pods", "* core pods", false),
            ("get core *", "get core pods/log", true),
            ("get core */log", "get core pods/log", true),
            ("get core */log", "get core pods", false),
            ("get core pods", "get core pods/log", false),
            // Names: without them one has all.
            ("get core pods", "get core pods a", true),
            ("get core pods a", "get core pods", false),
            ("get core pods a,b", "get core pods a", true),
            ("get core pods a", "get core pods a,b", false),
            ("get core pods *", "get core pods a", false),
            ("get /a/*", "get /a/b", true),
            ("get /a/*", "get /a/b/*", true),
            ("get /a/*", "get /a", false),
            ("get url*", "get /x", true),
            ("* * *", "get /x", false),
            ("get /x", "get core pods", false),
        ] {
            let missing = covers(&[rule(owner)], &[rule(asked)]);
            assert_eq!(missing.is_empty(), covered, "{owner} / {asked}");
        }
        // Several rules together.
        let owner = [rule("get core pods"), rule("list core pods,nodes")];
        assert!(covers(&owner, &[rule("get,list core pods")]).is_empty());
        assert!(covers(&full_authority(), &owner).is_empty());
        assert!(covers(&full_authority(), &full_authority()).is_empty());
    }

    #[test]
    fn the_text_of_a_refusal() {
        let groups = ["dev".to_string(), "system:authenticated".to_string()];
        let user = Subject {
            name: "jane",
            groups: &groups,
        };
        let owned = [rule("get core pods")];
        let granted = [
            rule("get,list,watch core pods"),
            rule("get apps deployments x"),
            rule("get /metrics"),
        ];
        assert_eq!(
            escalation(&user, &owned, &[], &granted).unwrap(),
            "user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"deployments\"], ResourceNames:[\"x\"], Verbs:[\"get\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
        assert_eq!(escalation(&user, &owned, &[], &owned), None);
        let why = escalation(&user, &[], &["role not found".into()], &owned).unwrap();
        assert!(why.ends_with("; resolution errors: [role not found]"));
    }
}
