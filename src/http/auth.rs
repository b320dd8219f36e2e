//! Bearer tokens.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{HttpConfig, Secret};

/// Who may use the API.
pub(super) enum Tokens {
    /// Whoever can connect.
    Anybody,
    /// Who has one of these, kept as digests: all are of one length, and how far a guess is right cannot be measured.
    Digests(Vec<[u8; 32]>),
}

impl Tokens {
    pub(super) fn new(config: &HttpConfig) -> Self {
        if config.is_open() {
            return Self::Anybody;
        }
        Self::those(&config.tokens)
    }

    /// Who has one of these, and nobody if there are none.
    pub(super) fn those(tokens: &[Secret]) -> Self {
        Self::Digests(tokens.iter().map(|token| Sha256::digest(token.reveal()).into()).collect())
    }

    /// Whether a request with these headers may be answered.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Self::Digests(digests) = self else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        // All are compared, whichever it is.
        digests.iter().fold(Choice::from(0), |known, one| known | one.ct_eq(&digest)).into()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_of_the_tokens_is_needed() -> Result<(), toml::de::Error> {
        let config: HttpConfig = toml::from_str("tokens = ['0123456789abcdef', 'fedcba9876543210']")?;
        let tokens = Tokens::new(&config);
        for (values, admitted) in [
            (vec!["Bearer 0123456789abcdef"], true),
            (vec!["bearer  fedcba9876543210"], true),
            (vec!["Bearer 0123456789abcde"], false),
            (vec!["Bearer 0123456789abcdef0"], false),
            (vec!["Bearer "], false),
            (vec!["Bearer"], false),
            (vec!["Basic 0123456789abcdef"], false),
            (vec!["0123456789abcdef"], false),
            (vec!["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"], false),
            (vec![], false),
        ] {
            let mut headers = HeaderMap::new();
            for &value in &values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(tokens.admit(&headers), admitted, "{values:?}");
        }
        assert!(!Tokens::those(&[]).admit(&HeaderMap::new()), "no operator by default");
        assert!(Tokens::new(&HttpConfig::default()).admit(&HeaderMap::new()), "loopback is open by default");
        Ok(())
    }
}
