//! A blob in parts, several at once, beside its place in the store; what is there after a crash is not fetched again.

use super::http::{Session, accepted, transport};
use super::{Error, PARTS_AT_ONCE, part_bytes};
use crate::store::manifest::Layer;
use crate::store::{self, Store};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// Bytes of a part that are written at once; no more are fetched again after a crash.
const WRITE_BYTES: usize = 1 << 20;
const MAX_TRIES: u32 = 6;
/// Tries in a row that end because nothing came.
const MAX_STALLS: u32 = 20;
/// Fewer bytes than these, in the time of a stall, are as good as none.
const MIN_BYTES: u64 = 4 << 10;

/// A part's state, as its file has it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    n: u64,
    offset: u64,
    size: u64,
    completed: u64,
}

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
        let parts = match self.resume() {
            Some(parts) => parts,
            None => {
                self.clear();
                self.split()
            }
        };
        match self.fetch_all(parts).await {
            // One stream, of which what is on disk is skipped.
            Err(Error::NoRanges) => {
                let whole = Part {
                    n: 0,
                    offset: 0,
                    size: self.layer.size,
                    completed: 0,
                };
                self.clear();
                self.fetch_all(vec![whole]).await
            }
            done => done,
        }
    }

    async fn fetch_all(&self, parts: Vec<Part>) -> Result<(), Error> {
        let data = self.data();
        prepare(&data, self.layer.size).map_err(|e| self.disk(e))?;
        let done = parts.iter().map(|part| part.completed).sum();
        self.completed.store(done, Ordering::Relaxed);
        for part in &parts {
            self.save(part)?;
        }
        let is_only = parts.len() == 1;
        let fetches = iter(parts).map(|part| Ok(self.fetch(part, is_only)));
        fetches
            .try_buffer_unordered(PARTS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    async fn fetch(&self, mut part: Part, is_only: bool) -> Result<(), Error> {
        let (mut n_failures, mut n_stalls) = (0, 0);
        while part.completed < part.size {
            let before = part.completed;
            let result = self.attempt(&mut part, is_only).await;
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
    async fn attempt(&self, part: &mut Part, is_only: bool) -> Result<(), Error> {
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
        let mut file = tokio::fs::File::options();
        let mut file = file
            .write(true)
            .open(self.data())
            .await
            .map_err(|e| self.disk(e))?;
        let position = std::io::SeekFrom::Start(start);
        file.seek(position).await.map_err(|e| self.disk(e))?;
        self.receive(response, skip, &mut file, part).await
    }

    async fn receive(
        &self,
        mut response: Response,
        mut skip: u64,
        file: &mut tokio::fs::File,
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
                file.write_all(&buffer).await.map_err(|e| self.disk(e))?;
                file.flush().await.map_err(|e| self.disk(e))?;
                part.completed += buffer.len() as u64;
                self.completed
                    .fetch_add(buffer.len() as u64, Ordering::Relaxed);
                buffer.clear();
                self.save(part)?;
            }
        }
        result
    }

    fn data(&self) -> PathBuf {
        self.store.partial_path(&self.layer.digest)
    }

    fn state(&self, n: u64) -> PathBuf {
        self.store.part_path(&self.layer.digest, n)
    }

    /// Replaces the part's file: whenever the process dies, the old or the new one is whole.
    fn save(&self, part: &Part) -> Result<(), Error> {
        let path = self.state(part.n);
        let mut text = serde_json::to_vec(part).map_err(|e| self.disk(e.into()))?;
        text.push(b'\n');
        let new = path.with_extension("new");
        open_own(&new)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|e| self.disk(e))
    }

    /// The parts of a download that broke off; `None` where they do not make up the blob.
    fn resume(&self) -> Option<Vec<Part>> {
        let length = own_bytes(&self.data())?;
        let read = |n| {
            own_bytes(&self.state(n))?;
            let file = std::fs::File::open(self.state(n)).ok()?;
            serde_json::from_reader::<_, Part>(std::io::Read::take(file, 1024)).ok()
        };
        let parts: Vec<Part> = (0..u64::from(u16::MAX)).map_while(read).collect();
        let mut next = 0;
        for (n, part) in (0..).zip(&parts) {
            let is_next = part.n == n && part.offset == next && part.completed <= part.size;
            next = is_next.then(|| part.offset.checked_add(part.size))??;
        }
        let is_whole = next == self.layer.size && length == self.layer.size && !parts.is_empty();
        is_whole.then_some(parts)
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

    /// Forgets what is on disk.
    fn clear(&self) {
        self.store.remove_partial(&self.layer.digest);
    }

    fn disk(&self, source: std::io::Error) -> Error {
        Error::Store(store::Error::Io {
            what: format!("cannot write blob {}", self.layer.digest),
            source,
        })
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    let stalled = |_| Error::Stalled(limit.as_secs());
    tokio::time::timeout(limit, work).await.map_err(stalled)
}

/// Makes the file as long as the blob will be, without writing it.
fn prepare(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = std::fs::File::options();
    let file = file.create(true).truncate(false).write(true).open(path)?;
    file.set_len(bytes)
}

/// Size of a file that lies there itself; `None` of a link, a pipe and the like, which no download leaves behind.
fn own_bytes(path: &Path) -> Option<u64> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Makes a new file, whatever was there.
fn open_own(path: &Path) -> std::io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::File::create_new(path)
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
