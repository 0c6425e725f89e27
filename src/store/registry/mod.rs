//! Pull and push: models to and from a registry, by Ollama's form of the Docker registry protocol.
//!
//! Everything that comes from a registry is checked before it counts: digests before a path is made of them, bytes
//! before a blob gets its name, blobs before a manifest is written. Redirects, tokens and limits are in `http.rs`.

mod client;
mod download;
mod error;
mod http;
mod key;
#[cfg(test)]
mod tests;
mod token;
mod upload;

pub use client::{build, use_ring};
pub use error::Error;

use super::manifest::{Layer, MAX_MANIFEST_BYTES, Manifest, media};
use super::{Digest, MAX_BLOB_BYTES, ModelName, Store};
use crate::api::Progress;
use client::PublicAlone;
use download::Download;
use http::{Session, accepted, body};
use key::Key;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use upload::Upload;

/// Ollama's registry asks old clients to be updated, by this version.
const USER_AGENT: &str = concat!(
    "ollama/0.20.0 (amd64 linux) ollama-wgpu/",
    env!("CARGO_PKG_VERSION")
);
/// Between two reports of a blob's progress.
const REPORT: Duration = Duration::from_millis(60);
const PARTS_AT_ONCE: usize = 16;
/// Registries that learn who asks; others only where they are on this network.
const SIGNED: &[&str] = &[
    "registry.ollama.ai",
    "ollama.com",
    "hf.co",
    "huggingface.co",
];
/// A pull starts over this often when a blob that it counted on is deleted meanwhile.
const MAX_PULLS: usize = 3;

/// Bytes of a part of a blob.
fn part_bytes(total: u64) -> u64 {
    (total / PARTS_AT_ONCE as u64).clamp(100_000_000, 1_000_000_000)
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Until an answer begins.
    header: Duration,
    /// Until an answer that is read into memory has ended.
    body: Duration,
    /// Until a registry has put the parts of a blob together and hashed them.
    commit: Duration,
    /// Between two pieces of a blob.
    stall: Duration,
    /// Before the second try; doubled before each later one.
    pause: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            header: Duration::from_secs(60),
            body: Duration::from_secs(60),
            commit: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            pause: Duration::from_secs(1),
        }
    }
}

/// Where the steps of a pull or push go; it is canceled when nobody receives them.
pub type Steps = mpsc::Sender<Progress>;

/// The client of all registries: a cheap handle, shared by clones.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    timing: Timing,
    /// Made at first use, since the system's certificates take memory: one that connects to any address, and one for
    /// public ones alone.
    http: [OnceLock<reqwest::Client>; 2],
    /// Running downloads, shared by all pulls that want the blob.
    downloads: Mutex<HashMap<Digest, Weak<Running>>>,
    /// Held while a blob gets its name.
    naming: tokio::sync::Mutex<()>,
    /// What registries are told instead of [`USER_AGENT`].
    agent: OnceLock<String>,
    /// Those of this network that may be asked, where it is closed.
    near: OnceLock<Vec<String>>,
}

impl Registry {
    /// A client for the models of `store`; nothing is read or sent yet.
    pub fn new(store: Store) -> Registry {
        Registry::with_timing(store, Timing::default())
    }

    fn with_timing(store: Store, timing: Timing) -> Registry {
        Registry {
            inner: Arc::new(Inner {
                store,
                timing,
                http: Default::default(),
                downloads: Mutex::default(),
                naming: tokio::sync::Mutex::default(),
                agent: OnceLock::new(),
                near: OnceLock::new(),
            }),
        }
    }

    /// Makes the user's key, where there is none.
    ///
    /// # Errors
    /// Those of the disk; registries are then asked anonymously.
    pub fn make_key() -> std::io::Result<()> {
        match key::path() {
            Some(path) if !path.exists() => Key::create(&path),
            _ => Ok(()),
        }
    }

    /// Another name and version than the program's own, for registries that turn old clients away.
    pub fn call_itself(&self, agent: String) {
        self.inner.agent.get_or_init(|| agent);
    }

    /// From now on, asks no registry of this machine and its network, but for these (`HOST` or `HOST:PORT`): what a server
    /// does that others reach and that knows no callers.
    pub fn close_network(&self, but: Vec<String>) {
        self.inner.near.get_or_init(|| but);
    }

    /// Whether a registry may only be one that the internet reaches.
    fn is_closed(&self, host: &str) -> bool {
        let near = self.inner.near.get();
        near.is_some_and(|near| !near.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }

    fn timing(&self) -> Timing {
        self.inner.timing
    }

    fn http(&self, is_public_alone: bool) -> Result<&reqwest::Client, Error> {
        let place = &self.inner.http[usize::from(is_public_alone)];
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let plain = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        let mut builder = reqwest::Client::builder()
            .user_agent(self.inner.agent.get().map_or(USER_AGENT, String::as_str))
            .default_headers(plain)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(30));
        if is_public_alone {
            builder = builder.dns_resolver(PublicAlone);
        }
        let client = build(builder)
            .map_err(|e| Error::Protocol(format!("cannot make an HTTP client: {e}")))?;
        Ok(place.get_or_init(|| client))
    }

