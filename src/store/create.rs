//! Building a model: from another one or from uploaded GGUF blobs, with template, prompt and options of its own.

mod adapters;
mod weights;

use super::files_map::{check_files, digests};
use super::manifest::{Config, Layer, Manifest, media};
use super::resolve::{Layers, MAX_MESSAGES, most_bytes};
use super::{Digest, Error, GgufFacts, Loaded, ModelName, Source, Store, json, split_source};
use crate::api::{CreateRequest, Progress};
use crate::chat::Template;
use crate::chat::parser::{FamilyNames, family_names};
use crate::chat::shipped::recognise;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Who waits for a model to be made.
pub trait Client {
    /// Hears of a step.
    fn tell(&mut self, step: Progress);

    /// Whether it still waits.
    fn is_there(&self) -> bool {
        true
    }
}

/// One that never leaves.
impl<F: FnMut(Progress)> Client for F {
    fn tell(&mut self, step: Progress) {
        self(step);
    }
}

/// A model under construction.
#[derive(Default)]
struct Draft {
    layers: Vec<DraftLayer>,
    /// Options, merged.
    params: Map<String, Value>,
    /// What the base model's config hands down.
    inherited: Config,
}

struct DraftLayer {
    layer: Layer,
    /// Of weights that came as several files: all of them, in order.
    parts: Vec<Digest>,
    /// The line that tells about it.
    status: String,
    /// Of layers that are GGUF files.
    facts: Option<Arc<GgufFacts>>,
}

impl Store {
    /// Makes a model as the request says, telling the client each step. New weights, which can take minutes, are given
    /// up with [`Error::Canceled`] when the client leaves; nothing is left of them. What comes after them is done.
    ///
    /// Refused before anything is written: what [`check_create`] refuses, a source that is not there
    /// ([`Error::NotFound`] with the source's name), blobs that are missing or no GGUF. Weights are written anew before
    /// the store is locked, which it is for the last steps alone.
    pub fn create(&self, request: &CreateRequest, client: &mut dyn Client) -> Result<(), Error> {
        let name = check_create(request)?;
        let mut draft = if request.from.is_empty() {
            self.take_files(request, client)?
        } else {
            self.take_model(&request.from)?
        };
        self.rewrite_weights(request, &mut draft, client)?;
        let adapter = self.adapter_layer(request, &draft, client)?;
        draft.layers.extend(adapter);
        let _guard = self.change()?;
        self.check_adapters(&draft)?;
        self.apply(request, &mut draft)?;
        self.add_stop_of_family(request, &mut draft)?;
        let mut say = |status: &str| client.tell(step(status));
        let config = draft.config(request)?;
        let config = self.new_layer(media::CONFIG, &config.encode())?.layer;
        for layer in &draft.layers {
            self.check_present(&layer.layer)?;
            say(&layer.status);
        }
        say("writing manifest");
        let manifest = Manifest {
            config: Some(config),
            layers: draft.layers.into_iter().map(|l| l.layer).collect(),
        };
        let name = self.find(&name).unwrap_or(name);
        self.replace_manifest(&name, &manifest.encode())?;
        say("success");
        Ok(())
    }

    /// Every layer of another model.
    fn take_model(&self, from: &str) -> Result<Draft, Error> {
        let (from, source) = split_source(from)?;
        if source == Source::Cloud {
            return Err(Error::Unsupported(
                "hosted models are not available on this server".into(),
            ));
        }
        self.read(&ModelName::parse(from)?, Store::draft_of)
    }

    fn draft_of(&self, base: &Loaded) -> Result<Draft, Error> {
        let layers = Layers {
            store: self,
            loaded: base,
        };
        let mut draft = Draft {
            params: layers.params()?,
            inherited: layers.config()?,
            ..Draft::default()
        };
        for layer in &base.manifest.layers {
            let is_gguf = [media::MODEL, media::PROJECTOR].contains(&layer.media_type.as_str());
            if is_gguf {
                layers.path(layer)?;
            }
            draft.layers.push(DraftLayer {
                status: format!("using existing layer {}", layer.digest),
                parts: Vec::new(),
                facts: is_gguf.then(|| self.facts(&layer.digest)).transpose()?,
                layer: Layer {
                    from: base.name.to_string(),
                    ..layer.clone()
                },
            });
        }
        Ok(draft)
    }

