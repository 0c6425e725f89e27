//! Which type a tensor gets at a level: the rules of llama.cpp without an importance matrix, so that a file made here has the
//! same types as one made there.

use super::Level;
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::QuantType;

/// Parts of the names of matrices that are small and matter much.
const KEPT: [&str; 30] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
];

/// What a tensor is for, as far as the choice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Output,
    Embedding,
    /// Values, alone or with what is joined to them.
    Value,
    Key,
    AttentionOutput,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Role {
        let has = |part: &str| name.contains(part);
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => {
                Role::Value
            }
            _ if has("attn_k.weight") => Role::Key,
            _ if has("attn_output.weight") => Role::AttentionOutput,
            _ if has("ffn_down") => Role::Down,
            _ => Role::Other,
        }
    }
}

/// The layer that a tensor's name tells; tensors outside of layers come first.
pub fn layer(name: &str) -> Option<usize> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    number.parse().ok()
}

/// Layers that get more bits: the first and last eighth, and each third between them.
fn is_favoured(i: usize, n: usize) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// What the choice depends on besides names.
struct Sizes {
    n_layers: usize,
    /// Without the layers that predict further tokens.
    n_plain_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    n_experts: usize,
}

/// Chooses types for the tensors of one model, which come in the order of their layers.
pub struct Mixer {
    level: Level,
    is_falcon: bool,
    /// As large as 70B: few values serve many heads, so they may cost more.
    is_70b: bool,
    /// The embedding is the output matrix too.
    is_tied: bool,
    n_layers: usize,
    n_experts: usize,
    /// Heads for each head of keys and values.
    n_grouped: usize,
    n_values: usize,
    /// Tensors of these roles that have come.
    i_value: usize,
    i_down: usize,
}

impl Mixer {
    /// For the model whose metadata `gguf` has, with these tensors.
    pub fn new<'a>(
        level: Level,
        gguf: &Gguf,
        tensors: impl Iterator<Item = &'a TensorInfo>,
    ) -> Mixer {
        let arch = gguf.architecture();
        let number = |key: &str| {
            let key = format!("{arch}.{key}");
            let first = || gguf.u32s(&key)?.first().copied();
            gguf.u32(&key).or_else(first).map(|n| n as usize)
        };
        let n_heads = number("attention.head_count").unwrap_or(0);
        let n_layers = number("block_count").unwrap_or(0);
        let sizes = Sizes {
            n_layers,
            n_plain_layers: n_layers.saturating_sub(number("nextn_predict_layers").unwrap_or(0)),
            n_heads,
            n_kv_heads: number("attention.head_count_kv").unwrap_or(n_heads),
            n_experts: number("expert_count").unwrap_or(0),
        };
        let roles: Vec<Role> = tensors.map(|t| Role::of(&t.name)).collect();
        Mixer::of_sizes(level, arch, sizes, &roles)
    }

    fn of_sizes(level: Level, arch: &str, sizes: Sizes, roles: &[Role]) -> Mixer {
        let Sizes {
            n_heads,
            n_kv_heads,
            ..
        } = sizes;
        let is_grouped_llama = arch == "llama" && n_heads != n_kv_heads;
        Mixer {
            level,
            is_falcon: arch == "falcon",
            is_70b: sizes.n_plain_layers == 80
                && (is_grouped_llama || ["qwen2", "olmo"].contains(&arch)),
            is_tied: !roles.contains(&Role::Output),
            n_layers: sizes.n_layers,
            n_experts: sizes.n_experts,
            n_grouped: n_heads.checked_div(n_kv_heads).unwrap_or(0),
            n_values: roles.iter().filter(|role| **role == Role::Value).count(),
            i_value: 0,
            i_down: 0,
        }
    }

    /// The type of a tensor of this name and shape, which has the type `current`.
    pub fn choose(&mut self, name: &str, shape: &[u64], current: QuantType) -> QuantType {
        let is_matrix = shape.iter().skip(1).any(|&extent| extent > 1);
        let is_kept = KEPT.iter().any(|part| name.contains(part))
            || ["position_embd.weight", "token_types.weight"].contains(&name);
        if !is_matrix || !name.ends_with("weight") || is_kept {
            return current;
        }
        if self.level.quant().is_float() {
            return self.level.quant();
        }
        let cols = shape[0];
        fitting(self.mixed(name, cols), cols)
    }

    fn mixed(&mut self, name: &str, cols: u64) -> QuantType {
        use QuantType::*;
        let (level, default) = (self.level, self.level.quant());
        let role = Role::of(name);
        match role {
            Role::Output | Role::Embedding if role == Role::Output || self.is_tied => {
                let fits = cols.is_multiple_of(default.block_len() as u64);
                if self.is_falcon || !fits || default == Q8_0 {
                    Q8_0
                } else {
                    Q6_K
                }
            }
            Role::Value => {
                let (i, n) = (self.i_value, self.n_values);
                self.i_value += 1;
                let quant = match level {
                    Level::Q2_K if self.n_grouped >= 4 => Q4_K,
                    Level::Q2_K => Q3_K,
                    Level::Q3_K_M if i < 2 => Q5_K,
                    Level::Q3_K_M => Q4_K,
                    Level::Q3_K_L => Q5_K,
                    Level::Q4_K_M | Level::Q5_K_M if is_favoured(i, n) => Q6_K,
                    Level::Q4_K_S if i < 4 => Q5_K,
                    _ => default,
                };
                match quant {
                    _ if self.n_experts == 8 => Q8_0,
                    Q3_K | Q4_K if self.is_70b => Q5_K,
                    quant => quant,
                }
            }
            Role::Key if self.n_experts == 8 => Q8_0,
            Role::Down => self.down(name),
            Role::AttentionOutput if self.is_falcon => match level {
                Level::Q3_K_L => Q4_K,
                _ => default,
            },
            Role::AttentionOutput if self.n_experts == 8 => match level {
                Level::Q2_K | Level::Q3_K_S | Level::Q3_K_M | Level::Q4_K_S | Level::Q4_K_M => Q5_K,
                _ => default,
            },
            Role::AttentionOutput => match level {
                Level::Q2_K => Q3_K,
                Level::Q3_K_M => Q4_K,
                Level::Q3_K_L => Q5_K,
                _ => default,
            },
            _ => default,
        }
    }

    fn down(&mut self, name: &str) -> QuantType {
        use QuantType::*;
        let n = self.n_layers;
        // Experts of a layer may come as several tensors.
        let i = match layer(name) {
            Some(layer) if self.n_experts > 1 => layer,
            _ => self.i_down,
        };
        self.i_down += 1;
        let is_favoured = is_favoured(i, n);
        match self.level {
            Level::Q4_K_M if self.is_falcon && i < n / 16 => Q6_K,
            Level::Q4_K_M if self.is_falcon && is_favoured => Q5_K,
            Level::Q3_K_M if self.is_falcon && i >= n / 16 && !is_favoured => Q3_K,
            Level::Q3_K_L if self.is_falcon => Q4_K,
            Level::Q4_K_M | Level::Q4_K_S if self.is_falcon => Q4_K,
            Level::Q2_K => Q3_K,
            Level::Q3_K_M if i >= n / 16 => Q4_K,
            Level::Q3_K_M | Level::Q3_K_L => Q5_K,
            Level::Q4_K_M | Level::Q5_K_M if is_favoured => Q6_K,
            Level::Q4_K_S if i < n / 8 => Q5_K,
            level => level.quant(),
        }
    }
}

