//! A blob in parts, several at once, beside its place in the store; what is there after a crash is not fetched again.

use super::http::{Session, accepted, transport};
use super::{Error, PARTS_AT_ONCE, blocking, part_bytes};
use crate::store::manifest::Layer;
use crate::store::partial::{Part, Partial};
use crate::store::{self, Store};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a part that are written at once; no more are fetched again after a crash.
const WRITE_BYTES: usize = 1 << 20;
const MAX_TRIES: u32 = 6;
/// Tries in a row that end because nothing came.
const MAX_STALLS: u32 = 20;
/// Fewer bytes than these, in the time of a stall, are as good as none.
const MIN_BYTES: u64 = 4 << 10;
/// Between two looks at a download of another server on the same folder.
const LOOK: Duration = Duration::from_millis(100);

/// The download of one blob.
pub(super) struct Download {
    pub(super) session: Arc<Session>,
    pub(super) store: Store,
    pub(super) layer: Layer,
    /// Bytes that are on disk.
    pub(super) completed: Arc<AtomicU64>,
}

impl Download {
    /// Fetches what is missing; the blob is then whole, but not verified.
    pub(super) async fn run(self) -> Result<(), Error> {
        let claimed = claim(&self.store, &self.layer, &self.completed).await?;
        let Some(partial) = claimed else {
            return Ok(());
        };
        let parts = match partial.files().parts(self.layer.size) {
            Some(parts) => parts,
            None => {
                partial.clear().map_err(|e| self.disk(e))?;
                self.split()
            }
        };
        match self.fetch_all(&partial, parts).await {
            // One stream, of which what is on disk is skipped.
            Err(Error::NoRanges) => {
                let whole = Part {
                    n: 0,
                    offset: 0,
                    size: self.layer.size,
                    completed: 0,
                };
                partial.clear().map_err(|e| self.disk(e))?;
                self.fetch_all(&partial, vec![whole]).await
            }
            done => done,
        }
    }

