//! Who else may write the models folder.

use super::Store;
use std::path::PathBuf;

impl Store {
    /// A folder or blob of the store that other users may write, or that belongs to one: they decide what models say.
    /// The system's administrator is no such user. `None` on systems other than Unix.
    pub fn writable_by_others(&self) -> Option<PathBuf> {
        #[cfg(unix)]
        {
            let (blobs, manifests) = (self.inner.blobs.folder().path(), &self.inner.manifests);
            let folders = [&self.inner.root, blobs, manifests.path()].map(PathBuf::from);
            let entries = std::fs::read_dir(blobs).into_iter().flatten().flatten();
            let mut all = folders.into_iter().chain(entries.map(|entry| entry.path()));
            all.find(|path| is_open(path))
        }
        #[cfg(not(unix))]
        None
    }
}

#[cfg(unix)]
fn is_open(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const WRITABLE_BY_ALL: u32 = 0o002;
    /// In such a folder only the owner of a file replaces it.
    const STICKY: u32 = 0o1000;
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    // SAFETY: the call has no arguments and cannot fail.
    let own = unsafe { libc::geteuid() };
    let is_shared = metadata.mode() & (WRITABLE_BY_ALL | STICKY) == WRITABLE_BY_ALL;
    is_shared || ![0, own].contains(&metadata.uid())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::store::Digest;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_others_may_write_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"x");
        let mut upload = store.upload(digest, 1).unwrap();
        upload.write(b"x").unwrap();
        upload.finish().unwrap();
        assert_eq!(store.writable_by_others(), None);
        let blob = store.blob_path(&digest);
        for path in [blob, dir.path().join("blobs"), dir.path().join("manifests")] {
            let before = std::fs::metadata(&path).unwrap().permissions();
            set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            assert_eq!(store.writable_by_others(), Some(path.clone()));
            set_permissions(&path, before).unwrap();
        }
        assert_eq!(store.writable_by_others(), None);
    }
}
