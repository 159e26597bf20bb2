//! The certificate authority of the cluster.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};

use rhumb_api::csr::Asked;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{PkiError, files};

/// How long before now a certificate of a request begins.
const BACKDATE: Duration = Duration::from_secs(300);

/// Who a client certificate says its holder is: common name and organizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    /// PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
    /// When its certificate ends, since 1970.
    ends: Duration,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(rcgen::Error) -> PkiError {
    let doing = doing.into();
    move |source| PkiError::Certificate { doing, source }
}

pub fn generate_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("generating a key"))
}

/// Validity from yesterday, since clocks of machines differ, for `years`.
fn validity(params: &mut CertificateParams, years: i16) {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let start = today.date().yesterday().unwrap_or(today.date());
    // 29 February has no anniversary in most years.
    let day = |d: jiff::civil::Date| (d.month() as u8, d.day().min(28) as u8);
    let (month, dom) = day(start);
    params.not_before = rcgen::date_time_ymd(i32::from(start.year()), month, dom);
    params.not_after = rcgen::date_time_ymd(i32::from(start.year() + years), month, dom);
}

impl Authority {
    /// The authority in `dir`, made if neither its certificate nor its key is there.
    pub fn open(dir: &Path) -> Result<Authority, PkiError> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        match (files::read(&cert_path)?, files::read(&key_path)?) {
            (Some(certificate), Some(key)) => {
                let unusable = |path: &Path, what: &'static str| {
                    let path = path.to_owned();
                    move |e: rcgen::Error| PkiError::Unusable {
                        path,
                        what,
                        why: e.to_string(),
                    }
                };
                let key = KeyPair::from_pem(&key).map_err(unusable(&key_path, "key"))?;
                let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                    .map_err(unusable(&cert_path, "certificate"))?;
                Ok(Authority {
                    ends: end_of(&certificate),
                    certificate,
                    issuer,
                })
            }
            (None, None) => {
                let (certificate, key) = Authority::generate()?;
                files::write_private(&key_path, &key.serialize_pem())?;
                files::write_private(&cert_path, &certificate)?;
                let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                    .map_err(failed("reading back the new authority"))?;
                Ok(Authority {
                    ends: end_of(&certificate),
                    certificate,
                    issuer,
                })
            }
            (Some(_), None) => Err(PkiError::Half {
                path: cert_path,
                missing: key_path,
            }),
            (None, Some(_)) => Err(PkiError::Half {
                path: key_path,
                missing: cert_path,
            }),
        }
    }

    fn generate() -> Result<(String, KeyPair), PkiError> {
        let key = generate_key()?;
        let mut params = CertificateParams::default();
        validity(&mut params, 10);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "rhumb-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .map_err(failed("signing the authority's certificate"))?;
        Ok((certificate.pem(), key))
    }

    /// A certificate for a client; with `names` it serves under these as well.
    pub fn issue(&self, identity: &Identity, names: &[String]) -> Result<Pair, PkiError> {
        let doing = || format!("issuing a certificate for {}", identity.user);
        let key = generate_key()?;
        let mut params = CertificateParams::default();
        validity(&mut params, 1);
        params.distinguished_name = subject(&identity.user, &identity.groups)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        if !names.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in names {
                params.subject_alt_names.push(alternative(name)?);
            }
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed(doing()))?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Signs what a request asks for, valid from five minutes ago, since clocks differ.
    pub fn sign_request(
        &self,
        pem: &[u8],
        asked: &Asked,
        usages: &[&str],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let doing = || format!("signing the request of {}", asked.common_name);
        let text = String::from_utf8_lossy(pem);
        let request = CertificateSigningRequestParams::from_pem(&text).map_err(failed(doing()))?;
        let mut params = CertificateParams::default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        params.not_before = epoch + now.saturating_sub(BACKDATE);
        // Nothing outlives its issuer.
        params.not_after = (epoch + now + lifetime).min(epoch + self.ends);
        // By default it would follow from the key, which a renewal may keep.
        params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
        params.distinguished_name = subject(&asked.common_name, &asked.organizations)?;
        for usage in usages {
            match *usage {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(PkiError::Usage(other.to_string())),
            }
        }
        let addresses = asked.addresses.iter().map(IpAddr::to_string);
        for name in asked.dns_names.iter().cloned().chain(addresses) {
            params.subject_alt_names.push(alternative(&name)?);
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(failed(doing()))?;
        Ok(certificate.pem())
    }
}

/// Common name and organizations.
fn subject(user: &str, groups: &[String]) -> Result<DistinguishedName, PkiError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    // rcgen keeps one value a type; the same type by its number is another one to it.
    let types = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    if groups.len() > types.len() {
        return Err(PkiError::TooManyGroups {
            given: groups.len(),
            most: types.len(),
        });
    }
    for (kind, group) in types.into_iter().zip(groups) {
        name.push(kind, group.as_str());
    }
    Ok(name)
}

fn alternative(name: &str) -> Result<SanType, PkiError> {
    Ok(match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(
            name.try_into()
                .map_err(|_| PkiError::BadName(name.to_string()))?,
        ),
    })
}

/// When a certificate ends, since 1970.
fn end_of(pem: &str) -> Duration {
    let parsed = pem::parse(pem).ok();
    let seconds = parsed.and_then(|pem| {
        let (_, certificate) = X509Certificate::from_der(pem.contents()).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    });
    Duration::from_secs(seconds.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_what_it_asks_for_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let key = generate_key().unwrap();
        let mut params = CertificateParams::new(vec!["n1".into(), "10.0.0.1".into()]).unwrap();
        params.distinguished_name =
            subject("system:node:n1", &["system:nodes".to_string()]).unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let asked = rhumb_api::csr::parse(pem.as_bytes()).unwrap();
        assert_eq!(asked.common_name, "system:node:n1");
        assert_eq!(asked.organizations, ["system:nodes"]);
        assert_eq!(asked.dns_names, ["n1"]);
        assert_eq!(asked.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let usages = ["digital signature", "server auth"];
        let sign = |lifetime| authority.sign_request(pem.as_bytes(), &asked, &usages, lifetime);
        let issued = sign(Duration::from_secs(3600)).unwrap();
        let parsed = pem::parse(&issued).unwrap();
        let (_, certificate) = X509Certificate::from_der(parsed.contents()).unwrap();
        let ca = pem::parse(&authority.certificate).unwrap();
        let (_, ca) = X509Certificate::from_der(ca.contents()).unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        let validity = certificate.validity();
        let lasts = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert!((3900..3903).contains(&lasts), "{lasts}");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert!(!certificate.is_ca());
        let public = certificate.public_key().subject_public_key.data.to_vec();
        use rcgen::PublicKeyData as _;
        assert_eq!(public, key.der_bytes());
        // Two of one key are two.
        let again = sign(Duration::from_secs(3600)).unwrap();
        assert_ne!(issued, again);
        // No longer than the authority itself.
        let long = sign(Duration::from_secs(100 * 365 * 86400)).unwrap();
        assert_eq!(end_of(&long), end_of(&authority.certificate));
        // Somebody else's signature.
        let broken = pem.replacen("MI", "MJ", 1);
        assert!(rhumb_api::csr::parse(broken.as_bytes()).is_err());
    }
}