    /// The key to sign with for this registry.
    fn key(&self, base: &Url, is_near: bool) -> Option<Key> {
        let host = base.host_str().unwrap_or_default();
        if !is_near && !SIGNED.contains(&host) {
            return None;
        }
        let key = Key::read(&key::path()?);
        key.inspect_err(|e| tracing::warn!("{e}; asking anonymously"))
            .ok()
    }

    /// Fetches a model. With `insecure`, over plain http.
    ///
    /// # Errors
    /// Whatever the registry, the network or the disk says; the store is then as before, but for parts of blobs that
    /// the next pull goes on with.
    pub async fn pull(&self, name: &ModelName, insecure: bool, steps: &Steps) -> Result<(), Error> {
        Session::new(self, name, insecure)?;
        let name = self.spelling(name).await?;
        status(steps, "pulling manifest").await?;
        for n_pulls in 1.. {
            let session = Arc::new(Session::new(self, &name, insecure)?);
            let bytes = manifest(&session, &name)
                .await
                .map_err(|e| Error::Manifest(e.into()))?;
            let manifest = Manifest::parse(&bytes).and_then(fetchable);
            let manifest = manifest.map_err(|why| {
                let why = Error::Protocol(format!("model '{name}' cannot be used: {why}"));
                Error::Manifest(why.into())
            })?;
            if manifest.last(media::TENSOR).is_some() {
                return Err(Error::Protocol(
                    "this model is stored tensor by tensor for MLX, which is not supported; pull a GGUF version of it"
                        .into(),
                ));
            }
            let fetched = self.fetch(&session, &manifest, steps).await?;
            status(steps, "verifying sha256 digest").await?;
            for layer in &fetched {
                self.give_name(layer).await?;
            }
            status(steps, "writing manifest").await?;
            let (store, of) = (self.inner.store.clone(), name.clone());
            let published = blocking(move || Ok(store.publish(&of, &bytes, &manifest)?)).await;
            match published {
                Err(Error::Store(super::Error::BlobNotFound(_))) if n_pulls < MAX_PULLS => {}
                Err(e) => return Err(e),
                Ok(true) => {
                    status(steps, "removing unused layers").await?;
                    break;
                }
                Ok(false) => break,
            }
        }
        status(steps, "success").await
    }

    /// The name as the store spells it.
    async fn spelling(&self, name: &ModelName) -> Result<ModelName, Error> {
        let (store, name) = (self.inner.store.clone(), name.clone());
        blocking(move || Ok(store.find(&name).unwrap_or(name))).await
    }

    /// Fetches the blobs that the store lacks, and returns their layers.
    async fn fetch(
        &self,
        session: &Arc<Session>,
        manifest: &Manifest,
        steps: &Steps,
    ) -> Result<Vec<Layer>, Error> {
        let mut fetched: Vec<Layer> = Vec::new();
        for layer in manifest.blobs() {
            let step = |completed| Progress {
                status: format!("pulling {}", &layer.digest.hex()[..12]),
                digest: layer.digest.to_string(),
                total: layer.size,
                completed,
            };
            let is_there = self.inner.store.has_whole_blob(layer);
            if is_there || fetched.iter().any(|other| other.digest == layer.digest) {
                send(steps, step(layer.size)).await?;
                continue;
            }
            let running = self.running(session, layer);
            send(steps, step(running.completed.load(Ordering::Relaxed))).await?;
            let mut result = running.result.clone();
            let mut reports = tokio::time::interval(REPORT);
            loop {
                tokio::select! {
                    _ = result.changed() => break,
                    _ = reports.tick() => {
                        let there = running.completed.load(Ordering::Relaxed);
                        if there < layer.size {
                            send(steps, step(there)).await?;
                        }
                    }
                }
            }
            let done = result.borrow().clone();
            done.unwrap_or_else(|| Err(Error::Canceled.into()))
                .map_err(Error::Shared)?;
            send(steps, step(layer.size)).await?;
            fetched.push(layer.clone());
        }
        Ok(fetched)
    }

    /// The download of a blob: the one that runs, or a new one.
    fn running(&self, session: &Arc<Session>, layer: &Layer) -> Arc<Running> {
        let mut downloads = lock(&self.inner.downloads);
        downloads.retain(|_, running| running.strong_count() > 0);
        if let Some(running) = downloads.get(&layer.digest).and_then(Weak::upgrade) {
            return running;
        }
        let on_disk = download::on_disk(&self.inner.store, layer);
        let completed = Arc::new(AtomicU64::new(on_disk));
        let (sender, result) = watch::channel(None);
        let download = Download {
            session: Arc::clone(session),
            store: self.inner.store.clone(),
            layer: layer.clone(),
            completed: Arc::clone(&completed),
        };
        let task = tokio::spawn(async move {
            let done = download.run().await.map_err(Arc::new);
            sender.send_replace(Some(done));
        });
        let running = Arc::new(Running {
            completed,
            result,
            task: task.abort_handle(),
        });
        downloads.insert(layer.digest, Arc::downgrade(&running));
        running
    }

