//! The name of a blob: the SHA-256 of its bytes.

use super::Error;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A SHA-256 digest. The only way to a blob's path, so a path is never built from unchecked text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads `sha256:<64 hex>` or `sha256-<64 hex>`; upper-case hex is taken as lower-case.
    pub fn parse(text: &str) -> Result<Digest, Error> {
        let hex = text
            .strip_prefix("sha256")
            .and_then(|rest| rest.strip_prefix([':', '-']))
            .ok_or(Error::InvalidDigest)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| Error::InvalidDigest)?;
        Ok(Digest(bytes))
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of all bytes that are still to be read.
    pub fn of_reader(mut from: impl Read) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(Digest::finish(hasher)),
                n => hasher.update(&piece[..n]),
            }
        }
    }

    /// The digest of everything `hasher` has seen.
    pub(super) fn finish(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The blob's file name, `sha256-<hex>`.
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.hex())
    }
}

/// As on the wire: `sha256:<hex>`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

    #[test]
    fn both_separators_and_cases_are_one_digest() {
        let digest = Digest::of(b"hello world");
        assert_eq!(digest.to_string(), format!("sha256:{HELLO}"));
        assert_eq!(digest.file_name(), format!("sha256-{HELLO}"));
        for text in [
            format!("sha256:{HELLO}"),
            format!("sha256-{HELLO}"),
            format!("sha256:{}", HELLO.to_uppercase()),
        ] {
            assert_eq!(Digest::parse(&text).unwrap(), digest);
        }
    }

    #[test]
    fn of_a_file_in_pieces() {
        let bytes = vec![7; 2 * PIECE + 1];
        assert_eq!(Digest::of_reader(&bytes[..]).unwrap(), Digest::of(&bytes));
        assert_eq!(Digest::of_reader(io::empty()).unwrap(), Digest::of(b""));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(1 << 20);
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:123",
            "../../x",
            "sha256:../../../etc/passwd",
            "md5:00112233445566778899aabbccddeeff",
            &format!("sha256:{}", &HELLO[1..]),
            &format!("sha256:{HELLO}0"),
            &format!("sha256/{HELLO}"),
            &format!("SHA256:{HELLO}"),
            &format!(" sha256:{HELLO}"),
            &format!("sha256:{}\0", &HELLO[1..]),
            &format!("sha256:{}", "٣".repeat(32)),
            &long,
        ] {
            assert!(
                matches!(Digest::parse(text), Err(Error::InvalidDigest)),
                "{text:.80}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_a_plain_file_name(text in "(sha256[:-])?[0-9a-fA-F./\\\\]{60,68}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.file_name().len(), 71);
                prop_assert!(!digest.file_name().contains(['/', '\\', '.']));
            }
        }
    }
}
