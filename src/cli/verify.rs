//! `ollama-wgpu debug verify`: whether the blobs of the store still are what their names say.

use super::{print, tell};
use anyhow::{Result, bail};
use clap::Args;

use crate::settings::Settings;
use crate::store::{ModelName, Store};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Models; all, if none is named
    models: Vec<String>,
    /// Remove what is damaged, for the next pull or create to bring it back
    #[arg(long)]
    discard: bool,
}

/// Prints each damaged blob.
///
/// # Errors
/// That there are some, unless they were removed; and what keeps the store from being read.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    let store = Store::open(&Settings::from_env().models)?;
    let names = args.models.iter().map(|name| ModelName::parse(name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let mut n_models = 0;
    let found = store.verify(&names, &mut |name| {
        n_models += 1;
        tell(&format!("verifying {name}"));
    })?;
    for damage in &found {
        print(&format!(
            "{}: blob {} {}\n",
            damage.model, damage.digest, damage.why
        ))?;
        if args.discard {
            store.discard(damage)?;
        }
    }
    match (found.len(), args.discard) {
        (0, _) => print(&format!("{n_models} models, no damage\n")),
        (n, true) => print(&format!(
            "{n} blobs removed; pull or create their models again\n"
        )),
        (n, false) => bail!(
            "{n} blobs are damaged; --discard removes them, then pull or create their models again"
        ),
    }
}
