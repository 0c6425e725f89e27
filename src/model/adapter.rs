//! Adapters at load: the matrices that a file has for a weight, beside it.

use super::Error;
use super::loader::Loader;
use crate::backend::{LowRank, RowBlock, WeightId, WeightSpec};
use crate::gguf::{Lora, LoraPair};
use crate::quant::QuantType;

/// What an adapter has for some rows of a weight.
struct Part {
    pair: LoraPair,
    block: RowBlock,
}

impl Loader<'_> {
    /// Whether an adapter has matrices for a tensor, which must then be a weight of its own.
    pub fn is_adapted(&self, name: &str) -> bool {
        self.adapters.iter().any(|a| a.pair(name).is_some())
    }

    /// Loads what the adapters have for a weight, which joins these tensors of so many rows. The
    /// matrices of one adapter that can be joined are one update.
    pub fn adapt(&mut self, weight: WeightId, tensors: &[(&str, usize)]) -> Result<(), Error> {
        for (i, adapter) in self.adapters.iter().enumerate() {
            let mut updates: Vec<Vec<Part>> = Vec::new();
            let mut first = 0;
            for &(name, rows) in tensors {
                let block = RowBlock { first, rows };
                first += rows;
                let Some(pair) = adapter.pair(name) else {
                    continue;
                };
                self.adapted.insert((i, name.to_owned()));
                let part = Part { pair, block };
                match updates.iter_mut().find(|of| can_join(adapter, of, &part)) {
                    Some(update) => update.push(part),
                    None => updates.push(vec![part]),
                }
            }
            for parts in updates {
                let names = |of: fn(&LoraPair) -> &str| -> Vec<&str> {
                    parts.iter().map(|part| of(&part.pair)).collect()
                };
                let down = WeightSpec::join(adapter.gguf(), &names(|pair| &pair.a));
                let up = WeightSpec::join(adapter.gguf(), &names(|pair| &pair.b));
                let down = self.push_adapter(down)?;
                let up = self.push_adapter(up)?;
                let mut blocks: Vec<RowBlock> = parts.iter().map(|part| part.block).collect();
                if let [whole] = &mut blocks[..] {
                    // An embedding gives as many numbers as it has columns.
                    whole.rows = self.specs[up.0].rows;
                }
                self.updates.push(LowRank {
                    weight,
                    down,
                    up,
                    blocks,
                    scale: parts[0].pair.scale,
                });
            }
        }
        Ok(())
    }

    /// Loads what the adapters have for a weight of experts, which is this tensor.
    pub fn adapt_experts(
        &mut self,
        weight: WeightId,
        name: &str,
        n_experts: usize,
    ) -> Result<(), Error> {
        for (i, adapter) in self.adapters.iter().enumerate() {
            let Some(pair) = adapter.pair(name) else {
                continue;
            };
            self.adapted.insert((i, name.to_owned()));
            let down = WeightSpec::experts(adapter.gguf(), &[&pair.a], n_experts);
            let up = WeightSpec::experts(adapter.gguf(), &[&pair.b], n_experts);
            let down = self.push_adapter(down)?;
            let up = self.push_adapter(up)?;
            self.updates.push(LowRank {
                weight,
                down,
                up,
                blocks: vec![RowBlock {
                    first: 0,
                    rows: self.specs[up.0].rows,
                }],
                scale: pair.scale,
            });
        }
        Ok(())
    }

    fn push_adapter(&mut self, spec: Result<WeightSpec, String>) -> Result<WeightId, Error> {
        self.push_spec(spec.map_err(Error::Adapter)?)
    }

    /// Does something to the rows of the adapters' matrices for a weight that was done to its own.
    pub fn change_updates(&mut self, weight: WeightId, change: impl Fn(&mut WeightSpec)) {
        for update in self.updates.iter().filter(|u| u.weight == weight) {
            change(&mut self.specs[update.up.0]);
        }
    }

    /// Matrices for tensors that are no weights of products would be left out in silence.
    pub fn refuse_unused_adapters(&self) -> Result<(), Error> {
        for (i, adapter) in self.adapters.iter().enumerate() {
            let mut names = adapter.names().iter();
            if let Some(name) = names.find(|name| !self.adapted.contains(&(i, name.to_string()))) {
                return Err(Error::Adapter(format!(
                    "changes of tensor {name} are not supported"
                )));
            }
        }
        Ok(())
    }
}

/// Whether a pair has matrices like those of the parts before it, whose rows end where a block may.
fn can_join(adapter: &Lora, parts: &[Part], next: &Part) -> bool {
    let kind = |name: &str| -> Option<(QuantType, u64)> {
        let tensor = adapter.gguf().tensor(name)?;
        // Vectors stand for matrices of rank 1.
        let &[cols, _] = &tensor.shape[..] else {
            return None;
        };
        Some((tensor.quant()?, cols))
    };
    let kinds = |part: &Part| Some((kind(&part.pair.a)?, kind(&part.pair.b)?));
    let last = &parts[parts.len() - 1];
    kinds(next).is_some()
        && kinds(next) == kinds(last)
        && last.block.rows.is_multiple_of(RowBlock::ALIGNMENT)
}
