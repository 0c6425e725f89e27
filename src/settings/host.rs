//! `OLLAMA_HOST`: one text for the address that the server binds and that clients connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const DEFAULT_PORT: u16 = 11434;

/// A server's address, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `http` or `https`; for clients alone.
    pub scheme: String,
    /// A name or an address, without brackets; empty is all interfaces.
    pub name: String,
    pub port: u16,
    /// Path in front of the API's own, without slashes at its ends; for clients alone.
    pub path: String,
}

impl Host {
    /// Reads the variable's text; a port that is none is replaced by the default, with a warning.
    pub fn parse(text: &str, warnings: &mut Vec<String>) -> Host {
        let (scheme, rest, default_port) = match text.split_once("://") {
            Some(("http", rest)) => ("http", rest, 80),
            Some(("https", rest)) => ("https", rest, 443),
            Some((scheme, rest)) => (scheme, rest, DEFAULT_PORT),
            None if text == "ollama.com" => ("https", text, 443),
            None => ("http", text, DEFAULT_PORT),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) = split_port(authority);
        let port = port.map_or(default_port, |port| {
            port.parse().unwrap_or_else(|_| {
                warnings.push(format!(
                    "OLLAMA_HOST: {port:?} is not a port, {default_port} is used"
                ));
                default_port
            })
        });
        Host {
            scheme: scheme.to_owned(),
            name: name.to_owned(),
            port,
            path: path.trim_matches('/').to_owned(),
        }
    }

    /// `host:port` to listen on, IPv6 addresses in brackets; no name is all IPv4 interfaces, which every machine has.
    pub fn bind_address(&self) -> String {
        match self.name.as_str() {
            "" => address("0.0.0.0", self.port),
            name => address(name, self.port),
        }
    }

    /// Where a client on this machine finds the server: all interfaces are reached by the loopback one.
    pub fn url(&self) -> String {
        let loopback = match self.name.parse() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => "127.0.0.1",
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => "::1",
            Err(_) if self.name.is_empty() => "127.0.0.1",
            _ => &self.name,
        };
        let authority = address(loopback, self.port);
        match self.path.as_str() {
            "" => format!("{}://{authority}", self.scheme),
            path => format!("{}://{authority}/{path}", self.scheme),
        }
    }
}

fn address(name: &str, port: u16) -> String {
    if name.contains(':') {
        format!("[{name}]:{port}")
    } else {
        format!("{name}:{port}")
    }
}

/// Name and port text; no name and no port is the loopback interface.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if authority.is_empty() {
        return ("127.0.0.1", None);
    }
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<Ipv6Addr>().is_ok() {
        return (bare, None);
    }
    match authority.rsplit_once(':') {
        Some((name, port)) => (
            name.trim_start_matches('[').trim_end_matches(']'),
            Some(port),
        ),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, bind, url) in [
            ("", "127.0.0.1:11434", "http://127.0.0.1:11434"),
            ("1.2.3.4", "1.2.3.4:11434", "http://1.2.3.4:11434"),
            (
                "example.com",
                "example.com:11434",
                "http://example.com:11434",
            ),
            (":1234", "0.0.0.0:1234", "http://127.0.0.1:1234"),
            (":0", "0.0.0.0:0", "http://127.0.0.1:0"),
            ("1234", "1234:11434", "http://1234:11434"),
            ("::1", "[::1]:11434", "http://[::1]:11434"),
            ("[::1]", "[::1]:11434", "http://[::1]:11434"),
            ("[::1]:1337", "[::1]:1337", "http://[::1]:1337"),
            ("0.0.0.0", "0.0.0.0:11434", "http://127.0.0.1:11434"),
            ("[::]", "[::]:11434", "http://[::1]:11434"),
            ("http://1.2.3.4", "1.2.3.4:80", "http://1.2.3.4:80"),
            (
                "https://1.2.3.4:4321",
                "1.2.3.4:4321",
                "https://1.2.3.4:4321",
            ),
            (
                "https://example.com/ollama/",
                "example.com:443",
                "https://example.com:443/ollama",
            ),
            ("ollama.com", "ollama.com:443", "https://ollama.com:443"),
        ] {
            let mut warnings = Vec::new();
            let host = Host::parse(text, &mut warnings);
            assert_eq!(host.bind_address(), bind, "{text}");
            assert_eq!(host.url(), url, "{text}");
            assert!(warnings.is_empty(), "{text}: {warnings:?}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_told() {
        for text in [":66000", ":-1", "localhost:http", "localhost:"] {
            let mut warnings = Vec::new();
            assert_eq!(Host::parse(text, &mut warnings).port, 11434, "{text}");
            assert_eq!(warnings.len(), 1, "{text}");
        }
    }
}
