//! Adapters at load: the matrices that a file has for a weight, beside it.

use super::Error;
use super::loader::Loader;
use crate::backend::{LowRank, WeightId, WeightSpec};
use crate::gguf::Lora;

impl Loader<'_> {
    /// Whether an adapter has matrices for a tensor, which must then be a weight of its own.
    pub fn is_adapted(&self, name: &str) -> bool {
        self.adapters.iter().any(|a| a.pair(name).is_some())
    }

    /// Loads what the adapters have for a weight, which is this tensor of so many experts.
    pub fn adapt(&mut self, weight: WeightId, name: &str, n_experts: usize) -> Result<(), Error> {
        for (i, adapter) in self.adapters.iter().enumerate() {
            let Some(pair) = adapter.pair(name) else {
                continue;
            };
            let down = self.add_adapter_matrix(adapter, &pair.a, n_experts)?;
            let up = self.add_adapter_matrix(adapter, &pair.b, n_experts)?;
            self.adapted.insert((i, name.to_owned()));
            self.updates.push(LowRank {
                weight,
                down,
                up,
                scale: pair.scale,
            });
        }
        Ok(())
    }

    fn add_adapter_matrix(
        &mut self,
        adapter: &Lora,
        name: &str,
        n_experts: usize,
    ) -> Result<WeightId, Error> {
        let spec = match n_experts {
            1 => WeightSpec::join(adapter.gguf(), &[name]),
            n => WeightSpec::experts(adapter.gguf(), &[name], n),
        };
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
