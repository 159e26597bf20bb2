//! What a request asks for: its path and verb, as Kubernetes' RequestInfo.

use std::sync::Arc;

use rhumb_api::registry::{Kind, Registry};

/// The target of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Resource(Resource),
    /// A path of the API's own: discovery, health, OpenAPI, metrics.
    Path(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    /// The plural as the client wrote it, so that a refusal can name what isn't served.
    pub plural: String,
    pub kind: Option<Arc<Kind>>,
    /// "" for cluster scope and for all namespaces.
    pub namespace: String,
    /// "" for the collection.
    pub name: String,
    /// "" for the object itself.
    pub subresource: String,
    /// Below `/watch/`, the older way to ask for a watch.
    pub watched: bool,
    /// What follows the subresource `proxy`, as the client wrote it: "" or from its slash on.
    pub below: String,
}

impl Resource {
    /// `pods`, `pods/log`.
    pub fn described(&self) -> String {
        if self.subresource.is_empty() {
            self.plural.clone()
        } else {
            format!("{}/{}", self.plural, self.subresource)
        }
    }
}

/// Percent-decodes one path segment; `None` if it is not UTF-8 or badly encoded.
pub fn decode(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| (b? as char).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Where the path of something behind an object begins: nothing of it is ours to read.
fn proxied(path: &str) -> Option<usize> {
    let segments: Vec<&str> = path.split('/').skip(1).take(7).collect();
    let length = match segments.as_slice() {
        [
            "api",
            "v1",
            "namespaces",
            _,
            "pods" | "services",
            _,
            "proxy",
            ..,
        ] => 7,
        ["api", "v1", "nodes", _, "proxy", ..] => 5,
        _ => return None,
    };
    Some(segments[..length].iter().map(|s| s.len() + 1).sum())
}

/// Whether a request to this path goes on as long as its two sides like.
pub fn is_stream(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or("");
    proxied(path).is_some() || matches!(last, "log") || crate::kubelet::Stream::of(last).is_some()
}

/// Reads a path. A path that no API has is a `Target::Path`.
pub fn parse(path: &str, registry: &Registry) -> Target {
    let (path, below) = match proxied(path) {
        Some(end) => path.split_at(end),
        None => (path, ""),
    };
    let other = || Target::Path(path.to_string());
    let segments: Option<Vec<String>> = path
        .trim_end_matches('/')
        .split('/')
        .skip(1)
        .map(decode)
        .collect();
    let Some(segments) = segments else {
        return other();
    };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return other(),
    };
    let (watched, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        _ => (false, rest),
    };
    if rest.is_empty() || rest.iter().any(|s| s.is_empty() || s.contains(['/', '%'])) {
        return other();
    }
    // `namespaces/x/pods/…` is in a namespace; `namespaces`, `namespaces/x` and
    // `namespaces/x/status` are about namespaces.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => ("", rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return other(),
    };
    let kind = registry.find(group, version, plural);
    // A name below all namespaces, or a namespace around what has none, is nothing.
    let misplaced = kind.is_some_and(|kind| {
        (kind.namespaced && namespace.is_empty() && !name.is_empty())
            || (!kind.namespaced && !namespace.is_empty())
    });
    let misplaced = misplaced || (watched && !subresource.is_empty());
    let kind = kind.filter(|_| !misplaced).cloned();
    Target::Resource(Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        kind,
        namespace: namespace.into(),
        name: name.into(),
        subresource: subresource.into(),
        watched,
        below: below.into(),
    })
}

/// The query, decoded; of a key that comes twice, all values in order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Query {
        let text = |s: &str| decode(&s.replace('+', " "));
        Query(
            query
                .split('&')
                .filter(|part| !part.is_empty())
                .filter_map(|part| {
                    let (key, value) = part.split_once('=').unwrap_or((part, ""));
                    // What is badly encoded is left out, as in Go.
                    Some((text(key)?, text(value)?))
                })
                .collect(),
        )
    }

    /// The first value, or "".
    pub fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map_or("", |(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// As Go's conversion of query parameters has it: "0" and "false" are false, all else is true,
    /// also a key alone.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.get(key);
        self.has(key) && value != "0" && !value.eq_ignore_ascii_case("false")
    }
}

/// The verb of authorization for a path that is no resource: the method.
pub fn path_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

