//! `Accept`: in which form and syntax a client wants its answer.

use rhumb_api::discovery::Aggregated;
use rhumb_api::status::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Plain,
    /// `meta.k8s.io/v1` Table: what `kubectl get` prints.
    Table,
    /// Metadata only.
    Metadata,
    /// Aggregated discovery.
    Discovery(Aggregated),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub form: Form,
    pub yaml: bool,
}

pub const JSON_ACCEPT: Accept = Accept {
    form: Form::Plain,
    yaml: false,
};

/// The first entry of the header that can be served. `forms`: what the target has besides plain.
pub fn accept(header: Option<&http::HeaderValue>, target: Target) -> Result<Accept, ApiError> {
    let Some(header) = header else {
        return Ok(JSON_ACCEPT);
    };
    let header = header.to_str().unwrap_or("");
    if header.trim().is_empty() {
        return Ok(JSON_ACCEPT);
    }
    header
        .split(',')
        .find_map(|entry| one(entry, target))
        .ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))
}

/// What is asked for, as far as it decides which forms there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One object, or a watch of such.
    Object,
    List,
    DiscoveryRoot,
    Other,
}

fn one(entry: &str, target: Target) -> Option<Accept> {
    let mut parts = entry.split(';').map(str::trim);
    let yaml = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            // q and charset change nothing: the client's order is taken as its preference.
            _ => {}
        }
    }
    let form = match (kind, group, version, target) {
        ("", ..) => Form::Plain,
        ("Table", "meta.k8s.io", "v1", Target::Object | Target::List) => Form::Table,
        ("PartialObjectMetadata", "meta.k8s.io", "v1", Target::Object)
        | ("PartialObjectMetadataList", "meta.k8s.io", "v1", Target::List) => Form::Metadata,
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2", Target::DiscoveryRoot) => {
            Form::Discovery(Aggregated::V2)
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1", Target::DiscoveryRoot) => {
            Form::Discovery(Aggregated::V2Beta1)
        }
        _ => return None,
    };
    Some(Accept { form, yaml })
}

/// Whether a person reads the answer: `pretty` says so, or else what the client calls itself.
pub fn pretty(query: Option<&str>, headers: &http::HeaderMap) -> bool {
    let asked = crate::route::Query::parse(query.unwrap_or(""));
    match asked.get("pretty") {
        "" => headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|agent| {
                ["curl", "Wget", "Mozilla/5.0"]
                    .iter()
                    .any(|person| agent.starts_with(person))
            }),
        // Go's `ParseBool`.
        asked => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// Whether the client takes gzip.
pub fn gzip(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(http::header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|p| matches!(p, "q=0" | "q=0.0"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn form(header: &'static str, target: Target) -> Option<Accept> {
        accept(Some(&HeaderValue::from_static(header)), target).ok()
    }

    #[test]
    fn pretty_for_people() {
        let agent = |name: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::USER_AGENT, HeaderValue::from_static(name));
            headers
        };
        assert!(pretty(None, &agent("curl/8.0")));
        assert!(!pretty(Some("pretty=false"), &agent("curl/8.0")));
        assert!(!pretty(Some("pretty=x"), &agent("curl/8.0")));
        assert!(!pretty(Some("limit=1"), &agent("kubectl/v1.36.0")));
        assert!(pretty(Some("pretty=true"), &agent("kubectl/v1.36.0")));
    }

    #[test]
    fn the_first_that_can_be_served() {
        let plain = Some(JSON_ACCEPT);
        let table = Some(Accept {
            form: Form::Table,
            yaml: false,
        });
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl, Target::Object), table);
        assert_eq!(form(kubectl, Target::Other), plain);
        assert_eq!(
            form("application/vnd.kubernetes.protobuf, */*", Target::Object),
            plain
        );
        assert_eq!(
            form("application/vnd.kubernetes.protobuf", Target::Object),
            None
        );
        assert_eq!(form("", Target::Object), plain);
        assert_eq!(form("text/html", Target::Object), None);
        assert_eq!(
            form("application/yaml", Target::Object),
            Some(Accept {
                form: Form::Plain,
                yaml: true
            })
        );
        assert_eq!(
            form(
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Target::List
            )
            .map(|a| a.form),
            Some(Form::Metadata)
        );
        for (header, target) in [
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Target::Object,
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Target::List,
            ),
        ] {
            assert_eq!(form(header, target), None, "{header}");
        }
        assert_eq!(
            form(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Target::DiscoveryRoot
            )
            .map(|a| a.form),
            Some(Form::Discovery(Aggregated::V2))
        );
    }

    #[test]
    fn whatever_is_accepted() {
        const WORDS: &[&str] = &[
            "application/json",
            "application/yaml",
            "*/*",
            ";",
            "as=Table",
            "g=meta.k8s.io",
            "v=v1",
            ",",
            "=",
            "q=0",
            "gzip",
            "\u{7f}",
        ];
        rhumb_fuzz::run("accept", 3000, |dice| {
            let text = rhumb_fuzz::soup(WORDS, dice);
            let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else {
                return;
            };
            if let Err(error) = accept(Some(&value), Target::Object) {
                assert_eq!(error.code, 406);
            }
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::ACCEPT_ENCODING, value);
            gzip(&headers);
        });
    }
}
