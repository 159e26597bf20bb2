//! Image references: validity, default tag, default pull policy.
//! Grammar: <https://github.com/distribution/reference>

/// The image as the runtime is asked for it, with the default tag; `Err` for an invalid reference.
pub fn normalized(image: &str) -> Result<String, String> {
    let invalid = || format!("couldn't parse image name {image:?}: invalid reference format");
    let (rest, digest) = match image.split_once('@') {
        Some((r, d)) => (r, Some(d)),
        None => (image, None),
    };
    if let Some(d) = digest {
        let (algorithm, hex) = d.split_once(':').ok_or_else(invalid)?;
        let algorithm_ok = !algorithm.is_empty()
            && algorithm
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b));
        if !algorithm_ok || hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
    }
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        let ok = !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !ok {
            return Err(invalid());
        }
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':']) || first == "localhost" || has_upper(first) =>
        {
            (Some(first), path)
        }
        _ => (None, name),
    };
    if let Some(domain) = domain {
        let (host, port) = match domain.rsplit_once(':') {
            Some((h, p)) if !p.ends_with(']') => (h, Some(p)),
            _ => (domain, None),
        };
        let host_ok = if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        } else {
            !host.is_empty()
                && host.split('.').all(|l| {
                    !l.is_empty()
                        && !l.starts_with('-')
                        && !l.ends_with('-')
                        && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        };
        if !host_ok || port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(invalid());
        }
    }
    let component_ok = |c: &str| {
        !c.is_empty()
            && c.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && !c.starts_with(['.', '_', '-'])
            && !c.ends_with(['.', '_', '-'])
            && !c.contains("..")
            && !c.contains("___")
    };
    if name.len() > 255 || !path.split('/').all(component_ok) {
        return Err(invalid());
    }
    Ok(if tag.is_none() && digest.is_none() {
        format!("{image}:latest")
    } else {
        image.to_string()
    })
}

fn has_upper(s: &str) -> bool {
    s.bytes().any(|b| b.is_ascii_uppercase())
}

/// The name without a tag, and the tag.
fn split_tag(rest: &str) -> (&str, Option<&str>) {
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    }
}

/// The registry that the image comes from, for finding credentials.
pub fn registry_and_path(image: &str) -> (String, String) {
    let name = split_tag(image.split_once('@').map_or(image, |(r, _)| r)).0;
    match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            (first.into(), path.into())
        }
        Some(_) => ("docker.io".into(), name.into()),
        None => ("docker.io".into(), format!("library/{name}")),
    }
}

/// The policy that the API would have defaulted.
pub fn default_pull_policy(image: &str) -> &'static str {
    let (rest, digest) = match image.split_once('@') {
        Some((r, _)) => (r, true),
        None => (image, false),
    };
    match split_tag(rest).1 {
        Some("latest") => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_and_invalid() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (image, want) in [
            ("busybox", "busybox:latest"),
            ("localhost/testbox:dev", "localhost/testbox:dev"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("[fd00::1]:5000/a:1", "[fd00::1]:5000/a:1"),
            (digest.as_str(), digest.as_str()),
            ("a__b/c-d.e:T_1", "a__b/c-d.e:T_1"),
        ] {
            assert_eq!(normalized(image).as_deref(), Ok(want), "{image}");
        }
        for image in [
            "",
            "UPPER",
            "a b",
            "a:",
            "a:.x",
            "a//b",
            "/a",
            "a@sha256:zz",
            "a@x",
            "-a",
            "http://x/y",
            "h:p/x",
        ] {
            assert!(normalized(image).is_err(), "{image}");
        }
    }

    #[test]
    fn policies_and_registries() {
        assert_eq!(default_pull_policy("a"), "Always");
        assert_eq!(default_pull_policy("a:latest"), "Always");
        assert_eq!(default_pull_policy("a:1"), "IfNotPresent");
        assert_eq!(default_pull_policy("h:5/a"), "Always");
        assert_eq!(
            registry_and_path("busybox"),
            ("docker.io".into(), "library/busybox".into())
        );
        assert_eq!(
            registry_and_path("h:5000/a/b:1"),
            ("h:5000".into(), "a/b".into())
        );
    }
}
