//! A blob that is being put together from parts, under Ollama's names: a download that broke off here can go on there.

use super::files::{self, TEMP_PREFIX};
use super::{Digest, Error, Store};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A part's state, as its file has it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub n: u64,
    pub offset: u64,
    pub size: u64,
    pub completed: u64,
}

/// The files of one unfinished blob: its data, as long as the blob will be, and a state for each part.
#[derive(Debug, Clone)]
pub(super) struct PartialFiles {
    folder: PathBuf,
    digest: Digest,
}

/// An unfinished blob that nobody else writes: no other download, no other server on the same folder.
///
/// The lock is the system's, on the data file itself; it ends with the last clone, or with the process.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    files: PartialFiles,
    data: Arc<File>,
}

impl Store {
    pub(super) fn partial(&self, digest: &Digest) -> PartialFiles {
        PartialFiles {
            folder: self.inner.blobs.folder().path().to_owned(),
            digest: *digest,
        }
    }
}

impl PartialFiles {
    /// Where the bytes are.
    pub fn data(&self) -> PathBuf {
        self.folder.join(self.name())
    }

    /// Where the state of part `n` is.
    pub fn state(&self, n: u64) -> PathBuf {
        self.folder.join(format!("{}-{n}", self.name()))
    }

    fn name(&self) -> String {
        format!("{}-partial", self.digest.file_name())
    }

    /// Where a state is written before it replaces the old one: under no name that Ollama takes for a part.
    pub fn new_state(&self, n: u64) -> PathBuf {
        self.folder
            .join(format!("{TEMP_PREFIX}{}-{n}", self.name()))
    }

    /// Takes the blob, making its data file where there is none; `None` while another has it.
    pub fn claim(&self) -> io::Result<Option<Partial>> {
        let path = self.data();
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            fs::remove_file(&path)?;
        }
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let data = options.open(&path)?;
        // The one who had it may have given the blob its name meanwhile, or removed it.
        if !files::try_lock(&data)? || !is_at(&data, &path) {
            return Ok(None);
        }
        Ok(Some(Partial {
            files: self.clone(),
            data: Arc::new(data),
        }))
    }

    /// The parts of a download that broke off or runs; `None` where they do not make up `bytes` bytes.
    pub fn parts(&self, bytes: u64) -> Option<Vec<Part>> {
        let length = own_bytes(&self.data())?;
        let read = |n| {
            own_bytes(&self.state(n))?;
            let file = File::open(self.state(n)).ok()?;
            serde_json::from_reader::<_, Part>(file.take(1024)).ok()
        };
        let parts: Vec<Part> = (0..u64::from(u16::MAX)).map_while(read).collect();
        let mut next = 0;
        for (n, part) in (0..).zip(&parts) {
            let is_next = part.n == n && part.offset == next && part.completed <= part.size;
            next = is_next.then(|| part.offset.checked_add(part.size))??;
        }
        let is_whole = next == bytes && length == bytes && !parts.is_empty();
        is_whole.then_some(parts)
    }
}

impl Partial {
    pub fn files(&self) -> &PartialFiles {
        &self.files
    }

    /// Makes the data as long as the blob will be, without writing it.
    pub fn prepare(&self, bytes: u64) -> io::Result<()> {
        self.data.set_len(bytes)
    }

    /// Writes at a position, whatever else is written at others.
    pub fn write(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        files::write_at(&self.data, bytes, position)
    }

    /// Replaces a part's state: whenever the process dies, the old or the new one is whole.
    pub fn save(&self, part: &Part) -> io::Result<()> {
        let mut text = serde_json::to_vec(part)?;
        text.push(b'\n');
        let new = self.files.new_state(part.n);
        open_own(&new)?.write_all(&text)?;
        fs::rename(new, self.files.state(part.n))
    }

    /// Forgets what is there, and keeps the lock.
    pub fn clear(&self) -> io::Result<()> {
        self.remove_states();
        self.data.set_len(0)
    }

    /// Removes what is there.
    pub fn remove(self) {
        self.remove_states();
        self.remove_file(&self.files.data());
    }

    /// Gives the blob its name, if its bytes are right; else they are removed.
    pub fn adopt(self, path: &Path) -> Result<(), Error> {
        let digest = self.files.digest;
        let cannot = || Error::io(format!("cannot store blob {digest}"));
        let got = self.hash().map_err(cannot())?;
        if got != digest {
            self.remove();
            return Err(Error::DigestMismatch {
                expected: digest,
                got,
            });
        }
        files::publish_at(&self.data, &self.files.data(), path).map_err(cannot())?;
        self.remove_states();
        Ok(())
    }

