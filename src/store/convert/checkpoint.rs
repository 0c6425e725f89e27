//! The uploaded files of a checkpoint, by the names that the request gives them.

use super::limits::{Members, parse};
use super::safetensors::{Entry, Shard};
use super::{Error, bad};
use crate::store::{Digest, Store};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_TENSORS: usize = 1_000_000;

/// A folder of weights, settings and a vocabulary.
pub struct Checkpoint<'a> {
    store: &'a Store,
    files: HashMap<&'a str, Digest>,
    shards: Vec<Shard>,
}

/// Where an index says that tensors lie.
#[derive(Deserialize)]
struct Index {
    weight_map: Members<String, MAX_TENSORS>,
}

impl<'a> Checkpoint<'a> {
    /// Maps the safetensors files that are in no sub-folder. Where there is an index, they are what it says.
    pub fn open(store: &'a Store, files: &[(&'a str, Digest)]) -> Result<Checkpoint<'a>, Error> {
        let mut checkpoint = Checkpoint {
            store,
            files: files.iter().copied().collect(),
            shards: Vec::new(),
        };
        let is_weights = |name: &str| name.ends_with(".safetensors") && !name.contains('/');
        for (name, digest) in files.iter().filter(|(name, _)| is_weights(name)) {
            store.inner.blobs.size(digest)?;
            let shard = Shard::open(name, &store.blob_path(digest))?;
            checkpoint.shards.push(shard);
        }
        if checkpoint.shards.is_empty() {
            let text = "no files provided to convert: safetensors are read where no folder is in their names";
            return Err(Error::BadRequest(text.into()));
        }
        checkpoint.check_names()?;
        checkpoint.check_index()?;
        Ok(checkpoint)
    }

    fn check_names(&self) -> Result<(), Error> {
        let mut names = HashMap::new();
        for (shard, entry) in self.tensors() {
            if let Some(other) = names.insert(&entry.name, &shard.name) {
                let text = format!("tensor {:?} is in {other} too", entry.name);
                return Err(bad(&shard.name, text));
            }
        }
        Ok(())
    }

    fn check_index(&self) -> Result<(), Error> {
        let Some(index) = self.json::<Index>(INDEX, MAX_INDEX_BYTES)? else {
            return Ok(());
        };
        let places: HashMap<&str, &str> = self
            .tensors()
            .map(|(shard, entry)| (entry.name.as_str(), shard.name.as_str()))
            .collect();
        for (tensor, file) in &index.weight_map.0 {
            if !self.files.contains_key(file.as_str()) {
                return Err(bad(INDEX, format!("it names {file:?}, which is missing")));
            }
            if places.get(tensor.as_str()) != Some(&file.as_str()) {
                let text = format!("{file} lacks tensor {tensor:?}, which {INDEX} names");
                return Err(Error::BadRequest(text));
            }
        }
        Ok(())
    }

    /// Fails where a file lost bytes since it was opened, which are then missing in what was made of it.
    pub fn check_whole(&self) -> Result<(), Error> {
        match self.shards.iter().find(|shard| !shard.is_whole()) {
            Some(shard) => Err(bad(&shard.name, "it was cut while it was read")),
            None => Ok(()),
        }
    }

    /// Every tensor, with the file that it lies in.
    pub fn tensors(&self) -> impl Iterator<Item = (&Shard, &Entry)> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.entries.iter().map(move |entry| (shard, entry)))
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The bytes of a small file, if it is there.
    pub fn bytes(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(digest) = self.files.get(name) else {
            return Ok(None);
        };
        let size = self.store.inner.blobs.size(digest)?;
        if size > limit {
            let text = format!("it has {size} bytes; at most {limit} are read");
            return Err(bad(name, text));
        }
        self.store.inner.blobs.read(digest, limit).map(Some)
    }

    /// The text of a small file, if it is there.
    pub fn text(&self, name: &str, limit: u64) -> Result<Option<String>, Error> {
        let bytes = self.bytes(name, limit)?;
        let text =
            bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| bad(name, "it is not UTF-8")));
        text.transpose()
    }

    /// The value of a small JSON file, if it is there.
    pub fn json<T: DeserializeOwned>(&self, name: &str, limit: u64) -> Result<Option<T>, Error> {
        let bytes = self.bytes(name, limit)?;
        bytes.map(|bytes| parse(name, &bytes)).transpose()
    }
}
