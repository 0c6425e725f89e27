//! The tensors of a LoRA adapter as PEFT and MLX call them, as those of a GGUF file.
//!
//! Formats: <https://huggingface.co/docs/peft/developer_guides/checkpoint>, and `adapters.safetensors` of
//! <https://github.com/ml-explore/mlx-lm>.

use super::super::arch::{Architecture, Change};
use super::super::{Error, bad};
use super::{Checkpoint, Entry, Names, QuantType, Shard, Source, Target, Tensors, order};
use std::collections::BTreeMap;

/// Numbers of a matrix that is turned in memory.
const MAX_TURNED: u64 = 1 << 27;
/// What PEFT writes before the names of the model's parts.
const WRAPPER: &str = "base_model.model.";
const EMBEDDING: &str = "token_embd.weight";

/// The model that an adapter is for.
pub struct Base<'a> {
    pub architecture: &'a Architecture,
    pub n_layers: u32,
    pub n_heads: u32,
    pub n_kv_heads: u32,
}

/// One of the two matrices of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    A,
    B,
}

/// How PEFT's names end; in files of a named adapter there is that name before `.weight`.
const PEFT: &[(&str, Half)] = &[
    (".lora_A.weight", Half::A),
    (".lora_A.default.weight", Half::A),
    (".lora_embedding_A", Half::A),
    (".lora_B.weight", Half::B),
    (".lora_B.default.weight", Half::B),
    (".lora_embedding_B", Half::B),
];
/// MLX keeps both matrices the other way round.
const MLX: &[(&str, Half)] = &[(".lora_a", Half::A), (".lora_b", Half::B)];

impl<'a> Tensors<'a> {
    /// The pairs of an adapter for `base`; `is_mlx` tells who wrote it. Weights keep their type, where they keep their
    /// order.
    pub fn of_adapter(
        checkpoint: &'a Checkpoint,
        base: &Base,
        is_mlx: bool,
    ) -> Result<Tensors<'a>, Error> {
        // Whether an output matrix of its own is there, the model's file tells.
        let names = Names {
            architecture: base.architecture,
            n_layers: base.n_layers,
            is_tied: false,
        };
        let mut found = BTreeMap::new();
        for (shard, entry) in checkpoint.tensors() {
            let target = pair(shard, entry, &names, base, is_mlx)?;
            let name = target.name.clone();
            if found.insert(order(&name), target).is_some() {
                let text = format!("tensor {:?} is there twice, as {name}", entry.name);
                return Err(bad(&shard.name, text));
            }
        }
        Ok(Tensors {
            targets: found.into_values().collect(),
        })
    }
}

fn pair<'a>(
    shard: &'a Shard,
    entry: &'a Entry,
    names: &Names,
    base: &Base,
    is_mlx: bool,
) -> Result<Target<'a>, Error> {
    let unsupported =
        |what: &str| Error::Unsupported(format!("{}: tensor {:?} {what}", shard.name, entry.name));
    let short = entry.name.strip_prefix(WRAPPER).unwrap_or(&entry.name);
    let endings = if is_mlx { MLX } else { PEFT };
    let found = endings
        .iter()
        .find_map(|(ending, half)| Some((short.strip_suffix(ending)?, *half)));
    let (stem, half) = found.ok_or_else(|| unsupported("is no half of a pair of matrices"))?;
    let name = names.of(&shard.name, &format!("{stem}.weight"))?;
    let (name, change) =
        name.ok_or_else(|| unsupported("is for a part of the model that is left out"))?;
    let is_embedding = name == EMBEDDING;
    if is_embedding && base.architecture.arch.starts_with("gemma") {
        return Err(unsupported("is for an embedding that is scaled"));
    }
    let Some(quant) = entry.quant() else {
        let text = format!("has type {}; supported are F32, F16, BF16", entry.dtype);
        return Err(unsupported(&text));
    };
    let &[rows, columns] = entry.shape.as_slice() else {
        return Err(unsupported("is no matrix"));
    };
    // GGUF has A as `[rank, columns]` and B as `[rows, rank]`; of the embedding, whose columns are looked up, A turned.
    let is_turned = is_mlx != (is_embedding && half == Half::A);
    let n_rows = if is_turned { columns } else { rows };
    let n_heads = match (half, change) {
        (Half::B, Change::QueryHeads) => Some(u64::from(base.n_heads)),
        (Half::B, Change::KeyHeads) => Some(u64::from(base.n_kv_heads)),
        (_, Change::PlusOne) => return Err(unsupported("is for a norm")),
        _ => None,
    };
    if n_heads.is_some_and(|n| n == 0 || !n_rows.is_multiple_of(2 * n)) {
        return Err(unsupported("has rows that are no pairs of every head"));
    }
    if is_turned && rows.saturating_mul(columns) > MAX_TURNED {
        return Err(unsupported("is too large to be turned"));
    }
    let ending = match half {
        Half::A => "lora_a",
        Half::B => "lora_b",
    };
    Ok(Target {
        name: format!("{name}.{ending}"),
        shape: match is_turned {
            true => vec![rows, columns],
            false => vec![columns, rows],
        },
        quant: if is_turned { QuantType::F32 } else { quant },
        source: match is_turned {
            true => Source::Turned {
                bytes: shard.data(entry),
                quant,
                n_heads,
            },
            false => Source::Stored {
                bytes: shard.data(entry),
                quant,
                n_heads,
                plus: 0.0,
            },
        },
    })
}
