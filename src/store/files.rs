//! The disk below the store: reads that cannot be led astray, writes that are whole or absent.

use super::Error;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How the name of an unfinished file begins: Ollama's sweep removes it from `blobs/`, and its walk over
/// `manifests/` skips it.
pub(super) const TEMP_PREFIX: &str = ".tmp-";

/// A folder of the store (`blobs` or `manifests`). The folder itself may be a link; links in it must stay inside.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is absent. A store that cannot be written is still readable, so that is no error.
    pub fn open(path: PathBuf) -> Result<Folder, Error> {
        match fs::create_dir_all(&path) {
            Err(e) if !path.is_dir() => Err(Error::io(format!(
                "cannot make the models folder {} (set OLLAMA_MODELS to one that can be written)",
                path.display()
            ))(e)),
            _ => Ok(Folder { path }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size and time of a regular file in the folder.
    ///
    /// Pipes, devices, folders and links that lead outside are `NotFound`, as if nothing were there.
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let real = fs::canonicalize(path)?;
        let metadata = fs::metadata(&real)?;
        if real.starts_with(fs::canonicalize(&self.path)?) && metadata.is_file() {
            Ok(metadata)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// A regular file's bytes, at most `limit` of them, and its metadata.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<(Vec<u8>, Metadata)> {
        self.metadata(path)?;
        let file = open_plain(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let text = format!("larger than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok((bytes, metadata))
    }

    /// An unfinished file in this folder; it disappears when dropped.
    pub fn temp(&self) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMP_PREFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o644));
        }
        // Its errors would tell the path, which is not for clients.
        builder.tempfile_in(&self.path).map_err(|e| e.kind().into())
    }

    /// Puts `bytes` at `path`, replacing what is there. After a crash the old or the new file is there, whole.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.path);
        let new: Vec<&Path> = parent.ancestors().take_while(|p| !p.exists()).collect();
        fs::create_dir_all(parent)?;
        if !fs::canonicalize(parent)?.starts_with(fs::canonicalize(&self.path)?) {
            return Err(io::Error::other(
                "a link on the way leads out of the models folder",
            ));
        }
        let mut file = self.temp()?;
        file.as_file_mut().write_all(bytes)?;
        publish(file, path)?;
        // Or a power cut takes the folders, and the file with them.
        let above = new.iter().filter_map(|folder| folder.parent());
        above.into_iter().try_for_each(sync_folder)
    }
}

/// Gives a finished temporary file its name: synced to disk, renamed, the folder synced.
pub(super) fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// As [`publish`], for a finished file with a name of its own.
pub(super) fn publish_at(file: &File, from: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// A rename is on disk once its folder is; other systems than Unix cannot sync a folder.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Opens for reading without waiting for a pipe's writer.
fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(libc::O_NONBLOCK);
    }
    options.open(path)
}

/// Takes the lock that keeps other processes from changing the store; it is free again when the file is dropped.
///
/// `None` where the file system has no locks: then only this process's own mutex protects the store.
pub(super) fn lock(root: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(root.join(".ollama-wgpu.lock"))?;
    match file.lock() {
        Ok(()) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether this is now the only handle that has the file locked; always, where the file system has no locks.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Writes all bytes at a position; the handle's own position is left to others.
pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, position)
    }
    #[cfg(windows)]
    {
        let (mut rest, mut position) = (bytes, position);
        while !rest.is_empty() {
            let n = std::os::windows::fs::FileExt::seek_write(file, rest, position)?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[n..];
            position += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("blobs")).unwrap();
        (dir, folder)
    }

    #[test]
    fn written_whole_and_replaced() {
        let (_dir, folder) = folder();
        let path = folder.path().join("a/b/c");
        folder.write(&path, b"one").unwrap();
        folder.write(&path, b"two").unwrap();
        assert_eq!(folder.read(&path, 3).unwrap().0, b"two");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no leftovers"
        );
    }

    #[test]
    fn large_files_are_refused_before_they_are_in_memory() {
        let (_dir, folder) = folder();
        let path = folder.path().join("x");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = folder.read(&path, 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_rest() {
        let (_dir, folder) = folder();
        let path = folder.path().join("x");
        fs::create_dir(&path).unwrap();
        assert!(folder.write(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_inside_are_seen() {
        use std::os::unix::fs::symlink;
        let (dir, folder) = folder();
        let secret = dir.path().join("secret");
        fs::write(&secret, "s").unwrap();
        let inside = folder.path().join("inside");
        fs::write(&inside, "i").unwrap();
        symlink(&secret, folder.path().join("out")).unwrap();
        symlink(&inside, folder.path().join("in")).unwrap();
        symlink("/dev/zero", folder.path().join("zero")).unwrap();
        symlink(dir.path(), folder.path().join("parent")).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let fifo = std::ffi::CString::new(folder.path().join("fifo").to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated path that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        for name in [
            "out",
            "zero",
            "parent/secret",
            "folder",
            "fifo",
            "socket",
            "absent",
        ] {
            let error = folder.read(&folder.path().join(name), 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
        }
        assert_eq!(folder.read(&folder.path().join("in"), 10).unwrap().0, b"i");
        assert!(
            folder
                .write(&folder.path().join("parent/new"), b"x")
                .is_err()
        );
        assert!(!dir.path().join("new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_itself_may_be_a_link() {
        let (dir, folder) = folder();
        fs::write(folder.path().join("x"), "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let linked = Folder::open(link).unwrap();
        assert_eq!(linked.read(&linked.path().join("x"), 1).unwrap().0, b"x");
    }

    #[test]
    fn the_lock_excludes_and_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path())
            .unwrap()
            .expect("this file system has locks");
        let other = File::options()
            .write(true)
            .open(dir.path().join(".ollama-wgpu.lock"))
            .unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
