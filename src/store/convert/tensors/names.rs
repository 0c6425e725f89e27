//! Names of tensors: what they are called in checkpoints, and in GGUF files.

use super::super::arch::{Architecture, Change, TensorRow};
use super::super::{Error, bad};
use std::collections::HashSet;

/// How tensors of one checkpoint are called in a GGUF file.
pub struct Names<'a> {
    pub architecture: &'a Architecture,
    pub n_layers: u32,
    pub is_tied: bool,
}

impl Names<'_> {
    fn rows(&self) -> impl Iterator<Item = &TensorRow> {
        let rows = self
            .architecture
            .tensors
            .iter()
            .flat_map(|rows| rows.iter());
        rows.filter(|row| !(self.is_tied && row.to == "output"))
    }

    /// The new name of a tensor and what is changed in it; none where it is left out.
    pub fn of(&self, file: &str, name: &str) -> Result<Option<(String, Change)>, Error> {
        let left_out = self.architecture.left_out;
        let matches = |name: &str, part: &str| match part.starts_with('.') {
            true => name.ends_with(part),
            false => name.starts_with(part),
        };
        if left_out.iter().any(|part| matches(name, part)) {
            return Ok(None);
        }
        let prefix = self
            .architecture
            .prefixes
            .iter()
            .find(|prefix| name.starts_with(**prefix));
        let mut short = prefix
            .map_or(name, |prefix| &name[prefix.len()..])
            .to_owned();
        if prefix == Some(&"model.language_model.") {
            short.insert_str(0, "model.");
        }
        if left_out.iter().any(|part| matches(&short, part))
            || (self.is_tied && short == "lm_head.weight")
        {
            return Ok(None);
        }
        let unknown = || {
            let names = self.architecture.names.join(", ");
            Error::Unsupported(format!("{file}: tensor {name:?} is not one of {names}"))
        };
        let (stem, kind) = short.rsplit_once('.').ok_or_else(unknown)?;
        if !["weight", "bias"].contains(&kind) {
            return Err(unknown());
        }
        for row in self.rows() {
            // Models that only embed lack the name of the part that writes.
            let bare = row.from.strip_prefix("model.").unwrap_or(row.from);
            let Some(numbers) = matched(row.from, stem).or_else(|| matched(bare, stem)) else {
                continue;
            };
            let Some(&layer) = numbers.first() else {
                return Ok(Some((format!("{}.{kind}", row.to), row.change)));
            };
            let change = match numbers.get(1) {
                Some(&expert) => Change::Expert(expert),
                None => row.change,
            };
            if layer >= self.n_layers {
                let text = format!(
                    "tensor {name:?} is of a layer beyond the {} of config.json",
                    self.n_layers
                );
                return Err(bad(file, text));
            }
            let to = row.to.replace('*', &layer.to_string());
            return Ok(Some((format!("{to}.{kind}"), change)));
        }
        Err(unknown())
    }

    pub fn check_complete<'n>(&self, found: impl Iterator<Item = &'n str>) -> Result<(), Error> {
        let found: HashSet<&str> = found.collect();
        for row in self.rows() {
            let layers = if row.to.contains('*') {
                self.n_layers
            } else {
                1
            };
            for layer in 0..layers {
                let layer = layer.to_string();
                if !found.contains(format!("{}.weight", row.to.replace('*', &layer)).as_str()) {
                    let name = row.from.replacen('*', &layer, 1);
                    let text =
                        format!("tensor \"{name}.weight\" is missing from the safetensors files");
                    return Err(Error::BadRequest(text));
                }
            }
        }
        Ok(())
    }
}

/// The numbers that stand for the `*` of a pattern, where a name fits it.
fn matched(pattern: &str, name: &str) -> Option<Vec<u32>> {
    let mut parts = pattern.split('*');
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut numbers = Vec::new();
    for part in parts {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let (number, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let is_plain = number == "0" || !number.starts_with('0');
        numbers.push(is_plain.then(|| number.parse().ok())??);
        rest = behind.strip_prefix(part)?;
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::super::arch::by_name;
    use super::*;

    fn names(architecture: &str, is_tied: bool) -> Names<'static> {
        Names {
            architecture: by_name(architecture).unwrap(),
            n_layers: 3,
            is_tied,
        }
    }

    #[test]
    fn names_of_tensors() {
        let llama = names("LlamaForCausalLM", false);
        let of = |names: &Names, name: &str| names.of("f", name).unwrap();
        let q = of(&llama, "model.layers.2.self_attn.q_proj.bias");
        assert_eq!(q, Some(("blk.2.attn_q.bias".into(), Change::QueryHeads)));
        assert_eq!(
            of(&llama, "lm_head.weight"),
            Some(("output.weight".into(), Change::None))
        );
        assert_eq!(of(&names("LlamaForCausalLM", true), "lm_head.weight"), None);
        assert_eq!(
            of(&llama, "model.layers.0.self_attn.rotary_emb.inv_freq"),
            None
        );
        let bare = of(&llama, "layers.1.mlp.up_proj.weight");
        assert_eq!(bare, Some(("blk.1.ffn_up.weight".into(), Change::None)));
        let mixtral = names("MixtralForCausalLM", false);
        let expert = of(
            &mixtral,
            "model.layers.2.block_sparse_moe.experts.13.w2.weight",
        );
        assert_eq!(
            expert,
            Some(("blk.2.ffn_down_exps.weight".into(), Change::Expert(13)))
        );
        let gemma = names("Gemma3ForConditionalGeneration", true);
        for name in [
            "language_model.model.norm.weight",
            "model.language_model.norm.weight",
            "model.norm.weight",
        ] {
            assert_eq!(
                of(&gemma, name),
                Some(("output_norm.weight".into(), Change::PlusOne)),
                "{name}"
            );
        }
        for name in [
            "vision_tower.x",
            "model.multi_modal_projector.x",
            "language_model.lm_head.weight",
        ] {
            assert_eq!(of(&gemma, name), None, "{name}");
        }
        let bert = names("BertModel", true);
        assert_eq!(
            of(&bert, "bert.embeddings.LayerNorm.bias"),
            Some(("token_embd_norm.bias".into(), Change::None))
        );
        assert_eq!(of(&bert, "bert.pooler.dense.weight"), None);
        for (name, what) in [
            ("model.layers.3.mlp.up_proj.weight", "beyond the 3"),
            ("model.layers.+1.mlp.up_proj.weight", "is not one of"),
            ("model.layers.01.mlp.up_proj.weight", "is not one of"),
            (
                "model.layers.0.mlp.experts.0.up_proj.weight",
                "is not one of LlamaForCausalLM",
            ),
            ("model.norm.scale", "is not one of"),
            ("x", "is not one of"),
        ] {
            let error = llama.of("f", name).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = names("BertModel", true)
            .check_complete(["token_embd.weight"].into_iter())
            .unwrap_err();
        let text = "tensor \"embeddings.position_embeddings.weight\" is missing from the safetensors files";
        assert_eq!(error.to_string(), text);
    }
}
