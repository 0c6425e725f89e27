//! Model files on disk, in Ollama's layout: manifests by name, blobs by SHA-256.
//!
//! A folder that Ollama filled is read as it is, and Ollama reads what is written here. All calls block on the disk;
//! the server makes them off its event loop. Every change (create, copy, delete, prune) runs under one lock, held
//! against this process and others, and a blob is only removed when each manifest could be read and none names it:
//! so there is never a manifest whose blob another call took away. Reading needs no lock, since files are replaced
//! whole. What a crash leaves behind are temporary files that no one reads and [`Store::prune`] removes.

mod access;
mod blobs;
mod capabilities;
mod changes;
mod convert;
mod create;
mod digest;
mod error;
mod facts;
mod files;
mod files_map;
mod json;
pub mod manifest;
pub mod modelfile;
mod name;
mod parameters;
mod partial;
mod quantize;
pub mod registry;
mod resolve;
mod show;
#[cfg(test)]
mod tests;
mod verify;

pub use blobs::BlobUpload;
pub use convert::convertible;
pub use create::{Client, check_create};
pub use digest::Digest;
pub use error::Error;
pub use facts::{GgufFacts, human_number, n_parameters};
pub use name::{ModelName, Source, split_source};
pub use parameters::{Parameter, parse_parameter};
pub use resolve::ResolvedModel;
pub use verify::Damage;

use crate::chat::Capability;
use blobs::Blobs;
use files::Folder;
use manifest::{Config, MAX_MANIFEST_BYTES, Manifest};
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Largest model file that is taken, from a client or a registry.
pub const MAX_BLOB_BYTES: u64 = 1 << 42;

/// The models folder: a cheap handle, shared by clones.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    manifests: Folder,
    blobs: Blobs,
    changes: Mutex<()>,
    /// Whether blobs stay that only a replaced manifest named.
    keeps_replaced: AtomicBool,
    entries: Mutex<HashMap<PathBuf, Known>>,
    /// What files of a size, in bytes, were found to hold.
    facts: Mutex<HashMap<Digest, (u64, Arc<GgufFacts>)>>,
}

/// A model of the store, as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEntry {
    pub name: ModelName,
    /// SHA-256 of the manifest's bytes, 64 hex digits: the model's ID.
    pub digest: String,
    /// Bytes of all layers and the config.
    pub size: u64,
    /// When the manifest was written.
    pub modified_at: SystemTime,
    pub config: Config,
    /// Short name of the model this one was made from; empty if none.
    pub parent_model: String,
    /// Tokens, from the config or the GGUF; 0 if unknown.
    pub context_length: u64,
    /// From the config or the GGUF; 0 if unknown.
    pub embedding_length: u64,
    /// Without what the GGUF's own chat template adds, as in `/api/tags`.
    pub capabilities: Vec<Capability>,
}

/// What a manifest in a known state gave; nothing if it is damaged.
type Known = (Stamp, Option<Arc<ModelEntry>>);

/// Tells one state of a manifest file from the next; a rewritten file is a new inode.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
    inode: u64,
}

/// A manifest with what its file tells.
struct Loaded {
    name: ModelName,
    manifest: Manifest,
    bytes: Vec<u8>,
    modified_at: SystemTime,
}

impl Store {
    /// Opens the models folder, making it if it is absent. A folder that cannot be written can still be read.
    pub fn open(root: &Path) -> Result<Store, Error> {
        let inner = Inner {
            root: root.to_owned(),
            manifests: Folder::open(root.join("manifests"))?,
            blobs: Blobs::open(root.join("blobs"))?,
            changes: Mutex::default(),
            keeps_replaced: AtomicBool::new(false),
            entries: Mutex::default(),
            facts: Mutex::default(),
        };
        Ok(Store {
            inner: Arc::new(inner),
        })
    }

    /// From now on, leaves the blobs alone that only a replaced manifest named: what `OLLAMA_NOPRUNE` asks for. Those of
    /// deleted models go all the same.
    pub fn keep_replaced(&self) {
        self.inner.keeps_replaced.store(true, Ordering::Relaxed);
    }

    fn keeps_replaced(&self) -> bool {
        self.inner.keeps_replaced.load(Ordering::Relaxed)
    }

