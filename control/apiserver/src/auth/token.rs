//! Service-account tokens: JWTs signed with the cluster's key (ES256), in Kubernetes' form.
//!
//! One key signs; the tokens of others are accepted as well, so that a key can be replaced while
//! tokens of the old one are about. Who verifies tokens elsewhere finds all of them under
//! `/openid/v1/jwks`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Issuer, and audience of tokens for this API.
pub const ISSUER: &str = rhumb_api::node_restriction::API_AUDIENCE;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("reading the service-account key: {0}")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error("the service-account key is no public key of the curve P-256 in PEM")]
    Curve,
    #[error("signing a token: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("the token is not valid: {0}")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    #[error("token audiences {token:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        token: Vec<String>,
        wanted: Vec<String>,
    },
}

/// A key whose tokens are accepted.
struct Accepted {
    id: String,
    verifying: DecodingKey,
    /// As `/openid/v1/jwks` shows it.
    jwk: Value,
}

pub struct Tokens {
    signing: EncodingKey,
    header: Header,
    /// The signing key's first.
    accepted: Vec<Accepted>,
    validation: Validation,
}

/// What every public key of P-256 begins with as SubjectPublicKeyInfo (RFC 5480), up to the two
/// coordinates of its point.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

impl Accepted {
    fn new(public: &str) -> Result<Accepted, TokenError> {
        let parsed = pem::parse(public).map_err(|_| TokenError::Curve)?;
        let point = parsed
            .contents()
            .strip_prefix(P256_PREFIX)
            .filter(|point| point.len() == 64)
            .ok_or(TokenError::Curve)?;
        // As Kubernetes names its keys.
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(parsed.contents()));
        let jwk = json!({
            "use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..]),
        });
        let verifying = DecodingKey::from_ec_pem(public.as_bytes()).map_err(TokenError::Key)?;
        Ok(Accepted { id, verifying, jwk })
    }
}

