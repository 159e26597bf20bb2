//! Rules of well-known definitions, as their projects publish them: each compiles, and decides.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;
use crate::crd::structural::Schema;

/// Whether `self` fits the rule.
fn holds(schema: &Json, object: &Json, rule: &str) -> Result<bool, String> {
    let schema = Schema::compile(schema);
    let ty = declare(&schema, false).unwrap();
    let program = Program::compile(rule, &[("self", ty.clone()), ("oldSelf", ty)])?;
    let value = of_json(object, &schema, false);
    let variables = BTreeMap::from([("self", value.clone()), ("oldSelf", value)]);
    match program.evaluate(&variables, &mut Budget::new(1_000_000)) {
        Ok(Value::Bool(b)) => Ok(b),
        other => Err(format!("{other:?}")),
    }
}

fn all(schema: &Json, rule: &str, cases: &[(Json, bool)]) {
    for (object, expected) in cases {
        assert_eq!(
            holds(schema, object, rule),
            Ok(*expected),
            "{rule}\n{object}"
        );
    }
}

fn text() -> Json {
    json!({"type": "string"})
}

/// Objects in a list, with these properties.
fn list(properties: Json) -> Json {
    json!({"type": "array", "items": {"type": "object", "properties": properties}})
}

#[test]
fn gateway_api_parents() {
    let parents = list(
        json!({"group": text(), "kind": text(), "namespace": text(), "name": text(),
        "sectionName": text()}),
    );
    let same = "p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && (((!has(p1.__namespace__) || p1.__namespace__ == '') && (!has(p2.__namespace__) || p2.__namespace__ == '')) || (has(p1.__namespace__) && has(p2.__namespace__) && p1.__namespace__ == p2.__namespace__ ))";
    let parent = |name: &str, section: Option<&str>| {
        let mut parent =
            json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name});
        if let Some(section) = section {
            parent["sectionName"] = section.into();
        }
        parent
    };
    all(
        &parents,
        &format!(
            "self.all(p1, self.all(p2, {same} ? ((!has(p1.sectionName) || p1.sectionName == '') == (!has(p2.sectionName) || p2.sectionName == '')) : true))"
        ),
        &[
            (json!([parent("a", None), parent("b", None)]), true),
            (json!([parent("a", Some("s")), parent("a", None)]), false),
        ],
    );
    all(
        &parents,
        &format!(
            "self.all(p1, self.exists_one(p2, {same} && (((!has(p1.sectionName) || p1.sectionName == '') && (!has(p2.sectionName) || p2.sectionName == '')) || (has(p1.sectionName) && has(p2.sectionName) && p1.sectionName == p2.sectionName))))"
        ),
        &[
            (
                json!([parent("a", Some("s")), parent("a", Some("t"))]),
                true,
            ),
            (
                json!([parent("a", Some("s")), parent("a", Some("s"))]),
                false,
            ),
        ],
    );
}

