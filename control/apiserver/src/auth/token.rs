//! Service-account tokens: JWTs signed with the cluster's key (ES256), in Kubernetes' form.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Issuer, and audience of tokens for this API.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

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
    #[error("signing a token: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("the token is not valid: {0}")]
    Invalid(#[source] jsonwebtoken::errors::Error),
}

pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    header: Header,
    validation: Validation,
}

impl Tokens {
    /// From the PEM of the private and the public key.
    pub fn new(private: &str, public: &str) -> Result<Tokens, TokenError> {
        let mut header = Header::new(Algorithm::ES256);
        let digest = Sha256::digest(public.as_bytes());
        header.kid = Some(digest[..16].iter().map(|b| format!("{b:02x}")).collect());
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        // Issuer and verifier are one process with one clock.
        validation.leeway = 0;
        Ok(Tokens {
            signing: EncodingKey::from_ec_pem(private.as_bytes()).map_err(TokenError::Key)?,
            verifying: DecodingKey::from_ec_pem(public.as_bytes()).map_err(TokenError::Key)?,
            header,
            validation,
        })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        jsonwebtoken::encode(&self.header, claims, &self.signing).map_err(TokenError::Sign)
    }

    /// Signature, times, issuer and audience. Whether what the token is bound to still exists is
    /// for the caller to look up.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation)
            .map(|data| data.claims)
            .map_err(TokenError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let key = crate::pki::ca::generate_key().unwrap();
        Tokens::new(&key.serialize_pem(), &key.public_key_pem()).unwrap()
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
        assert_eq!(tokens.verify(&signed).unwrap(), good);
        for bad in [
            claims(-100, -1, ISSUER),
            claims(50, 100, ISSUER),
            claims(-1, 60, "vault"),
        ] {
            assert!(tokens.verify(&tokens.sign(&bad).unwrap()).is_err());
        }
        let other = self::tokens();
        assert!(tokens.verify(&other.sign(&good).unwrap()).is_err());
        assert!(tokens.verify("").is_err());
        assert!(tokens.verify("a.b.c").is_err());
        // The signature with the algorithm "none".
        let mut parts = signed.split('.');
        parts.next();
        let payload = parts.next().unwrap();
        assert!(
            tokens
                .verify(&format!("eyJhbGciOiJub25lIn0.{payload}."))
                .is_err()
        );
    }
}
