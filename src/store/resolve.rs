//! From a manifest to what runs: paths of the GGUF files, template, system prompt, options.

use super::convert::limits::Few;
use super::manifest::{Config, Layer, Manifest, media};
use super::{Digest, Error, GgufFacts, Loaded, ModelEntry, ModelName, Store, capabilities};
use crate::api::Message;
use crate::chat::{Capability, Template};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::SystemTime;

/// Most messages of a model. Short ones take a hundred times their text.
pub(super) const MAX_MESSAGES: usize = 100_000;

/// Most bytes of a small layer of this type.
pub(super) fn most_bytes(media_type: &str) -> u64 {
    match media_type {
        media::CONFIG | media::PARAMS => 1 << 20,
        media::MESSAGES | media::LICENSE => 16 << 20,
        _ => 4 << 20,
    }
}

/// A model with the content of its small layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedModel {
    /// In the spelling of the store.
    pub name: ModelName,
    /// SHA-256 of the manifest's bytes, 64 hex digits: the model's ID.
    pub digest: String,
    /// Bytes of all layers and the config.
    pub size: u64,
    pub modified_at: SystemTime,
    pub config: Config,
    /// Short name of the model this one was made from; empty if none.
    pub parent_model: String,
    /// The GGUF file with the weights.
    pub model_path: PathBuf,
    /// Its digest.
    pub model_digest: Digest,
    pub adapter_paths: Vec<PathBuf>,
    /// GGUF files with a vision or audio tower.
    pub projectors: Vec<(Digest, PathBuf)>,
    pub draft_path: Option<PathBuf>,
    /// Go template; `None` means the GGUF's own chat template, or the bare prompt.
    pub template: Option<String>,
    pub system: Option<String>,
    /// Options of the model, to be overlaid by those of the request.
    pub params: Map<String, Value>,
    /// Conversation that precedes every chat.
    pub messages: Vec<Message>,
    pub license: Vec<String>,
}

impl ResolvedModel {
    /// What the model can do; `template` is the one that renders its chats, if any.
    pub fn capabilities(
        &self,
        store: &Store,
        template: Option<&Template>,
    ) -> Result<Vec<Capability>, Error> {
        let facts = store.facts(&self.model_digest)?;
        let projectors = self
            .projectors
            .iter()
            .map(|(digest, _)| store.facts(digest));
        let projectors = projectors.collect::<Result<Vec<_>, _>>()?;
        let projectors: Vec<&GgufFacts> = projectors.iter().map(|facts| &**facts).collect();
        Ok(capabilities::collect(
            &self.config,
            &facts,
            &projectors,
            template,
        ))
    }
}

/// Reads all layers of a model.
pub(super) fn resolve(store: &Store, loaded: &Loaded) -> Result<ResolvedModel, Error> {
    let layers = Layers { store, loaded };
    let manifest = &loaded.manifest;
    if manifest.last(media::TENSOR).is_some() {
        return Err(
            layers.damaged("it is in the safetensors format, which this server does not read")
        );
    }
    let model = manifest
        .last(media::MODEL)
        .ok_or_else(|| layers.damaged("it has no GGUF weights"))?;
    let template = manifest
        .last(media::TEMPLATE)
        .or(manifest.last(media::PROMPT));
    let draft = manifest.last(media::DRAFT);
    Ok(ResolvedModel {
        digest: Digest::of(&loaded.bytes).hex(),
        size: manifest.size(),
        modified_at: loaded.modified_at,
        config: layers.config()?,
        parent_model: model.from.clone(),
        model_path: layers.path(model)?,
        model_digest: model.digest,
        adapter_paths: layers
            .paths(media::ADAPTER)?
            .into_iter()
            .map(|(_, path)| path)
            .collect(),
        projectors: layers.paths(media::PROJECTOR)?,
        draft_path: draft.map(|layer| layers.path(layer)).transpose()?,
        template: template.map(|layer| layers.text(layer)).transpose()?,
        system: manifest
            .last(media::SYSTEM)
            .map(|layer| layers.text(layer))
            .transpose()?,
        params: layers.params()?,
        messages: layers.messages()?,
        license: layers.licenses()?,
        name: loaded.name.clone(),
    })
}

