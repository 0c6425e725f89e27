//! Model names: `[scheme://][host/][namespace/]model[:tag]`.

use super::Error;
use std::fmt;
use std::path::PathBuf;

const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// A complete, well-formed model name; its parts are safe as folder names.
///
/// Letter case is kept, but the store finds a model whatever the case it is asked in. `Display` is the short form:
/// host and namespace are left out where they are the defaults, the tag is always there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// Where the suffix of a name says the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// No suffix, or `:local`: this machine.
    Local,
    /// `:cloud`, or a tag ending in `-cloud`: Ollama's hosted service, which this server does not offer.
    Cloud,
}

impl ModelName {
    /// Reads a name and fills host, namespace and tag with their defaults. Blanks around it are not removed.
    ///
    /// Refused besides what breaks the grammar: parts that Windows cannot store (`con`, `aux.txt`, a final dot), so
    /// that a models folder can be moved to any system.
    pub fn parse(text: &str) -> Result<ModelName, Error> {
        let (rest, tag) = match text.rfind(':') {
            Some(at) if !text[at..].contains('/') => (&text[..at], &text[at + 1..]),
            _ => (text, DEFAULT_TAG),
        };
        let (rest, model) = rest.rsplit_once('/').map_or((None, rest), split);
        let (rest, namespace) = match rest {
            Some(rest) => rest.rsplit_once('/').map_or((None, rest), split),
            None => (None, DEFAULT_NAMESPACE),
        };
        let host = match rest {
            Some(rest) => rest.split_once("://").map_or(rest, |(_, host)| host),
            None => DEFAULT_HOST,
        };
        ModelName::from_parts(host, namespace, model, tag)
    }

    /// A name from its four parts, as they stand in the manifest folder.
    pub fn from_parts(
        host: &str,
        namespace: &str,
        model: &str,
        tag: &str,
    ) -> Result<ModelName, Error> {
        let valid = is_part(host, 350, b"_.:-")
            && is_part(namespace, 80, b"_-")
            && is_part(model, 80, b"_.-")
            && is_part(tag, 80, b"_.-");
        if !valid {
            return Err(Error::InvalidName);
        }
        Ok(ModelName {
            host: host.into(),
            namespace: namespace.into(),
            model: model.into(),
            tag: tag.into(),
        })
    }

    /// Host and port of the registry.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The owner at the registry.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The model alone.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The version.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// All four parts, `host/namespace/model:tag`.
    pub fn full(&self) -> String {
        format!(
            "{}/{}/{}:{}",
            self.host, self.namespace, self.model, self.tag
        )
    }

