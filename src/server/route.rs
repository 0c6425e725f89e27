//! Which handler answers which method and path, with gin's rules: a slash too many or too few is redirected, a known
//! path with another method is 405, the rest 404.

use super::error::{ApiError, respond};
use super::{App, Incoming, Response};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use warp::http::header::{ALLOW, HeaderValue, LOCATION};
use warp::http::{Method, StatusCode};

/// Answers one endpoint.
pub type Handler = fn(Arc<App>, Incoming) -> BoxFuture<'static, Result<Response, ApiError>>;

/// One line of the route table. A path segment that begins with a colon matches any one segment, one that begins with a
/// star the whole rest.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub handler: Handler,
}

/// What a path and a method lead to.
pub enum Found {
    /// The handler, and the segment that its `:name` matched.
    Handler(Handler, String),
    Redirect(Response),
    Refused(Response),
}

/// Looks a request up. `path` is as sent, `query` without its question mark.
pub fn find(routes: &[Route], method: &Method, path: &str, query: Option<&str>) -> Found {
    let Some(decoded) = percent_decoded(path) else {
        return Found::Refused(text(StatusCode::BAD_REQUEST, "400 bad request"));
    };
    if let Some((handler, segment)) = lookup(routes, method, &decoded) {
        return Found::Handler(handler, segment);
    }
    let tidy = tidied(&decoded);
    let wanted = [tidy.clone(), toggled(&tidy)]
        .into_iter()
        .find(|p| *p != decoded && lookup(routes, method, p).is_some());
    match wanted {
        Some(target) => Found::Redirect(redirect(method, &target, query)),
        None => Found::Refused(refusal(routes, &decoded)),
    }
}

fn lookup(routes: &[Route], method: &Method, path: &str) -> Option<(Handler, String)> {
    let matching = routes.iter().filter(|r| r.method == *method);
    matching
        .filter_map(|r| segment(r.path, path).map(|s| (r.handler, s)))
        .next()
}

/// The text that the pattern's `:name` or `*name` stands for (empty without one), or `None` when the path is another.
fn segment(pattern: &str, path: &str) -> Option<String> {
    let Some(at) = pattern.find([':', '*']) else {
        return (pattern == path).then(String::new);
    };
    let rest = path.strip_prefix(&pattern[..at])?;
    let fits = match pattern[at..].starts_with('*') {
        true => rest.split('/').all(|part| !part.is_empty()),
        false => !rest.is_empty() && !rest.contains('/'),
    };
    fits.then(|| rest.to_owned())
}

/// Without empty, `.` and `..` segments.
fn tidied(path: &str) -> String {
    let mut kept = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(part),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{slash}", kept.join("/"))
}

fn toggled(path: &str) -> String {
    match path.strip_suffix('/') {
        Some(shorter) => shorter.to_owned(),
        None => format!("{path}/"),
    }
}

/// 301 with a small page for GET, else 307, which keeps method and body.
fn redirect(method: &Method, target: &str, query: Option<&str>) -> Response {
    let mut location = percent_encoded(target);
    if let Some(query) = query {
        location = format!("{location}?{query}");
    }
    let mut response = if method == Method::GET {
        let page = format!(
            "<a href=\"{}\">Moved Permanently</a>.\n\n",
            location.replace('"', "%22")
        );
        respond(
            StatusCode::MOVED_PERMANENTLY,
            "text/html; charset=utf-8",
            page.into_bytes(),
        )
    } else {
        super::error::empty(StatusCode::TEMPORARY_REDIRECT)
    };
    match HeaderValue::from_str(&location) {
        Ok(value) => {
            response.headers_mut().insert(LOCATION, value);
            response
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "400 bad request"),
    }
}

fn refusal(routes: &[Route], path: &str) -> Response {
    let allowed: Vec<&str> = routes
        .iter()
        .filter(|r| segment(r.path, path).is_some())
        .map(|r| r.method.as_str())
        .collect();
    if allowed.is_empty() {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed");
    let value = HeaderValue::from_str(&allowed.join(", ")).expect("methods are plain text");
    response.headers_mut().insert(ALLOW, value);
    response
}

fn text(status: StatusCode, body: &'static str) -> Response {
    respond(status, "text/plain", body.as_bytes().to_vec())
}

/// `None` when an escape is cut off, is no hex, or does not give UTF-8.
fn percent_decoded(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            decoded.push(u8::from_str_radix(path.get(i + 1..i + 3)?, 16).ok()?);
            i += 3;
        } else {
            decoded.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(decoded)
        .ok()
        .filter(|s| !s.contains('\0'))
}

fn percent_encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/:@!$&'()*+,;=".contains(&b);
    path.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::empty;

    fn table() -> Vec<Route> {
        let route = |method, path| Route {
            method,
            path,
            handler: |_, _| Box::pin(async { Ok(empty(StatusCode::OK)) }),
        };
        vec![
            route(Method::GET, "/"),
            route(Method::GET, "/api/tags"),
            route(Method::HEAD, "/api/tags"),
            route(Method::POST, "/api/show"),
            route(Method::POST, "/api/blobs/:digest"),
            route(Method::GET, "/v1/models/*model"),
        ]
    }

    fn ask(method: Method, path: &str) -> (u16, String) {
        let header = |r: &Response, name| {
            r.headers()
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
        };
        match find(&table(), &method, path, Some("q=1")) {
            Found::Handler(_, segment) => (200, segment),
            Found::Redirect(r) => (r.status().as_u16(), header(&r, LOCATION).unwrap()),
            Found::Refused(r) => (r.status().as_u16(), header(&r, ALLOW).unwrap_or_default()),
        }
    }

    #[test]
    fn paths_and_methods() {
        for (method, path, status, detail) in [
            (Method::GET, "/", 200, ""),
            (Method::HEAD, "/api/tags", 200, ""),
            (Method::GET, "/v1/models/m:1b", 200, "m:1b"),
            (Method::GET, "/v1/models/user/m", 200, "user/m"),
            (
                Method::GET,
                "/v1/models/hf.co%2Fuser/m",
                200,
                "hf.co/user/m",
            ),
            (Method::GET, "/v1/models/m/", 301, "/v1/models/m?q=1"),
            (Method::GET, "/v1/models/", 404, ""),
            (Method::GET, "/api/tags/", 301, "/api/tags?q=1"),
            (Method::GET, "//api/tags", 301, "/api/tags?q=1"),
            (Method::GET, "/api/../api/./tags", 301, "/api/tags?q=1"),
            (Method::POST, "/api/show/", 307, "/api/show?q=1"),
            (Method::GET, "/api/show", 405, "POST"),
            (Method::HEAD, "/api/show", 405, "POST"),
            (Method::POST, "/api/tags", 405, "GET, HEAD"),
            (Method::GET, "/api/nope", 404, ""),
            (Method::POST, "/api/blobs/sha256:ab", 200, "sha256:ab"),
            (Method::POST, "/api/blobs/sha256%3Aab", 200, "sha256:ab"),
            (Method::POST, "/api/blobs/", 404, ""),
            (Method::POST, "/api/blobs/a%2Fb", 404, ""),
            (Method::GET, "/%zz", 400, ""),
            (Method::GET, "/%", 400, ""),
            (Method::GET, "/%00", 400, ""),
            (Method::GET, "/%ff", 400, ""),
        ] {
            assert_eq!(
                ask(method.clone(), path),
                (status, detail.to_owned()),
                "{method} {path}"
            );
        }
    }
}
