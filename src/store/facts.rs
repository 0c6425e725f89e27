//! What the store wants to know about a GGUF file, without keeping it mapped.

use super::quantize::is_unquantized;
use super::{Digest, Error};
use crate::gguf::Gguf;
use std::path::Path;

/// Facts of a GGUF file. Absent numbers are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GgufFacts {
    pub architecture: String,
    /// `general.type`: `model`, `adapter`, `projector`, ...; empty if the file does not say.
    pub kind: String,
    /// Weights in all tensors.
    pub n_parameters: u64,
    /// Label of `general.file_type`, such as `Q4_K_M`; `unknown` without one.
    pub file_type: String,
    pub context_length: u64,
    pub embedding_length: u64,
    /// Has a pooling type: an embedding model.
    pub pools: bool,
    /// Has a vision tower.
    pub sees: bool,
    /// Has an audio tower.
    pub hears: bool,
    /// Has text layers.
    pub has_blocks: bool,
    /// `tokenizer.chat_template`, a Jinja template.
    pub chat_template: Option<String>,
    /// Text of the beginning-of-sequence token; empty if the file names none.
    pub bos: String,
    /// Text of the end-of-sequence token; empty if the file names none.
    pub eos: String,
    /// Says that prompts begin without the former.
    pub leaves_bos_out: bool,
    /// Number of files the model was split into; 0 or 1 if it was not.
    pub n_splits: u64,
    /// Place of this file among them, from 0.
    pub split: u64,
    /// All tensors are plain floats.
    pub is_unquantized: bool,
}

impl GgufFacts {
    /// Opens the blob at `path` and reads its facts.
    pub fn read(digest: &Digest, path: &Path) -> Result<GgufFacts, Error> {
        let gguf = Gguf::open(path).map_err(|source| Error::Gguf {
            digest: *digest,
            source,
        })?;
        Ok(GgufFacts::of(&gguf))
    }

    /// The facts of an open file.
    pub fn of(gguf: &Gguf) -> GgufFacts {
        let arch = gguf.architecture();
        let number = |key: &str| gguf.u64(&format!("{arch}.{key}")).unwrap_or_default();
        let has = |key: &str| gguf.metadata().contains_key(&format!("{arch}.{key}"));
        GgufFacts {
            architecture: arch.to_owned(),
            kind: gguf.str("general.type").unwrap_or_default().to_owned(),
            n_parameters: n_parameters(gguf),
            file_type: file_type_label(gguf.u64("general.file_type")).to_owned(),
            context_length: number("context_length"),
            embedding_length: number("embedding_length"),
            pools: has("pooling_type"),
            sees: has("vision.block_count") || gguf.bool("clip.has_vision_encoder") == Some(true),
            hears: has("audio.block_count") || gguf.bool("clip.has_audio_encoder") == Some(true),
            has_blocks: has("block_count"),
            chat_template: gguf.str("tokenizer.chat_template").map(str::to_owned),
            bos: token_text(gguf, "tokenizer.ggml.bos_token_id"),
            eos: token_text(gguf, "tokenizer.ggml.eos_token_id"),
            leaves_bos_out: gguf.bool("tokenizer.ggml.add_bos_token") == Some(false),
            n_splits: gguf.u64("split.count").unwrap_or_default(),
            split: gguf.u64("split.no").unwrap_or_default(),
            is_unquantized: is_unquantized(gguf),
        }
    }

    /// Whether the file is the vision or audio part of a model.
    pub fn is_projector(&self) -> bool {
        matches!(self.kind.as_str(), "projector" | "mmproj")
            || (self.sees && !self.has_blocks)
            || (self.architecture == "clip" && (self.sees || self.hears))
    }

    /// The number of parameters for people, such as `134.52M`.
    pub fn parameter_size(&self) -> String {
        human_number(self.n_parameters)
    }
}

/// The text of the token whose id stands under `key`, if it is in the vocabulary.
fn token_text(gguf: &Gguf, key: &str) -> String {
    let id = gguf.u64(key).and_then(|id| usize::try_from(id).ok());
    let text = id.and_then(|id| gguf.strings("tokenizer.ggml.tokens")?.nth(id));
    text.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default()
}

/// Weights in all tensors of a file.
pub fn n_parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().fold(0, |sum: u64, tensor| {
        sum.saturating_add(tensor.n_elements())
    })
}

/// A count for people: `7B`, `7.6B`, `137M`, `494.03M`, `12K`, `999`.
pub fn human_number(n: u64) -> String {
    let (unit, digits, suffix) = match n {
        1_000_000_000.. => (1e9, 1, "B"),
        1_000_000.. => (1e6, 2, "M"),
        1_000.. => return format!("{:.0}K", n as f64 / 1e3),
        _ => return n.to_string(),
    };
    let value = n as f64 / unit;
    if value == value.floor() {
        format!("{value}{suffix}")
    } else {
        format!("{value:.digits$}{suffix}")
    }
}

/// The name of `general.file_type`, numbered by llama.cpp's `llama_ftype`.
pub(super) fn file_type_label(number: Option<u64>) -> &'static str {
    match number {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(19) => "IQ2_XXS",
        Some(20) => "IQ2_XS",
        Some(21) => "Q2_K_S",
        Some(22) => "IQ3_XS",
        Some(23) => "IQ3_XXS",
        Some(24) => "IQ1_S",
        Some(25) => "IQ4_NL",
        Some(26) => "IQ3_S",
        Some(27) => "IQ3_M",
        Some(28) => "IQ2_S",
        Some(29) => "IQ2_M",
        Some(30) => "IQ4_XS",
        Some(31) => "IQ1_M",
        Some(32) => "BF16",
        Some(36) => "TQ1_0",
        Some(37) => "TQ2_0",
        Some(38) => "MXFP4",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_for_people() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (12_345, "12K"),
            (137_000_000, "137M"),
            (134_515_008, "134.52M"),
            (494_032_768, "494.03M"),
            (7_000_000_000, "7B"),
            (7_615_616_512, "7.6B"),
        ] {
            assert_eq!(human_number(n), text);
        }
    }
}
