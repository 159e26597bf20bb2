//! Certificate signing requests: what they ask for, and what the signers of Kubernetes' own names
//! demand. Source: `pkg/apis/certificates` and `pkg/controller/certificates`.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::json::{list, text};

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

const NODE_USER: &str = "system:node:";
const NODE_GROUP: &str = "system:nodes";

/// What a PKCS#10 request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Other names: e-mail addresses and URIs.
    pub emails: usize,
    pub uris: usize,
}

/// The PEM of an object's `spec.request`.
pub fn pem_of(object: &Value) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text(object, "spec.request"))
        .map_err(|e| e.to_string())
}

/// Reads a request and checks that who made it has the key.
pub fn parse(pem: &[u8]) -> Result<Asked, String> {
    const NO_REQUEST: &str = "PEM block type must be CERTIFICATE REQUEST";
    let (_, block) = parse_x509_pem(pem).map_err(|_| NO_REQUEST.to_string())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(NO_REQUEST.into());
    }
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err("there is data after the request".into());
    }
    request
        .verify_signature()
        .map_err(|e| format!("the signature of the request: {e}"))?;
    let subject = &request.certification_request_info.subject;
    let mut asked = Asked::default();
    if let Some(name) = subject.iter_common_name().next() {
        asked.common_name = name.as_str().map_err(|e| e.to_string())?.into();
    }
    for organization in subject.iter_organization() {
        let organization = organization.as_str().map_err(|e| e.to_string())?;
        asked.organizations.push(organization.into());
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => asked.dns_names.push(name.to_string()),
                GeneralName::IPAddress(bytes) => asked.addresses.push(address(bytes)?),
                GeneralName::RFC822Name(_) => asked.emails += 1,
                GeneralName::URI(_) => asked.uris += 1,
                other => return Err(format!("a name that no signer knows: {other}")),
            }
        }
    }
    Ok(asked)
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes)
        .map(Into::into)
        .map_err(|_| "an IP address of a length that none has".into())
}

/// Whether the object has the condition, and it is true.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    list(object, "status.conditions")
        .iter()
        .any(|c| text(c, "type") == kind && matches!(text(c, "status"), "" | "True"))
}

fn usages_are(usages: &[&str], allowed: &[&[&str]]) -> bool {
    let sorted = |usages: &[&str]| {
        let mut usages: Vec<String> = usages.iter().map(|u| u.to_string()).collect();
        usages.sort();
        usages.dedup();
        usages
    };
    allowed.iter().any(|set| sorted(set) == sorted(usages))
}

/// Why a request is not for a kubelet's client certificate.
pub fn kubelet_client(asked: &Asked, usages: &[&str]) -> Result<(), String> {
    if asked.organizations != [NODE_GROUP] {
        return Err("subject organization is not system:nodes".into());
    }
    let names = [
        (asked.dns_names.len(), "DNS"),
        (asked.emails, "Email"),
        (asked.addresses.len(), "IP"),
        (asked.uris, "URI"),
    ];
    if let Some((_, what)) = names.iter().find(|(count, _)| *count > 0) {
        return Err(format!("{what} subjectAltNames are not allowed"));
    }
    if !asked.common_name.starts_with(NODE_USER) {
        return Err("subject common name does not begin with system:node:".into());
    }
    let required = ["client auth", "digital signature", "key encipherment"];
    match usages_are(usages, &[&required, &required[..2]]) {
        true => Ok(()),
        false => Err(format!("usages did not match [{}]", required.join(" "))),
    }
}

/// Why a request is not for a kubelet's serving certificate.
pub fn kubelet_serving(asked: &Asked, usages: &[&str]) -> Result<(), String> {
    if asked.organizations != [NODE_GROUP] {
        return Err("subject organization is not system:nodes".into());
    }
    if asked.dns_names.is_empty() && asked.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    for (count, what) in [(asked.emails, "Email"), (asked.uris, "URI")] {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    let required = ["digital signature", "key encipherment", "server auth"];
    if !usages_are(usages, &[&required, &[required[0], required[2]]]) {
        return Err(format!("usages did not match [{}]", required.join(" ")));
    }
    match asked.common_name.starts_with(NODE_USER) {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".into()),
    }
}

/// Why a request is not for a client certificate.
pub fn client(_: &Asked, usages: &[&str]) -> Result<(), String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if !usages.contains(&"client auth") || usages.iter().any(|u| !allowed.contains(u)) {
        return Err(format!("usages did not match [{}]", allowed.join(" ")));
    }
    Ok(())
}

/// `Some` for the signers that this cluster has: why it would not sign the request, if so.
pub fn signer(name: &str, asked: &Asked, usages: &[&str]) -> Option<Result<(), String>> {
    Some(match name {
        CLIENT => client(asked, usages),
        KUBELET_CLIENT => kubelet_client(asked, usages),
        KUBELET_SERVING => kubelet_serving(asked, usages),
        _ => return None,
    })
}

/// `spec.usages`
pub fn usages(object: &Value) -> Vec<&str> {
    list(object, "spec.usages")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Asked {
        Asked {
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into()],
            ..Default::default()
        }
    }

    #[test]
    fn kubelets() {
        let client = ["client auth", "digital signature"];
        assert_eq!(kubelet_client(&node(), &client), Ok(()));
        let with_rsa = ["key encipherment", "digital signature", "client auth"];
        assert_eq!(kubelet_client(&node(), &with_rsa), Ok(()));
        let mut other = node();
        other.organizations.push("system:masters".into());
        assert!(kubelet_client(&other, &client).is_err());
        let mut other = node();
        other.common_name = "root".into();
        assert!(kubelet_client(&other, &client).is_err());
        let mut serving = node();
        serving.addresses.push("10.0.0.1".parse().unwrap());
        assert_eq!(
            kubelet_client(&serving, &client).unwrap_err(),
            "IP subjectAltNames are not allowed"
        );
        let usages = ["server auth", "digital signature"];
        assert!(kubelet_client(&node(), &usages).is_err());
        assert_eq!(kubelet_serving(&serving, &usages), Ok(()));
        assert_eq!(
            kubelet_serving(&node(), &usages).unwrap_err(),
            "DNS or IP subjectAltName is required"
        );
        assert!(kubelet_serving(&serving, &client).is_err());
        assert_eq!(signer("example.com/x", &node(), &usages), None);
        assert!(signer(CLIENT, &node(), &usages).unwrap().is_err());
        assert_eq!(signer(CLIENT, &node(), &client), Some(Ok(())));
    }

    #[test]
    fn what_is_no_request() {
        for pem in [
            &b""[..],
            b"nonsense",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(
                parse(pem).unwrap_err(),
                "PEM block type must be CERTIFICATE REQUEST"
            );
        }
        let block =
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert!(parse(block).is_err());
        assert!(pem_of(&json!({"spec": {"request": "!"}})).is_err());
    }
}
