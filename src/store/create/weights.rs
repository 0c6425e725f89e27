//! The weights of a model under construction: uploaded GGUF files, split ones joined, checkpoints converted, and quantised
//! where that is asked for.

use super::{Client, Draft, DraftLayer, Layer, media, step, unsupported};
use crate::api::{CreateRequest, Progress};
use crate::gguf::Gguf;
use crate::store::blobs::missing_or_io;
use crate::store::convert::convert;
use crate::store::files_map::digests;
use crate::store::quantize::{Level, Rewrite};
use crate::store::{Digest, Error, GgufFacts, Store};
use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

/// How often a client hears of a rewriting that goes on.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// What stands for the digest of a file that is being made.
const NO_DIGEST: &str = "0000000000000000000";

impl Store {
    /// Uploaded files: GGUF weights and projectors, or a checkpoint.
    pub(super) fn take_files(
        &self,
        request: &CreateRequest,
        client: &mut dyn Client,
    ) -> Result<Draft, Error> {
        let Some(files) = &request.files else {
            let text = "neither 'from' or 'files' was specified";
            return Err(Error::BadRequest(text.into()));
        };
        if files.keys().any(|name| name.ends_with(".safetensors")) {
            return self.take_checkpoint(request, &digests(files)?, client);
        }
        let mut draft = Draft::default();
        let (mut parts, mut models) = (Vec::new(), Vec::new());
        for (name, digest) in digests(files)? {
            let is_gguf = self.has_gguf_magic(&digest)?;
            if !is_gguf && !name.ends_with(".gguf") {
                continue;
            }
            client.tell(step("parsing GGUF"));
            let layer = self.gguf_layer(&digest, is_gguf)?;
            if layer.facts.as_ref().is_some_and(|facts| facts.n_splits > 1) {
                parts.push(layer);
                continue;
            }
            if layer.layer.media_type == media::MODEL {
                models.push(name);
            }
            draft.layers.push(layer);
        }
        if !parts.is_empty() {
            models.push("the model in several files");
            draft.layers.push(joined(parts)?);
        }
        if models.len() > 1 {
            let text = format!(
                "{} are a model each: give the path of one",
                models.join(", ")
            );
            return Err(Error::BadRequest(text));
        }
        if draft.layers.is_empty() {
            return Err(Error::BadRequest("unknown type".into()));
        }
        draft
            .layers
            .sort_by_key(|l| l.layer.media_type != media::MODEL);
        wanted(request)?;
        client.tell(step("verifying conversion"));
        self.add_recognised_template(&mut draft)?;
        Ok(draft)
    }

    /// Uploaded safetensors with what belongs to them, as one GGUF file.
    fn take_checkpoint(
        &self,
        request: &CreateRequest,
        files: &[(&str, Digest)],
        client: &mut dyn Client,
    ) -> Result<Draft, Error> {
        let level = wanted(request)?;
        client.tell(step("converting model"));
        let mut blob = self.inner.blobs.begin("the converted weights")?;
        let mut told = Told::new("converting model");
        let level = convert(self, files, level, &mut blob, &mut |completed, total| {
            told.tell(completed, total, client)
        })?;
        let digest = match level {
            None => blob.finish(None)?.0,
            Some(level) => {
                let converted = Gguf::open(blob.path());
                let converted = converted.map_err(|e| unsupported(&e.problem()))?;
                let facts = GgufFacts::of(&converted);
                self.rewrite(
                    &[converted],
                    Some(level),
                    &quantizing(&facts, level),
                    client,
                )?
                .0
            }
        };
        let mut draft = Draft::default();
        draft.layers.push(self.gguf_layer(&digest, true)?);
        self.add_recognised_template(&mut draft)?;
        Ok(draft)
    }

    /// A layer for an uploaded GGUF, of the type that its metadata tells.
    pub(super) fn gguf_layer(&self, digest: &Digest, has_magic: bool) -> Result<DraftLayer, Error> {
        if !has_magic {
            return Err(Error::BadRequest(
                "supplied file was not in GGUF format".into(),
            ));
        }
        let facts = self.facts(digest)?;
        let media_type = match facts.kind.as_str() {
            "adapter" => media::ADAPTER,
            _ if facts.is_projector() => media::PROJECTOR,
            _ => media::MODEL,
        };
        Ok(DraftLayer {
            layer: Layer {
                media_type: media_type.into(),
                digest: *digest,
                size: self.inner.blobs.size(digest)?,
                from: String::new(),
                name: String::new(),
            },
            status: format!("creating new layer {digest}"),
            parts: Vec::new(),
            facts: Some(facts),
        })
    }