/// Reads what lists show. Weights that cannot be opened leave their fields empty, not the model out.
pub(super) fn entry(store: &Store, loaded: &Loaded) -> Result<ModelEntry, Error> {
    let layers = Layers { store, loaded };
    let manifest = &loaded.manifest;
    let config = layers.config()?;
    let model = manifest.last(media::MODEL);
    let facts = model
        .and_then(|layer| store.facts(&layer.digest).ok())
        .unwrap_or_default();
    let template = manifest
        .last(media::TEMPLATE)
        .or(manifest.last(media::PROMPT));
    let template = template.map(|layer| layers.text(layer)).transpose()?;
    let template = template.and_then(|text| Template::parse_go(&text).ok());
    let projectors = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == media::PROJECTOR);
    let projectors: Vec<_> = projectors
        .filter_map(|p| store.facts(&p.digest).ok())
        .collect();
    let projectors: Vec<&GgufFacts> = projectors.iter().map(|facts| &**facts).collect();
    Ok(ModelEntry {
        digest: Digest::of(&loaded.bytes).hex(),
        size: manifest.size(),
        modified_at: loaded.modified_at,
        parent_model: model.map(|layer| layer.from.clone()).unwrap_or_default(),
        context_length: non_zero(config.context_length, facts.context_length),
        embedding_length: non_zero(config.embedding_length, facts.embedding_length),
        capabilities: capabilities::collect(&config, &facts, &projectors, template.as_ref()),
        config,
        name: loaded.name.clone(),
    })
}

fn non_zero(first: u64, second: u64) -> u64 {
    if first == 0 { second } else { first }
}

/// Reads layers, naming the model in every error.
pub(super) struct Layers<'a> {
    pub store: &'a Store,
    pub loaded: &'a Loaded,
}

impl Layers<'_> {
    fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    pub fn damaged(&self, why: impl Into<String>) -> Error {
        Error::Damaged {
            model: self.loaded.name.to_string(),
            why: why.into(),
        }
    }

    pub fn config(&self) -> Result<Config, Error> {
        match &self.manifest().config {
            None => Ok(Config::default()),
            Some(layer) => {
                Config::parse(&self.bytes(layer, media::CONFIG)?).map_err(|why| self.damaged(why))
            }
        }
    }

    /// Options; an absent layer is none.
    pub fn params(&self) -> Result<Map<String, Value>, Error> {
        self.json(media::PARAMS, "parameters")
    }

    pub fn messages(&self) -> Result<Vec<Message>, Error> {
        let found: Few<_, MAX_MESSAGES> = self.json(media::MESSAGES, "messages")?;
        Ok(found.0)
    }

    fn licenses(&self) -> Result<Vec<String>, Error> {
        let layers = self.manifest().layers.iter();
        layers
            .filter(|layer| layer.media_type == media::LICENSE)
            .map(|layer| self.text(layer))
            .collect()
    }

    fn json<T: Default + serde::de::DeserializeOwned>(
        &self,
        media_type: &str,
        what: &str,
    ) -> Result<T, Error> {
        let Some(layer) = self.manifest().last(media_type) else {
            return Ok(T::default());
        };
        let bytes = self.bytes(layer, media_type)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| self.damaged(format!("its {what} are not valid ({e})")))
    }

    pub fn text(&self, layer: &Layer) -> Result<String, Error> {
        String::from_utf8(self.bytes(layer, &layer.media_type)?)
            .map_err(|_| self.damaged(format!("blob {} is not UTF-8 text", layer.digest)))
    }

    /// The content of a layer that is read as one of this type.
    fn bytes(&self, layer: &Layer, media_type: &str) -> Result<Vec<u8>, Error> {
        self.store
            .inner
            .blobs
            .read(&layer.digest, most_bytes(media_type))
            .map_err(|e| self.in_model(e))
    }

    fn paths(&self, media_type: &str) -> Result<Vec<(Digest, PathBuf)>, Error> {
        let layers = self.manifest().layers.iter();
        layers
            .filter(|layer| layer.media_type == media_type)
            .map(|layer| Ok((layer.digest, self.path(layer)?)))
            .collect()
    }

    /// The path of a large blob, which must be there in full.
    pub fn path(&self, layer: &Layer) -> Result<PathBuf, Error> {
        let size = self
            .store
            .inner
            .blobs
            .size(&layer.digest)
            .map_err(|e| self.in_model(e))?;
        if size != layer.size {
            return Err(self.damaged(format!(
                "blob {} has {size} bytes instead of {}",
                layer.digest, layer.size
            )));
        }
        Ok(self.store.blob_path(&layer.digest))
    }

    fn in_model(&self, error: Error) -> Error {
        match error {
            Error::BlobNotFound(digest) => self.damaged(format!("blob {digest} is missing")),
            Error::Io { what, source } if !Error::is_passing(&source) => {
                self.damaged(format!("{what} ({source})"))
            }
            other => other,
        }
    }
}
