//! The user's ed25519 key, in OpenSSH's file format: `~/.ollama/id_ed25519`, shared with Ollama.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const KIND: &[u8] = b"ssh-ed25519";
/// No key file is longer.
const MAX_BYTES: u64 = 64 << 10;

/// Where the key lies.
pub(super) fn path() -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".ollama").join("id_ed25519"))
}

/// A key that signs.
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    /// Reads an unencrypted key file; the error says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Key, String> {
        let describe = |e: io::Error| format!("cannot read the key {}: {e}", path.display());
        if !std::fs::metadata(path).map_err(describe)?.is_file() {
            return Err(describe(io::Error::other("not a regular file")));
        }
        let file = std::fs::File::open(path).map_err(describe)?;
        let mut text = String::new();
        let mut limited = io::Read::take(file, MAX_BYTES);
        io::Read::read_to_string(&mut limited, &mut text).map_err(describe)?;
        parse(&text).ok_or_else(|| {
            format!(
                "the key {} is no unencrypted OpenSSH key of type ed25519",
                path.display()
            )
        })
    }

    /// Makes a key and its public half beside it, where neither file is there yet.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        let mut seed = [0; 32];
        let failed = |_| io::Error::other("no random numbers");
        SystemRandom::new().fill(&mut seed).map_err(failed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        let pair = pair.map_err(|e| io::Error::other(e.to_string()))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let key = Key(pair);
        write_new(
            path,
            0o600,
            &private_file(&seed, key.0.public_key().as_ref()),
        )?;
        let public = format!("ssh-ed25519 {}\n", STANDARD.encode(key.public_blob()));
        write_new(&path.with_extension("pub"), 0o644, &public)
    }

    /// `<public key>:<signature>`, both in base64, of a text.
    pub(super) fn sign(&self, text: &str) -> String {
        let signature = self.0.sign(text.as_bytes());
        let public = STANDARD.encode(self.public_blob());
        format!("{public}:{}", STANDARD.encode(signature.as_ref()))
    }

    /// The public key as SSH sends it.
    fn public_blob(&self) -> Vec<u8> {
        public_blob(self.0.public_key().as_ref())
    }
}

fn public_blob(public: &[u8]) -> Vec<u8> {
    [string(KIND), string(public)].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// Takes a length and that many bytes off the front.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_at_checked(4)?;
    let len = u32::from_be_bytes(len.try_into().ok()?) as usize;
    let (bytes, behind) = behind.split_at_checked(len)?;
    *rest = behind;
    Some(bytes)
}

fn parse(text: &str) -> Option<Key> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let [cipher, kdf, options] = [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?];
    let is_plain = cipher == b"none" && kdf == b"none" && options.is_empty();
    let (n_keys, mut rest) = rest.split_at_checked(4)?;
    if !is_plain || n_keys != [0, 0, 0, 1] {
        return None;
    }
    let _public = take(&mut rest)?;
    let mut private = take(&mut rest)?.get(8..)?;
    if take(&mut private)? != KIND {
        return None;
    }
    let public = take(&mut private)?;
    let seed = take(&mut private)?.get(..32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public)
        .ok()
        .map(Key)
}

fn private_file(seed: &[u8], public: &[u8]) -> String {
    let check = &seed[..4];
    let pair = [seed, public].concat();
    let private = [string(KIND), string(public), string(&pair), string(b"")].concat();
    let mut private = [check, check, &private].concat();
    let padding = (1..).take(private.len().wrapping_neg() % 8);
    private.extend(padding.collect::<Vec<u8>>());
    let bytes = [
        MAGIC.to_vec(),
        string(b"none"),
        string(b"none"),
        string(b""),
        vec![0, 0, 0, 1],
        string(&public_blob(public)),
        string(&private),
    ];
    let body = STANDARD.encode(bytes.concat());
    let lines: Vec<&str> = (0..body.len())
        .step_by(70)
        .map(|at| &body[at..body.len().min(at + 70)])
        .collect();
    format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
}

fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    #[test]
    fn a_made_key_signs_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".ollama/id_ed25519");
        Key::create(&path).unwrap();
        assert!(Key::create(&path).is_err());
        let key = Key::read(&path).unwrap();
        let signed = key.sign("text");
        let (public, signature) = signed.split_once(':').unwrap();
        let public = STANDARD.decode(public).unwrap();
        let raw = &public[public.len() - 32..];
        let signature = STANDARD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, raw)
            .verify(b"text", &signature)
            .unwrap();
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert!(line.contains(&STANDARD.encode(&public)), "{line}");
        #[cfg(unix)]
        for (path, mode) in [(&path, 0o600), (&path.with_extension("pub"), 0o644)] {
            use std::os::unix::fs::PermissionsExt as _;
            let found = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(found & 0o777 & !mode, 0, "{}", path.display());
        }
    }

    #[test]
    fn other_files_are_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in [
            "",
            "x",
            &format!("{BEGIN}\n{END}"),
            &format!("{BEGIN}\nAAAA\n{END}"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(Key::read(&path).is_err(), "{text}");
        }
        // Of another algorithm, or locked; as it was made it is one.
        Key::create(&folder.path().join("made")).unwrap();
        let file = std::fs::read_to_string(folder.path().join("made")).unwrap();
        let body: String = file.lines().filter(|line| !line.starts_with('-')).collect();
        let made = STANDARD.decode(body).unwrap();
        for (name, other) in [("none", "none"), ("none", "some"), ("25519", "25510")] {
            let mut bytes = made.clone();
            for at in 0..bytes.len() - name.len() {
                if bytes[at..].starts_with(name.as_bytes()) {
                    bytes[at..at + name.len()].copy_from_slice(other.as_bytes());
                }
            }
            let text = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(&bytes));
            std::fs::write(&path, text).unwrap();
            let read = Key::read(&path);
            assert_eq!(read.is_ok(), name == other, "{other}");
            let refused = read.err().unwrap_or_default();
            let wanted = "no unencrypted OpenSSH key of type ed25519";
            assert!(name == other || refused.contains(wanted), "{refused}");
        }
    }
}
