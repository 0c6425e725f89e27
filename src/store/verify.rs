//! Reading blobs again. Loading does not: a large model would take seconds longer, each time, for what hardly ever happens.

use super::{Digest, Error, ModelName, Store};
use std::collections::HashMap;
use std::fs::File;

/// A blob that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first of the models that need it.
    pub model: ModelName,
    pub digest: Digest,
    pub why: String,
}

impl Store {
    /// Hashes the blobs of these models, or of all, each once; `tell` hears which model is next. Takes about a second for
    /// each gigabyte.
    ///
    /// # Errors
    /// A model that is not there or whose manifest cannot be read, and those of the disk.
    pub fn verify(
        &self,
        names: &[ModelName],
        tell: &mut dyn FnMut(&ModelName),
    ) -> Result<Vec<Damage>, Error> {
        let names = match names {
            [] => {
                let walked = self.walk(&|_, _| true);
                let mut all = walked.map_err(Error::io("cannot list the models"))?;
                all.sort();
                all
            }
            names => names.to_vec(),
        };
        let mut seen = HashMap::new();
        for name in names {
            tell(&name);
            let (name, manifest, _) = self.manifest(&name)?;
            for layer in manifest.blobs() {
                if seen.contains_key(&layer.digest) {
                    continue;
                }
                let damage = self.damage(&layer.digest)?.map(|why| Damage {
                    model: name.clone(),
                    digest: layer.digest,
                    why,
                });
                seen.insert(layer.digest, damage);
            }
        }
        let mut found: Vec<Damage> = seen.into_values().flatten().collect();
        found.sort_by(|a, b| (&a.model, a.digest).cmp(&(&b.model, b.digest)));
        Ok(found)
    }

    fn damage(&self, digest: &Digest) -> Result<Option<String>, Error> {
        let size = match self.inner.blobs.size(digest) {
            Ok(size) => size,
            Err(Error::BlobNotFound(_)) => return Ok(Some("is missing".into())),
            Err(e) => return Err(e),
        };
        let got = File::open(self.blob_path(digest)).and_then(Digest::of_reader);
        let got = got.map_err(Error::io(format!("cannot read blob {digest}")))?;
        Ok((got != *digest).then(|| format!("has other bytes: its {size} are {got}")))
    }

    /// Removes a damaged blob, whatever names it: pulling or creating a model that needs it brings it back.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn discard(&self, damage: &Damage) -> Result<(), Error> {
        let _guard = self.change()?;
        self.inner.blobs.remove(&damage.digest);
        super::lock(&self.inner.facts).remove(&damage.digest);
        Ok(())
    }
}
