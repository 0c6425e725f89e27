//! The architectures that can be converted: a row each, and a function that writes its metadata.

mod metadata;
mod table;

use super::Error;
use super::config::Config;
use super::rope::Factors;
use crate::gguf::Header;
pub use metadata::{heads, n_experts};
pub use table::ARCHITECTURES;

/// How a tensor of the checkpoint becomes one of the GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    /// Rows of each query head, or of each key head, in the order in which pairs turn.
    QueryHeads,
    KeyHeads,
    /// Norms whose weights are kept as differences to one.
    PlusOne,
    /// The matrix of this expert, which is joined with those of the others.
    Expert(u32),
}

/// Names without their endings `.weight`, which must be there, and `.bias`; a `*` stands for the number of a layer, a
/// second one for that of an expert.
pub struct TensorRow {
    pub from: &'static str,
    pub to: &'static str,
    pub change: Change,
}

/// One kind of model.
pub struct Architecture {
    /// What `config.json` calls it.
    pub names: &'static [&'static str],
    /// `general.architecture`.
    pub arch: &'static str,
    pub tensors: &'static [&'static [TensorRow]],
    /// Beginnings of tensors' names that mean nothing, in the order in which they are taken away.
    pub prefixes: &'static [&'static str],
    /// Beginnings and endings of the names of tensors that are left out: what encodes images, what is computed anew.
    pub left_out: &'static [&'static str],
    /// Whether the embedding is the output matrix where the file does not say it; none for models that do not write.
    pub is_tied: Option<bool>,
    /// Numbers of `config.json` that files leave out.
    pub defaults: &'static [(&'static str, f64)],
    pub write: fn(&Config, &mut Keys) -> Result<Factors, Error>,
}

/// The row of a name in `config.json`.
pub fn by_name(name: &str) -> Result<&'static Architecture, Error> {
    let row = ARCHITECTURES.iter().find(|row| row.names.contains(&name));
    row.ok_or_else(|| {
        let names: Vec<&str> = ARCHITECTURES
            .iter()
            .flat_map(|row| row.names)
            .copied()
            .collect();
        Error::Unsupported(format!(
            "unsupported architecture {name:?}; supported are {}",
            names.join(", ")
        ))
    })
}

/// The row of a `general.architecture`.
pub fn by_arch(arch: &str) -> Result<&'static Architecture, Error> {
    let row = ARCHITECTURES.iter().find(|row| row.arch == arch);
    row.ok_or_else(|| {
        let mut archs: Vec<&str> = ARCHITECTURES.iter().map(|row| row.arch).collect();
        archs.dedup();
        Error::Unsupported(format!(
            "safetensors adapters for models of the architecture {arch:?} are not supported; those for {} are",
            archs.join(", ")
        ))
    })
}

/// Metadata below the name of an architecture.
pub struct Keys<'a> {
    header: &'a mut Header,
    arch: &'static str,
}

impl<'a> Keys<'a> {
    pub fn new(header: &'a mut Header, arch: &'static str) -> Keys<'a> {
        Keys { header, arch }
    }

    pub fn arch(&self) -> &'static str {
        self.arch
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    pub fn u32(&mut self, name: &str, value: u32) {
        self.header.u32(&self.key(name), value);
    }

    pub fn f32(&mut self, name: &str, value: f64) {
        self.header.f32(&self.key(name), value as f32);
    }

    pub fn bool(&mut self, name: &str, value: bool) {
        self.header.bool(&self.key(name), value);
    }

    pub fn bools(&mut self, name: &str, values: &[bool]) {
        self.header.bools(&self.key(name), values);
    }

    pub fn string(&mut self, name: &str, value: &str) {
        self.header.string(&self.key(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what Ollama converts, the first are converted here, and the others refused by name.
    #[test]
    fn architectures_that_ollama_converts() {
        let taken = "LlamaForCausalLM MixtralForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM \
            Gemma3ForConditionalGeneration Phi3ForCausalLM Qwen2ForCausalLM BertModel";
        for name in taken.split_whitespace() {
            assert!(by_name(name).is_ok(), "{name}");
        }
        let refused = "Llama4ForConditionalGeneration MllamaForConditionalGeneration Mistral3ForConditionalGeneration \
            Ministral3ForCausalLM Gemma3TextModel Gemma3nForConditionalGeneration Gemma4ForCausalLM \
            Gemma4ForConditionalGeneration Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration \
            Qwen3VLMoeForConditionalGeneration Qwen3NextForCausalLM Qwen3_5ForConditionalGeneration \
            Qwen3_5MoeForConditionalGeneration Olmo3ForCausalLM NomicBertModel NomicBertMoEModel CohereForCausalLM \
            GptOssForCausalLM DeepseekV3ForCausalLM Glm4MoeLiteForCausalLM DeepseekOCRForCausalLM \
            GlmOcrForConditionalGeneration Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration \
            LagunaForCausalLM NemotronHForCausalLM NemotronH_Nano_VL_V2 NemotronH_Nano_Omni_Reasoning_V3";
        for name in refused.split_whitespace() {
            let text = by_name(name).err().expect("refused").to_string();
            let start =
                format!("unsupported architecture {name:?}; supported are LlamaForCausalLM");
            assert!(text.starts_with(&start), "{text}");
        }
    }
}