    async fn fetch_all(&self, partial: &Partial, parts: Vec<Part>) -> Result<(), Error> {
        partial.prepare(self.layer.size).map_err(|e| self.disk(e))?;
        self.completed.store(n_bytes(&parts), Ordering::Relaxed);
        for part in &parts {
            partial.save(part).map_err(|e| self.disk(e))?;
        }
        let is_only = parts.len() == 1;
        let fetches = iter(parts).map(|part| Ok(self.fetch(partial, part, is_only)));
        fetches
            .try_buffer_unordered(PARTS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    async fn fetch(&self, partial: &Partial, mut part: Part, is_only: bool) -> Result<(), Error> {
        let (mut n_failures, mut n_stalls) = (0, 0);
        while part.completed < part.size {
            let before = part.completed;
            let result = self.attempt(partial, &mut part, is_only).await;
            if part.completed > before {
                (n_failures, n_stalls) = (0, 0);
            }
            let error = match result {
                Ok(()) => continue,
                Err(e) if e.is_final() => return Err(e),
                Err(e) => e,
            };
            tracing::debug!("part {} of {}: {error}", part.n, self.layer.digest);
            if matches!(error, Error::Stalled(_)) {
                n_stalls += 1;
                if n_stalls == MAX_STALLS {
                    return Err(error);
                }
                continue;
            }
            n_failures += 1;
            if n_failures == MAX_TRIES {
                return Err(Error::Retries(error.into()));
            }
            let pause = self.session.registry.timing().pause * 2u32.pow(n_failures - 1);
            tokio::time::sleep(error.wait(pause)).await;
        }
        Ok(())
    }

    /// One request for the rest of a part. What came is on disk afterwards, also after an error.
    async fn attempt(
        &self,
        partial: &Partial,
        part: &mut Part,
        is_only: bool,
    ) -> Result<(), Error> {
        let stall = self.session.registry.timing().stall;
        let start = part.offset + part.completed;
        let end = part.offset + part.size - 1;
        let url = self.session.url(&format!("blobs/{}", self.layer.digest));
        let range = format!("bytes={start}-{end}");
        let request = self
            .session
            .get(Method::GET, url, |request| request.header(RANGE, &range));
        let response = within(stall, request).await??;
        let status = response.status();
        let response = accepted(response).await?;
        let skip = match status {
            StatusCode::PARTIAL_CONTENT => {
                check_range(&response, start, self.layer.size)?;
                0
            }
            // From its beginning, whatever was asked for.
            _ if start == 0 => 0,
            _ if is_only => start,
            _ => return Err(Error::NoRanges),
        };
        self.receive(response, skip, partial, part).await
    }

    async fn receive(
        &self,
        mut response: Response,
        mut skip: u64,
        partial: &Partial,
        part: &mut Part,
    ) -> Result<(), Error> {
        let stall = self.session.registry.timing().stall;
        let url = response.url().clone();
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        let mut result = Ok(());
        let mut is_open = true;
        let (mut since, mut n_since) = (Instant::now(), 0);
        while is_open {
            let left = stall.saturating_sub(since.elapsed());
            let piece = within(left, response.chunk()).await;
            let piece = piece.and_then(|p| p.map_err(|e| transport(&Method::GET, &url, &e)));
            match piece {
                Ok(Some(piece)) => {
                    n_since += piece.len() as u64;
                    if n_since >= MIN_BYTES {
                        (since, n_since) = (Instant::now(), 0);
                    }
                    let skipped = skip.min(piece.len() as u64);
                    skip -= skipped;
                    let wanted = part.size - part.completed - buffer.len() as u64;
                    let piece = &piece[skipped as usize..];
                    let n = (piece.len() as u64).min(wanted);
                    buffer.extend_from_slice(&piece[..n as usize]);
                    is_open = n < wanted;
                }
                Ok(None) => {
                    let text = format!("Get \"{url}\": unexpected EOF");
                    result = Err(Error::Broken(text));
                    is_open = false;
                }
                Err(e) => {
                    result = Err(e);
                    is_open = false;
                }
            }
            if buffer.len() >= WRITE_BYTES || (!is_open && !buffer.is_empty()) {
                buffer = self.write(partial, part, buffer).await?;
            }
        }
        result
    }

    /// Writes the next bytes of a part, and then how far it is. Returns the buffer, empty.
    async fn write(
        &self,
        partial: &Partial,
        part: &mut Part,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let n_bytes = buffer.len() as u64;
        let position = part.offset + part.completed;
        part.completed += n_bytes;
        let (partial, state) = (partial.clone(), part.clone());
        let work = move || {
            let written = partial.write(&buffer, position);
            buffer.clear();
            Ok(written.and_then(|()| partial.save(&state)).map(|()| buffer))
        };
        let buffer = blocking(work).await?.map_err(|e| self.disk(e))?;
        self.completed.fetch_add(n_bytes, Ordering::Relaxed);
        Ok(buffer)
    }

    fn split(&self) -> Vec<Part> {
        let size = self.layer.size;
        let step = part_bytes(size);
        let offsets = (0..size.div_ceil(step)).map(|n| (n, n * step));
        let part = |(n, offset)| Part {
            n,
            offset,
            size: step.min(size - offset),
            completed: 0,
        };
        offsets.map(part).collect()
    }

    fn disk(&self, source: std::io::Error) -> Error {
        disk(&self.layer, source)
    }
}

/// Takes an unfinished blob. Waits while another server on the same folder has it, and tells how far that is; `None`
/// once the store has the blob.
pub(super) async fn claim(
    store: &Store,
    layer: &Layer,
    completed: &AtomicU64,
) -> Result<Option<Partial>, Error> {
    let files = store.partial(&layer.digest);
    let mut is_told = false;
    while !store.has_whole_blob(layer) {
        let claimed = files.claim().map_err(|e| disk(layer, e))?;
        if claimed.is_some() {
            return Ok(claimed);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!("blob {} is being fetched by another server", layer.digest);
        }
        if let Some(parts) = files.parts(layer.size) {
            completed.store(n_bytes(&parts), Ordering::Relaxed);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(None)
}

/// Bytes of an unfinished blob that an earlier download has left.
pub(super) fn on_disk(store: &Store, layer: &Layer) -> u64 {
    let parts = store.partial(&layer.digest).parts(layer.size);
    parts.map_or(0, |parts| n_bytes(&parts))
}

/// Bytes that are on disk.
fn n_bytes(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.completed).sum()
}

fn disk(layer: &Layer, source: std::io::Error) -> Error {
    Error::Store(store::Error::Io {
        what: format!("cannot write blob {}", layer.digest),
        source,
    })
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    let stalled = |_| Error::Stalled(limit.as_secs());
    tokio::time::timeout(limit, work).await.map_err(stalled)
}

/// Whether the part that comes begins where it was asked to.
fn check_range(response: &Response, start: u64, size: u64) -> Result<(), Error> {
    let header = response.headers().get(CONTENT_RANGE);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
    let parsed = text.strip_prefix("bytes ").and_then(|range| {
        let (range, total) = range.split_once('/')?;
        let first: u64 = range.split_once('-')?.0.parse().ok()?;
        Some((first, total == "*" || total.parse() == Ok(size)))
    });
    match parsed {
        Some((first, true)) if first == start => Ok(()),
        _ => Err(Error::Broken(format!(
            "the registry sent the range {text:.80?} where byte {start} of {size} was asked for"
        ))),
    }
}
