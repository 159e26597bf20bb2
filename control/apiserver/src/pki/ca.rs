//! The certificate authority of the cluster.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use super::{PkiError, files};

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
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.user.as_str());
        // rcgen keeps one value a type; the same type by its number is another one to it.
        let types = [
            DnType::OrganizationName,
            DnType::CustomDnType(vec![2, 5, 4, 10]),
        ];
        if identity.groups.len() > types.len() {
            return Err(PkiError::TooManyGroups {
                given: identity.groups.len(),
                most: types.len(),
            });
        }
        for (kind, group) in types.into_iter().zip(&identity.groups) {
            params.distinguished_name.push(kind, group.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        if !names.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in names {
                params.subject_alt_names.push(match name.parse::<IpAddr>() {
                    Ok(ip) => SanType::IpAddress(ip),
                    Err(_) => SanType::DnsName(
                        name.as_str()
                            .try_into()
                            .map_err(|_| PkiError::BadName(name.clone()))?,
                    ),
                });
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
}