#[test]
fn gateway_api_routes() {
    let path = json!({"type": "object", "properties": {"type": text(), "value": text()}});
    all(
        &path,
        r#"(self.type in ['Exact','PathPrefix']) ? self.value.matches(r"""^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$""") : true"#,
        &[
            (json!({"type": "Exact", "value": "/a%20b/~c"}), true),
            (json!({"type": "PathPrefix", "value": "/a b"}), false),
            (json!({"type": "RegularExpression", "value": "/a b"}), true),
        ],
    );
    all(
        &path,
        "(self.type in ['Exact','PathPrefix']) ? !self.value.endsWith('/..') : true",
        &[(json!({"type": "Exact", "value": "/a/.."}), false)],
    );
    let replace =
        json!({"type": "object", "properties": {"type": text(), "replacePrefixMatch": text()}});
    let rules = json!({"type": "object", "properties": {
        "matches": list(json!({"path": path})),
        "backendRefs": list(json!({"name": text(), "port": {"type": "integer"}, "group": text(), "kind": text()})),
        "filters": list(json!({"type": text(), "requestRedirect": {"type": "object", "properties": {"path": replace}}})),
        "timeouts": {"type": "object", "properties": {"request": text(), "backendRequest": text()}},
    }});
    all(
        &rules,
        "(has(self.backendRefs) && self.backendRefs.size() > 0) ? (!has(self.filters) || self.filters.all(f, !has(f.requestRedirect))): true",
        &[
            (json!({"backendRefs": [{"name": "a"}]}), true),
            (
                json!({"backendRefs": [{"name": "a"}], "filters": [{"requestRedirect": {}}]}),
                false,
            ),
        ],
    );
    all(
        &rules,
        "(has(self.filters) && self.filters.exists_one(f, has(f.requestRedirect) && has(f.requestRedirect.path) && f.requestRedirect.path.type == 'ReplacePrefixMatch' && has(f.requestRedirect.path.replacePrefixMatch))) ? ((size(self.matches) != 1 || !has(self.matches[0].path) || self.matches[0].path.type != 'PathPrefix') ? false : true) : true",
        &[
            (
                json!({"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "filters": [{"requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}}]}),
                true,
            ),
            (
                json!({"matches": [{"path": {"type": "Exact", "value": "/"}}], "filters": [{"requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}}]}),
                false,
            ),
        ],
    );
    all(
        &rules,
        "!has(self.filters) || self.filters.filter(f, f.type == 'RequestRedirect').size() <= 1",
        &[(
            json!({"filters": [{"type": "RequestRedirect"}, {"type": "RequestRedirect"}]}),
            false,
        )],
    );
    all(
        &rules["properties"]["timeouts"],
        "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && duration(self.backendRequest) > duration(self.request))",
        &[
            (json!({"request": "10s", "backendRequest": "1500ms"}), true),
            (json!({"request": "1s", "backendRequest": "2s"}), false),
            (json!({"request": "0s", "backendRequest": "2s"}), true),
        ],
    );
    all(
        &rules["properties"]["backendRefs"]["items"],
        "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
        &[
            (json!({"group": "", "kind": "Service"}), false),
            (json!({"group": "", "kind": "Service", "port": 80}), true),
        ],
    );
}

#[test]
fn gateway_api_gateways() {
    let tls = json!({"type": "object", "properties": {"mode": text(),
        "certificateRefs": list(json!({"name": text()})),
        "options": {"type": "object", "additionalProperties": text()}}});
    let listeners = list(
        json!({"name": text(), "hostname": text(), "port": {"type": "integer"},
        "protocol": text(), "tls": tls}),
    );
    all(
        &listeners,
        "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
        &[
            (json!([{"protocol": "HTTP", "tls": {}}]), false),
            (json!([{"protocol": "HTTPS", "tls": {}}]), true),
        ],
    );
    all(
        &listeners,
        "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
        &[
            (
                json!([{"port": 80, "protocol": "HTTP"}, {"port": 80, "protocol": "HTTP", "hostname": "a"}]),
                true,
            ),
            (
                json!([{"port": 80, "protocol": "HTTP"}, {"port": 80, "protocol": "HTTP"}]),
                false,
            ),
        ],
    );
    all(
        &tls,
        "self.mode == 'Terminate' ? size(self.certificateRefs) > 0 || size(self.options) > 0 : true",
        &[
            (
                json!({"mode": "Terminate", "certificateRefs": [{"name": "a"}]}),
                true,
            ),
            (
                json!({"mode": "Terminate", "certificateRefs": [], "options": {}}),
                false,
            ),
            (json!({"mode": "Passthrough"}), true),
        ],
    );
    let address = json!({"type": "object", "properties": {"type": text(), "value": text()}});
    all(
        &address,
        r#"self.type == 'Hostname' ? self.value.matches(r"""^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"""): true"#,
        &[
            (json!({"type": "Hostname", "value": "*.example.com"}), true),
            (json!({"type": "Hostname", "value": "Example"}), false),
        ],
    );
    let addresses = list(json!({"type": text(), "value": text()}));
    all(
        &addresses,
        "self.all(a1, a1.type == 'IPAddress' ? self.exists_one(a2, a2.type == a1.type && a2.value == a1.value) : true )",
        &[(
            json!([{"type": "IPAddress", "value": "::1"}, {"type": "IPAddress", "value": "::1"}]),
            false,
        )],
    );
}

#[test]
fn network_policies_of_clusters() {
    all(
        &text(),
        "isCIDR(self)",
        &[(json!("10.0.0.0/8"), true), (json!("10.0.0.1"), false)],
    );
    let networks = json!({"type": "array", "items": text()});
    all(
        &networks,
        "self.all(i, isCIDR(i) && cidr(i) == cidr(i).masked())",
        &[
            (json!(["10.0.0.0/8", "fd00::/64"]), true),
            (json!(["10.0.0.1/8"]), false),
        ],
    );
    let ports = json!({"type": "object", "properties": {"start": {"type": "integer"}, "end": {"type": "integer"}}});
    all(
        &ports,
        "self.start < self.end",
        &[(json!({"start": 2, "end": 1}), false)],
    );
}

#[test]
fn node_pools() {
    let requirements = list(json!({"key": text(), "operator": text(),
        "values": {"type": "array", "items": text()}, "minValues": {"type": "integer"}}));
    all(
        &requirements,
        "self.all(x, x.operator == 'In' ? x.values.size() != 0 : true)",
        &[(json!([{"operator": "In", "values": []}]), false)],
    );
    all(
        &requirements,
        "self.all(x, (x.operator == 'Gt' || x.operator == 'Lt') ? (x.values.size() == 1 && int(x.values[0]) >= 0) : true)",
        &[
            (json!([{"operator": "Gt", "values": ["4"]}]), true),
            (json!([{"operator": "Gt", "values": ["-4"]}]), false),
        ],
    );
    all(
        &requirements,
        "self.all(x, (x.operator == 'In' && has(x.minValues)) ? x.values.size() >= x.minValues : true)",
        &[(
            json!([{"operator": "In", "values": ["a"], "minValues": 2}]),
            false,
        )],
    );
    let labels = json!({"type": "object", "additionalProperties": text()});
    all(
        &labels,
        r#"self.all(x, x in ["beta.kubernetes.io/instance-type", "topology.kubernetes.io/zone"] || x.find("^([^/]+)").endsWith("node.kubernetes.io") || x.find("^([^/]+)").endsWith("kops.k8s.io") || !x.find("^([^/]+)").endsWith("kubernetes.io"))"#,
        &[
            (json!({"example.com/a": "b"}), true),
            (json!({"kubernetes.io/a": "b"}), false),
            (json!({"x.node.kubernetes.io/a": "b"}), true),
        ],
    );
    let terms = list(
        json!({"alias": text(), "id": text(), "tags": {"type": "object", "additionalProperties": text()}}),
    );
    all(
        &terms,
        "self.all(x, has(x.tags) || has(x.id) || has(x.alias)) && !self.exists(x, has(x.alias) && (has(x.id) || has(x.tags))) && !(self.exists(x, has(x.alias)) && self.size() != 1)",
        &[
            (json!([{"alias": "al2023@latest"}]), true),
            (json!([{"alias": "al2023@latest"}, {"id": "ami-1"}]), false),
        ],
    );
    all(
        &text(),
        "self.matches('^[a-zA-Z0-9]+@.+$') && self.find('^[^@]+') in ['al2','al2023','bottlerocket']",
        &[(json!("al2023@v1"), true), (json!("other@v1"), false)],
    );
    let budget = json!({"type": "object", "properties": {"schedule": text(), "duration": text()}});
    all(
        &budget,
        "has(self.schedule) == has(self.duration)",
        &[(json!({"schedule": "@daily"}), false)],
    );
}

#[test]
fn other_projects() {
    // Cluster API: an endpoint that is set may not change.
    let endpoint =
        json!({"type": "object", "properties": {"host": text(), "port": {"type": "integer"}}});
    all(
        &endpoint,
        "self.host != '' || self.port == 0",
        &[(json!({"host": "", "port": 1}), false)],
    );
    let gates = list(json!({"conditionType": text(), "polarity": text()}));
    all(
        &gates,
        "self.all(x, self.exists_one(y, x.conditionType == y.conditionType && has(x.polarity) == has(y.polarity)))",
        &[(
            json!([{"conditionType": "a"}, {"conditionType": "a"}]),
            false,
        )],
    );
    // Device classes and quotas: int-or-string and quantities.
    let replicas = json!({"x-kubernetes-int-or-string": true});
    all(
        &replicas,
        "type(self) == string ? self.matches('^[0-9]+%$') : self >= 0",
        &[
            (json!("50%"), true),
            (json!(3), true),
            (json!("x"), false),
            (json!(-1), false),
        ],
    );
    all(
        &text(),
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0')) && quantity(self).compareTo(quantity('1Gi')) <= 0",
        &[(json!("512Mi"), true), (json!("2Gi"), false)],
    );
    // The versions that feature gates and drivers name.
    all(
        &text(),
        "isSemver(self, true) && semver(self, true).major() >= 1",
        &[(json!("v1.30"), true), (json!("0.9.0"), false)],
    );
    let url = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''";
    all(
        &text(),
        url,
        &[
            (json!("https://example.com/x"), true),
            (json!("ftp://example.com"), false),
        ],
    );
}
