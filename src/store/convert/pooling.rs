//! How the vectors of a model that embeds are pooled: `modules.json` of the library sentence-transformers.

use super::arch::Keys;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::limits::Few;
use super::{Error, bad};
use serde::Deserialize;

pub const MODULES: &str = "modules.json";
const MAX_BYTES: u64 = 1 << 20;

/// The ways that are supported, with the numbers of llama.cpp's `llama_pooling_type`.
const MODES: [(&str, u32); 3] = [
    ("pooling_mode_mean_tokens", 1),
    ("pooling_mode_cls_token", 2),
    ("pooling_mode_lasttoken", 3),
];
const OTHER_MODES: [&str; 3] = [
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
];

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

/// Writes the way of pooling. What else the modules do with vectors must be what every server does: dividing by their
/// length.
pub fn write(checkpoint: &Checkpoint, keys: &mut Keys) -> Result<(), Error> {
    let modules: Option<Few<Module, 16>> = checkpoint.json(MODULES, MAX_BYTES)?;
    let missing = || {
        Error::BadRequest(format!(
            "{MODULES} is missing: it tells how vectors are pooled"
        ))
    };
    let mut pooling = None;
    for module in modules.ok_or_else(missing)?.0 {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => pooling = Some(mode(checkpoint, &format!("{}/config.json", module.path))?),
            other => {
                let text = format!(
                    "{MODULES}: module {other:?} is not supported; supported are Transformer, Pooling, Normalize"
                );
                return Err(Error::Unsupported(text));
            }
        }
    }
    let pooling = pooling.ok_or_else(|| bad(MODULES, "it has no module Pooling"))?;
    keys.u32("pooling_type", pooling);
    Ok(())
}

fn mode(checkpoint: &Checkpoint, file: &str) -> Result<u32, Error> {
    let config = Config::of(checkpoint, file)?;
    let config = config
        .ok_or_else(|| Error::BadRequest(format!("{file} is missing: {MODULES} names it")))?;
    for key in OTHER_MODES {
        if config.optional_bool(key)? == Some(true) {
            return Err(Error::Unsupported(format!(
                "{file}: {key} is not supported"
            )));
        }
    }
    let mut chosen = Vec::new();
    for (key, number) in MODES {
        if config.optional_bool(key)? == Some(true) {
            chosen.push(number);
        }
    }
    match chosen[..] {
        [number] => Ok(number),
        _ => Err(bad(file, "one way of pooling must be true")),
    }
}
