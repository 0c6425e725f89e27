//! Building models: `/api/create` with its progress, and the blobs it is built from.

use super::error::{ApiError, empty};
use super::names::{self, blocking};
use super::stream::{self, Objects, panicked};
use super::{App, Incoming, Response, body};
use crate::api::{CreateRequest, Progress};
use crate::store::{self, BlobUpload, Digest, check_create};
use futures_util::stream::unfold;
use std::sync::Arc;
use tokio::sync::mpsc;
use warp::http::StatusCode;

/// Largest model file that can be uploaded.
const MAX_BLOB_BYTES: u64 = 1 << 42;
/// Pieces of an upload between network and disk.
const PIECES_IN_FLIGHT: usize = 8;

/// `POST /api/create`.
pub async fn create(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let request: CreateRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    // What Ollama checks before its job begins answers with another content type.
    check_create(&request)?;
    let streams = request.stream.unwrap_or(true);
    let objects = job(app, request);
    if streams {
        stream::ndjson(objects).await
    } else {
        stream::last_object(objects).await
    }
}

/// Runs the creation on a thread for disk work; its steps arrive as they are taken.
fn job(app: Arc<App>, request: CreateRequest) -> Objects<Progress> {
    let (steps, receiver) = mpsc::unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        // A client that has gone away does not stop a creation that is about to be complete.
        let done = app
            .store
            .create(&request, &mut |step| drop(steps.send(step)));
        done.map_err(|e| refused(e, &request))
    });
    Box::pin(unfold(Some((receiver, work)), |state| async move {
        let (mut receiver, work) = state?;
        if let Some(step) = receiver.recv().await {
            return Some((Ok(step), Some((receiver, work))));
        }
        let result = work.await.unwrap_or_else(|_| Err(panicked()));
        result.err().map(|e| (Err(e), None))
    }))
}

/// A source that is not in the store would have to be pulled.
fn refused(error: store::Error, request: &CreateRequest) -> ApiError {
    match error {
        store::Error::NotFound(_) => ApiError::internal(format!(
            "model '{}' is not in the store, and pulling is not implemented yet; create it from a GGUF file first",
            request.from
        )),
        store::Error::BlobNotFound(_) => ApiError::internal(error.to_string()),
        other => other.into(),
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
    let digest = Digest::parse(&incoming.segment)?;
    let store = app.store.clone();
    if blocking(move || Ok(store.has_blob(&digest)?)).await? {
        return Ok(empty(StatusCode::OK));
    }
    let upload = names::blocking(move || Ok(app.store.upload(digest, MAX_BLOB_BYTES)?)).await?;
    receive(upload, incoming.body).await?;
    Ok(empty(StatusCode::CREATED))
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
        match body::next_chunk(&mut body).await {
            Ok(Some(piece)) => {
                if sender.send(piece).await.is_err() {
                    // The writer has failed; its error comes below.
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