    /// All readable models, newest first by whole seconds, then by name. Damaged ones are left out with one warning.
    pub fn list(&self) -> Result<Vec<Arc<ModelEntry>>, Error> {
        let all = self
            .walk(&|_, _| true)
            .map_err(Error::io("cannot list the models"))?;
        let mut entries: Vec<_> = all.iter().filter_map(|name| self.entry(name)).collect();
        let paths: HashSet<PathBuf> = all.iter().map(|name| self.manifest_path(name)).collect();
        lock(&self.inner.entries).retain(|path, _| paths.contains(path));
        entries.sort_by(|a, b| {
            seconds(b)
                .cmp(&seconds(a))
                .then_with(|| a.name.cmp(&b.name))
        });
        Ok(entries)
    }

    /// The spelling under which a model is stored, whatever the letter case of `name`; `None` if it is not.
    pub fn find(&self, name: &ModelName) -> Option<ModelName> {
        let found = |name: &ModelName| {
            let path = self.manifest_path(name);
            let is_entry = fs::symlink_metadata(&path).is_ok_and(|m| !m.is_dir());
            is_entry && self.is_inside(&path)
        };
        if found(name) {
            return Some(name.clone());
        }
        let wanted = [name.host(), name.namespace(), name.model(), name.tag()];
        let all = self
            .walk(&|level, part| part.eq_ignore_ascii_case(wanted[level]))
            .ok()?;
        all.into_iter().find(found)
    }

    /// Everything needed to run or show a model.
    pub fn resolve(&self, name: &ModelName) -> Result<ResolvedModel, Error> {
        self.read(name, resolve::resolve)
    }

    /// Facts of a model's GGUF file, read once.
    pub fn facts(&self, digest: &Digest) -> Result<Arc<GgufFacts>, Error> {
        let size = self.inner.blobs.size(digest)?;
        if let Some((_, facts)) = lock(&self.inner.facts).get(digest).filter(|f| f.0 == size) {
            return Ok(facts.clone());
        }
        let facts = GgufFacts::read(digest, &self.inner.blobs.path(digest));
        // One that has gone meanwhile is missing, not broken.
        let facts = facts.or_else(|e| self.inner.blobs.size(digest).and(Err(e)));
        let facts = Arc::new(facts?);
        lock(&self.inner.facts).insert(*digest, (size, facts.clone()));
        Ok(facts)
    }

