//! The adapters of a model under construction: those of the model it is made from, and the request's.

use super::{Draft, media, unsupported};
use crate::api::CreateRequest;
use crate::gguf::{Gguf, Lora};
use crate::store::files_map::digests;
use crate::store::{Digest, Error, Store};
use std::sync::Arc;

impl Store {
    /// Adds the request's adapter, and checks all that the model has then.
    pub(super) fn add_adapters(
        &self,
        request: &CreateRequest,
        draft: &mut Draft,
    ) -> Result<(), Error> {
        let adapters = digests(&request.adapters)?;
        if request
            .adapters
            .keys()
            .any(|name| name.ends_with(".safetensors"))
        {
            return Err(unsupported(
                "importing safetensors adapters is not supported: convert the adapter to GGUF first",
            ));
        }
        if adapters.len() > 1 {
            return Err(Error::BadRequest(
                "only one adapter is currently supported".into(),
            ));
        }
        for (_, digest) in adapters {
            let mut layer = self.gguf_layer(&digest, self.has_gguf_magic(&digest)?)?;
            layer.layer.media_type = media::ADAPTER.into();
            draft.layers.push(layer);
        }
        self.check_adapters(draft)
    }

    /// Refuses an adapter that is none, or that is for other weights than the model's.
    fn check_adapters(&self, draft: &Draft) -> Result<(), Error> {
        let of = |media_type: &str| -> Vec<&Digest> {
            let layers = draft.layers.iter().map(|layer| &layer.layer);
            let found = layers.filter(|layer| layer.media_type == media_type);
            found.map(|layer| &layer.digest).collect()
        };
        let (adapters, weights) = (of(media::ADAPTER), of(media::MODEL));
        if adapters.is_empty() {
            return Ok(());
        }
        let wrong = |what: String| Error::BadRequest(format!("adapter: {what}"));
        let no_weights = || wrong("there are no weights that it could change".into());
        let weights = weights.first().ok_or_else(no_weights)?;
        let model = self.open_gguf(weights)?.with_current_names();
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