/// The verb of authorization for an HTTP method; `None` for methods that no resource has.
pub fn verb(method: &http::Method, resource: &Resource, query: &Query) -> Option<&'static str> {
    let collection = resource.name.is_empty();
    if resource.watched {
        return matches!(method.as_str(), "GET" | "HEAD").then_some("watch");
    }
    Some(match method.as_str() {
        "GET" | "HEAD" if collection && query.flag("watch") => "watch",
        "GET" | "HEAD" if collection => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        // As Kubernetes has it: a verb that only `*` grants.
        "OPTIONS" if resource.subresource == "proxy" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> (String, String, String, String, bool) {
        match parse(path, &Registry::built_in()) {
            Target::Resource(r) => (
                r.described(),
                r.group,
                r.namespace,
                r.name,
                r.kind.is_some(),
            ),
            Target::Path(path) => panic!("{path} is no resource"),
        }
    }

    fn row(a: &str, b: &str, c: &str, d: &str, e: bool) -> (String, String, String, String, bool) {
        (a.into(), b.into(), c.into(), d.into(), e)
    }

    #[test]
    fn resources() {
        assert_eq!(resource("/api/v1/pods"), row("pods", "", "", "", true));
        assert_eq!(
            resource("/api/v1/namespaces/a/pods/b/log"),
            row("pods/log", "", "a", "b", true)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a/status"),
            row("namespaces/status", "", "", "a", true)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a"),
            row("namespaces", "", "", "a", true)
        );
        assert_eq!(
            resource("/apis/apps/v1/namespaces/a/deployments/b/scale"),
            row("deployments/scale", "apps", "a", "b", true)
        );
        assert_eq!(
            resource("/apis/batch/v1/namespaces/a/gadgets"),
            row("gadgets", "batch", "a", "", false)
        );
        for (path, name, known) in [
            ("/api/v1/watch/pods", "", true),
            ("/api/v1/watch/namespaces/a/pods", "", true),
            ("/apis/apps/v1/watch/namespaces/a/deployments/b", "b", true),
            ("/api/v1/watch/namespaces/a", "a", true),
            ("/api/v1/watch/namespaces/a/pods/b/status", "b", false),
        ] {
            let Target::Resource(target) = parse(path, &Registry::built_in()) else {
                panic!("{path} is no resource");
            };
            assert_eq!(
                (&*target.name, target.kind.is_some()),
                (name, known),
                "{path}"
            );
            let asked = |method| verb(&method, &target, &Query::default());
            assert_eq!(asked(http::Method::GET), Some("watch"), "{path}");
            assert_eq!(asked(http::Method::DELETE), None, "{path}");
        }
        assert!(!resource("/api/v1/pods/b").4, "a pod without a namespace");
        assert!(!resource("/api/v1/namespaces/a/nodes/b").4);
        assert_eq!(
            resource("/api/v1/namespaces/a/pods/%62"),
            row("pods", "", "a", "b", true)
        );
    }

    #[test]
    fn below_a_proxy() {
        let pods = "/api/v1/namespaces/n/pods/https:p:web/proxy";
        for below in ["", "/", "/a//b/%2e%2e/%zz/proxy", "/%ff"] {
            let path = format!("{pods}{below}");
            let Target::Resource(r) = parse(&path, &Registry::built_in()) else {
                panic!("{path} is no resource");
            };
            assert_eq!(
                (r.name.as_str(), r.subresource.as_str()),
                ("https:p:web", "proxy")
            );
            assert_eq!(r.below, below);
            assert!(is_stream(&path));
        }
        assert_eq!(
            resource("/api/v1/nodes/n:10250/proxy/metrics"),
            row("nodes/proxy", "", "", "n:10250", true)
        );
        assert!(!is_stream("/api/v1/namespaces/n/pods/p/status"));
        assert!(!is_stream("/api/v1/namespaces/proxy"));
        assert!(is_stream("/api/v1/namespaces/n/pods/p/exec"));
    }

    #[test]
    fn other_paths() {
        for path in [
            "/",
            "",
            "/api",
            "/apis/",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz/",
            "/api/v1/namespaces/a/pods/b/c/d",
            "/api/v1/namespaces//pods",
            "/api/v1/pods/%zz",
            "/api/v1/namespaces/a/pods/%2e%2e%2f",
            "/api/v1/pods/%ff",
            "//api/v1/pods",
        ] {
            assert!(
                matches!(parse(path, &Registry::built_in()), Target::Path(_)),
                "{path}"
            );
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse("watch=1&labelSelector=a%3Db%2Cc+d&command=x&command=y&tty&x=%");
        assert!(query.flag("watch"));
        assert!(query.flag("tty"));
        assert!(!query.flag("stdin"));
        assert_eq!(query.get("labelSelector"), "a=b,c d");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["x", "y"]);
        assert!(!query.has("x"));
        assert!(!Query::parse("watch=false").flag("watch"));
    }

    #[test]
    fn whatever_comes() {
        const WORDS: &[&str] = &[
            "/api/v1",
            "/apis/apps/v1",
            "/watch",
            "/namespaces",
            "/pods",
            "/a",
            "/status",
            "//",
            "/%",
            "/%2f",
            "/%00",
            "/..",
            "?",
            "é",
        ];
        let registry = Registry::built_in();
        rhumb_fuzz::run("paths", 3000, |dice| {
            let text = rhumb_fuzz::soup(WORDS, dice);
            let bytes = rhumb_fuzz::bytes(text.as_bytes(), WORDS, dice);
            let path = String::from_utf8_lossy(&bytes);
            let query = Query::parse(&path);
            if let Target::Resource(resource) = parse(&path, &registry) {
                // What names a stored object has no part of another's key in it.
                assert!(!resource.name.contains('/') && !resource.namespace.contains('/'));
                verb(&http::Method::GET, &resource, &query);
            }
        });
        rhumb_fuzz::run("queries", 3000, |dice| {
            const WORDS: &[&str] = &["watch", "=", "&", "true", "0", "%", "%3d", "+", "limit"];
            let text = rhumb_fuzz::soup(WORDS, dice);
            let query = Query::parse(&text);
            let _ = (query.flag("watch"), query.all("limit").count());
        });
    }
}
