//! Files that Ollama's converter wrote before it used llama.cpp's names: the same weights under other
//! names of architectures, keys and tensors. What is known of them was learned from Ollama's own
//! translation (<https://github.com/ollama/ollama>, `llama/compat/`).

use super::{Gguf, Value};

/// How the files of one architecture differ.
struct Dialect {
    /// `general.architecture` of the file, and the name of today.
    arch: [&'static str; 2],
    /// A tensor that only such files have, where the name of the architecture does not tell.
    mark: Option<&'static str>,
    /// Keys below that name, and those of today.
    keys: &'static [[&'static str; 2]],
    /// Endings of tensors' names, and those of today.
    tensors: &'static [[&'static str; 2]],
    /// Keys that files may lack, with what is meant then.
    defaults: &'static [(&'static str, Default)],
    /// `tokenizer.ggml.pre`, where the file has another or none.
    pre: Option<&'static str>,
}

/// What a missing key stands for.
enum Default {
    Number(f32),
    Text(&'static str),
    /// The rows of a tensor's matrices.
    Rows(&'static str),
}

const NONE: Dialect = Dialect {
    arch: ["", ""],
    mark: None,
    keys: &[],
    tensors: &[],
    defaults: &[],
    pre: None,
};

const SSM_DT: &[[&str; 2]] = &[[".ssm_dt", ".ssm_dt.bias"]];

const DIALECTS: &[Dialect] = &[
    Dialect {
        arch: ["gptoss", "gpt-oss"],
        tensors: &[
            [".attn_out.weight", ".attn_output.weight"],
            [".attn_out.bias", ".attn_output.bias"],
            [".attn_sinks", ".attn_sinks.weight"],
            [".ffn_norm.weight", ".post_attention_norm.weight"],
        ],
        defaults: &[
            (
                "expert_feed_forward_length",
                Default::Rows("blk.0.ffn_gate_exps.weight"),
            ),
            ("rope.scaling.type", Default::Text("yarn")),
        ],
        pre: Some("gpt-4o"),
        ..NONE
    },
    Dialect {
        arch: ["gemma3", "gemma-embedding"],
        mark: Some("dense.0.weight"),
        keys: GEMMA3_KEYS,
        tensors: &[
            ["dense.0.weight", "dense_2.weight"],
            ["dense.1.weight", "dense_3.weight"],
            ["norm.weight", "output_norm.weight"],
        ],
        defaults: &[
            ("attention.layer_norm_rms_epsilon", Default::Number(1e-6)),
            ("rope.freq_base", Default::Number(1e6)),
            // The mean.
            ("pooling_type", Default::Number(1.0)),
        ],
        ..NONE
    },
    Dialect {
        arch: ["gemma3", "gemma3"],
        keys: GEMMA3_KEYS,
        defaults: &[
            ("attention.layer_norm_rms_epsilon", Default::Number(1e-6)),
            ("rope.freq_base", Default::Number(1e6)),
        ],
        ..NONE
    },
    Dialect {
        arch: ["gemma3n", "gemma3n"],
        keys: &[["rope.freq_base_local", "rope.freq_base_swa"]],
        ..NONE
    },
    Dialect {
        arch: ["gemma4", "gemma4"],
        tensors: &[[".ffn_gate_inp.per_expert_scale", ".ffn_down_exps.scale"]],
        ..NONE
    },
    Dialect {
        arch: ["qwen25vl", "qwen2vl"],
        ..NONE
    },
    Dialect {
        arch: ["olmo3", "olmo2"],
        ..NONE
    },
    Dialect {
        arch: ["lfm2", "lfm2"],
        mark: Some("output_norm.weight"),
        tensors: &[["output_norm.weight", "token_embd_norm.weight"]],
        pre: Some("lfm2"),
        ..NONE
    },
    Dialect {
        arch: ["mistral3", "mistral3"],
        keys: &[
            ["rope.scaling.beta_fast", "rope.scaling.yarn_beta_fast"],
            ["rope.scaling.beta_slow", "rope.scaling.yarn_beta_slow"],
            [
                "rope.scaling.mscale_all_dim",
                "rope.scaling.yarn_log_multiplier",
            ],
            ["rope.scaling_beta", "attention.temperature_scale"],
        ],
        ..NONE
    },
    Dialect {
        arch: ["qwen35", "qwen35"],
        tensors: SSM_DT,
        ..NONE
    },
    Dialect {
        arch: ["qwen35moe", "qwen35moe"],
        tensors: SSM_DT,
        ..NONE
    },
    Dialect {
        arch: ["qwen3next", "qwen3next"],
        tensors: SSM_DT,
        ..NONE
    },
];

const GEMMA3_KEYS: &[[&str; 2]] = &[
    ["rope.global.freq_base", "rope.freq_base"],
    ["rope.local.freq_base", "rope.freq_base_swa"],
];

/// Contexts of Gemma 3 from here on are stretched, by this factor; its smallest model's is not.
const GEMMA3_LONG: u64 = 131_072;
const GEMMA3_STRETCH: f32 = 8.0;

impl Gguf {
    /// The file with the names that llama.cpp has for its architecture, its keys and its tensors;
    /// most have them already.
    pub fn with_current_names(mut self) -> Gguf {
        let arch = self.architecture().to_owned();
        let stretched = arch == "gemma3" && self.is_stretched_gemma3();
        let is_its = |d: &&Dialect| {
            d.arch[0] == arch && d.mark.is_none_or(|mark| self.tensor(mark).is_some())
        };
        if let Some(dialect) = DIALECTS.iter().find(is_its) {
            self.translate(dialect);
        }
        if stretched {
            let arch = self.architecture().to_owned();
            let mut set = |name: &str, value| self.set(format!("{arch}.{name}"), value);
            set("rope.scaling.type", Value::String("linear".into()));
            set("rope.scaling.factor", Value::F32(GEMMA3_STRETCH));
        }
        const PRE: &str = "tokenizer.ggml.pre";
        let unnamed = matches!(self.str(PRE), None | Some("default"));
        if unnamed && self.is_llama3() {
            self.set(PRE.into(), Value::String("llama-bpe".into()));
        }
        if unnamed && arch == "mistral3" {
            self.set(PRE.into(), Value::String("tekken".into()));
        }
        // Gemma 4's entries are merged by rank, whatever its first files said.
        if arch == "gemma4" && self.str("tokenizer.ggml.model") == Some("llama") {
            let model = Value::String("gemma4".into());
            self.set("tokenizer.ggml.model".into(), model);
        }
        self
    }

    fn translate(&mut self, dialect: &Dialect) {
        let [old, now] = dialect.arch;
        let moved: Vec<(String, Value)> = match old == now {
            true => Vec::new(),
            false => self
                .below(old)
                .map(|(k, v)| (format!("{now}.{k}"), v.clone()))
                .collect(),
        };
        for (key, value) in moved {
            self.set(key, value);
        }
        self.set("general.architecture".into(), Value::String(now.into()));
        for [from, to] in dialect.keys {
            if let Some(value) = self.metadata.get(&format!("{now}.{from}")).cloned() {
                self.set_missing(format!("{now}.{to}"), value);
            }
        }
        for (key, default) in dialect.defaults {
            let value = match default {
                Default::Number(n) => Some(Value::F32(*n)),
                Default::Text(text) => Some(Value::String((*text).into())),
                Default::Rows(name) => {
                    let rows = self.tensor(name).and_then(|t| t.shape.get(1));
                    rows.map(|&rows| Value::U64(rows))
                }
            };
            if let Some(value) = value {
                self.set_missing(format!("{now}.{key}"), value);
            }
        }
        self.rename_tensors(dialect.tensors);
        if let Some(pre) = dialect.pre {
            self.set("tokenizer.ggml.pre".into(), Value::String(pre.into()));
        }
    }

    /// The keys below a name.
    fn below(&self, arch: &str) -> impl Iterator<Item = (&str, &Value)> {
        let prefix = format!("{arch}.");
        let keys = self.metadata.iter();
        keys.filter_map(move |(key, value)| Some((key.strip_prefix(&prefix)?, value)))
    }

    fn set(&mut self, key: String, value: Value) {
        self.metadata.insert(key, value);
    }

    fn set_missing(&mut self, key: String, value: Value) {
        self.metadata.entry(key).or_insert(value);
    }

    /// Gives tensors with these endings others, where no tensor has that name already.
    fn rename_tensors(&mut self, endings: &[[&str; 2]]) {
        for i in 0..self.tensors.len() {
            let old = &self.tensors[i].name;
            // A whole name, or all behind the number of a layer.
            let ends =
                |ending: &str| old == ending || (ending.starts_with('.') && old.ends_with(ending));
            let Some([from, to]) = endings.iter().find(|[from, _]| ends(from)) else {
                continue;
            };
            let new = format!("{}{to}", &old[..old.len() - from.len()]);
            if !self.by_name.contains_key(&new) {
                self.by_name.remove(&self.tensors[i].name);
                self.by_name.insert(new.clone(), i);
                self.tensors[i].name = new;
            }
        }
    }

    /// Whether it is a Gemma 3 of Ollama's converter whose context is stretched without a word.
    fn is_stretched_gemma3(&self) -> bool {
        let has = |name: &str| self.metadata.contains_key(&format!("gemma3.{name}"));
        let is_marked = has("mm.tokens_per_image")
            || has("rope.local.freq_base")
            || has("rope.global.freq_base")
            || self.tensors.iter().any(|t| t.name.starts_with("v."));
        is_marked
            && self
                .u64("gemma3.context_length")
                .is_some_and(|n| n >= GEMMA3_LONG)
            && !self
                .below("gemma3")
                .any(|(key, _)| key.starts_with("rope.scaling."))
    }

    /// Whether its vocabulary is Llama 3's.
    fn is_llama3(&self) -> bool {
        let tokens = self.strings("tokenizer.ggml.tokens");
        let token = |id: usize| tokens.clone()?.nth(id);
        self.architecture() == "llama"
            && token(128_006) == Some(b"<|start_header_id|>")
            && token(128_009) == Some(b"<|eot_id|>")
    }
}
