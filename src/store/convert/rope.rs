//! Rotary embedding: the base, and how the context was stretched.
//!
//! What the members of `rope_scaling` mean: <https://huggingface.co/docs/transformers/internal/rope_utils>.

use super::Error;
use super::arch::Keys;
use super::config::Config;
use std::f64::consts::TAU;

/// Tensors of factors on frequencies, by name.
pub type Factors = Vec<(&'static str, Vec<f32>)>;

/// Writes the keys below `rope.` and returns the factors that are stored as tensors.
///
/// `n_dims` columns of a head turn. Settings are below `rope_scaling`, or with the base below `rope_parameters`, where
/// `layers` tells those of the layers without a window from others.
pub fn write(
    config: &Config,
    keys: &mut Keys,
    n_dims: u32,
    default_base: f64,
) -> Result<Factors, Error> {
    let parameters = parameters(config, "full_attention")?;
    let base = match config.optional_f64("rope_theta")? {
        Some(base) => Some(base),
        None => parameters
            .as_ref()
            .map_or(Ok(None), |p| p.optional_f64("rope_theta"))?,
    };
    keys.f32("rope.freq_base", base.unwrap_or(default_base));
    keys.u32("rope.dimension_count", n_dims);
    let scaling = match config.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => parameters,
    };
    let Some(scaling) = scaling else {
        return Ok(Vec::new());
    };
    let kind = match scaling.optional_str("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.optional_str("type")?,
    };
    match kind.unwrap_or("default") {
        "default" => Ok(Vec::new()),
        "linear" => {
            keys.string("rope.scaling.type", "linear");
            keys.f32("rope.scaling.factor", scaling.f64("factor")?);
            Ok(Vec::new())
        }
        "yarn" => yarn(config, &scaling, keys),
        "llama3" => {
            let base = base.unwrap_or(default_base);
            Ok(vec![("rope_freqs.weight", llama3(&scaling, n_dims, base)?)])
        }
        "longrope" | "su" => longrope(config, &scaling, keys, n_dims),
        other => Err(Error::Unsupported(format!(
            "config.json: rope scaling {other:?} is not supported; supported are default, linear, yarn, llama3, longrope"
        ))),
    }
}

/// The object of newer files, which may hold one for each kind of layer.
pub fn parameters(config: &Config, layers: &str) -> Result<Option<Config>, Error> {
    let Some(parameters) = config.object("rope_parameters")? else {
        return Ok(None);
    };
    Ok(Some(parameters.object(layers)?.unwrap_or(parameters)))
}

/// The context before it was stretched.
fn original(config: &Config, scaling: &Config) -> Result<u32, Error> {
    const KEY: &str = "original_max_position_embeddings";
    match scaling.optional_u32(KEY)? {
        Some(n) => Ok(n),
        None => config.u32(KEY),
    }
}

/// Readers of GGUF multiply YaRN's amplitude by themselves: `rope.scaling.attn_factor` is what is missing to the one
/// that is wanted.
fn yarn(config: &Config, scaling: &Config, keys: &mut Keys) -> Result<Factors, Error> {
    if scaling.optional_bool("truncate")? == Some(false) {
        return Err(scaling.bad("truncate", "false is not supported"));
    }
    let factor = scaling.f64("factor")?;
    keys.string("rope.scaling.type", "yarn");
    keys.f32("rope.scaling.factor", factor);
    keys.u32(
        "rope.scaling.original_context_length",
        original(config, scaling)?,
    );
    for (member, key) in [
        ("beta_fast", "rope.scaling.yarn_beta_fast"),
        ("beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        if let Some(beta) = scaling.optional_f64(member)? {
            keys.f32(key, beta);
        }
    }
    let usual = yarn_amplitude(factor, 1.0);
    let amplitude = match scaling.optional_f64("attention_factor")? {
        Some(amplitude) => amplitude,
        None => match (
            scaling.optional_f64("mscale")?,
            scaling.optional_f64("mscale_all_dim")?,
        ) {
            (Some(own), Some(all)) => yarn_amplitude(factor, own) / yarn_amplitude(factor, all),
            _ => usual,
        },
    };
    if amplitude != usual {
        keys.f32("rope.scaling.attn_factor", amplitude / usual);
    }
    Ok(Vec::new())
}

