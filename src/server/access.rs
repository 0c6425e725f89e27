//! Who may call: the origin of a browser page (CORS) and the `Host` header (against DNS rebinding).
//!
//! Both run before every handler and before 404 and 405 answers, but after the slash redirects, as in Ollama.

use std::net::{IpAddr, UdpSocket};
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HOST, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use warp::http::{Method, StatusCode};

const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";
const HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,\
    X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,\
    X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,\
    X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout";
const MAX_AGE_SECONDS: &str = "43200";
const APP_SCHEMES: [&str; 5] = [
    "app://",
    "file://",
    "tauri://",
    "vscode-webview://",
    "vscode-file://",
];
const ENTRY_SCHEMES: [&str; 6] = [
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
];

/// What the checks decided.
#[derive(Debug, PartialEq)]
pub enum Access {
    /// Go on, and add these headers to whatever is answered.
    Granted(HeaderMap),
    /// Answer with this status, these headers and nothing else.
    Answered(StatusCode, HeaderMap),
}

/// The origins of `OLLAMA_ORIGINS`, beside those that are always allowed.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    any: bool,
    entries: Vec<(String, Option<String>)>,
}

impl Origins {
    /// Reads the comma separated entries: exact origins, or patterns with one `*`.
    ///
    /// # Errors
    /// A text that names the entry that is no origin and no pattern.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut origins = Origins::default();
        for entry in entries.into_iter().map(str::trim).filter(|e| !e.is_empty()) {
            match (entry, entry.matches('*').count()) {
                ("*", _) => origins.any = true,
                (_, 0) if ENTRY_SCHEMES.iter().any(|s| entry.starts_with(s)) => {
                    origins.entries.push((entry.to_ascii_lowercase(), None));
                }
                (_, 1) => {
                    let (head, tail) = entry.split_once('*').expect("it has one star");
                    origins
                        .entries
                        .push((head.to_owned(), Some(tail.to_owned())));
                }
                _ => {
                    return Err(format!(
                        "OLLAMA_ORIGINS entry {entry:?} is not an origin: give a scheme (such as https://) or one *"
                    ));
                }
            }
        }
        Ok(origins)
    }

    fn allows(&self, origin: &str) -> bool {
        self.any
            || is_local(origin)
            || self.entries.iter().any(|(head, tail)| match tail {
                None => *head == origin.to_ascii_lowercase(),
                Some(tail) => {
                    origin.len() >= head.len() + tail.len()
                        && origin.starts_with(head.as_str())
                        && origin.ends_with(tail.as_str())
                }
            })
    }
}

/// Pages of this machine, and of desktop applications.
fn is_local(origin: &str) -> bool {
    if APP_SCHEMES.iter().any(|s| origin.starts_with(s)) {
        return true;
    }
    let Some(host) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    matches!(name, "localhost" | "127.0.0.1" | "0.0.0.0")
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Checks a request; `loopback_only` says that the server listens on a loopback address alone.
pub fn check(
    origins: &Origins,
    loopback_only: bool,
    method: &Method,
    headers: &HeaderMap,
) -> Access {
    let access = check_origin(origins, method, headers);
    match access {
        Access::Granted(_) if loopback_only => check_host(method, headers, access),
        _ => access,
    }
}

fn check_origin(origins: &Origins, method: &Method, headers: &HeaderMap) -> Access {
    let host = header(headers, HOST);
    let Some(value) = headers.get(ORIGIN) else {
        return Access::Granted(HeaderMap::new());
    };
    let origin = value.to_str().unwrap_or_default();
    if origin == format!("http://{host}") || origin == format!("https://{host}") {
        return Access::Granted(HeaderMap::new());
    }
    // A browser sends one; of two, which one the handler's answer would be for is anyone's guess.
    if headers.get_all(ORIGIN).iter().count() > 1 || !origins.allows(origin) {
        return Access::Answered(StatusCode::FORBIDDEN, HeaderMap::new());
    }
    let mut answer = HeaderMap::new();
    if origins.any {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
    }
    if method != Method::OPTIONS {
        if !origins.any {
            answer.insert(VARY, HeaderValue::from_static("Origin"));
        }
        return Access::Granted(answer);
    }
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(HEADERS),
    );
    answer.insert(
        ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static(MAX_AGE_SECONDS),
    );
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.insert(VARY, HeaderValue::from_static(vary));
    Access::Answered(StatusCode::NO_CONTENT, answer)
}

