//! Models on their way: `/api/pull` and `/api/push`, `/api/create` with its progress, and the blobs it is built from.

use super::error::{ApiError, empty};
use super::names::{self, blocking};
use super::stream::{self, Objects, panicked};
use super::{App, Incoming, Response, body};
use crate::api::{CreateRequest, Progress, PullRequest, PushRequest};
use crate::store::registry;
use crate::store::{self, BlobUpload, Digest, MAX_BLOB_BYTES, ModelName, check_create};
use futures_util::stream::unfold;
use std::sync::Arc;
use tokio::sync::mpsc;
use warp::http::StatusCode;

/// Most that is read of an upload that is there already.
const MAX_DISCARDED_BYTES: usize = 1 << 30;
/// Pieces of an upload between network and disk.
const PIECES_IN_FLIGHT: usize = 8;
/// Steps of a job between it and a client that is slow to read.
const STEPS_IN_FLIGHT: usize = 16;

/// `POST /api/create`.
pub async fn create(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    app.settings.changes.any()?;
    let request: CreateRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    // What Ollama checks before its job begins answers with another content type.
    check_create(&request)?;
    let streams = request.stream;
    answer(streams, job(app, request)).await
}

/// Pulls the source if it is not in the store, then creates the model on a thread for disk work; steps arrive as
/// they are taken.
fn job(app: Arc<App>, request: CreateRequest) -> Objects<Progress> {
    steps_of(move |steps| async move {
        if let Some(source) = missing_source(&app, &request).await? {
            app.registry.pull(&source, false, &steps).await?;
        }
        let work =
            tokio::task::spawn_blocking(move || app.store.create(&request, &mut Waiting(steps)));
        match work.await {
            Ok(done) => done.map_err(refused),
            Err(_) => Err(panicked()),
        }
    })
}

/// A client that waits for the steps of a creation.
struct Waiting(registry::Steps);

impl store::Client for Waiting {
    fn tell(&mut self, step: Progress) {
        // One that has left hears nothing more.
        self.0.blocking_send(step).ok();
    }

    fn is_there(&self) -> bool {
        !self.0.is_closed()
    }
}

/// The model that a creation starts from, if it has to be pulled.
async fn missing_source(
    app: &Arc<App>,
    request: &CreateRequest,
) -> Result<Option<ModelName>, ApiError> {
    let Ok(name) = names::parse(&request.from) else {
        return Ok(None);
    };
    let app = Arc::clone(app);
    blocking(move || Ok(app.store.find(&name).is_none().then_some(name))).await
}

fn refused(error: store::Error) -> ApiError {
    match error {
        store::Error::BlobNotFound(_) => ApiError::internal(error.to_string()),
        other => other.into(),
    }
}

/// `POST /api/pull`.
pub async fn pull(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let request: PullRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    let name = names::parse(sent_name(&request))?;
    app.settings.changes.pull(&name)?;
    let objects = steps_of(move |steps| async move {
        Ok(app.registry.pull(&name, request.insecure, &steps).await?)
    });
    answer(request.stream, objects).await
}

/// `POST /api/push`.
pub async fn push(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    app.settings.changes.any()?;
    let request: PushRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    names::required(sent_name(&request))?;
    let name = match names::parse(sent_name(&request)) {
        Ok(name) => name,
        Err(e) if e.message == store::Error::InvalidName.to_string() => {
            let why = format!("unqualified name: {}", qualified(sent_name(&request)));
            let objects = steps_of(|steps| async move {
                for status in ["retrieving manifest", "couldn't retrieve manifest"] {
                    let status = status.to_owned();
                    // Nobody listens any more where this fails.
                    let _ = steps
                        .send(Progress {
                            status,
                            ..Default::default()
                        })
                        .await;
                }
                Err(ApiError::internal(why))
            });
            return answer(request.stream, objects).await;
        }
        Err(e) => return Err(e),
    };
    let objects = steps_of(move |steps| async move {
        Ok(app.registry.push(&name, request.insecure, &steps).await?)
    });
    answer(request.stream, objects).await
}

fn sent_name(request: &PullRequest) -> &str {
    match request.model.trim() {
        "" => request.name.trim(),
        model => model,
    }
}