    /// Whether a blob is there; one that was cut since it was looked into is not.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        match self.inner.blobs.size(digest) {
            Ok(size) => Ok(lock(&self.inner.facts)
                .get(digest)
                .is_none_or(|f| f.0 == size)),
            Err(Error::BlobNotFound(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.blobs.path(digest)
    }

    /// Begins to write a blob of at most `limit` bytes.
    pub fn upload(&self, expected: Digest, limit: u64) -> Result<BlobUpload, Error> {
        self.inner.blobs.upload(expected, limit)
    }

    /// Whether a layer's blob is there in its full length.
    fn has_whole_blob(&self, layer: &manifest::Layer) -> bool {
        matches!(self.inner.blobs.size(&layer.digest), Ok(size) if size == layer.size)
    }

    /// A model's name as stored, its manifest, and the manifest's bytes.
    fn manifest(&self, name: &ModelName) -> Result<(ModelName, Manifest, Vec<u8>), Error> {
        let loaded = self.load(name)?;
        Ok((loaded.name, loaded.manifest, loaded.bytes))
    }

    /// Reads a model's manifest and layers without the lock: again, where the manifest was replaced in between.
    fn read<T>(
        &self,
        name: &ModelName,
        layers: impl Fn(&Store, &Loaded) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut loaded = self.load(name)?;
        loop {
            let result = layers(self, &loaded);
            if result.is_ok() {
                return result;
            }
            let now = self.load(name)?;
            if now.bytes == loaded.bytes {
                return result;
            }
            loaded = now;
        }
    }

    /// Reads a model's manifest, whatever the letter case of its name.
    fn load(&self, name: &ModelName) -> Result<Loaded, Error> {
        let name = self
            .find(name)
            .ok_or_else(|| Error::NotFound(name.to_string()))?;
        let damaged = |why: String| Error::Damaged {
            model: name.to_string(),
            why,
        };
        let path = self.manifest_path(&name);
        let read = self.inner.manifests.read(&path, MAX_MANIFEST_BYTES);
        let (bytes, metadata) = read.map_err(|e| {
            // Another process may have deleted the model since it was found.
            match fs::symlink_metadata(&path) {
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
                    Error::NotFound(name.to_string())
                }
                _ if Error::is_passing(&e) => {
                    Error::io(format!("cannot read the manifest of model '{name}'"))(e)
                }
                _ => damaged(format!("its manifest cannot be read ({e})")),
            }
        })?;
        let manifest = Manifest::parse(&bytes).map_err(damaged)?;
        let modified_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Loaded {
            manifest,
            bytes,
            modified_at,
            name,
        })
    }

    /// A model's entry, from memory unless its manifest changed; `None` if it is damaged.
    fn entry(&self, name: &ModelName) -> Option<Arc<ModelEntry>> {
        let path = self.manifest_path(name);
        let stamp = Stamp::of(&fs::metadata(&path).ok()?)?;
        if let Some((known, entry)) = lock(&self.inner.entries).get(&path)
            && *known == stamp
        {
            return entry.clone();
        }
        let entry = match self.read(name, resolve::entry) {
            Ok(entry) => Some(Arc::new(entry)),
            Err(e) => {
                tracing::warn!("left out of the list: {e}");
                // The next look may find what could not be read; what is damaged stays so.
                if matches!(e, Error::Io { .. }) {
                    return None;
                }
                None
            }
        };
        lock(&self.inner.entries).insert(path, (stamp, entry.clone()));
        entry
    }

    /// Names of all manifests whose parts (0 host, 1 namespace, 2 model, 3 tag) pass `keep`.
    fn walk(&self, keep: &dyn Fn(usize, &str) -> bool) -> io::Result<Vec<ModelName>> {
        let mut names = Vec::new();
        let mut parts = Vec::new();
        walk_level(self.inner.manifests.path(), &mut parts, keep, &mut names)?;
        Ok(names)
    }

    fn manifest_path(&self, name: &ModelName) -> PathBuf {
        self.inner.manifests.path().join(name.path())
    }

    /// Whether no folder on the way to a manifest is a link that leads out.
    fn is_inside(&self, path: &Path) -> bool {
        let (Some(parent), root) = (path.parent(), self.inner.manifests.path()) else {
            return false;
        };
        match (fs::canonicalize(parent), fs::canonicalize(root)) {
            (Ok(parent), Ok(root)) => parent.starts_with(root),
            _ => false,
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Option<Stamp> {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Stamp {
            modified: metadata.modified().ok()?,
            len: metadata.len(),
            inode,
        })
    }
}

/// Adds the names below `folder`; `parts` are the folders that led here. Four levels, so the recursion is bounded.
fn walk_level(
    folder: &Path,
    parts: &mut Vec<String>,
    keep: &dyn Fn(usize, &str) -> bool,
    names: &mut Vec<ModelName>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let Ok(part) = entry.file_name().into_string() else {
            continue;
        };
        let part = if parts.is_empty() {
            name::folder_host(&part)
        } else {
            part
        };
        if part.starts_with('.') || !keep(parts.len(), &part) {
            continue;
        }
        let is_folder = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            _ => entry.path().is_dir(),
        };
        parts.push(part);
        if let [host, namespace, model, tag] = parts.as_slice() {
            if !is_folder {
                names.extend(ModelName::from_parts(host, namespace, model, tag));
            }
        } else if is_folder {
            // One unreadable folder hides its own models only.
            if let Err(e) = walk_level(&entry.path(), parts, keep, names) {
                tracing::warn!("cannot read {}: {e}", entry.path().display());
            }
        }
        parts.pop();
    }
    Ok(())
}

fn seconds(entry: &ModelEntry) -> u64 {
    let since = entry.modified_at.duration_since(SystemTime::UNIX_EPOCH);
    since.map(|time| time.as_secs()).unwrap_or_default()
}

/// A mutex whose holder panicked guards plain data that is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
