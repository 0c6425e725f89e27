//! Blobs: files named after the SHA-256 of their bytes.

use super::files::{self, Folder};
use super::{Digest, Error};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The `blobs` folder.
#[derive(Debug)]
pub(super) struct Blobs {
    folder: Folder,
}

impl Blobs {
    pub fn open(path: PathBuf) -> Result<Blobs, Error> {
        Ok(Blobs {
            folder: Folder::open(path)?,
        })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where the blob lies, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(digest.file_name())
    }

    /// Size in bytes of a blob that is there.
    pub fn size(&self, digest: &Digest) -> Result<u64, Error> {
        match self.folder.metadata(&self.path(digest)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) => Err(missing_or_io(digest, e)),
        }
    }

    /// The bytes of a small blob; more than `limit` is an error.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        match self.folder.read(&self.path(digest), limit) {
            Ok((bytes, _)) => Ok(bytes),
            Err(e) => Err(missing_or_io(digest, e)),
        }
    }

    /// Stores a small blob. Returns its digest and whether it is new.
    pub fn add(&self, bytes: &[u8]) -> Result<(Digest, bool), Error> {
        let digest = Digest::of(bytes);
        if matches!(self.size(&digest), Ok(size) if size == bytes.len() as u64) {
            return Ok((digest, false));
        }
        self.folder
            .write(&self.path(&digest), bytes)
            .map_err(Error::io(format!("cannot write blob {digest}")))?;
        Ok((digest, true))
    }

    /// Removes a blob; one that is not there, or is in use on a system that minds, is left.
    pub fn remove(&self, digest: &Digest) {
        if let Err(e) = std::fs::remove_file(self.path(digest))
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("blob {digest} stays until the next sweep: {e}");
        }
    }

    pub fn upload(&self, expected: Digest, limit: u64) -> Result<BlobUpload, Error> {
        Ok(BlobUpload {
            blob: self.begin(&format!("blob {expected}"))?,
            expected,
            limit,
        })
    }

    /// Begins a blob whose digest is known when it is complete; `what` names it in messages.
    pub fn begin(&self, what: &str) -> Result<NewBlob, Error> {
        let file = self.folder.temp();
        Ok(NewBlob {
            file: file.map_err(Error::io(format!("cannot begin {what}")))?,
            folder: self.folder.path().to_owned(),
            hasher: Sha256::new(),
            bytes: 0,
        })
    }
}

/// That a blob is not there, or why it cannot be read.
pub(super) fn missing_or_io(digest: &Digest, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::BlobNotFound(*digest),
        _ => Error::io(format!("cannot read blob {digest}"))(error),
    }
}

/// A blob that is being written piece by piece; dropped before [`finish`](Self::finish), it leaves nothing.
#[derive(Debug)]
pub(super) struct NewBlob {
    file: NamedTempFile,
    folder: PathBuf,
    hasher: Sha256,
    bytes: u64,
}

