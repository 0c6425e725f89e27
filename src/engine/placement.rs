//! Which layers of a model go to a GPU that may be too small for all of them.

use super::context::{MOST_CTX_TO_EMBED, automatic_ctx, smaller_ctx};
use super::models::{DeviceRequest, OpenBackend};
use super::{EngineOptions, Error};
use crate::backend::{
    Backend, BackendError, BatchShape, CacheSpec, PAGE_TOKENS, Phase, Plan, Side, SplitBackend,
    WeightSpec, cut, side,
};
use crate::model::Model;
use crate::quant::device::DeviceLayout;

/// Bytes of a GPU that stay free for pipelines, read-backs and the driver.
const MARGIN_BYTES: u64 = 64 << 20;

/// Bytes of activations of a step on a GPU, where fewer tokens of a prompt can hold it: with what the
/// driver takes besides they stay below [`MARGIN_BYTES`].
const MAX_ACTIVATION_BYTES: u64 = 48 << 20;
/// Tokens of a prompt that a GPU takes at a time however much they need: fewer leave it idle.
const MIN_GPU_BATCH: usize = 128;

/// A backend for a model, and how many of the model's layers it keeps on a GPU besides the CPU's.
pub struct Placed {
    pub backend: Box<dyn Backend>,
    /// Layers on the GPU; none where one device has the whole model.
    pub n_gpu_layers: Option<usize>,
    /// Whether fewer layers may be tried should these not fit after all.
    pub may_shrink: bool,
    /// Places of context for each sequence.
    pub n_ctx: usize,
    /// A shorter context that may be tried first.
    pub smaller_ctx: Option<usize>,
}

impl Placed {
    /// All of it on one device.
    pub fn whole(backend: Box<dyn Backend>, n_ctx: usize) -> Placed {
        Placed {
            backend,
            n_gpu_layers: None,
            may_shrink: false,
            n_ctx,
            smaller_ctx: None,
        }
    }
}

/// Opens the devices of a model for these options, with a bound on the layers on the GPU. Of an automatic context the
/// options have the longest that may be tried.
pub type Place<'a> = dyn FnMut(&Model, &EngineOptions, Option<usize>) -> Result<Placed, Error> + 'a;

/// What decides where a model's layers go.
pub struct Placement<'a> {
    pub open: &'a OpenBackend,
    pub request: DeviceRequest,
    /// Bytes of the GPU to leave alone (`OLLAMA_GPU_OVERHEAD`).
    pub overhead_bytes: u64,
    /// Whether a model that does not fit may be split: no other could make room for it.
    pub may_split: bool,
    /// Whether the context is the server's to choose.
    pub automatic_ctx: bool,
}

impl Placement<'_> {
    /// Opens the device or devices for a model. `most` bounds the layers on the GPU.
    ///
    /// # Errors
    /// Those of the devices, and [`BackendError::OutOfMemory`] for a model that does not fit as a
    /// whole where that may change.
    pub fn place(
        &self,
        model: &Model,
        options: &EngineOptions,
        most: Option<usize>,
    ) -> Result<Placed, Error> {
        let mut backend = (self.open)(&self.request)?;
        let mut options = *options;
        if self.automatic_ctx {
            let memory = backend.device().memory_bytes;
            let longest = match model.pooling() {
                None => options.n_ctx,
                Some(_) => options.n_ctx.min(MOST_CTX_TO_EMBED),
            };
            options.n_ctx = longest.min(automatic_ctx(memory, self.overhead_bytes));
        }
        let smaller = |n_ctx| {
            let is_free = self.automatic_ctx && self.may_split;
            is_free.then(|| smaller_ctx(n_ctx)).flatten()
        };
        // A model that embeds keeps one cache for all its layers, so these stay together.
        if !backend.device().is_gpu || model.pooling().is_some() {
            return Ok(Placed {
                smaller_ctx: smaller(options.n_ctx),
                ..Placed::whole(backend, options.n_ctx)
            });
        }
        let mut needs = Needs::new(model, &for_gpu(model, &options));
        let n_layers = needs.layers.len();
        let n = match usize::try_from(self.request.num_gpu) {
            Ok(wanted) => wanted,
            Err(_) => {
                let needed = needs.whole().saturating_add(self.overhead_bytes);
                let free = backend
                    .free_bytes(needed)
                    .saturating_sub(self.overhead_bytes);
                while needs.whole() > free
                    && let Some(n_ctx) = smaller(options.n_ctx)
                {
                    options.n_ctx = n_ctx;
                    needs = Needs::new(model, &for_gpu(model, &options));
                }
                let n = needs.n_fitting(free);
                if n <= n_layers && !self.may_split {
                    return Err(needs.out_of_memory(&*backend));
                }
                n
            }
        };
        let n = model.config().cut(n.min(most.unwrap_or(usize::MAX)));
        let may_shrink = self.request.num_gpu < 0 && self.may_split;
        let n_ctx = options.n_ctx;
        if n > n_layers {
            return Ok(Placed {
                may_shrink,
                smaller_ctx: smaller(n_ctx),
                ..Placed::whole(backend, n_ctx)
            });
        }
        let cpu = (self.open)(&DeviceRequest {
            num_gpu: 0,
            ..self.request
        })?;
        if n == 0 {
            tracing::info!(
                "no layer fits {}; model runs on the CPU",
                backend.device().name
            );
            return Ok(Placed::whole(cpu, n_ctx));
        }
        let (gpu_name, cpu_name) = (backend.device().name, cpu.device().name);
        tracing::info!("{n} of {n_layers} layers run on {gpu_name}, the rest on {cpu_name}");
        Ok(Placed {
            backend: Box::new(SplitBackend::new(backend, cpu, n)),
            n_gpu_layers: Some(n),
            may_shrink,
            n_ctx,
            smaller_ctx: smaller(n_ctx),
        })
    }
}

