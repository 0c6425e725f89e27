//! Rotary embedding as the metadata describes it.

use super::super::Error;
use super::super::keys::Keys;
use crate::backend::{RopeScaling, RopeTable};

/// How often a pair must turn in the trained context to keep its frequency, and how seldom to be
/// scaled in full, where the file does not say it: the paper's values.
const BETA_FAST: f32 = 32.0;
const BETA_SLOW: f32 = 1.0;

/// The keys below `rope.`.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    pub base: f32,
    /// Columns of a head that turn.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
    /// Factor on what turns, so that attention keeps its sharpness in a stretched context.
    pub amplitude: f64,
    /// Tokens of context before it was stretched.
    pub n_ctx_orig: usize,
}

impl Rope {
    pub fn read(keys: &Keys, head_dim: usize, n_ctx_train: usize) -> Result<Rope, Error> {
        let rotary_dim = keys.optional_extent("rope.dimension_count")?;
        let rotary_dim = rotary_dim.unwrap_or(head_dim);
        if rotary_dim > head_dim || rotary_dim % 2 != 0 {
            return Err(keys.bad(
                "rope.dimension_count",
                format!("an even number up to {head_dim} is needed"),
            ));
        }
        let n_ctx_orig = keys.optional_nonzero("rope.scaling.original_context_length")?;
        let attention = keys.optional_positive("rope.scaling.attn_factor")?;
        let mut rope = Rope {
            base: keys.optional_positive("rope.freq_base")?.unwrap_or(10000.0),
            rotary_dim,
            scaling: RopeScaling::Linear { factor: 1.0 },
            amplitude: f64::from(attention.unwrap_or(1.0)),
            n_ctx_orig: n_ctx_orig.unwrap_or(n_ctx_train),
        };
        rope.read_scaling(keys)?;
        Ok(rope)
    }

    fn read_scaling(&mut self, keys: &Keys) -> Result<(), Error> {
        let stretch = match keys.optional_positive("rope.scaling.factor")? {
            Some(stretch) => Some(stretch),
            // The name that files before 2024 use.
            None => keys.optional_positive("rope.scale_linear")?,
        };
        let stretch = f64::from(stretch.unwrap_or(1.0));
        match keys.optional_str("rope.scaling.type") {
            Some("none") => {}
            None | Some("linear" | "longrope") => {
                self.scaling = RopeScaling::Linear {
                    factor: 1.0 / stretch,
                };
            }
            Some("yarn") => self.read_yarn(keys, stretch)?,
            Some(other) => {
                return Err(Error::Unsupported(format!("rope scaling of type {other}")));
            }
        }
        Ok(())
    }

    fn read_yarn(&mut self, keys: &Keys, stretch: f64) -> Result<(), Error> {
        if self.base <= 1.0 {
            return Err(keys.bad("rope.freq_base", "a number above 1 is needed"));
        }
        let fast = keys.optional_positive("rope.scaling.yarn_beta_fast")?;
        let slow = keys.optional_positive("rope.scaling.yarn_beta_slow")?;
        self.scaling = RopeScaling::Yarn {
            factor: 1.0 / stretch,
            n_ctx_orig: self.n_ctx_orig as f64,
            beta_fast: f64::from(fast.unwrap_or(BETA_FAST)),
            beta_slow: f64::from(slow.unwrap_or(BETA_SLOW)),
        };
        self.amplitude *= yarn_amplitude(stretch, 1.0);
        Ok(())
    }

    /// The table for this base and scaling, with a divisor of each frequency where there are any.
    pub fn table(&self, factors: Option<&[f32]>) -> Result<RopeTable, Error> {
        let base = f64::from(self.base);
        let table = RopeTable::new(base, self.rotary_dim, &self.scaling, factors);
        Ok(table.map_err(Error::Tensor)?.amplified(self.amplitude))
    }

    /// The table for another base, in a context that is not stretched.
    pub fn unscaled(&self, base: f32) -> Result<RopeTable, Error> {
        let none = RopeScaling::Linear { factor: 1.0 };
        let table = RopeTable::new(f64::from(base), self.rotary_dim, &none, None);
        table.map_err(Error::Tensor)
    }
}

/// The amplitude of a context stretched by YaRN: `1 + 0.1 weight ln(stretch)`. Peng et al. 2023,
/// <https://arxiv.org/abs/2309.00071>, equation 22.
pub(super) fn yarn_amplitude(stretch: f64, weight: f64) -> f64 {
    1.0 + 0.1 * weight * stretch.max(1.0).ln()
}

/// The divisors of frequencies in a tensor such as `rope_freqs.weight`.
pub(super) fn factors(keys: &Keys, name: &str) -> Result<Option<Vec<f32>>, Error> {
    let Some(tensor) = keys.gguf.tensor(name) else {
        return Ok(None);
    };
    let quant = tensor.quant().filter(|q| q.is_float());
    let quant =
        quant.ok_or_else(|| Error::Tensor(format!("tensor {name} must hold plain floats")))?;
    let mut factors = vec![0.0; tensor.n_elements() as usize];
    quant.decode(keys.gguf.data(tensor), &mut factors);
    if factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
        return Err(Error::Tensor(format!(
            "tensor {name} must hold positive numbers"
        )));
    }
    Ok(Some(factors))
}
