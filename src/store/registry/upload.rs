//! A blob to the registry: found there, mounted from another model, or sent in parts one after another.

use super::http::{Session, accepted};
use super::{Error, part_bytes};
use crate::store::blobs::missing_or_io;
use crate::store::manifest::Layer;
use crate::store::{ModelName, Store};
use futures_util::StreamExt;
use md5::{Digest as _, Md5};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

const MAX_TRIES: u32 = 6;
const READ_BYTES: usize = 256 << 10;

/// The upload of one blob.
pub(super) struct Upload<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a Store,
    pub(super) layer: &'a Layer,
    /// Bytes sent.
    pub(super) completed: Arc<AtomicU64>,
}

impl Upload<'_> {
    /// Whether the registry has the blob already.
    pub(super) async fn is_there(&self) -> Result<bool, Error> {
        let url = self.session.url(&format!("blobs/{}", self.layer.digest));
        let response = self
            .session
            .get(Method::HEAD, url, |request| request)
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => accepted(response).await.map(|_| true),
        }
    }

    /// Sends the blob, from the start again where a part is refused: its session is then used up.
    pub(super) async fn run(&self) -> Result<(), Error> {
        let mut n_failures = 0;
        loop {
            let error = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(e) if e.is_final() => return Err(e),
                Err(e) => e,
            };
            n_failures += 1;
            if n_failures == MAX_TRIES {
                return Err(Error::Retries(error.into()));
            }
            self.completed.store(0, Ordering::Relaxed);
            let pause = self.session.registry.timing().pause * 2u32.pow(n_failures - 1);
            tokio::time::sleep(error.wait(pause)).await;
        }
    }

    async fn attempt(&self) -> Result<(), Error> {
        let Some(mut at) = self.begin().await? else {
            return Ok(());
        };
        let size = self.layer.size;
        let mut sums = Vec::new();
        let mut start = 0;
        while start < size {
            let bytes = part_bytes(size).min(size - start);
            let (next, sum) = self.send_part(&at, start, bytes).await?;
            at = next;
            sums.push(sum);
            start += bytes;
        }
        let etag = format!("{}-{}", hex::encode(Md5::digest(sums.concat())), sums.len());
        at.query_pairs_mut()
            .append_pair("digest", &self.layer.digest.to_string())
            .append_pair("etag", &etag);
        let limit = self.session.registry.timing().commit;
        let finish = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let response = self.session.send(Method::PUT, &at, limit, finish).await?;
        accepted(response).await.map(drop)
    }

    /// Opens a session; `None` where the registry took the blob from another of its models.
    async fn begin(&self) -> Result<Option<Url>, Error> {
        let mut url = self.session.url("blobs/uploads/");
        if let Ok(from) = ModelName::parse(&self.layer.from) {
            let from = format!("{}/{}", from.namespace(), from.model());
            url.query_pairs_mut()
                .append_pair("mount", &self.layer.digest.to_string())
                .append_pair("from", &from);
        }
        let limit = self.session.registry.timing().header;
        let empty = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let response = self.session.send(Method::POST, &url, limit, empty).await?;
        let response = accepted(response).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        self.next(&url, &response).map(Some)
    }

    /// Where the session goes on: on the registry itself.
    fn next(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let location = header("docker-upload-location").or_else(|| header(LOCATION.as_str()));
        let location = location
            .ok_or_else(|| Error::Protocol("the registry names no place for the upload".into()))?;
        let next = self.session.resolve(from, location)?;
        match self.session.is_own(&next) {
            true => Ok(next),
            false => Err(Error::Protocol(format!(
                "the registry sends the upload to another host, {next}"
            ))),
        }
    }

    /// Sends `bytes` bytes of the blob; returns the next address of the session and the part's MD5.
    async fn send_part(&self, at: &Url, start: u64, bytes: u64) -> Result<(Url, Vec<u8>), Error> {
        let range = format!("{start}-{}", start + bytes - 1);
        let sum = Arc::new(Mutex::new(Md5::new()));
        let body = self.part(start, bytes, &sum).await?;
        let sent = &self.completed;
        let request = self.session.upload(Method::PATCH, at, sent, |request| {
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, bytes)
                .header(CONTENT_RANGE, &range)
                .header("X-Redirect-Uploads", "1")
                .body(body)
        });
        let response = request.await?;
        if response.status() == StatusCode::TEMPORARY_REDIRECT {
            return self.send_elsewhere(at, &response, start, bytes).await;
        }
        let response = accepted(response).await?;
        let next = self.next(at, &response)?;
        Ok((next, finish(&sum)))
    }

    /// The part goes to an object store, which gets no token; the session goes on at the registry.
    async fn send_elsewhere(
        &self,
        at: &Url,
        response: &Response,
        start: u64,
        bytes: u64,
    ) -> Result<(Url, Vec<u8>), Error> {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let target = header(LOCATION.as_str());
        let target = target.ok_or_else(|| Error::Protocol("a redirect without address".into()))?;
        let target = self.session.resolve(at, target)?;
        let next = match header("docker-upload-location") {
            Some(location) => self.session.resolve(at, location)?,
            None => at.clone(),
        };
        // What the registry read of the refused body does not count.
        self.completed.store(start, Ordering::Relaxed);
        let sum = Arc::new(Mutex::new(Md5::new()));
        let body = self.part(start, bytes, &sum).await?;
        let sent = &self.completed;
        let request = self.session.upload(Method::PUT, &target, sent, |request| {
            request.header(CONTENT_LENGTH, bytes).body(body)
        });
        accepted(request.await?).await?;
        Ok((next, finish(&sum)))
    }

    /// A part of the blob as it is read, counted and summed.
    async fn part(&self, start: u64, bytes: u64, sum: &Arc<Mutex<Md5>>) -> Result<Body, Error> {
        let broken = |e| Error::Store(missing_or_io(&self.layer.digest, e));
        let path = self.store.blob_path(&self.layer.digest);
        let mut file = tokio::fs::File::open(path).await.map_err(broken)?;
        let position = std::io::SeekFrom::Start(start);
        file.seek(position).await.map_err(broken)?;
        let (sum, completed) = (Arc::clone(sum), Arc::clone(&self.completed));
        let pieces = ReaderStream::with_capacity(file.take(bytes), READ_BYTES).map(move |piece| {
            if let Ok(piece) = &piece {
                sum.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .update(piece);
                completed.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            piece
        });
        Ok(Body::wrap_stream(pieces))
    }
}

fn finish(sum: &Mutex<Md5>) -> Vec<u8> {
    let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    sum.clone().finalize().to_vec()
}