    /// A Go template for weights whose own chat template is a known one, with its stop strings.
    fn add_recognised_template(&self, draft: &mut Draft) -> Result<(), Error> {
        let mut facts = draft.layers.iter().filter_map(|l| l.facts.as_deref());
        let shipped = facts.find_map(|facts| {
            let jinja = facts.chat_template.as_deref()?;
            Some(recognise(
                jinja,
                &facts.bos,
                &facts.eos,
                !facts.leaves_bos_out,
            ))
        });
        let Some(shipped) = shipped.flatten() else {
            return Ok(());
        };
        let mut layer = self.new_layer(media::TEMPLATE, shipped.template.as_bytes())?;
        layer.status = format!("using autodetected template {}", shipped.name);
        draft.layers.push(layer);
        let stop = Value::from(shipped.stop.to_vec());
        draft.params.insert("stop".into(), stop);
        self.replace_params(draft)
    }

    /// Template, system prompt, licenses, parameters and messages of the request, in Ollama's order.
    fn apply(&self, request: &CreateRequest, draft: &mut Draft) -> Result<(), Error> {
        if !request.template.is_empty() {
            Template::parse_go(&request.template)
                .map_err(|e| Error::BadRequest(format!("template error: {e}")))?;
            let layer = self.new_layer(media::TEMPLATE, request.template.as_bytes())?;
            draft.replace(&[media::TEMPLATE, media::PROMPT], layer);
        }
        if !request.system.is_empty() {
            let layer = self.new_layer(media::SYSTEM, request.system.as_bytes())?;
            draft.replace(&[media::SYSTEM], layer);
        }
        for license in &request.license.0 {
            draft
                .layers
                .push(self.new_layer(media::LICENSE, license.as_bytes())?);
        }
        if !request.parameters.is_empty() {
            draft.params.extend(request.parameters.clone());
            self.replace_params(draft)?;
        }
        if !request.messages.is_empty() {
            let messages = serde_json::to_value(&request.messages).unwrap_or_default();
            let layer = self.new_layer(media::MESSAGES, &json::encode_ordered(&messages))?;
            draft.replace(&[media::MESSAGES], layer);
        }
        Ok(())
    }

    /// The stop string of a family whose renderer or parser nobody named, unless the request has its own.
    fn add_stop_of_family(&self, request: &CreateRequest, draft: &mut Draft) -> Result<(), Error> {
        let Some(family) = draft.family_names().filter(|names| !names.stop.is_empty()) else {
            return Ok(());
        };
        let (renderer, parser) = draft.named(request);
        if !(renderer.is_empty() || parser.is_empty()) || request.parameters.contains_key("stop") {
            return Ok(());
        }
        let stop = Value::from(vec![family.stop]);
        draft.params.insert("stop".into(), stop);
        self.replace_params(draft)
    }

    fn replace_params(&self, draft: &mut Draft) -> Result<(), Error> {
        let params = json::encode_sorted(&Value::Object(draft.params.clone()));
        let layer = self.new_layer(media::PARAMS, &params)?;
        draft.replace(&[media::PARAMS], layer);
        Ok(())
    }

    /// Stores the content of a small layer; one that could not be read again is refused.
    fn new_layer(&self, media_type: &str, bytes: &[u8]) -> Result<DraftLayer, Error> {
        check_bytes(media_type, bytes.len())?;
        let (digest, is_new) = self.inner.blobs.add(bytes)?;
        let verb = if is_new {
            "creating new"
        } else {
            "using existing"
        };
        Ok(DraftLayer {
            layer: Layer {
                media_type: media_type.into(),
                digest,
                size: bytes.len() as u64,
                from: String::new(),
                name: String::new(),
            },
            status: format!("{verb} layer {digest}"),
            parts: Vec::new(),
            facts: None,
        })
    }

    /// A manifest is only written over blobs that are there in full.
    fn check_present(&self, layer: &Layer) -> Result<(), Error> {
        let size = self.inner.blobs.size(&layer.digest)?;
        if size == layer.size {
            return Ok(());
        }
        let why = format!(
            "blob {} has {size} bytes instead of {}",
            layer.digest, layer.size
        );
        let model = if layer.from.is_empty() {
            "being created"
        } else {
            &layer.from
        };
        Err(Error::Damaged {
            model: model.into(),
            why,
        })
    }
}

impl Draft {
    /// Drops the layers of these types and puts the new one at the end.
    fn replace(&mut self, media_types: &[&str], layer: DraftLayer) {
        self.layers
            .retain(|l| !media_types.contains(&l.layer.media_type.as_str()));
        self.layers.push(layer);
    }

    fn gguf_facts(&self) -> impl Iterator<Item = &GgufFacts> {
        let ggufs = self
            .layers
            .iter()
            .filter(|l| l.layer.media_type != media::ADAPTER);
        ggufs.filter_map(|l| l.facts.as_deref())
    }

    fn family_names(&self) -> Option<FamilyNames> {
        self.gguf_facts()
            .find_map(|facts| family_names(&facts.architecture))
    }

