//! How a device chooses a token itself, so that only its id goes back to the host.

use super::{Candidates, MAX_CANDIDATES};

/// How the token after one wanted row is chosen among its best candidates: penalties, top-k, top-p,
/// min-p, temperature, draw, as `engine/sampler` does it on the host. Whoever asks makes sure that
/// the candidates decide: penalties only lower logits, and there are at most [`MAX_CANDIDATES`] of
/// seen and kept tokens together.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Above 0.
    pub temperature: f32,
    /// Candidates that are kept, at least 1; 1 takes the best.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// ln(min-p): what a kept logit may be below the best one; very low keeps all.
    pub log_min_p: f32,
    pub penalties: Option<Penalties>,
    /// In `0..1`, a multiple of 2^-24.
    pub uniform: f32,
}

/// What lowers the logits of tokens that were seen: those of `before` and the row's own token,
/// which the host need not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalties {
    /// At least 1.
    pub repeat: f32,
    /// At least 0.
    pub presence: f32,
    /// At least 0.
    pub frequency: f32,
    /// Tokens before the row's own.
    pub before: Vec<u32>,
}

impl Sampling {
    /// Takes the best candidate.
    pub fn best() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 1,
            top_p: 1.0,
            log_min_p: f32::MIN,
            penalties: None,
            uniform: 0.0,
        }
    }

    /// Checks what devices rely on.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn check(&self) -> Result<(), String> {
        let n_seen = self.penalties.as_ref().map_or(0, |p| p.before.len() + 1);
        if self.top_k == 0 || n_seen + self.top_k as usize > MAX_CANDIDATES {
            let top_k = self.top_k;
            return Err(format!(
                "{MAX_CANDIDATES} candidates do not decide for {n_seen} seen tokens and top_k {top_k}"
            ));
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return Err(format!("the temperature is {}", self.temperature));
        }
        let lowers = |p: &Penalties| p.repeat >= 1.0 && p.presence >= 0.0 && p.frequency >= 0.0;
        match self.penalties.as_ref().is_none_or(lowers) {
            true => Ok(()),
            false => Err("penalties that lift logits".into()),
        }
    }
}

/// What a step gave for a wanted row.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampled {
    /// The token that the device chose.
    Token(u32),
    /// The device could not choose: logits are not finite.
    InvalidLogits,
    /// What the host chooses from.
    Candidates(Candidates),
}
