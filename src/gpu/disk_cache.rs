//! Compiled kernels on disk: where a driver hands them out (Vulkan), the next start need not compile them again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// The largest file.
const MAX_BYTES: u64 = 256 << 20;
const DIGEST_BYTES: usize = 32;

/// The compiled kernels of a device, and the file that has them between runs: a SHA-256 digest, then what it is of.
pub(super) struct DiskCache {
    cache: wgpu::PipelineCache,
    adapter: String,
    path: PathBuf,
}

impl DiskCache {
    /// A cache with what an earlier run left in `folder` for this adapter and version of the program. A file that is
    /// damaged or of another driver counts as none. `None` where the device has no such cache.
    pub fn open(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        folder: &Path,
    ) -> Option<DiskCache> {
        let has_caches = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        let adapter = wgpu::util::pipeline_cache_key(info).filter(|_| has_caches)?;
        let path = folder.join(format!("{adapter}_{}", env!("CARGO_PKG_VERSION")));
        let found = read(&path);
        tracing::debug!(path = %path.display(), found = found.is_some(), "compiled kernels");
        let invalid = device.push_error_scope(wgpu::ErrorFilter::Validation);
        // SAFETY: the bytes must be what `get_data` gave for an adapter with the same key: the key is in the name, the
        // digest shows that nothing was cut off or changed by accident, and wgpu compares the driver's version. Nobody
        // else can have changed them on purpose: the file is this user's, and only this user may write it.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: None,
                data: found.as_deref(),
                fallback: true,
            })
        };
        let refused = pollster::block_on(invalid.pop());
        refused.is_none().then_some(DiskCache {
            cache,
            adapter,
            path,
        })
    }

    /// For the description of a pipeline.
    pub fn handle(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes all that was compiled so far, unless it is too large. Without it kernels are compiled again: a failure is logged, no more.
    pub fn save(&self) {
        let fits = |data: &Vec<u8>| (DIGEST_BYTES + data.len()) as u64 <= MAX_BYTES;
        let Some(data) = self.cache.get_data().filter(fits) else {
            return;
        };
        match write(&self.path, &data) {
            Ok(()) => remove_other_versions(&self.path, &self.adapter),
            Err(error) => {
                let path = self.path.display();
                tracing::debug!("cannot write compiled kernels to {path}: {error}");
            }
        }
    }
}

/// What [`write`] wrote; nothing where the file is missing, someone else's, too large or damaged.
fn read(path: &Path) -> Option<Vec<u8>> {
    // To open a pipe would wait for its other end.
    fs::metadata(path).ok().filter(|found| found.is_file())?;
    let mut bytes = Vec::new();
    let file = File::open(path).ok().filter(is_private)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MAX_BYTES {
        return None;
    }
    let (digest, data) = bytes.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(data).as_slice() == digest).then(|| data.to_vec())
}

/// Replaces the file at once, so that no reader sees half of it.
fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_private(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&Sha256::digest(data))?;
    file.write_all(data)?;
    file.persist(path)?;
    Ok(())
}

/// Removes what other versions of the program left of an adapter beside its file.
fn remove_other_versions(path: &Path, adapter: &str) {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else {
        return;
    };
    let prefix = format!("{adapter}_");
    for entry in entries.flatten() {
        let is_of_adapter = entry.file_name().to_string_lossy().starts_with(&prefix);
        if is_of_adapter && entry.path() != path {
            // One that cannot be removed takes some place, no more.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the file is this user's, as a new file would be, and closed to writers besides.
#[cfg(unix)]
fn is_private(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let new = tempfile::tempfile().and_then(|file| file.metadata());
    let (Ok(new), Ok(found)) = (new, file.metadata()) else {
        return false;
    };
    found.is_file() && found.uid() == new.uid() && found.mode() & 0o022 == 0
}

#[cfg(unix)]
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// A user's folders are private there as they are.
#[cfg(not(unix))]
fn is_private(_: &File) -> bool {
    true
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_of_an_adapter_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let names = ["vulkan_1_2_0.1.0", "vulkan_1_2_0.2.0", "vulkan_1_20_0.1.0"];
        for name in names {
            write(&at(name), b"compiled").expect("it is written");
        }
        remove_other_versions(&at(names[1]), "vulkan_1_2");
        assert_eq!(names.map(|name| at(name).exists()), [false, true, true]);
    }

    #[test]
    fn only_whole_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/kernels");
        assert_eq!(read(&path), None);
        write(&path, b"compiled").expect("it is written");
        assert_eq!(read(&path).as_deref(), Some(&b"compiled"[..]));
        write(&path, b"").expect("it is replaced");
        assert_eq!(read(&path).as_deref(), Some(&b""[..]));
        write(&path, b"compiled").expect("it is replaced");
        let whole = fs::read(&path).expect("it is there");
        for n in 0..whole.len() {
            fs::write(&path, &whole[..n]).expect("it is cut");
            assert_eq!(read(&path), None, "{n} bytes");
            let mut changed = whole.clone();
            changed[n] ^= 1;
            fs::write(&path, &changed).expect("it is changed");
            assert_eq!(read(&path), None, "byte {n}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            write(&path, b"compiled").expect("it is replaced");
            let open_to_all = fs::Permissions::from_mode(0o666);
            fs::set_permissions(&path, open_to_all).expect("they are set");
            assert_eq!(read(&path), None);
        }
        let left = fs::read_dir(folder.path().join("new")).expect("a folder");
        assert_eq!(left.count(), 1, "files besides");
    }
}
