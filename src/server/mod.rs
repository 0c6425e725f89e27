//! Ollama's HTTP API: who may call, what is asked, what is answered. The only importer of warp.
//!
//! warp carries requests in and replies out through one filter; the table below decides between endpoints, since the
//! order of redirects, access checks, 404 and 405 is part of the API, and rejections of many filters would lose it.

mod access;
mod anthropic;
mod body;
mod changes;
mod chat;
mod embed;
mod error;
mod generate;
mod generation;
mod hosted;
mod inflate;
mod keep_alive;
mod keys;
mod later;
mod listen;
mod models;
mod names;
mod openai;
mod options;
mod prompt;
mod request_log;
mod route;
mod run;
mod status;
mod stream;
mod templates;
mod time;
mod tls;
mod tool_choice;
mod transfer;

use crate::engine::Models;
use crate::store::Store;
use crate::store::registry::Registry;
use access::Access;
use body::BodyStream;
use error::ApiError;
use futures_util::FutureExt;
use route::{Found, Route};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tokio_rustls::TlsAcceptor;
use warp::Filter;
use warp::filters::path::FullPath;
use warp::http::{HeaderMap, Method};

pub use access::Origins;
pub use changes::Changes;
pub use keys::Keys;
pub use listen::bind;
pub use request_log::RequestLog;
pub use templates::Templates;
pub use tls::acceptor as tls_acceptor;

type Response = warp::reply::Response;

/// What every handler can reach.
pub struct App {
    pub store: Store,
    pub registry: Registry,
    pub models: Models,
    pub settings: ServerSettings,
    /// Parsed when they are first asked for.
    pub templates: Templates,
}

/// What the user's settings say about serving.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    /// Pages that may call, beside those of this machine (`OLLAMA_ORIGINS`).
    pub origins: Origins,
    /// The server listens on a loopback address: the `Host` header is checked against DNS rebinding.
    pub loopback_only: bool,
    /// `OLLAMA_NO_CLOUD`. Hosted models are refused in any case; this is what `/api/status` names as the reason.
    pub no_cloud: bool,
    /// Who may call; without keys everyone may.
    pub keys: Option<Arc<Keys>>,
    /// What those may change.
    pub changes: Changes,
    /// `OLLAMA_GO_TEMPLATE`: prefer Go templates, or the GGUF's; unset, by what each can do.
    pub go_template: Option<bool>,
    /// `OLLAMA_DEBUG_LOG_REQUESTS`: where requests are kept, if they are.
    pub request_log: Option<Arc<RequestLog>>,
}

/// A request on its way to a handler.
pub struct Incoming {
    headers: HeaderMap,
    body: BodyStream,
    /// What the `:name` or `*name` of the route stands for.
    segment: String,
    received: Instant,
}

/// A line of [`ROUTES`]; the future is boxed so that all handlers have one type.
macro_rules! route {
    ($method:ident, $path:literal, $handler:path) => {
        Route {
            method: Method::$method,
            path: $path,
            handler: |app, incoming| Box::pin($handler(app, incoming)),
        }
    };
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        route!(GET, "/", status::alive),
        route!(HEAD, "/", status::alive),
        route!(GET, "/api/version", status::version),
        route!(HEAD, "/api/version", status::version),
        route!(GET, "/api/status", status::cloud),
        route!(GET, "/api/tags", models::tags),
        route!(HEAD, "/api/tags", models::tags),
        route!(GET, "/api/ps", models::ps),
        route!(POST, "/api/show", models::show),
        route!(POST, "/api/copy", models::copy),
        route!(DELETE, "/api/delete", models::delete),
        route!(POST, "/api/create", transfer::create),
        route!(POST, "/api/pull", transfer::pull),
        route!(POST, "/api/push", transfer::push),
        route!(HEAD, "/api/blobs/:digest", transfer::blob_exists),
        route!(POST, "/api/blobs/:digest", transfer::blob_upload),
        route!(POST, "/api/generate", generate::generate),
        route!(POST, "/api/chat", chat::chat),
        route!(POST, "/api/embed", embed::embed),
        route!(POST, "/api/embeddings", embed::embeddings),
        route!(POST, "/v1/chat/completions", openai::chat_completions),
        route!(POST, "/v1/embeddings", openai::embeddings),
        route!(GET, "/v1/models", openai::list),
        route!(GET, "/v1/models/*model", openai::get),
        route!(POST, "/api/me", hosted::account),
        route!(POST, "/api/signout", hosted::sign_out),
        route!(DELETE, "/api/user/keys/:key", hosted::sign_out),
        route!(POST, "/api/experimental/web_search", hosted::web_search),
        route!(POST, "/api/experimental/web_fetch", hosted::web_fetch),
        route!(
            GET,
            "/api/experimental/model-recommendations",
            hosted::recommendations
        ),
        route!(POST, "/v1/completions", openai::completions),
        route!(POST, "/v1/responses", openai::responses),
        route!(POST, "/v1/responses/input_tokens", openai::input_tokens),
        route!(POST, "/v1/messages", anthropic::messages),
        route!(POST, "/v1/messages/count_tokens", anthropic::count_tokens),
        route!(POST, "/v1/audio/transcriptions", later::transcriptions),
    ]
});