/// `1 + 0.1 weight ln(factor)`. Peng et al. 2023, <https://arxiv.org/abs/2309.00071>, equation 22.
fn yarn_amplitude(factor: f64, weight: f64) -> f64 {
    1.0 + 0.1 * weight * factor.max(1.0).ln()
}

/// Divisors of Llama 3's frequencies: slow pairs are stretched, fast ones are not, with a ramp between.
fn llama3(scaling: &Config, n_dims: u32, base: f64) -> Result<Vec<f32>, Error> {
    let factor = scaling.f64("factor")?;
    let (low, high) = (
        scaling.f64("low_freq_factor")?,
        scaling.f64("high_freq_factor")?,
    );
    let n_ctx = f64::from(scaling.u32("original_max_position_embeddings")?);
    if low >= high {
        return Err(scaling.bad("low_freq_factor", "must be below high_freq_factor"));
    }
    let divisor = |i: u32| {
        let wavelength = TAU * base.powf(f64::from(2 * i) / f64::from(n_dims));
        // How often a pair turns in the original context.
        let turns = n_ctx / wavelength;
        let ramp = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - ramp) / factor + ramp)) as f32
    };
    Ok((0..n_dims / 2).map(divisor).collect())
}

/// Divisors for contexts up to the original one and beyond it. Ding et al. 2024, <https://arxiv.org/abs/2402.13753>.
fn longrope(
    config: &Config,
    scaling: &Config,
    keys: &mut Keys,
    n_dims: u32,
) -> Result<Factors, Error> {
    if keys.arch() != "phi3" {
        let text = format!("rope scaling longrope is not supported for {}", keys.arch());
        return Err(Error::Unsupported(text));
    }
    let factors = |member: &str| {
        let factors = scaling.optional_f32s(member)?;
        let factors = factors.filter(|factors| factors.len() == n_dims as usize / 2);
        factors.ok_or_else(|| {
            scaling.bad(
                member,
                format!("must be a list of {} positive numbers", n_dims / 2),
            )
        })
    };
    let original = original(config, scaling)?;
    let amplitude = match scaling.optional_f64("attention_factor")? {
        Some(amplitude) => amplitude,
        None => longrope_amplitude(config.u32("max_position_embeddings")?, original),
    };
    keys.u32("rope.scaling.original_context_length", original);
    keys.f32("rope.scaling.attn_factor", amplitude);
    Ok(vec![
        ("rope_factors_long.weight", factors("long_factor")?),
        ("rope_factors_short.weight", factors("short_factor")?),
    ])
}

/// `sqrt(1 + ln(stretch) / ln(original))`, 1 where nothing is stretched.
fn longrope_amplitude(n_ctx: u32, original: u32) -> f64 {
    let (n_ctx, original) = (f64::from(n_ctx), f64::from(original));
    if n_ctx <= original || original <= 1.0 {
        return 1.0;
    }
    (1.0 + (n_ctx / original).ln() / original.ln()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplitude_of_phi_3_mini_128k() {
        assert!((longrope_amplitude(131_072, 4096) - 1.190_238).abs() < 1e-6);
        assert_eq!(longrope_amplitude(4096, 4096), 1.0);
    }

    /// The factors that llama.cpp's converter writes for Llama 3.1 8B, at both ends of the ramp.
    #[test]
    fn divisors_of_llama_3_1() {
        let scaling = Config::of_text(
            r#"{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#,
        );
        let divisors = llama3(&scaling, 128, 500_000.0).unwrap();
        assert_eq!(divisors.len(), 64);
        assert!(divisors[..29].iter().all(|d| *d == 1.0), "{divisors:?}");
        assert!(divisors[29] > 1.0 && divisors[34] < 8.0, "{divisors:?}");
        assert!(divisors[35..].iter().all(|d| *d == 8.0), "{divisors:?}");
    }
}
