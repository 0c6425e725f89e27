//! Model files on disk, in Ollama's layout: manifests by name, blobs by SHA-256.
//!
//! A folder that Ollama filled is read as it is, and Ollama reads what is written here. All calls block on the disk;
//! the server makes them off its event loop. Every change (create, copy, delete, prune) runs under one lock, held
//! against this process and others, and a blob is only removed when each manifest could be read and none names it:
//! so there is never a manifest whose blob another call took away. Reading needs no lock, since files are replaced
//! whole. What a crash leaves behind are temporary files that no one reads and [`Store::prune`] removes.

mod blobs;
mod capabilities;
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
mod quantize;
pub mod registry;
mod resolve;
mod show;
mod template;
#[cfg(test)]
mod tests;

pub use blobs::BlobUpload;
pub use convert::convertible;
pub use create::check_create;
pub use digest::Digest;
pub use error::Error;
pub use facts::{GgufFacts, human_number, n_parameters};
pub use name::{ModelName, Source, split_source};
pub use parameters::{Parameter, parse_parameter};
pub use resolve::ResolvedModel;

use crate::chat::Capability;
use blobs::Blobs;
use files::Folder;
use manifest::{Config, MAX_MANIFEST_BYTES, Manifest};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Unreferenced blobs and unfinished files are swept when they have not changed for this long.
const SWEEP_AGE: Duration = Duration::from_secs(3600);

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
    entries: Mutex<HashMap<PathBuf, Known>>,
    facts: Mutex<HashMap<Digest, Arc<GgufFacts>>>,
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

/// Held while the store changes.
struct ChangeGuard<'a> {
    _process: MutexGuard<'a, ()>,
    _others: Option<File>,
}

impl Store {
    /// Opens the models folder, making it if it is absent. A folder that cannot be written can still be read.
    pub fn open(root: &Path) -> Result<Store, Error> {
        let inner = Inner {
            root: root.to_owned(),
            manifests: Folder::open(root.join("manifests"))?,
            blobs: Blobs::open(root.join("blobs"))?,
            changes: Mutex::default(),
            entries: Mutex::default(),
            facts: Mutex::default(),
        };
        Ok(Store {
            inner: Arc::new(inner),
        })
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
        if let Some(facts) = lock(&self.inner.facts).get(digest) {
            return Ok(facts.clone());
        }
        self.inner.blobs.size(digest)?;
        let facts = Arc::new(GgufFacts::read(digest, &self.inner.blobs.path(digest))?);
        lock(&self.inner.facts).insert(*digest, facts.clone());
        Ok(facts)
    }

    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        match self.inner.blobs.size(digest) {
            Ok(_) => Ok(true),
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

    /// Where a blob is put together, and the state of its part `n`: Ollama's names.
    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.inner.blobs.partial(digest)
    }

    fn part_path(&self, digest: &Digest, n: u64) -> PathBuf {
        let mut path = self.partial_path(digest).into_os_string();
        path.push(format!("-{n}"));
        path.into()
    }

    fn remove_partial(&self, digest: &Digest) {
        self.inner.blobs.remove_partial(digest);
    }

    /// Gives a blob that has been put together its name, if its bytes are right; else they are removed.
    fn adopt_partial(&self, digest: &Digest) -> Result<(), Error> {
        self.inner.blobs.adopt_partial(digest)
    }

    /// A model's name as stored, its manifest, and the manifest's bytes.
    fn manifest(&self, name: &ModelName) -> Result<(ModelName, Manifest, Vec<u8>), Error> {
        let loaded = self.load(name)?;
        Ok((loaded.name, loaded.manifest, loaded.bytes))
    }

    /// Writes a pulled manifest as it came, if all its blobs are there. Whether it replaced another one.
    fn publish(&self, name: &ModelName, bytes: &[u8], manifest: &Manifest) -> Result<bool, Error> {
        let _guard = self.change()?;
        if let Some(missing) = manifest.blobs().find(|layer| !self.has_whole_blob(layer)) {
            return Err(Error::BlobNotFound(missing.digest));
        }
        let old = self.load(name);
        self.replace_manifest(name, bytes)?;
        Ok(old.is_ok_and(|old| old.bytes != bytes))
    }

    /// Gives a model a second name; an existing destination is replaced. Blobs are shared.
    pub fn copy(&self, source: &ModelName, destination: &ModelName) -> Result<(), Error> {
        let _guard = self.change()?;
        let source = self.load(source)?;
        let destination = self
            .find(destination)
            .unwrap_or_else(|| destination.clone());
        if source.name == destination {
            return Ok(());
        }
        self.replace_manifest(&destination, &source.bytes)
    }

    /// Removes a model and the blobs that no other model uses. A damaged model can be removed too.
    pub fn delete(&self, name: &ModelName) -> Result<(), Error> {
        let _guard = self.change()?;
        let name = self
            .find(name)
            .ok_or_else(|| Error::NotFound(name.to_string()))?;
        let blobs = self.blobs_of(&name);
        let path = self.manifest_path(&name);
        fs::remove_file(&path).map_err(Error::io(format!("cannot delete model '{name}'")))?;
        self.remove_empty_folders(&path);
        self.remove_unused(&blobs);
        Ok(())
    }