/// Serves until `stop` resolves, then closes every connection and unloads all models.
pub async fn serve(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    app: Arc<App>,
    stop: impl Future<Output = ()>,
) {
    listen::serve(listener, tls, routes(Arc::clone(&app)), stop).await;
    app.models.shutdown().await;
}

/// The whole API as one filter.
fn routes(app: Arc<App>) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone {
    let query = warp::query::raw()
        .map(Some)
        .or_else(|_| async { Ok::<_, Infallible>((None,)) });
    // Without a path, as in CONNECT, warp's path filter would panic.
    let with_path = warp::method().and_then(|method: Method| async move {
        if method == Method::CONNECT {
            return Err(warp::reject::reject());
        }
        Ok(method)
    });
    let request = with_path
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream());
    let answered = request.then(
        move |method: Method, path: FullPath, query: Option<String>, headers: HeaderMap, body| {
            let app = Arc::clone(&app);
            let incoming = Incoming {
                body: BodyStream::new(body, &headers),
                headers,
                segment: String::new(),
                received: Instant::now(),
            };
            async move { answer(app, &method, path.as_str(), query.as_deref(), incoming).await }
        },
    );
    answered
        .recover(|_| async { Ok::<_, Infallible>(no_path()) })
        .unify()
}

/// The answer to a request that names no path.
fn no_path() -> Response {
    ApiError::bad_request("the request names no path").into_response()
}

/// Redirects first, then access, then the handler or the refusal.
async fn answer(
    app: Arc<App>,
    method: &Method,
    path: &str,
    query: Option<&str>,
    mut incoming: Incoming,
) -> Response {
    let found = route::find(&ROUTES, method, path, query);
    if let Found::Redirect(response) = found {
        return response;
    }
    let settings = &app.settings;
    let granted = match access::check(
        &settings.origins,
        settings.loopback_only,
        method,
        &incoming.headers,
    ) {
        Access::Granted(headers) => headers,
        Access::Answered(status, headers) => {
            let mut response = error::empty(status);
            *response.headers_mut() = headers;
            return response;
        }
    };
    let keys = settings.keys.as_ref();
    let mut response = match found {
        _ if keys
            .is_some_and(|keys| !keys::is_open(method, path) && !keys.admit(&incoming.headers)) =>
        {
            keys::refusal(path, &incoming.headers)
        }
        Found::Handler(handler, segment) => {
            incoming.segment = segment;
            let log = settings.request_log.as_ref();
            incoming.body.log = log.and_then(|log| log.entry(path, &incoming.headers));
            handled(handler, app, incoming).await
        }
        Found::Refused(response) | Found::Redirect(response) => response,
    };
    response.headers_mut().extend(granted);
    response
}

/// The handler's answer; its errors and panics too are answers to this client alone.
async fn handled(handler: route::Handler, app: Arc<App>, incoming: Incoming) -> Response {
    match AssertUnwindSafe(handler(app, incoming))
        .catch_unwind()
        .await
    {
        Ok(answer) => answer.unwrap_or_else(ApiError::into_response),
        Err(_) => stream::panicked().into_response(),
    }
}

#[cfg(test)]
mod tests;
