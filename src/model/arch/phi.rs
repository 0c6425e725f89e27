//! Phi 2, 3 and 4.

use super::super::keys::Keys;
use super::super::{Config, Error, Ffn, Norm};
use super::common;
use super::gpt::layer_normed;
use crate::backend::RopeOrder;

/// Phi 2: both blocks side by side on one norm, biases everywhere.
pub(super) fn phi2(keys: &Keys) -> Result<Config, Error> {
    let mut config = layer_normed(keys, Some(RopeOrder::Neox))?;
    config.required.retain(|name| !name.contains("ffn_norm"));
    config.required.extend([
        "output.weight",
        "output.bias",
        "blk.*.attn_output.bias",
        "blk.*.ffn_up.bias",
        "blk.*.ffn_down.bias",
    ]);
    config.parallel = true;
    Ok(config)
}

/// Phi 3 and 4: q, k, v in one tensor, gate and up in another, frequencies by the context's size.
/// The window that some files name is not used, as in llama.cpp.
pub(super) fn phi3(keys: &Keys) -> Result<Config, Error> {
    let mut config = common(keys, Norm::Rms, RopeOrder::Neox)?;
    config.ffn = Ffn::GatedFused;
    Ok(config)
}