/// A malformed name with the parts in front that it lacks, as Ollama shows it.
fn qualified(name: &str) -> String {
    match name.matches('/').count() {
        0 => format!("registry.ollama.ai/library/{name}"),
        1 => format!("registry.ollama.ai/{name}"),
        _ => name.into(),
    }
}

async fn answer(stream: Option<bool>, objects: Objects<Progress>) -> Result<Response, ApiError> {
    match stream.unwrap_or(true) {
        true => stream::ndjson(objects).await,
        false => stream::last_object(objects).await,
    }
}

impl From<registry::Error> for ApiError {
    fn from(error: registry::Error) -> ApiError {
        match &error {
            registry::Error::Store(inner) if inner.is_disk_full() => {
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            registry::Error::Private(_) => ApiError::new(StatusCode::FORBIDDEN, error.to_string()),
            _ => ApiError::internal(error.to_string()),
        }
    }
}

/// A task of its own; its steps arrive as they are taken. It ends when nobody reads them any more.
fn steps_of<W>(work: impl FnOnce(registry::Steps) -> W) -> Objects<Progress>
where
    W: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (steps, receiver) = mpsc::channel(STEPS_IN_FLIGHT);
    let task = AbortOnDrop(tokio::spawn(work(steps)));
    Box::pin(unfold(Some((receiver, task)), |state| async move {
        let (mut receiver, mut task) = state?;
        if let Some(step) = receiver.recv().await {
            return Some((Ok(step), Some((receiver, task))));
        }
        let result = (&mut task.0).await.unwrap_or_else(|_| Err(panicked()));
        result.err().map(|e| (Err(e), None))
    }))
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<(), ApiError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `HEAD /api/blobs/:digest`.
pub async fn blob_exists(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let digest = Digest::parse(&incoming.segment)?;
    blocking(move || {
        if app.store.has_blob(&digest)? {
            Ok(empty(StatusCode::OK))
        } else {
            Err(ApiError::not_found(format!(
                "blob \"{}\" not found",
                incoming.segment
            )))
        }
    })
    .await
}

/// `POST /api/blobs/:digest`: the body is the file.
pub async fn blob_upload(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    app.settings.changes.any()?;
    let digest = Digest::parse(&incoming.segment)?;
    let store = app.store.clone();
    if blocking(move || Ok(store.has_blob(&digest)?)).await? {
        discard(incoming.body).await;
        return Ok(empty(StatusCode::OK));
    }
    let upload = names::blocking(move || Ok(app.store.upload(digest, MAX_BLOB_BYTES)?)).await?;
    receive(upload, incoming.body).await?;
    Ok(empty(StatusCode::CREATED))
}

/// Reads what the client is still sending: one that is answered and cut off in the middle of its
/// body sees a broken pipe instead of the answer.
async fn discard(mut body: body::BodyStream) {
    let mut left = MAX_DISCARDED_BYTES;
    while let Ok(Some(piece)) = body.next_chunk().await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Writes the body as it comes; nothing is left when it breaks off.
async fn receive(mut upload: BlobUpload, mut body: body::BodyStream) -> Result<(), ApiError> {
    let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(PIECES_IN_FLIGHT);
    let (whole, is_whole) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(piece) = receiver.blocking_recv() {
            upload.write(&piece)?;
        }
        // Without this word the client broke off, and the upload is dropped.
        match is_whole.blocking_recv() {
            Ok(()) => Ok(upload.finish()?),
            Err(_) => Err(ApiError::bad_request("unexpected EOF")),
        }
    });
    let mut broken = None;
    loop {
        match body.next_chunk().await {
            Ok(Some(piece)) => {
                if sender.send(piece).await.is_err() {
                    // The writer has failed; its error comes below.
                    discard(body).await;
                    break;
                }
            }
            Ok(None) => {
                // It cannot fail in a way that matters: a writer that is gone has an error of its own.
                let _ = whole.send(());
                break;
            }
            Err(e) => {
                broken = Some(e);
                drop(whole);
                break;
            }
        }
    }
    drop(sender);
    let written = writer.await.unwrap_or_else(|_| Err(panicked()));
    match broken {
        Some(e) => Err(e),
        None => written,
    }
}
