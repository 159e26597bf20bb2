//! Certificate signing requests. Source: `pkg/apis/certificates/validation`.

use serde_json::Value;

use super::metadata::dns1123_subdomain_faults;
use crate::csr;
use crate::json::{at, int, list, text};
use crate::status::Errors;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn signing_request(object: &Value, errors: &mut Errors) {
    let request = csr::pem_of(object).and_then(|pem| csr::parse(&pem));
    if let Err(why) = request {
        errors.invalid("spec.request", text(object, "spec.request"), why);
    }
    let usages = csr::usages(object);
    if usages.is_empty() {
        errors.required("spec.usages", "");
    }
    for (i, usage) in usages.iter().enumerate() {
        let field = format!("spec.usages[{i}]");
        if !USAGES.contains(usage) {
            errors.not_supported(&field, *usage, USAGES);
        }
        if usages[..i].contains(usage) {
            errors.duplicate(&field, *usage);
        }
    }
    signer_name(text(object, "spec.signerName"), errors);
    if let Some(seconds) = int(object, "spec.expirationSeconds")
        && seconds < 600
    {
        errors.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(object, errors);
    let certificate = text(object, "status.certificate");
    if !certificate.is_empty()
        && let Err(why) = certificate_chain(certificate)
    {
        errors.invalid("status.certificate", "<certificate data>", why);
    }
}

/// `ValidateSignerName`: a domain and a path below it.
fn signer_name(name: &str, errors: &mut Errors) {
    const FIELD: &str = "spec.signerName";
    if name.is_empty() {
        errors.required(FIELD, "");
        return;
    }
    if name == "kubernetes.io/legacy-unknown" {
        errors.invalid(
            FIELD,
            name,
            "the legacy signerName is not allowed via this API version",
        );
        return;
    }
    let Some((domain, path)) = name.split_once('/') else {
        errors.invalid(
            FIELD,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if !domain.contains('.') {
        errors.invalid(
            FIELD,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    for part in [domain, path] {
        for fault in dns1123_subdomain_faults(part) {
            errors.invalid(FIELD, part, fault);
        }
    }
}

fn conditions(object: &Value, errors: &mut Errors) {
    let conditions = list(object, "status.conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("status.conditions[{i}]");
        let kind = text(condition, "type");
        let status = text(condition, "status");
        match kind {
            "" => errors.required(&format!("{path}.type"), ""),
            "Approved" | "Denied" | "Failed" if status != "True" => {
                errors.not_supported(&format!("{path}.status"), status, &["True"])
            }
            _ if status.is_empty() => errors.required(&format!("{path}.status"), ""),
            _ if !matches!(status, "True" | "False" | "Unknown") => errors.not_supported(
                &format!("{path}.status"),
                status,
                &["False", "True", "Unknown"],
            ),
            _ => {}
        }
        if seen.contains(&kind) {
            errors.duplicate(&format!("{path}.type"), kind);
        }
        seen.push(kind);
    }
    if seen.contains(&"Approved") && seen.contains(&"Denied") {
        errors.invalid(
            "status.conditions",
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        );
    }
}

fn certificate_chain(encoded: &str) -> Result<(), String> {
    use base64::Engine as _;
    let pem = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|e| e.to_string())?;
    let mut found = false;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|e| e.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        block.parse_x509().map_err(|e| e.to_string())?;
        found = true;
    }
    match found {
        true => Ok(()),
        false => Err("must contain at least one CERTIFICATE PEM block".into()),
    }
}

/// The conditions of these types, which a subresource may not change.
fn same(new: &Value, old: &Value, kinds: &[&str], errors: &mut Errors) {
    let of = |object, kind: &str| {
        let all = list(object, "status.conditions").iter();
        all.filter(|c| text(c, "type") == kind).count()
    };
    for kind in kinds {
        let (now, before) = (of(new, kind), of(old, kind));
        if now < before {
            errors.forbidden(
                "status.conditions",
                format!("updates may not remove a condition of type {kind:?}"),
            );
        }
        if now > before {
            errors.forbidden(
                "status.conditions",
                format!("updates may not add a condition of type {kind:?}"),
            );
        }
    }
}

/// A write of the status: a signer's.
pub fn status_update(new: &Value, old: &Value, errors: &mut Errors) {
    signing_request(new, errors);
    same(new, old, &["Approved", "Denied"], errors);
    let certificate = |object| at(object, "status.certificate");
    if certificate(old).is_some() && certificate(new) != certificate(old) {
        errors.forbidden(
            "status.certificate",
            "updates may not modify existing certificate content",
        );
    }
}

/// A write of the approval: an approver's.
pub fn approval_update(new: &Value, old: &Value, errors: &mut Errors) {
    signing_request(new, errors);
    same(new, old, &["Failed"], errors);
    let count = |object, kind: &str| {
        let all = list(object, "status.conditions").iter();
        all.filter(|c| text(c, "type") == kind).count()
    };
    for kind in ["Approved", "Denied"] {
        if count(new, kind) < count(old, kind) {
            errors.forbidden(
                "status.conditions",
                format!("updates may not remove a condition of type {kind:?}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(check: impl Fn(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn signer_names() {
        let check = |name: &str| faults(|e| signer_name(name, e));
        assert!(check("kubernetes.io/kubelet-serving").is_empty());
        assert!(check("example.com/my.signer").is_empty());
        assert_eq!(check(""), ["spec.signerName: Required value"]);
        for bad in ["x", "io/x", "kubernetes.io/legacy-unknown", "a.b/C", "a.b/"] {
            assert_eq!(check(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn conditions_are_checked_and_kept() {
        let of = |kinds: &[&str]| -> Value {
            let conditions: Vec<Value> = kinds
                .iter()
                .map(|k| json!({"type": k, "status": "True"}))
                .collect();
            json!({"status": {"conditions": conditions}})
        };
        let check = |kinds: &[&str]| faults(|e| conditions(&of(kinds), e));
        assert!(check(&["Approved", "Failed", "Other"]).is_empty());
        assert_eq!(
            check(&["Approved", "Denied"]),
            [
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        assert_eq!(check(&["Approved", "Approved"]).len(), 1);
        let status = json!({"status": {"conditions": [{"type": "Approved", "status": "False"}]}});
        assert_eq!(faults(|e| conditions(&status, e)).len(), 1);
        let (none, approved) = (of(&[]), of(&["Approved"]));
        assert_eq!(
            faults(|e| same(&approved, &none, &["Approved"], e)).len(),
            1
        );
        assert_eq!(
            faults(|e| same(&none, &approved, &["Approved"], e)).len(),
            1
        );
        assert!(certificate_chain("bm9uc2Vuc2U=").is_err());
    }
}
