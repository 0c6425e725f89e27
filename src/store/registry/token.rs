//! The token dance: a refusal names a realm, which gives a token for a signature.

use super::Error;
use super::key::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest token or header of a registry that is read.
pub(super) const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Base64 of the hexadecimal SHA-256 of nothing: the body of a GET.
const EMPTY_BODY: &str =
    "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ==";

/// What a refusal asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    service: String,
    scope: String,
}

impl Challenge {
    /// Reads `WWW-Authenticate: Bearer realm="...",service="...",scope="..."`.
    pub(super) fn parse(header: &str) -> Option<Challenge> {
        let header = header.get(..MAX_TOKEN_BYTES).unwrap_or(header);
        let (scheme, rest) = header.trim_start().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |key: &str| {
            let start = rest.find(&format!("{key}=\""))? + key.len() + 2;
            let value = &rest[start..];
            Some(value[..value.find('"')?].to_owned())
        };
        Some(Challenge {
            realm: value("realm").unwrap_or_default(),
            service: value("service").unwrap_or_default(),
            scope: value("scope").unwrap_or_default(),
        })
    }

    /// Where the token is given, for a request to `refused`. Nothing is signed for another host.
    pub(super) fn url(&self, refused: &Url) -> Result<Url, Error> {
        let host = authority(refused);
        let mismatch = |realm: String| Error::Realm {
            realm,
            host: host.clone(),
        };
        let mut url = Url::parse(&self.realm).map_err(|_| mismatch(self.realm.clone()))?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_safe = url.scheme() == refused.scheme() || url.scheme() == "https";
        if authority(&url) != host || !is_plain || !is_safe {
            return Err(mismatch(authority(&url)));
        }
        let mut nonce = [0; 16];
        let failed = |_| Error::Protocol("no random numbers for a nonce".into());
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs().to_string();
        let old: Vec<_> = url.query_pairs().into_owned().collect();
        let mut pairs = old;
        pairs.push(("nonce".into(), URL_SAFE_NO_PAD.encode(nonce)));
        pairs.extend(self.scope.split(' ').map(|s| ("scope".into(), s.into())));
        pairs.push(("service".into(), self.service.clone()));
        pairs.push(("ts".into(), now));
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        url.query_pairs_mut().clear().extend_pairs(pairs);
        Ok(url)
    }
}

/// Host and port, the default one included.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.into(),
    }
}

/// The header that proves who asks for a token at `url`.
pub(super) fn signature(key: &Key, url: &Url) -> String {
    key.sign(&format!("GET,{url},{EMPTY_BODY}"))
}

/// The token of a reply; one that cannot stand in a header is refused.
pub(super) fn parse(body: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Reply {
        token: Option<String>,
        access_token: Option<String>,
    }
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|e| Error::Protocol(format!("the registry's token is no JSON: {e}")))?;
    let token = reply.token.or(reply.access_token).unwrap_or_default();
    let is_plain = !token.is_empty() && token.bytes().all(|b| (0x21..0x7F).contains(&b));
    match is_plain {
        true => Ok(token),
        false => Err(Error::Protocol("the registry's token is no token".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_body_is_the_hash_of_nothing() {
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b""));
        assert_eq!(STANDARD.encode(hash), EMPTY_BODY);
    }

    #[test]
    fn only_the_registry_itself_gives_tokens() {
        let refused = Url::parse("https://r.example/v2/a/b/manifests/c").unwrap();
        let url = |realm: &str| {
            let header = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"a b\"");
            Challenge::parse(&header).unwrap().url(&refused)
        };
        for realm in [
            "https://r.example/token",
            "https://r.example:443/token?account=x",
        ] {
            let url = url(realm).unwrap();
            let keys: Vec<_> = url.query_pairs().map(|p| p.0.into_owned()).collect();
            assert!(keys.is_sorted() && keys.len() >= 5, "{url}");
        }
        for realm in [
            "https://evil.example/token",
            "https://r.example:444/token",
            "https://u:p@r.example/token",
            "http://r.example/token",
            "http://r.example:443/token",
            "//r.example/token",
            "file:///etc/passwd",
            "",
        ] {
            let error = url(realm).unwrap_err().to_string();
            assert!(error.starts_with("realm host"), "{realm}: {error}");
        }
    }

    #[test]
    fn challenges_and_tokens() {
        let lower = Challenge::parse("bearer realm=\"x\"").unwrap();
        assert_eq!((lower.realm.as_str(), lower.service.as_str()), ("x", ""));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), None);
        assert_eq!(parse(b"{\"token\":\"t\"}").unwrap(), "t");
        assert_eq!(parse(b"{\"access_token\":\"t\"}").unwrap(), "t");
        for body in [
            &b"{}"[..],
            b"x",
            b"{\"token\":\"\"}",
            b"{\"token\":\"a\\r\\nb: c\"}",
        ] {
            assert!(parse(body).is_err());
        }
    }
}
