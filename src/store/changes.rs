//! What changes the store, under one lock: names that come and go, and the blobs that nobody needs any more.

use super::files;
use super::{Digest, Error, Manifest, ModelName, Store, lock};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::MutexGuard;
use std::time::Duration;

/// Unreferenced blobs and unfinished files are swept when they have not changed for this long.
pub(super) const SWEEP_AGE: Duration = Duration::from_secs(3600);

/// Held while the store changes.
pub(super) struct ChangeGuard<'a> {
    _process: MutexGuard<'a, ()>,
    _others: Option<File>,
}

impl Store {
    /// Takes the lock, against this process and others.
    pub(super) fn change(&self) -> Result<ChangeGuard<'_>, Error> {
        let process = lock(&self.inner.changes);
        let others = files::lock(&self.inner.root)
            .map_err(Error::io("the models folder cannot be changed"))?;
        Ok(ChangeGuard {
            _process: process,
            _others: others,
        })
    }

    /// Writes a pulled manifest as it came, if all its blobs are there. Whether blobs of another one may have gone.
    pub(super) fn publish(
        &self,
        name: &ModelName,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> Result<bool, Error> {
        let _guard = self.change()?;
        if let Some(missing) = manifest.blobs().find(|layer| !self.has_whole_blob(layer)) {
            return Err(Error::BlobNotFound(missing.digest));
        }
        let old = self.load(name);
        self.replace_manifest(name, bytes)?;
        Ok(old.is_ok_and(|old| old.bytes != bytes) && !self.keeps_replaced())
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
        remove_empty(self.inner.manifests.path(), 3);
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
    pub(super) fn replace_manifest(&self, name: &ModelName, bytes: &[u8]) -> Result<(), Error> {
        let old = self.blobs_of(name);
        self.inner
            .manifests
            .write(&self.manifest_path(name), bytes)
            .map_err(Error::io(format!("cannot write the manifest of '{name}'")))?;
        if !self.keeps_replaced() {
            self.remove_unused(&old);
        }
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

    /// Removes the tag's, model's, namespace's and host's folder, as far as they are empty.
    fn remove_empty_folders(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take(3) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// Removes the empty folders below one, `depth` levels down; links stay.
fn remove_empty(folder: &Path, depth: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if depth > 1 {
            remove_empty(&entry.path(), depth - 1);
        }
        // Fails where something is in it.
        let _ = fs::remove_dir(entry.path());
    }
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