    fn hash(&self) -> io::Result<Digest> {
        let mut data = &*self.data;
        data.rewind()?;
        Digest::of_reader(data)
    }

    fn remove_states(&self) {
        let state = format!("{}-", self.files.name());
        let new_state = format!("{TEMP_PREFIX}{state}");
        let entries = fs::read_dir(&self.files.folder);
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&state) || name.starts_with(&new_state) {
                self.remove_file(&entry.path());
            }
        }
    }

    fn remove_file(&self, path: &Path) {
        if let Err(e) = fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("a part of blob {} stays: {e}", self.files.digest);
        }
    }
}

/// Whether a file still lies where it was opened.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (opened.dev(), opened.ino()) == (there.dev(), there.ino())
    }
    #[cfg(not(unix))]
    {
        opened.created().ok() == there.created().ok()
    }
}

/// Size of a file that lies there itself; `None` of a link, a pipe and the like, which no download leaves behind.
fn own_bytes(path: &Path) -> Option<u64> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Makes a new file, whatever was there.
fn open_own(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    File::create_new(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PartialFiles) {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"hello world");
        let folder = dir.path().to_owned();
        (dir, PartialFiles { folder, digest })
    }

    /// What Ollama finds by its pattern, and how it reads it.
    #[test]
    fn names_and_states_are_ollamas() {
        let (dir, files) = files();
        let hex = files.digest.hex();
        let claimed = files.claim().unwrap().unwrap();
        claimed.prepare(11).unwrap();
        claimed.write(b"world", 6).unwrap();
        for (n, offset, size, completed) in [(0, 0, 6, 0), (1, 6, 5, 5)] {
            let part = Part {
                n,
                offset,
                size,
                completed,
            };
            claimed.save(&part).unwrap();
        }
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut found: Vec<(String, Vec<u8>)> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read(path).unwrap())
            })
            .collect();
        found.sort();
        let wanted: [(String, &[u8]); 3] = [
            (format!("sha256-{hex}-partial"), b"\0\0\0\0\0\0world"),
            (
                format!("sha256-{hex}-partial-0"),
                b"{\"N\":0,\"Offset\":0,\"Size\":6,\"Completed\":0}\n",
            ),
            (
                format!("sha256-{hex}-partial-1"),
                b"{\"N\":1,\"Offset\":6,\"Size\":5,\"Completed\":5}\n",
            ),
        ];
        assert_eq!(found, wanted.map(|(name, text)| (name, text.to_vec())));
        // A kill between the two steps of a save leaves nothing that looks like a part.
        let name = files.new_state(1).file_name().unwrap().to_owned();
        assert!(!name.to_string_lossy().starts_with("sha256-"), "{name:?}");
    }

    #[test]
    fn one_has_it_at_a_time() {
        let (_dir, files) = files();
        let first = files.claim().unwrap().unwrap();
        assert!(files.claim().unwrap().is_none());
        first.prepare(11).unwrap();
        first.write(b"hello world", 0).unwrap();
        // A writer that is still under way keeps the lock of a download that is over.
        let writing = first.clone();
        drop(first);
        assert!(files.claim().unwrap().is_none());
        drop(writing);
        let second = files.claim().unwrap().unwrap();
        let blob = files.folder.join(files.digest.file_name());
        second.adopt(&blob).unwrap();
        assert_eq!(fs::read(blob).unwrap(), b"hello world");
        assert_eq!(fs::read_dir(&files.folder).unwrap().count(), 1);
    }

    /// The file that was waited for is not the one that lies there afterwards.
    #[test]
    fn a_renamed_file_is_not_taken() {
        let (_dir, files) = files();
        let old = File::create(files.data()).unwrap();
        assert!(is_at(&old, &files.data()));
        fs::rename(files.data(), files.folder.join("blob")).unwrap();
        assert!(!is_at(&old, &files.data()));
        // One is kept so that a new one cannot have its number.
        let _new = File::create(files.data()).unwrap();
        assert!(!is_at(&old, &files.data()));
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let (_dir, files) = files();
        let claimed = files.claim().unwrap().unwrap();
        claimed.prepare(11).unwrap();
        let part = Part {
            n: 0,
            offset: 0,
            size: 11,
            completed: 11,
        };
        claimed.save(&part).unwrap();
        let blob = files.folder.join(files.digest.file_name());
        let error = claimed.adopt(&blob).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }));
        assert_eq!(fs::read_dir(&files.folder).unwrap().count(), 0);
    }
}