fn check_host(method: &Method, headers: &HeaderMap, granted: Access) -> Access {
    let host = header(headers, HOST);
    let name = without_port(&host);
    match (headers.get_all(HOST).iter().count(), name) {
        // HTTP/1.0, which no browser speaks.
        (0, _) => return granted,
        (1, "") | (2.., _) => return Access::Answered(StatusCode::BAD_REQUEST, HeaderMap::new()),
        (1, _) => {}
    }
    if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return if is_own(ip) {
            granted
        } else {
            Access::Answered(StatusCode::FORBIDDEN, HeaderMap::new())
        };
    }
    match (is_local_name(name), method == Method::OPTIONS) {
        (false, _) => Access::Answered(StatusCode::FORBIDDEN, HeaderMap::new()),
        (true, true) => Access::Answered(StatusCode::NO_CONTENT, HeaderMap::new()),
        (true, false) => granted,
    }
}

fn header(headers: &HeaderMap, name: warp::http::HeaderName) -> String {
    let value = headers
        .get(name)
        .map(|v| String::from_utf8_lossy(v.as_bytes()));
    value.unwrap_or_default().into_owned()
}

/// `a:1` and `[::1]:1` without their port; a bare IPv6 address stays whole.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

fn is_own(ip: IpAddr) -> bool {
    let near = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unspecified(),
    };
    // An address can be bound exactly when an interface of this machine has it.
    near || UdpSocket::bind((ip, 0)).is_ok()
}

fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let suffixes = [".localhost", ".local", ".internal"];
    name == "localhost"
        || machine_name().is_some_and(|own| own.eq_ignore_ascii_case(&name))
        || is_name && suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// The machine's host name, where the system tells it without a call of its own.