/// The type, or one of smaller blocks where rows of `cols` weights are no whole blocks of it.
fn fitting(quant: QuantType, cols: u64) -> QuantType {
    use QuantType::*;
    let fits = |quant: QuantType| cols.is_multiple_of(quant.block_len() as u64);
    if fits(quant) {
        return quant;
    }
    let smaller = match quant {
        Q2_K | Q3_K => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Every tensor of nine models gets the type that llama.cpp gave it (`scripts/quantize/make_references.py`), at every level.
    #[test]
    fn types_are_those_of_the_reference() {
        let text = include_str!("../../../kernels-tests/golden/quantize.json");
        let reference: Value = serde_json::from_str(text).expect("reference is JSON");
        let types = reference["types"].as_array().expect("types");
        let quant = |digit: char| {
            let name = types[digit.to_digit(16).expect("a digit") as usize].as_str();
            QuantType::from_name(name.expect("a name")).expect("a type")
        };
        for (model_name, model) in reference["models"].as_object().expect("models") {
            let number = |key: &str| model[key].as_u64().expect("a number") as usize;
            let sizes = || Sizes {
                n_layers: number("n_layers"),
                n_plain_layers: number("n_layers"),
                n_heads: number("n_heads"),
                n_kv_heads: number("n_kv_heads"),
                n_experts: number("n_experts"),
            };
            let arch = model["arch"].as_str().expect("a name");
            let tensors: Vec<(&str, Vec<u64>)> = model["tensors"]
                .as_array()
                .expect("tensors")
                .iter()
                .map(|tensor| {
                    let shape = tensor[1].as_array().expect("extents").iter();
                    (
                        tensor[0].as_str().expect("a name"),
                        shape.filter_map(Value::as_u64).collect(),
                    )
                })
                .collect();
            let roles: Vec<Role> = tensors.iter().map(|t| Role::of(t.0)).collect();
            assert_eq!(
                model["types"].as_object().map(|levels| levels.len()),
                Some(Level::ALL.len())
            );
            for &level in Level::ALL {
                let mut mixer = Mixer::of_sizes(level, arch, sizes(), &roles);
                let want = model["types"][level.name()].as_str().expect("digits");
                for ((name, shape), want) in tensors.iter().zip(want.chars()) {
                    let is_norm = name.contains("norm") || shape.len() == 1;
                    let current = if is_norm {
                        QuantType::F32
                    } else {
                        QuantType::F16
                    };
                    let got = mixer.choose(name, shape, current);
                    assert_eq!(got, quant(want), "{model_name} at {}: {name}", level.name());
                }
            }
        }
    }
}