    pub(super) fn has_gguf_magic(&self, digest: &Digest) -> Result<bool, Error> {
        self.inner.blobs.size(digest)?;
        let mut magic = [0; 4];
        let read = File::open(self.blob_path(digest)).and_then(|mut f| f.read_exact(&mut magic));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(missing_or_io(digest, e)),
            Ok(()) => Ok(magic == *b"GGUF"),
        }
    }

    /// Makes new files of weights that came in parts, or whose types are not those that are wanted.
    pub(super) fn rewrite_weights(
        &self,
        request: &CreateRequest,
        draft: &mut Draft,
        client: &mut dyn Client,
    ) -> Result<(), Error> {
        let wanted = wanted(request)?;
        let models = draft.layers.iter_mut();
        for layer in models.filter(|l| l.layer.media_type == media::MODEL) {
            let Some(facts) = layer.facts.clone() else {
                continue;
            };
            let level = wanted.map(|level| change(level, &facts)).transpose()?;
            let level = level.flatten();
            if level.is_none() && layer.parts.is_empty() {
                continue;
            }
            let status = match level {
                Some(level) => quantizing(&facts, level),
                None => "joining the files of the model".to_owned(),
            };
            let digests = match layer.parts.as_slice() {
                [] => std::slice::from_ref(&layer.layer.digest),
                parts => parts,
            };
            let parts = digests
                .iter()
                .map(|digest| self.open_gguf(digest))
                .collect::<Result<Vec<Gguf>, Error>>()?;
            let (digest, size) = self.rewrite(&parts, level, &status, client)?;
            layer.status = format!("creating new layer {digest}");
            layer.facts = Some(self.facts(&digest)?);
            layer.layer.digest = digest;
            layer.layer.size = size;
            layer.layer.from = String::new();
        }
        Ok(())
    }

    /// Stores the parts of a model as one file, at a level; returns its digest and size.
    fn rewrite(
        &self,
        parts: &[Gguf],
        level: Option<Level>,
        status: &str,
        client: &mut dyn Client,
    ) -> Result<(Digest, u64), Error> {
        let rewrite = Rewrite::new(parts, level)?;
        let total = rewrite.total();
        let mut told = Told::new(status);
        let mut blob = self.inner.blobs.begin("the new weights")?;
        rewrite.write(&mut blob, &mut |completed| {
            told.tell(completed, total, client)
        })?;
        if !parts.iter().all(Gguf::is_whole) {
            return Err(unsupported("the model's file was cut while it was read"));
        }
        blob.finish(None)
    }
}

/// Tells a client how far a rewriting is, now and then, and ends it when the client has left.
struct Told<'a> {
    status: &'a str,
    last: Instant,
}

impl<'a> Told<'a> {
    fn new(status: &'a str) -> Told<'a> {
        Told {
            status,
            last: Instant::now(),
        }
    }

    /// # Errors
    /// [`Error::Canceled`] once nobody waits.
    fn tell(&mut self, completed: u64, total: u64, client: &mut dyn Client) -> Result<(), Error> {
        if !client.is_there() {
            return Err(Error::Canceled);
        }
        if self.last.elapsed() >= TELL_EVERY {
            self.last = Instant::now();
            client.tell(Progress {
                status: self.status.to_owned(),
                digest: NO_DIGEST.to_owned(),
                total,
                completed,
            });
        }
        Ok(())
    }
}

/// The line about a model that is brought to a level.
fn quantizing(facts: &GgufFacts, level: Level) -> String {
    format!("quantizing {} model to {}", facts.file_type, level.name())
}

/// The parts of a split model as one layer.
fn joined(mut parts: Vec<DraftLayer>) -> Result<DraftLayer, Error> {
    let facts = |layer: &DraftLayer| layer.facts.clone().unwrap_or_default();
    parts.sort_by_key(|part| facts(part).split);
    let numbers = parts.iter().map(|part| facts(part).split);
    let n = facts(&parts[0]).n_splits;
    let is_whole = numbers.eq(0..n) && parts.iter().all(|part| facts(part).n_splits == n);
    if !is_whole {
        let text = format!(
            "the model was split into {n} files, and other than each of them once was given"
        );
        return Err(Error::BadRequest(text));
    }
    let digests = parts.iter().map(|part| part.layer.digest).collect();
    let mut first = parts.swap_remove(0);
    first.parts = digests;
    Ok(first)
}

/// The level that the request asks for.
fn wanted(request: &CreateRequest) -> Result<Option<Level>, Error> {
    let names = [&request.quantize, &request.quantization];
    let Some(name) = names.into_iter().find(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let unknown = || {
        Error::Unsupported(format!(
            "unsupported quantization type {} - supported types are {}",
            name.to_uppercase(),
            Level::names()
        ))
    };
    Level::from_name(name).map(Some).ok_or_else(unknown)
}

/// The level that weights have to be brought to; none where they have it.
fn change(level: Level, facts: &GgufFacts) -> Result<Option<Level>, Error> {
    if facts.file_type == level.name() {
        return Ok(None);
    }
    if !facts.is_unquantized {
        return Err(unsupported(
            "quantization is only supported for F16, BF16 and F32 models",
        ));
    }
    Ok(Some(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let facts = |file_type: &str, is_unquantized| GgufFacts {
            file_type: file_type.into(),
            is_unquantized,
            ..GgufFacts::default()
        };
        let q8_0 = |facts| change(Level::Q8_0, &facts);
        assert_eq!(q8_0(facts("Q8_0", false)).unwrap(), None);
        assert_eq!(q8_0(facts("F16", true)).unwrap(), Some(Level::Q8_0));
        assert_eq!(q8_0(facts("unknown", true)).unwrap(), Some(Level::Q8_0));
        for current in ["Q4_1", "unknown", ""] {
            let text = "quantization is only supported for F16, BF16 and F32 models";
            assert_eq!(q8_0(facts(current, false)).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn names_of_levels() {
        let request = |quantize: &str| CreateRequest {
            quantize: quantize.into(),
            ..CreateRequest::default()
        };
        assert_eq!(wanted(&request("")).unwrap(), None);
        assert_eq!(wanted(&request("q4_k")).unwrap(), Some(Level::Q4_K_M));
        let text = wanted(&request("q9")).unwrap_err().to_string();
        let start = "unsupported quantization type Q9 - supported types are F32, F16, ";
        assert!(text.starts_with(start), "{text}");
    }
}