fn machine_name() -> Option<String> {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| {
        std::env::var("HOSTNAME")
            .or_else(|_| std::env::var("COMPUTERNAME"))
            .ok()
    })?;
    Some(name.trim().to_owned()).filter(|n| !n.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        origins: &Origins,
        loopback: bool,
        method: Method,
        pairs: &[(&'static str, &str)],
    ) -> Access {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        check(origins, loopback, &method, &headers)
    }

    fn status(access: &Access) -> u16 {
        match access {
            Access::Granted(_) => 200,
            Access::Answered(status, _) => status.as_u16(),
        }
    }

    #[test]
    fn origins_of_this_machine_are_allowed() {
        let none = Origins::default();
        for (origin, expected) in [
            ("http://localhost", 200),
            ("https://127.0.0.1:8443", 200),
            ("http://0.0.0.0:3000", 200),
            ("app://obsidian", 200),
            ("vscode-webview://x", 200),
            ("vscode-file://x", 200),
            ("file://x", 200),
            ("tauri://localhost", 200),
            ("https://localhost", 200),
            ("http://localhost:3000", 200),
            ("http://127.0.0.1", 200),
            ("https://0.0.0.0", 200),
            ("http://[::1]:3000", 403),
            ("null", 403),
            ("http://localhost.evil.com", 403),
            ("http://127.0.0.1.evil.com", 403),
            ("http://localhost:80@evil.com", 403),
            ("http://evil.example", 403),
            ("chrome-extension://abc", 403),
        ] {
            let access = ask(
                &none,
                true,
                Method::GET,
                &[("host", "127.0.0.1:11434"), ("origin", origin)],
            );
            assert_eq!(status(&access), expected, "{origin}");
            if let Access::Granted(headers) = access {
                assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
                assert_eq!(headers[VARY], "Origin");
            }
        }
    }

    #[test]
    fn origins_from_the_environment() {
        let listed = Origins::parse([
            "https://Example.com",
            "chrome-extension://*",
            "http://*.corp.example",
        ])
        .unwrap();
        for (origin, expected) in [
            ("https://example.com", true),
            ("https://example.com.evil", false),
            ("chrome-extension://abc", true),
            ("http://a.corp.example", true),
            ("http://corp.example", false),
        ] {
            assert_eq!(listed.allows(origin), expected, "{origin}");
        }
        let any = Origins::parse(["*"]).unwrap();
        let access = ask(
            &any,
            false,
            Method::GET,
            &[("host", "h"), ("origin", "http://evil.example")],
        );
        let Access::Granted(headers) = access else {
            panic!("{access:?}")
        };
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(VARY));
        for entry in ["example.com", "http://*.a.*"] {
            assert!(Origins::parse([entry]).unwrap_err().contains(entry));
        }
    }

    #[test]
    fn preflights() {
        let none = Origins::default();
        let pairs = [("host", "127.0.0.1"), ("origin", "http://localhost:3000")];
        let access = ask(&none, true, Method::OPTIONS, &pairs);
        let Access::Answered(StatusCode::NO_CONTENT, headers) = access else {
            panic!("{access:?}")
        };
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "43200");
        assert!(
            headers[ACCESS_CONTROL_ALLOW_HEADERS]
                .to_str()
                .unwrap()
                .ends_with("X-Stainless-Timeout")
        );
        assert!(
            headers[VARY]
                .to_str()
                .unwrap()
                .contains("Access-Control-Request-Method")
        );
        let refused = ask(
            &none,
            true,
            Method::OPTIONS,
            &[("host", "127.0.0.1"), ("origin", "http://evil.example")],
        );
        assert_eq!(status(&refused), 403);
        // Without an origin only a named host is answered here.
        assert_eq!(
            status(&ask(
                &none,
                true,
                Method::OPTIONS,
                &[("host", "localhost:1")]
            )),
            204
        );
        assert_eq!(
            status(&ask(
                &none,
                true,
                Method::OPTIONS,
                &[("host", "127.0.0.1:1")]
            )),
            200
        );
    }

    #[test]
    fn hosts() {
        let none = Origins::default();
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:11434", 200),
            ("nas.local", 200),
            ("a.localhost:1", 200),
            ("db.internal", 200),
            ("127.0.0.1:11434", 200),
            ("192.168.1.5", 200),
            ("::1", 200),
            ("[::1]", 200),
            ("[::1]:11434", 200),
            ("8.8.8.8", 403),
            ("evil.example", 403),
            ("127.0.0.1.evil.com", 403),
            ("xlocalhost", 403),
            ("localhost.", 403),
            ("localhost.evil.com:11434", 403),
            ("evil.com/.local", 403),
            ("evil.com#.local", 403),
            ("", 400),
            (":11434", 400),
        ] {
            assert_eq!(
                status(&ask(&none, true, Method::GET, &[("host", host)])),
                expected,
                "{host}"
            );
            assert_eq!(
                status(&ask(&none, false, Method::GET, &[("host", host)])),
                200,
                "{host}"
            );
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(status(&ask(&none, true, Method::GET, &twice)), 400);
        assert_eq!(status(&ask(&none, true, Method::GET, &[])), 200);
    }

    #[test]
    fn same_origin_needs_no_headers() {
        let pairs = [
            ("host", "myhost.local:99"),
            ("origin", "http://myhost.local:99"),
        ];
        assert_eq!(
            ask(&Origins::default(), true, Method::GET, &pairs),
            Access::Granted(HeaderMap::new())
        );
    }
}