impl Tokens {
    /// From the PEM of the private and the public key that sign, and the public keys of others
    /// that are accepted.
    pub fn new(private: &str, public: &str, others: &[String]) -> Result<Tokens, TokenError> {
        let mut accepted = vec![Accepted::new(public)?];
        for other in others {
            let other = Accepted::new(other)?;
            if accepted.iter().all(|known| known.id != other.id) {
                accepted.push(other);
            }
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(accepted[0].id.clone());
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Which audiences count is the caller's to say.
        validation.validate_aud = false;
        validation.validate_nbf = true;
        // Issuer and verifier are one process with one clock.
        validation.leeway = 0;
        Ok(Tokens {
            signing: EncodingKey::from_ec_pem(private.as_bytes()).map_err(TokenError::Key)?,
            accepted,
            header,
            validation,
        })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        jsonwebtoken::encode(&self.header, claims, &self.signing).map_err(TokenError::Sign)
    }

    /// Signature, times, issuer and audience; which of the wanted audiences it is for. Whether what
    /// the token is bound to still exists is for the caller to look up.
    pub fn verify(
        &self,
        token: &str,
        wanted: &[&str],
    ) -> Result<(Claims, Vec<String>), TokenError> {
        let id = jsonwebtoken::decode_header(token)
            .map_err(TokenError::Invalid)?
            .kid;
        // A token that doesn't say which key signed it may be of any.
        let known = |key: &&Accepted| id.as_ref().is_none_or(|id| *id == key.id);
        let named: Vec<&Accepted> = self.accepted.iter().filter(known).collect();
        let candidates = match named.is_empty() {
            true => self.accepted.iter().collect(),
            false => named,
        };
        let mut last = None;
        for key in candidates {
            match jsonwebtoken::decode::<Claims>(token, &key.verifying, &self.validation) {
                Ok(data) => return for_audience(data.claims, wanted),
                Err(error) => last = Some(error),
            }
        }
        // There is always a key, so there is an error.
        let error =
            last.unwrap_or_else(|| jsonwebtoken::errors::ErrorKind::InvalidSignature.into());
        Err(TokenError::Invalid(error))
    }

    /// `/openid/v1/jwks`
    pub fn jwks(&self) -> Value {
        let keys: Vec<&Value> = self.accepted.iter().map(|key| &key.jwk).collect();
        json!({"keys": keys})
    }

    /// `/.well-known/openid-configuration`; `server` is `host:port`.
    pub fn discovery(server: &str) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("https://{server}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

fn for_audience(claims: Claims, wanted: &[&str]) -> Result<(Claims, Vec<String>), TokenError> {
    let shared: Vec<String> = wanted
        .iter()
        .filter(|audience| claims.aud.iter().any(|a| a == *audience))
        .map(|a| a.to_string())
        .collect();
    match shared.is_empty() {
        false => Ok((claims, shared)),
        true => Err(TokenError::Audience {
            token: claims.aud,
            wanted: wanted.iter().map(|a| a.to_string()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = crate::pki::ca::generate_key().unwrap();
        (key.serialize_pem(), key.public_key_pem())
    }

    fn tokens() -> Tokens {
        let (private, public) = pair();
        Tokens::new(&private, &public, &[]).unwrap()
    }

    fn claims(from: i64, to: i64, audience: &str) -> Claims {
        let now = jiff::Timestamp::now().as_second();
        Claims {
            aud: vec![audience.into()],
            exp: now + to,
            iat: now + from,
            iss: ISSUER.into(),
            jti: "1".into(),
            bound: Bound {
                namespace: "a".into(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: Reference {
                    name: "default".into(),
                    uid: "u".into(),
                },
            },
            nbf: now + from,
            sub: "system:serviceaccount:a:default".into(),
        }
    }

    #[test]
    fn only_good_tokens_pass() {
        let tokens = tokens();
        let good = claims(-1, 60, ISSUER);
        let signed = tokens.sign(&good).unwrap();
        let verified = tokens.verify(&signed, &["other", ISSUER]).unwrap();
        assert_eq!(verified, (good.clone(), vec![ISSUER.to_string()]));
        for bad in [
            claims(-100, -1, ISSUER),
            claims(50, 100, ISSUER),
            claims(-1, 60, "vault"),
        ] {
            let signed = tokens.sign(&bad).unwrap();
            assert!(tokens.verify(&signed, &[ISSUER]).is_err());
        }
        let vault = tokens.sign(&claims(-1, 60, "vault")).unwrap();
        assert!(tokens.verify(&vault, &["vault"]).is_ok());
        let other = self::tokens();
        assert!(
            tokens
                .verify(&other.sign(&good).unwrap(), &[ISSUER])
                .is_err()
        );
        assert!(tokens.verify("", &[ISSUER]).is_err());
        assert!(tokens.verify("a.b.c", &[ISSUER]).is_err());
        // The signature with the algorithm "none".
        let mut parts = signed.split('.');
        parts.next();
        let payload = parts.next().unwrap();
        let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
        assert!(tokens.verify(&none, &[ISSUER]).is_err());
    }

    #[test]
    fn a_key_can_be_replaced() {
        let (old_private, old_public) = pair();
        let (private, public) = pair();
        let old = Tokens::new(&old_private, &old_public, &[]).unwrap();
        let good = claims(-1, 60, ISSUER);
        let of_old = old.sign(&good).unwrap();
        let new = Tokens::new(&private, &public, std::slice::from_ref(&old_public)).unwrap();
        let of_new = new.sign(&good).unwrap();
        for token in [&of_old, &of_new] {
            assert!(new.verify(token, &[ISSUER]).is_ok());
        }
        assert!(old.verify(&of_new, &[ISSUER]).is_err());
        let gone = Tokens::new(&private, &public, &[]).unwrap();
        assert!(gone.verify(&of_old, &[ISSUER]).is_err());

        let jwks = new.jwks();
        let keys = jwks["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 2);
        let kid = jsonwebtoken::decode_header(&of_new).unwrap().kid;
        assert_eq!(keys[0]["kid"].as_str(), kid.as_deref());
        // Somebody who has but the document can verify.
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys[1].clone()).unwrap();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        jsonwebtoken::decode::<Claims>(&of_old, &key, &new.validation).unwrap();
        assert!(matches!(
            Tokens::new(&private, "nonsense", &[]),
            Err(TokenError::Curve)
        ));
    }

    #[test]
    fn no_changed_token_passes() {
        let tokens = tokens();
        let good = tokens.sign(&claims(-1, 600, ISSUER)).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        rhumb_fuzz::run("tokens", 1000, |dice| {
            let changed = match dice.one_in(2) {
                true => rhumb_fuzz::bytes(good.as_bytes(), &[".", "eyJ"], dice),
                false => {
                    let claims = serde_json::to_value(claims(-1, 600, ISSUER)).unwrap();
                    let claims = rhumb_fuzz::value(&claims, dice).to_string();
                    let claims = URL_SAFE_NO_PAD.encode(claims);
                    format!("{}.{claims}.{}", parts[0], parts[2]).into_bytes()
                }
            };
            let changed = String::from_utf8_lossy(&changed);
            // A mutation may leave it as it was.
            let same = changed.split('.').nth(1) == Some(parts[1]);
            assert!(
                tokens.verify(&changed, &[ISSUER]).is_err() || same,
                "{changed}"
            );
        });
    }
}