    /// Renderer and parser as the request names them, or the base model's.
    fn named<'n>(&'n self, request: &'n CreateRequest) -> (&'n str, &'n str) {
        let base = &self.inherited;
        (
            given(&request.renderer, &base.renderer),
            given(&request.parser, &base.parser),
        )
    }

    /// The config, computed anew from the weights; the request's `info` has the last word.
    fn config(&self, request: &CreateRequest) -> Result<Config, Error> {
        let first = self.gguf_facts().next();
        let text = |field: fn(&GgufFacts) -> String| first.map(field).unwrap_or_default();
        let base = &self.inherited;
        let (renderer, parser) = self.named(request);
        let family = self.family_names();
        let mut config = Config {
            model_format: given(&base.model_format, "gguf").into(),
            model_family: text(|facts| facts.architecture.clone()),
            model_families: Some(self.gguf_facts().map(|f| f.architecture.clone()).collect()),
            model_type: text(GgufFacts::parameter_size),
            file_type: text(|facts| facts.file_type.clone()),
            renderer: given(renderer, family.map_or("", |names| names.renderer)).into(),
            parser: given(parser, family.map_or("", |names| names.parser)).into(),
            requires: given(&request.requires, &base.requires).into(),
            capabilities: base.capabilities.clone(),
            ..Config::default()
        };
        apply_info(&request.info, &mut config)?;
        Ok(config)
    }
}

/// The first text, or the other where it is empty.
fn given<'t>(own: &'t str, other: &'t str) -> &'t str {
    if own.is_empty() { other } else { own }
}

/// A line of progress without bytes.
fn step(status: &str) -> Progress {
    Progress {
        status: status.to_owned(),
        ..Progress::default()
    }
}

/// Checks what can be told without the store, and reads the new model's name.
pub fn check_create(request: &CreateRequest) -> Result<ModelName, Error> {
    for files in request.files.iter().chain([&request.draft_files]) {
        check_files(files)?;
    }
    let maps = request
        .files
        .iter()
        .chain([&request.adapters, &request.draft_files]);
    for map in maps {
        digests(map)?;
    }
    if request.messages.len() > MAX_MESSAGES {
        return Err(Error::BadRequest(format!(
            "{} messages: a model has at most {MAX_MESSAGES}",
            request.messages.len()
        )));
    }
    check_bytes(media::SYSTEM, request.system.len())?;
    for license in &request.license.0 {
        check_bytes(media::LICENSE, license.len())?;
    }
    if !request.draft_quantize.is_empty() && request.draft_files.is_empty() {
        let text = "--draft-quantize requires a DRAFT model";
        return Err(Error::BadRequest(text.into()));
    }
    if !request.draft_files.is_empty() {
        return Err(unsupported(
            "draft models are not supported: leave DRAFT out",
        ));
    }
    if !request.remote_host.is_empty() {
        return Err(unsupported(
            "hosted models are not available on this server: leave remote_host out",
        ));
    }
    let name = if request.model.is_empty() {
        &request.name
    } else {
        &request.model
    };
    ModelName::parse(name)
}

/// Refuses a small layer that is too large to be read.
fn check_bytes(media_type: &str, n_bytes: usize) -> Result<(), Error> {
    let most = most_bytes(media_type);
    if n_bytes as u64 <= most {
        return Ok(());
    }
    let what = match media_type {
        media::CONFIG => "config",
        _ => media_type.rsplit('.').next().unwrap_or(media_type),
    };
    Err(Error::BadRequest(format!(
        "{what} of {n_bytes} bytes: a model has at most {most}"
    )))
}

/// Overrides of the config by `info`.
fn apply_info(info: &Map<String, Value>, config: &mut Config) -> Result<(), Error> {
    let wrong =
        |key: &str, what: &str| Error::BadRequest(format!("info field {key:?} must be a {what}"));
    for (key, field) in [
        ("model_family", &mut config.model_family),
        ("base_name", &mut config.base_name),
        ("quantization_level", &mut config.file_type),
        ("parameter_size", &mut config.model_type),
    ] {
        if let Some(value) = info.get(key) {
            *field = value
                .as_str()
                .ok_or_else(|| wrong(key, "string"))?
                .to_owned();
        }
    }
    for (key, field) in [
        ("context_length", &mut config.context_length),
        ("embedding_length", &mut config.embedding_length),
    ] {
        if let Some(value) = info.get(key) {
            let number = value.as_f64().ok_or_else(|| wrong(key, "number"))?;
            let whole = value.as_u64().or_else(|| json::number_as_u64(number));
            *field = whole.ok_or_else(|| wrong(key, "non-negative integer"))?;
        }
    }
    if let Some(Value::Array(items)) = info.get("capabilities") {
        config.capabilities = items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
    }
    Ok(())
}

fn unsupported(text: &str) -> Error {
    Error::Unsupported(text.into())
}
