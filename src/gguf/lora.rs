//! LoRA adapters: files with two thin matrices for some of a model's. Hu et al. 2021,
//! <https://arxiv.org/abs/2106.09685>; the names of tensors and keys are llama.cpp's
//! (<https://github.com/ggml-org/llama.cpp>, `convert_lora_to_gguf.py`).

use std::sync::Arc;

use super::Gguf;

/// The matrix whose rows are looked up, not multiplied with: its pair is transposed.
const EMBEDDING: &str = "token_embd.weight";

/// An adapter: what a product with some matrix of a model gives grows by `scale * B (A x)`.
#[derive(Debug, Clone)]
pub struct Lora {
    gguf: Arc<Gguf>,
    alpha: f32,
    names: Vec<String>,
}

/// The two matrices for one of a model's, as names of the adapter's tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// `[rank, cols]`; of the embedding `[rows, rank]`.
    pub a: String,
    /// `[rows, rank]`; of the embedding `[cols, rank]`.
    pub b: String,
    /// Alpha over rank; one where the file has no alpha or none but 0.
    pub scale: f32,
}

impl Lora {
    /// Reads what the file says of itself.
    ///
    /// # Errors
    /// Says what makes the file no adapter, or one that is not computed with.
    pub fn new(gguf: Arc<Gguf>) -> Result<Lora, String> {
        for (key, wanted) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            let found = gguf.str(key).unwrap_or_default();
            if found != wanted {
                return Err(format!("key {key} is {found:?}, {wanted:?} is needed"));
            }
        }
        const ACTIVATION: &str = "adapter.alora.invocation_tokens";
        if gguf.metadata().contains_key(ACTIVATION) {
            return Err(format!("key {ACTIVATION} is not supported"));
        }
        const ALPHA: &str = "adapter.lora.alpha";
        let alpha = match gguf.metadata().contains_key(ALPHA) {
            false => 0.0,
            true => gguf
                .f32(ALPHA)
                .filter(|alpha| alpha.is_finite())
                .ok_or_else(|| format!("key {ALPHA} is no number"))?,
        };
        let mut names = Vec::new();
        for tensor in gguf.tensors() {
            let (name, partner) = match tensor.name.rsplit_once('.') {
                Some((name, "lora_a")) => (name, format!("{name}.lora_b")),
                Some((name, "lora_b")) => (name, format!("{name}.lora_a")),
                _ => {
                    return Err(format!(
                        "tensor {} is neither a NAME.lora_a nor a NAME.lora_b",
                        tensor.name
                    ));
                }
            };
            if gguf.tensor(&partner).is_none() {
                return Err(format!("tensor {partner} is missing"));
            }
            if tensor.name.ends_with('a') {
                names.push(name.to_owned());
            }
        }
        match names.is_empty() {
            true => Err("it has no tensors".into()),
            false => Ok(Lora { gguf, alpha, names }),
        }
    }

    /// The file.
    pub fn gguf(&self) -> &Arc<Gguf> {
        &self.gguf
    }

    /// The model's tensors that it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The pair for a tensor of the model, if there is one.
    pub fn pair(&self, name: &str) -> Option<LoraPair> {
        let (a, b) = (format!("{name}.lora_a"), format!("{name}.lora_b"));
        let rank = *self.gguf.tensor(&b)?.shape.first()?;
        let scale = match self.alpha {
            0.0 => 1.0,
            alpha => alpha / rank as f32,
        };
        Some(LoraPair { a, b, scale })
    }

    /// Whether it is for this model: its architecture, and every pair's tensor and shape.
    ///
    /// # Errors
    /// Names the first thing that does not fit.
    pub fn check(&self, model: &Gguf) -> Result<(), String> {
        let (own, wanted) = (self.gguf.architecture(), model.architecture());
        if own != wanted {
            return Err(format!(
                "it is for the architecture '{own}', the model's is '{wanted}'"
            ));
        }
        self.names
            .iter()
            .try_for_each(|name| self.check_pair(model, name))
    }

    fn check_pair(&self, model: &Gguf, name: &str) -> Result<(), String> {
        let shape = |gguf: &Gguf, name: &str| gguf.tensor(name).map(|t| t.shape.clone());
        let whole =
            shape(model, name).ok_or_else(|| format!("the model has no tensor {name} to adapt"))?;
        let cols = whole[0];
        let rows = whole.get(1).copied().unwrap_or(1);
        let experts = whole.get(2..).unwrap_or_default();
        let (a, b) = (format!("{name}.lora_a"), format!("{name}.lora_b"));
        let found = [&a, &b].map(|name| shape(&self.gguf, name).unwrap_or_default());
        let rank = found[1].first().copied().unwrap_or(1);
        let needed = match name {
            EMBEDDING => [vec![rank, rows], vec![rank, cols]],
            _ => [[cols, rank], [rank, rows]].map(|two| [&two, experts].concat()),
        };
        for ((name, found), needed) in [a, b].iter().zip(&found).zip(&needed) {
            if trimmed(found) != trimmed(needed) {
                return Err(format!(
                    "tensor {name} has shape {found:?}, {needed:?} is needed"
                ));
            }
        }
        Ok(())
    }
}

