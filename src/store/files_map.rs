//! The `files` of a create request: file names and the digests of their uploaded content.

use super::{Digest, Error};
use std::collections::BTreeMap;

const MAX_FILES: usize = 4096;
const MAX_NAME_BYTES: usize = 1024;

/// Checks that every name is a clean relative path with slashes, on any system.
pub(super) fn check_files(files: &BTreeMap<String, String>) -> Result<(), Error> {
    if files.len() > MAX_FILES {
        return Err(Error::BadRequest(format!(
            "too many files: at most {MAX_FILES} make a model"
        )));
    }
    if files.keys().all(|name| is_relative(name)) {
        return Ok(());
    }
    Err(Error::BadRequest("file path must be relative".into()))
}

/// The digests of a map, checked.
pub(super) fn digests(files: &BTreeMap<String, String>) -> Result<Vec<(&str, Digest)>, Error> {
    let files = files.iter();
    files
        .map(|(name, digest)| Ok((name.as_str(), Digest::parse(digest)?)))
        .collect()
}

fn is_relative(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && !name.contains(['\\', '\0', ':'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> BTreeMap<String, String> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), String::new()))
            .collect()
    }

    #[test]
    fn clean_names_only() {
        check_files(&map(&["a.gguf", "a/b c/..d", "ü"])).unwrap();
        let long = "a".repeat(4096);
        for name in [
            "",
            "/etc/passwd",
            "../a.gguf",
            "a/../../b",
            ".",
            "a//b",
            "a/",
            "./a",
            "a\\..\\b",
            "C:/x",
            "a\0",
            &long,
        ] {
            let error = check_files(&map(&[name])).unwrap_err().to_string();
            assert_eq!(error, "file path must be relative", "{name:.20}");
        }
    }

    #[test]
    fn not_too_many() {
        let names: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(
            check_files(&map(&names))
                .unwrap_err()
                .to_string()
                .starts_with("too many files")
        );
    }
}