    /// Sweeps what no model uses and no one has touched for an hour: blobs, broken downloads, unfinished files.
    ///
    /// Does nothing while a manifest is unreadable, since its blobs are then unknown. Returns how many files went.
    pub fn prune(&self) -> Result<usize, Error> {
        let _guard = self.change()?;
        self.rename_old_blobs();
        let Some(used) = self.used_blobs() else {
            tracing::warn!("not sweeping unused blobs: a manifest is unreadable");
            return Ok(0);
        };
        let is_unused =
            |name: &str| Digest::parse(name).map_or(true, |digest| !used.contains(&digest));
        let is_temp = |name: &str| name.starts_with(files::TEMP_PREFIX);
        let removed = sweep(self.inner.blobs.folder().path(), is_unused)
            .and_then(|n| Ok(n + sweep(self.inner.manifests.path(), is_temp)?));
        removed.map_err(Error::io("cannot sweep the store"))
    }

    /// Very old versions wrote blobs as `sha256:<hex>`.
    fn rename_old_blobs(&self) {
        let entries = fs::read_dir(self.inner.blobs.folder().path());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let old = name.to_str().filter(|name| name.starts_with("sha256:"));
            if let Some(digest) = old.and_then(|name| Digest::parse(name).ok())
                && let Err(e) = fs::rename(entry.path(), self.blob_path(&digest))
            {
                tracing::warn!("blob {digest} keeps its old name: {e}");
            }
        }
    }

    /// Makes a manifest the one of `name` and removes what only the previous one used. Needs the lock.
    fn replace_manifest(&self, name: &ModelName, bytes: &[u8]) -> Result<(), Error> {
        let old = self.blobs_of(name);
        self.inner
            .manifests
            .write(&self.manifest_path(name), bytes)
            .map_err(Error::io(format!("cannot write the manifest of '{name}'")))?;
        self.remove_unused(&old);
        Ok(())
    }

    /// Blobs that a model names; none where it is absent or damaged.
    fn blobs_of(&self, name: &ModelName) -> Vec<Digest> {
        match self.load(name) {
            Ok(loaded) => loaded.manifest.blobs().map(|layer| layer.digest).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Removes those of `candidates` that no manifest names. Needs the lock.
    fn remove_unused(&self, candidates: &[Digest]) {
        if candidates.is_empty() {
            return;
        }
        let Some(used) = self.used_blobs() else {
            tracing::warn!("unused blobs are kept: a manifest is unreadable");
            return;
        };
        for digest in candidates.iter().filter(|digest| !used.contains(*digest)) {
            self.inner.blobs.remove(digest);
            lock(&self.inner.facts).remove(digest);
        }
    }

    /// Every blob that a manifest names; `None` while one cannot be read.
    fn used_blobs(&self) -> Option<HashSet<Digest>> {
        let mut used = HashSet::new();
        for name in self.walk(&|_, _| true).ok()? {
            match self.load(&name) {
                Ok(loaded) => used.extend(loaded.manifest.blobs().map(|layer| layer.digest)),
                Err(Error::NotFound(_)) => {}
                Err(_) => return None,
            }
        }
        Some(used)
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
        let (bytes, metadata) = self
            .inner
            .manifests
            .read(&self.manifest_path(&name), MAX_MANIFEST_BYTES)
            .map_err(|e| damaged(format!("its manifest cannot be read ({e})")))?;
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

    /// Removes the tag's, model's, namespace's and host's folder, as far as they are empty.
    fn remove_empty_folders(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take(3) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    fn change(&self) -> Result<ChangeGuard<'_>, Error> {
        let process = lock(&self.inner.changes);
        let others = files::lock(&self.inner.root)
            .map_err(Error::io("the models folder cannot be changed"))?;
        Ok(ChangeGuard {
            _process: process,
            _others: others,
        })
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
        let is_folder = entry.path().is_dir();
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

/// Removes the old files of a folder whose names are unwanted; returns how many.
fn sweep(folder: &Path, is_unwanted: impl Fn(&str) -> bool) -> io::Result<usize> {
    let entries = fs::read_dir(folder)?.flatten();
    let old = entries.filter(|e| is_unwanted(&e.file_name().to_string_lossy()) && is_old(e));
    Ok(old
        .filter(|entry| fs::remove_file(entry.path()).is_ok())
        .count())
}

fn is_old(entry: &fs::DirEntry) -> bool {
    let age = entry
        .metadata()
        .and_then(|m| m.modified())
        .map(|modified| modified.elapsed());
    matches!(age, Ok(Ok(age)) if age >= SWEEP_AGE)
}

fn seconds(entry: &ModelEntry) -> u64 {
    let since = entry.modified_at.duration_since(SystemTime::UNIX_EPOCH);
    since.map(|time| time.as_secs()).unwrap_or_default()
}

/// A mutex whose holder panicked guards plain data that is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