impl io::Write for NewBlob {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let n = self.file.as_file_mut().write(piece)?;
        self.hasher.update(&piece[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl NewBlob {
    /// Where the unfinished blob lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the blob its name, if that is the one expected. Returns it, and the size in bytes.
    pub fn finish(self, expected: Option<Digest>) -> Result<(Digest, u64), Error> {
        let got = Digest::finish(self.hasher);
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            return Err(Error::DigestMismatch { expected, got });
        }
        files::publish(self.file, &self.folder.join(got.file_name()))
            .map_err(Error::io(format!("cannot store blob {got}")))?;
        Ok((got, self.bytes))
    }
}

/// A blob that is being uploaded; dropped before [`finish`](Self::finish), it leaves nothing.
///
/// Memory stays bounded by the pieces. Several uploads of one digest may run at once; the last to finish wins.
#[derive(Debug)]
pub struct BlobUpload {
    blob: NewBlob,
    expected: Digest,
    limit: u64,
}

impl BlobUpload {
    /// Takes the next bytes.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        if self.blob.bytes.saturating_add(piece.len() as u64) > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.blob
            .write_all(piece)
            .map_err(Error::io(format!("cannot write blob {}", self.expected)))
    }

    /// Checks the digest and gives the blob its name.
    pub fn finish(self) -> Result<(), Error> {
        self.blob.finish(Some(self.expected)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().to_owned()).unwrap();
        (dir, blobs)
    }

    fn n_files(blobs: &Blobs) -> usize {
        fs::read_dir(blobs.folder().path()).unwrap().count()
    }

    #[test]
    fn upload_in_pieces() {
        let (_dir, blobs) = blobs();
        let digest = Digest::of(b"hello world");
        let mut upload = blobs.upload(digest, 11).unwrap();
        upload.write(b"hello ").unwrap();
        assert!(matches!(blobs.size(&digest), Err(Error::BlobNotFound(_))));
        upload.write(b"world").unwrap();
        upload.finish().unwrap();
        assert_eq!(blobs.size(&digest).unwrap(), 11);
        assert_eq!(blobs.read(&digest, 11).unwrap(), b"hello world");
        assert_eq!(n_files(&blobs), 1);
    }

    #[test]
    fn a_wrong_body_leaves_nothing() {
        let (_dir, blobs) = blobs();
        let expected = Digest::of(b"right");
        let mut upload = blobs.upload(expected, 100).unwrap();
        upload.write(b"wrong").unwrap();
        let error = upload.finish().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "digest mismatch, expected \"{expected}\", got \"{}\"",
                Digest::of(b"wrong")
            )
        );
        assert_eq!(n_files(&blobs), 0);
    }

    #[test]
    fn an_abandoned_or_oversized_upload_leaves_nothing() {
        let (_dir, blobs) = blobs();
        let mut upload = blobs.upload(Digest::of(b"abc"), 2).unwrap();
        upload.write(b"ab").unwrap();
        assert!(matches!(
            upload.write(b"c"),
            Err(Error::TooLarge { limit: 2 })
        ));
        assert_eq!(n_files(&blobs), 1);
        drop(upload);
        assert_eq!(n_files(&blobs), 0);
    }

    #[test]
    fn parallel_uploads_of_one_digest_give_one_blob() {
        let (_dir, blobs) = blobs();
        let body = vec![7u8; 100_000];
        let digest = Digest::of(&body);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut upload = blobs.upload(digest, u64::MAX).unwrap();
                    for piece in body.chunks(999) {
                        upload.write(piece).unwrap();
                    }
                    upload.finish().unwrap();
                });
            }
        });
        assert_eq!(n_files(&blobs), 1);
        assert_eq!(blobs.read(&digest, u64::MAX).unwrap(), body);
    }

    #[test]
    fn errors_of_the_disk_tell_no_path() {
        let (dir, blobs) = blobs();
        dir.close().unwrap();
        let digest = Digest::of(b"x");
        let error = blobs.upload(digest, 1).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        let text = error.to_string();
        assert!(text.contains(&digest.to_string()), "{text}");
        assert!(!text.contains(files::TEMP_PREFIX), "{text}");
    }

    #[test]
    fn an_upload_replaces_a_damaged_blob() {
        let (_dir, blobs) = blobs();
        let digest = Digest::of(b"good");
        fs::write(blobs.path(&digest), "bad!!").unwrap();
        let mut upload = blobs.upload(digest, 100).unwrap();
        upload.write(b"good").unwrap();
        upload.finish().unwrap();
        assert_eq!(blobs.read(&digest, 100).unwrap(), b"good");
    }

    #[test]
    fn small_blobs_are_added_once() {
        let (_dir, blobs) = blobs();
        let (digest, new) = blobs.add(b"text").unwrap();
        assert!(new);
        assert_eq!(blobs.add(b"text").unwrap(), (digest, false));
        blobs.remove(&digest);
        blobs.remove(&digest);
        assert!(matches!(
            blobs.read(&digest, 10),
            Err(Error::BlobNotFound(_))
        ));
    }
}