    /// Path of the manifest below `manifests/`.
    pub(super) fn path(&self) -> PathBuf {
        [
            &host_folder(&self.host),
            &self.namespace,
            &self.model,
            &self.tag,
        ]
        .iter()
        .collect()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own_host = !self.host.eq_ignore_ascii_case(DEFAULT_HOST);
        if own_host {
            write!(f, "{}/", self.host)?;
        }
        if own_host || !self.namespace.eq_ignore_ascii_case(DEFAULT_NAMESPACE) {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

/// Takes a final `:local` or `:cloud` (any case) off a name.
///
/// Returns the name to look up and where it runs; both suffixes at once are refused.
pub fn split_source(text: &str) -> Result<(&str, Source), Error> {
    let (name, source) = match cut_suffix(text) {
        Some((name, source)) => (name, Some(source)),
        None => (text, None),
    };
    if source.is_some() && cut_suffix(name).is_some() {
        return Err(Error::TwoSources(text.into()));
    }
    let cloud_tag = name
        .rsplit_once(':')
        .is_some_and(|(_, tag)| !tag.contains('/') && ends_with_case(tag, "-cloud"));
    match source {
        Some(Source::Local) if cloud_tag => Err(Error::TwoSources(text.into())),
        None if cloud_tag => Ok((name, Source::Cloud)),
        source => Ok((name, source.unwrap_or(Source::Local))),
    }
}

fn cut_suffix(text: &str) -> Option<(&str, Source)> {
    let (name, suffix) = text.rsplit_once(':')?;
    match suffix.to_ascii_lowercase().as_str() {
        "local" => Some((name, Source::Local)),
        "cloud" => Some((name, Source::Cloud)),
        _ => None,
    }
}

fn ends_with_case(text: &str, suffix: &str) -> bool {
    let text = text.as_bytes();
    text.len() >= suffix.len()
        && text[text.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
}

/// The registry's folder: on Windows a colon cannot be part of a file name, and `%` cannot be part of a host.
fn host_folder(host: &str) -> String {
    if cfg!(windows) {
        host.replace(':', "%")
    } else {
        host.into()
    }
}

/// The host that a folder of `manifests/` stands for.
pub(super) fn folder_host(folder: &str) -> String {
    if cfg!(windows) {
        folder.replace('%', ":")
    } else {
        folder.into()
    }
}

fn split<'a>((rest, last): (&'a str, &'a str)) -> (Option<&'a str>, &'a str) {
    (Some(rest), last)
}

fn is_part(text: &str, max: usize, others: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let first = bytes
        .first()
        .is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && bytes.len() <= max
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || others.contains(b))
        && !text.ends_with('.')
        && !is_device(text)
}

/// Names that Windows reserves, with any extension.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or(text).to_ascii_lowercase();
    match stem.as_str() {
        "con" | "prn" | "aux" | "nul" => true,
        _ => {
            (stem.starts_with("com") || stem.starts_with("lpt"))
                && stem.len() == 4
                && stem.as_bytes()[3].is_ascii_digit()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_and_short_forms() {
        for (text, full, short) in [
            (
                "llama3",
                "registry.ollama.ai/library/llama3:latest",
                "llama3:latest",
            ),
            (
                "llama3:8b",
                "registry.ollama.ai/library/llama3:8b",
                "llama3:8b",
            ),
            ("me/m", "registry.ollama.ai/me/m:latest", "me/m:latest"),
            (
                "Library/m",
                "registry.ollama.ai/Library/m:latest",
                "m:latest",
            ),
            (
                "host:5000/ns/m",
                "host:5000/ns/m:latest",
                "host:5000/ns/m:latest",
            ),
            (
                "hf.co/library/m:Q4_K_M",
                "hf.co/library/m:Q4_K_M",
                "hf.co/library/m:Q4_K_M",
            ),
            ("http://h/ns/m:t", "h/ns/m:t", "h/ns/m:t"),
            (
                "registry.ollama.ai/library/a.b-c_d",
                "registry.ollama.ai/library/a.b-c_d:latest",
                "a.b-c_d:latest",
            ),
        ] {
            let name = ModelName::parse(text).unwrap();
            assert_eq!(
                (name.full().as_str(), name.to_string().as_str()),
                (full, short),
                "{text}"
            );
            let again = ModelName::parse(&name.to_string()).unwrap();
            assert!(again.full().eq_ignore_ascii_case(full));
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let long_part = "a".repeat(81);
        let long_host = format!("{}/n/m", "h".repeat(351));
        for text in [
            "",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "/abs",
            "a/",
            ":tag",
            "m:",
            "a\\b",
            "C:\\x",
            "x:..",
            "x:.hidden",
            "-x",
            ".x",
            "a:b:c",
            "host:5000/m",
            "a b",
            "m\t",
            "m\n",
            "m\0",
            "m\u{202e}",
            "modèle",
            "m@sha256",
            "a/b/c/d/e",
            "n.s/m",
            "con",
            "aux.txt",
            "nul:latest",
            "m:com1",
            "LPT9/m",
            "model.",
            "m:t.",
            &long_part,
            &long_host,
        ] {
            assert!(
                matches!(ModelName::parse(text), Err(Error::InvalidName)),
                "{text:?}"
            );
        }
        assert!(ModelName::parse(&long_part[1..]).is_ok());
        assert!(ModelName::parse("console/common:auxiliary").is_ok());
    }

    #[test]
    fn sources() {
        for (text, name, source) in [
            ("m", "m", Source::Local),
            ("m:20b:local", "m:20b", Source::Local),
            ("m:LOCAL", "m", Source::Local),
            ("m:cloud", "m", Source::Cloud),
            ("m:20b:Cloud", "m:20b", Source::Cloud),
            ("m:20b-cloud", "m:20b-cloud", Source::Cloud),
            ("a-cloud/m", "a-cloud/m", Source::Local),
        ] {
            assert_eq!(split_source(text).unwrap(), (name, source), "{text}");
        }
        for text in ["m:local:cloud", "m:cloud:local", "m:20b-cloud:local"] {
            let error = split_source(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("use either :local or :cloud, not both: \"{text}\"")
            );
        }
    }

    proptest! {
        #[test]
        fn a_parsed_name_is_four_plain_folders(text in "[a-zA-Z0-9_.:/\\\\-]{0,40}") {
            if let Ok(name) = ModelName::parse(&text) {
                let path = name.path();
                prop_assert_eq!(path.components().count(), 4);
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
