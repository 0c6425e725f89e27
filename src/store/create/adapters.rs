//! The adapters of a model under construction: those of the model it is made from, and the request's.

use super::{Client, Draft, DraftLayer, media, step};
use crate::api::CreateRequest;
use crate::gguf::{Gguf, Lora};
use crate::store::convert::convert_adapter;
use crate::store::files_map::{check_files, digests};
use crate::store::{Digest, Error, Store};
use std::sync::Arc;

impl Store {
    /// The layer of the request's adapter, if it has one: a GGUF file, or one made of a folder of safetensors.
    pub(super) fn adapter_layer(
        &self,
        request: &CreateRequest,
        draft: &Draft,
        client: &mut dyn Client,
    ) -> Result<Option<DraftLayer>, Error> {
        let adapters = digests(&request.adapters)?;
        let is_safetensors = |name: &str| name.ends_with(".safetensors");
        let digest = match adapters.as_slice() {
            [] => return Ok(None),
            all if all.iter().any(|(name, _)| is_safetensors(name)) => {
                check_files(&request.adapters)?;
                client.tell(step("converting adapter"));
                let base = self.open_gguf(weights(draft)?)?;
                let mut blob = self.inner.blobs.begin("the converted adapter")?;
                convert_adapter(self, all, &base, &mut blob)?;
                blob.finish(None)?.0
            }
            [(_, digest)] => *digest,
            _ => {
                let text = "only one adapter is currently supported";
                return Err(Error::BadRequest(text.into()));
            }
        };
        let mut layer = self.gguf_layer(&digest, self.has_gguf_magic(&digest)?)?;
        layer.layer.media_type = media::ADAPTER.into();
        Ok(Some(layer))
    }

    /// Refuses an adapter that is none, or that is for other weights than the model's.
    pub(super) fn check_adapters(&self, draft: &Draft) -> Result<(), Error> {
        let adapters: Vec<&Digest> = of(draft, media::ADAPTER).collect();
        if adapters.is_empty() {
            return Ok(());
        }
        let model = self.open_gguf(weights(draft)?)?.with_current_names();
        for digest in adapters {
            let adapter = Lora::new(Arc::new(self.open_gguf(digest)?)).map_err(wrong)?;
            adapter.check(&model).map_err(wrong)?;
        }
        Ok(())
    }

    pub(super) fn open_gguf(&self, digest: &Digest) -> Result<Gguf, Error> {
        let problem = |source| Error::Gguf {
            digest: *digest,
            source,
        };
        Gguf::open(&self.blob_path(digest)).map_err(problem)
    }
}

/// The digests of the layers of a type.
fn of<'a>(draft: &'a Draft, media_type: &str) -> impl Iterator<Item = &'a Digest> {
    let layers = draft.layers.iter().map(|layer| &layer.layer);
    let found = layers.filter(move |layer| layer.media_type == media_type);
    found.map(|layer| &layer.digest)
}

fn weights(draft: &Draft) -> Result<&Digest, Error> {
    let no_weights = || wrong("there are no weights that it could change".into());
    of(draft, media::MODEL).next().ok_or_else(no_weights)
}

fn wrong(what: String) -> Error {
    Error::BadRequest(format!("adapter: {what}"))
}
