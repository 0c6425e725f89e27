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
}

/// Angles of one kind of layer: pair `i` of a head turns by `position * frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Radians per position. `[rotary_dim / 2]`
    frequencies: Vec<f64>,
}

impl RopeTable {
    /// Frequencies `base^(-2i / rotary_dim)`, scaled, and each divided by its `factors` entry
    /// where the file has them (`rope_freqs.weight`, Llama 3).
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
                "rope_freqs.weight has {} factors, {half} are needed",
                factors.len()
            ));
        }
        let RopeScaling::Linear { factor } = scaling;
        let frequency = |i: usize| {
            let plain = base.powf(-((2 * i) as f64) / rotary_dim as f64) * factor;
            plain / factors.map_or(1.0, |f| f64::from(f[i]))
        };
        Ok(RopeTable {
            frequencies: (0..half).map(frequency).collect(),
        })
    }

    /// Pairs that turn.
    pub fn half_dim(&self) -> usize {
        self.frequencies.len()
    }

    /// Appends cosine and sine of every pair for one position: `[half_dim, 2]`.
    pub fn append(&self, position: u32, out: &mut Vec<f32>) {
        for frequency in &self.frequencies {
            let (sin, cos) = (f64::from(position) * frequency % TAU).sin_cos();
            out.extend([cos as f32, sin as f32]);
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
}