/// Extents without the ones at the end, which files may leave out.
fn trimmed(shape: &[u64]) -> &[u64] {
    let n = shape.iter().rposition(|&n| n != 1).map_or(0, |i| i + 1);
    &shape[..n]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Header;
    use crate::quant::QuantType;
    use std::io::Write as _;

    type Tensors<'a> = &'a [(&'a str, &'a [u64])];

    /// A file with these texts and tensors of zeros.
    fn file(texts: &[(&str, &str)], tensors: Tensors<'_>) -> Arc<Gguf> {
        let mut header = Header::default();
        texts
            .iter()
            .for_each(|(key, text)| header.string(key, text));
        header.u32("adapter.lora.alpha", 6);
        let mut n_bytes = 0;
        for (name, shape) in tensors {
            header.tensor(name, shape, QuantType::F32);
            n_bytes += (4 * shape.iter().product::<u64>()).next_multiple_of(32);
        }
        let mut bytes = Vec::new();
        header.write(&mut bytes).expect("memory takes all");
        bytes.resize(bytes.len() + n_bytes as usize, 0);
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).expect("it is written");
        Arc::new(Gguf::open(file.path()).expect("a valid file"))
    }

    const ADAPTER: [(&str, &str); 3] = [
        ("general.architecture", "llama"),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
    ];
    const PAIR: Tensors<'static> = &[("q.lora_a", &[5, 3]), ("q.lora_b", &[3, 7])];

    fn model() -> Arc<Gguf> {
        let tensors: Tensors<'_> = &[
            ("q", &[5, 7]),
            ("one", &[5]),
            ("up", &[5, 7, 2]),
            ("token_embd.weight", &[5, 9]),
        ];
        file(&ADAPTER[..1], tensors)
    }

    fn adapter(tensors: Tensors<'_>) -> Lora {
        Lora::new(file(&ADAPTER, tensors)).expect("an adapter")
    }

    #[test]
    fn pairs_fit_their_tensors() {
        let all = adapter(&[
            ("q.lora_a", &[5, 3]),
            ("q.lora_b", &[3, 7]),
            // Rank 1, whose extent may be missing.
            ("one.lora_a", &[5]),
            ("one.lora_b", &[1]),
            ("up.lora_a", &[5, 2, 2]),
            ("up.lora_b", &[2, 7, 2]),
            ("token_embd.weight.lora_a", &[4, 9]),
            ("token_embd.weight.lora_b", &[4, 5]),
        ]);
        assert_eq!(all.check(&model()), Ok(()));
        let pair = all.pair("q").expect("a pair");
        assert_eq!((pair.a.as_str(), pair.scale), ("q.lora_a", 2.0));
        assert_eq!(all.pair("k"), None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (tensors, message) in [
            (
                [("k.lora_a", &[5, 3][..]), ("k.lora_b", &[3, 7])],
                "the model has no tensor k to adapt",
            ),
            (
                [("q.lora_a", &[5, 3]), ("q.lora_b", &[4, 7])],
                "tensor q.lora_a has shape [5, 3], [5, 4] is needed",
            ),
            (
                [("q.lora_a", &[5, 3]), ("q.lora_b", &[3, 8])],
                "tensor q.lora_b has shape [3, 8], [3, 7] is needed",
            ),
            (
                [("up.lora_a", &[5, 3]), ("up.lora_b", &[3, 7])],
                "tensor up.lora_a has shape [5, 3], [5, 3, 2] is needed",
            ),
        ] {
            assert_eq!(adapter(&tensors).check(&model()), Err(message.into()));
        }
        let other = [ADAPTER[1], ADAPTER[2], ("general.architecture", "qwen2")];
        let other = Lora::new(file(&other, PAIR)).expect("an adapter");
        let message = "it is for the architecture 'qwen2', the model's is 'llama'";
        assert_eq!(other.check(&model()), Err(message.into()));
    }

    #[test]
    fn what_is_no_adapter_says_so() {
        let refusal = |texts: &[(&str, &str)], tensors| {
            Lora::new(file(texts, tensors)).expect_err("it is refused")
        };
        let [arch, kind, lora] = ADAPTER;
        let message = "key general.type is \"\", \"adapter\" is needed";
        assert_eq!(refusal(&[arch], PAIR), message);
        let message = "key adapter.type is \"ia3\", \"lora\" is needed";
        assert_eq!(
            refusal(&[arch, kind, ("adapter.type", "ia3")], PAIR),
            message
        );
        let activated = ("adapter.alora.invocation_tokens", "x");
        let message = "key adapter.alora.invocation_tokens is not supported";
        assert_eq!(refusal(&[arch, kind, lora, activated], PAIR), message);
        let message = "tensor q.lora_b is missing";
        assert_eq!(refusal(&ADAPTER, &PAIR[..1]), message);
        let message = "tensor norm is neither a NAME.lora_a nor a NAME.lora_b";
        assert_eq!(refusal(&ADAPTER, &[("norm", &[5])]), message);
        assert_eq!(refusal(&ADAPTER, &[]), "it has no tensors");
    }
}
