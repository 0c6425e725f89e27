//! Rotary position embedding: the angles of each position, computed once per step in f64.
//!
//! GPUs promise sine and cosine only near zero, so both backends take the table from here.
//! Rotary embedding: Su et al. 2021, <https://arxiv.org/abs/2104.09864>.

use std::f64::consts::TAU;

/// How a trained context is stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Positions are multiplied by `factor` (1.0: none).
    Linear { factor: f64 },
    /// Pairs that turn more than `beta_fast` times in `n_ctx_orig` tokens keep their frequency,
    /// those that turn less than `beta_slow` times are multiplied by `factor`, with a ramp
    /// between. Peng et al. 2023, <https://arxiv.org/abs/2309.00071>.
    Yarn {
        factor: f64,
        n_ctx_orig: f64,
        beta_fast: f64,
        beta_slow: f64,
    },
}

impl RopeScaling {
    /// What the frequency of each pair is multiplied by.
    fn multipliers(&self, base: f64, rotary_dim: usize) -> Vec<f64> {
        let half = rotary_dim / 2;
        match *self {
            RopeScaling::Linear { factor } => vec![factor; half],
            RopeScaling::Yarn {
                factor,
                n_ctx_orig,
                beta_fast,
                beta_slow,
            } => {
                // The pair that turns `n` times.
                let n_dims = rotary_dim as f64;
                let pair = |n: f64| n_dims * (n_ctx_orig / (n * TAU)).ln() / (2.0 * base.ln());
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(n_dims - 1.0);
                let multiplier = |i: usize| {
                    let ramp = (i as f64 - low) / (high - low).max(0.001);
                    let kept = 1.0 - ramp.clamp(0.0, 1.0);
                    factor * (1.0 - kept) + kept
                };
                (0..half).map(multiplier).collect()
            }
        }
    }
}

/// Attention that grows with the logarithm of the position, by steps of `n_ctx` tokens: a query
/// at position p is multiplied by `1 + scale * ln(1 + floor(p / n_ctx))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    pub scale: f64,
    /// Tokens of a step.
    pub n_ctx: f64,
}

/// Angles of one kind of layer: pair `i` of a head turns by `position * frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Radians per position. `[rotary_dim / 2]`
    frequencies: Vec<f64>,
    /// Factor on what turns.
    amplitude: f64,
    temperature: Option<Temperature>,
}

impl RopeTable {
    /// Frequencies `base^(-2i / rotary_dim)`, scaled, and each divided by its `factors` entry
    /// where the file has them (`rope_freqs.weight`, Llama 3; `rope_factors_*.weight`, Phi 3).
    ///
    /// # Errors
    /// If `factors` has another length than half of `rotary_dim`.
    pub fn new(
        base: f64,
        rotary_dim: usize,
        scaling: &RopeScaling,
        factors: Option<&[f32]>,
    ) -> Result<RopeTable, String> {
        let half = rotary_dim / 2;
        if let Some(factors) = factors.filter(|f| f.len() != half) {
            return Err(format!(
                "{} rope factors for {half} pairs of columns",
                factors.len()
            ));
        }
        let multipliers = scaling.multipliers(base, rotary_dim);
        let frequency = |(i, multiplier): (usize, f64)| {
            let plain = base.powf(-((2 * i) as f64) / rotary_dim as f64) * multiplier;
            plain / factors.map_or(1.0, |f| f64::from(f[i]))
        };
        Ok(RopeTable {
            frequencies: multipliers.into_iter().enumerate().map(frequency).collect(),
            amplitude: 1.0,
            temperature: None,
        })
    }

    /// The same angles with what turns multiplied by `factor`.
    pub fn amplified(self, factor: f64) -> RopeTable {
        RopeTable {
            amplitude: self.amplitude * factor,
            ..self
        }
    }

    /// The same angles for queries whose length grows with the position.
    pub fn with_temperature(self, temperature: Temperature) -> RopeTable {
        RopeTable {
            temperature: Some(temperature),
            ..self
        }
    }

    /// Pairs that turn.
    pub fn half_dim(&self) -> usize {
        self.frequencies.len()
    }

    /// Appends cosine and sine of every pair for one position: `[half_dim, 2]`.
    pub fn append(&self, position: u32, out: &mut Vec<f32>) {
        let position = f64::from(position);
        let growth = self.temperature.map_or(1.0, |t| {
            1.0 + t.scale * (1.0 + (position / t.n_ctx).floor()).ln()
        });
        let length = self.amplitude * growth;
        for frequency in &self.frequencies {
            let (sin, cos) = (position * frequency % TAU).sin_cos();
            out.extend([(length * cos) as f32, (length * sin) as f32]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: RopeScaling = RopeScaling::Linear { factor: 1.0 };

    #[test]
    fn far_positions_keep_their_angle() {
        let table = RopeTable::new(10000.0, 64, &NONE, None).expect("table");
        let mut out = Vec::new();
        table.append(131_071, &mut out);
        let (sin, cos) = 131_071f64.sin_cos();
        assert_eq!(out[..2], [cos as f32, sin as f32]);
        assert_eq!(out.len(), 64);
    }

    #[test]
    fn factors_must_fit() {
        assert!(RopeTable::new(10000.0, 64, &NONE, Some(&[1.0; 31])).is_err());
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_stretches_slow_ones() {
        let yarn = RopeScaling::Yarn {
            factor: 0.125,
            n_ctx_orig: 4096.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        };
        let multipliers = yarn.multipliers(10000.0, 128);
        assert_eq!((multipliers[0], multipliers[63]), (1.0, 0.125));
        assert!(multipliers.windows(2).all(|w| w[1] <= w[0]));
        // Pair i turns 4096 / (2 pi 10000^(i / 64)) times: 32 times at 20.9, once at 45.03.
        assert_eq!((multipliers[20], multipliers[46]), (1.0, 0.125));
        assert!(multipliers[21] < 1.0 && multipliers[45] > 0.125);
    }

    #[test]
    fn queries_grow_by_steps_of_the_trained_context() {
        let temperature = Temperature {
            scale: 0.1,
            n_ctx: 100.0,
        };
        let table = RopeTable::new(10000.0, 2, &NONE, None).expect("table");
        let table = table.with_temperature(temperature);
        let length = |position| {
            let mut out = Vec::new();
            table.append(position, &mut out);
            f64::from(out[0].hypot(out[1]))
        };
        assert!((length(99) - 1.0).abs() < 1e-6);
        assert!((length(250) - (1.0 + 0.1 * 3f64.ln())).abs() < 1e-6);
    }
}