    /// Checks the bytes of a fetched blob and makes it one of the store.
    async fn give_name(&self, layer: &Layer) -> Result<(), Error> {
        let _naming = self.inner.naming.lock().await;
        let store = self.inner.store.clone();
        let Some(partial) = download::claim(&store, layer, &AtomicU64::new(0)).await? else {
            return Ok(());
        };
        let layer = layer.clone();
        blocking(move || {
            // Named by another server and deleted again: then publishing misses it, and the pull starts over.
            if partial.files().parts(layer.size).is_none() {
                partial.remove();
                return Ok(());
            }
            match partial.adopt(&store.blob_path(&layer.digest)) {
                Err(super::Error::DigestMismatch { expected, got }) => Err(Error::Mismatch {
                    want: expected,
                    got,
                }),
                done => Ok(done?),
            }
        })
        .await
    }

    /// Sends a model. With `insecure`, over plain http.
    ///
    /// # Errors
    /// Whatever the registry, the network or the disk says.
    pub async fn push(&self, name: &ModelName, insecure: bool, steps: &Steps) -> Result<(), Error> {
        Session::new(self, name, insecure)?;
        status(steps, "retrieving manifest").await?;
        let (store, of) = (self.inner.store.clone(), name.clone());
        let found = blocking(move || Ok(store.manifest(&of)?)).await;
        let (name, manifest, bytes) = match found {
            Ok(found) => found,
            Err(e) => {
                status(steps, "couldn't retrieve manifest").await?;
                return Err(e);
            }
        };
        let session = Session::new(self, &name, insecure)?;
        for layer in manifest.blobs() {
            self.push_blob(&session, layer, steps).await?;
        }
        status(steps, "pushing manifest").await?;
        let url = session.url(&format!("manifests/{}", name.tag()));
        let put = |request: reqwest::RequestBuilder| {
            request
                .header(CONTENT_TYPE, media::MANIFEST)
                .body(bytes.clone())
        };
        let limit = self.timing().commit;
        accepted(session.send(Method::PUT, &url, limit, put).await?).await?;
        status(steps, "success").await
    }

    async fn push_blob(
        &self,
        session: &Session,
        layer: &Layer,
        steps: &Steps,
    ) -> Result<(), Error> {
        let completed = Arc::new(AtomicU64::new(0));
        let step = |completed| Progress {
            status: format!("pushing {}", &layer.digest.hex()[..12]),
            digest: layer.digest.to_string(),
            total: layer.size,
            completed,
        };
        let upload = Upload {
            session,
            store: &self.inner.store,
            layer,
            completed: Arc::clone(&completed),
        };
        if !self.inner.store.has_whole_blob(layer) {
            return Err(super::Error::BlobNotFound(layer.digest).into());
        }
        if !upload.is_there().await? {
            let mut reports = tokio::time::interval(REPORT);
            let mut run = std::pin::pin!(upload.run());
            loop {
                tokio::select! {
                    done = &mut run => {
                        done?;
                        break;
                    }
                    _ = reports.tick() => {
                        let sent = completed.load(Ordering::Relaxed);
                        if sent < layer.size {
                            send(steps, step(sent)).await?;
                        }
                    }
                }
            }
        }
        send(steps, step(layer.size)).await
    }
}

/// A download that others can wait for; it ends with the last of them.
struct Running {
    completed: Arc<AtomicU64>,
    result: watch::Receiver<Option<Result<(), Arc<Error>>>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A manifest's bytes, as the registry has them.
async fn manifest(session: &Session, name: &ModelName) -> Result<Vec<u8>, Error> {
    let url = session.url(&format!("manifests/{}", name.tag()));
    let get = |request: reqwest::RequestBuilder| request.header(ACCEPT, media::MANIFEST);
    let response = session.get(Method::GET, url, get).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound);
    }
    let time = session.registry.timing().body;
    body(accepted(response).await?, MAX_MANIFEST_BYTES as usize, time).await
}

/// A manifest that names something to fetch, and nothing too large.
fn fetchable(manifest: Manifest) -> Result<Manifest, String> {
    if manifest.layers.is_empty() {
        return Err("its manifest has no layers".into());
    }
    let too_large = manifest.blobs().find(|l| l.size > MAX_BLOB_BYTES);
    let refusal = too_large.map(|layer| {
        format!(
            "blob {} is to have {} bytes, more than {MAX_BLOB_BYTES}",
            layer.digest, layer.size
        )
    });
    refusal.map_or(Ok(manifest), Err)
}

async fn status(steps: &Steps, status: &str) -> Result<(), Error> {
    let status = status.to_owned();
    send(
        steps,
        Progress {
            status,
            ..Default::default()
        },
    )
    .await
}

async fn send(steps: &Steps, step: Progress) -> Result<(), Error> {
    steps.send(step).await.map_err(|_| Error::Canceled)
}

/// Runs disk work off the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let stopped = |_| Error::Protocol("disk work stopped; the log has the details".into());
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