/// Bytes that a model needs on a GPU.
struct Needs {
    /// Weights, cache and states of each layer.
    layers: Vec<u64>,
    /// Weights outside of layers.
    rest: u64,
    /// Activations, and what is not counted.
    buffers: u64,
}

impl Needs {
    fn new(model: &Model, options: &EngineOptions) -> Needs {
        let n_layers = model.config().layers.len();
        let n_pages = options.n_ctx.div_ceil(PAGE_TOKENS) * options.n_parallel;
        let cache = model.cache_spec(options.kv_type, n_pages, options.n_parallel);
        let weights = |wanted: Option<usize>| -> u64 {
            let own = model.weights().iter().filter(|w| w.layer() == wanted);
            own.map(device_bytes).sum()
        };
        let layer = |i| weights(Some(i)) + cache.layer_bytes(i);
        let shape = |phase, n_tokens| BatchShape {
            phase,
            n_tokens,
            n_outputs: options.n_parallel,
        };
        let prefill = model.plan(options.n_ctx, shape(Phase::Prefill, options.n_batch), None);
        let decode = model.plan(
            options.n_ctx,
            shape(Phase::Decode, options.n_parallel),
            None,
        );
        Needs {
            layers: (0..n_layers).map(layer).collect(),
            rest: weights(None),
            buffers: prefill.bytes() + decode.bytes() + MARGIN_BYTES,
        }
    }

    fn whole(&self) -> u64 {
        self.layers.iter().sum::<u64>() + self.rest + self.buffers
    }

    /// How many layers fit, counted as Ollama does: one more than there are if all else fits too.
    fn n_fitting(&self, free: u64) -> usize {
        if self.whole() <= free {
            return self.layers.len() + 1;
        }
        let mut left = free.saturating_sub(self.buffers);
        let fits = |bytes: &&u64| {
            let fits = **bytes <= left;
            left = left.saturating_sub(**bytes);
            fits
        };
        self.layers.iter().take_while(fits).count()
    }

    fn out_of_memory(&self, backend: &dyn Backend) -> Error {
        Error::Backend(BackendError::OutOfMemory {
            device: backend.device().name,
            what: "the whole model".into(),
            bytes: self.whole(),
        })
    }
}

/// The options with as many tokens of a prompt in a step as a GPU takes at a time.
pub fn for_gpu(model: &Model, options: &EngineOptions) -> EngineOptions {
    let mut options = *options;
    let bytes = |n_batch| {
        let shape = BatchShape {
            phase: Phase::Prefill,
            n_tokens: n_batch,
            n_outputs: options.n_parallel,
        };
        model.plan(options.n_ctx, shape, None).bytes()
    };
    while options.n_batch >= 2 * MIN_GPU_BATCH && bytes(options.n_batch) > MAX_ACTIVATION_BYTES {
        options.n_batch /= 2;
    }
    options
}

/// Bytes of a weight as a GPU keeps it.
fn device_bytes(weight: &WeightSpec) -> u64 {
    let layout = DeviceLayout::new(weight.quant, weight.cols);
    (4 * layout.row_words * weight.rows) as u64
}

/// Bytes of a loaded model on the GPU: the layers there, and the buffers of its part of the plans.
pub fn gpu_bytes(model: &Model, cache: &CacheSpec, plans: &[&Plan], n_gpu_layers: usize) -> u64 {
    let layers = 0..n_gpu_layers.min(model.config().layers.len());
    let weights = model.weights().iter();
    let own = weights.filter(|w| side(w.layer(), n_gpu_layers) == Side::Front);
    let pieces = plans.iter().flat_map(|plan| cut(plan, n_gpu_layers));
    let pieces = pieces.filter(|piece| piece.side == Side::Front);
    own.map(WeightSpec::bytes).sum::<u64>()
        + layers.map(|i| cache.layer_bytes(i)).sum::<u64>()
        + pieces.map(|piece| piece.plan.bytes()).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_fit_in_order_and_all_else_last() {
        let needs = Needs {
            layers: vec![10, 20, 10],
            rest: 30,
            buffers: 5,
        };
        let fitting = [0, 5, 15, 34, 35, 45, 74, 75];
        let counts = fitting.map(|free| needs.n_fitting(free));
        assert_eq!(counts, [0, 0, 1, 1, 2, 3, 3, 4]);
    }
}
