//! From operations to launches: which files make the shader, its numbers, bindings and workgroups.
//! Pure data: nothing here touches a device.

mod attention;
mod experts;
mod experts_vec;
mod fused;
mod inputs;
mod join;
mod low_rank;
mod matmul;
mod norm;
mod parts;
mod recurrent;
mod rope_kv;
mod streams;
mod tile;
mod top_k;

pub(super) use attention::tile_rows;
pub(super) use join::Joint;
pub(super) use parts::cached_bytes;
pub(super) use top_k::TopKResult;

use super::buffer::{Shard, WeightShape};
use super::device::{Reduction, Tuning};
use super::launch::{Binding, Extent, Launch, Slot, reads, writes};
use super::shader::Shader;
use crate::backend::{
    Activation, BufferId, CacheSpec, EmbedRow, KV_BLOCK, KvDims, NO_SLOT, Op, Phase, Plan,
    RopeOrder, Rows, View, WeightId,
};
use experts::ExpertGroups;
use parts::{activation_parts, swish_numbers, with_cache, with_gate, with_weights};
use tile::RoundedInput;

/// Invocations of a workgroup in kernels without reductions.
const WORKGROUP: usize = 64;
/// Workgroup memory of a reduction, at most.
const REDUCED_BYTES: usize = 4 * 256;

/// What a plan becomes.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub launches: Vec<Launch>,
    /// The dispatches: each of one launch, or of several side by side.
    pub joints: Vec<Joint>,
    /// The op of each launch, the first where it stands for several.
    pub ops: Vec<usize>,
    /// Bytes of each [`Slot::Scratch`].
    pub scratch: Vec<u64>,
    /// Where the candidates lie afterwards.
    pub top_k: Option<TopKResult>,
    /// The scratch for splits of attention.
    splits: Option<usize>,
    /// The latest list of slots by expert.
    groups: Option<ExpertGroups>,
    /// The latest input in 16 bits.
    rounded: Option<RoundedInput>,
}

impl Program {
    /// New memory between launches.
    fn scratch(&mut self, bytes: usize) -> usize {
        self.scratch.push(bytes as u64);
        self.scratch.len() - 1
    }
}

/// What launches are made from.
pub(super) struct Dispatch<'a> {
    pub plan: &'a Plan,
    pub weights: &'a [WeightShape],
    pub cache: Option<&'a CacheSpec>,
    pub tuning: Tuning,
}

/// Writes the launches of a plan.
///
/// # Errors
/// Names what the plan refers to and the backend does not have.
pub(super) fn program(dispatch: &Dispatch) -> Result<Program, String> {
    let mut program = Program::default();
    let ops = &dispatch.plan.ops;
    let mut at = 0;
    while at < ops.len() {
        let n_ops = if let Some(n_ops) = dispatch.attention_run(at, &mut program)? {
            n_ops
        } else if let Some(fused) = dispatch.fused(at)? {
            program.launches.extend(fused.launches);
            fused.n_ops
        } else {
            dispatch.launch(&ops[at], &mut program)?;
            1
        };
        program.ops.resize(program.launches.len(), at);
        at += n_ops;
    }
    program.joints = join::joints(&program, dispatch.most_bindings());
    Ok(program)
}

impl Dispatch<'_> {
    /// Buffers that launches side by side may bind; none are put there where a launch costs little, or the work of a step
    /// fills the device without.
    fn most_bindings(&self) -> usize {
        match self.plan.shape.phase {
            Phase::Decode if !self.tuning.software => self.tuning.max_bindings,
            _ => 0,
        }
    }

    fn launch(&self, op: &Op, program: &mut Program) -> Result<(), String> {
        let mut push = |launch| program.launches.push(launch);
        match *op {
            Op::Embed { weight, out, .. } => {
                let shape = self.matrix(weight, self.stride(out))?;
                for (i, shard) in shape.shards.iter().enumerate() {
                    push(self.embed(op, shape, (i, *shard)));
                }
            }
            Op::SelectRows { input, out } => {
                push(self.by_output("kernels/select_rows", input, out));
            }
            Op::Pool { input, out } => push(self.by_output("kernels/pool", input, out)),
            Op::RmsNorm {
                input,
                weight,
                group,
                eps,
                out,
            } => {
                if let Some(id) = weight {
                    self.weight(id)?;
                }
                let norm = norm::RmsNorm {
                    input,
                    weight,
                    group,
                    eps,
                };
                push(self.rms_norm(&norm, None, 1.0, out));
            }
            Op::LayerNorm { weight, bias, .. } => {
                let ids = weight.into_iter().chain(bias);
                ids.map(|id| self.weight(id))
                    .collect::<Result<Vec<_>, _>>()?;
                push(self.layer_norm(op));
            }
            Op::Matmul {
                input,
                weight,
                bias,
                residual,
                out,
            } => {
                self.weight(bias.unwrap_or(weight))?;
                let operands = matmul::Operands {
                    input,
                    weight,
                    bias,
                    residual,
                    out,
                };
                let shape = self.matrix(weight, input.cols)?;
                self.matmul(&operands, shape, program);
            }
            Op::MoeRoute {
                scores,
                bias,
                factors,
                ref routing,
                out,
            } => push(self.moe_route(scores, (bias, factors), routing, out)?),
            Op::MatmulExperts { ref products, out } => {
                self.matmul_experts(products, out, program)?;
            }
            Op::MoeCombine {
                experts,
                route,
                residual,
                out,
            } => push(self.moe_combine(experts, route, residual, out)),
            Op::ConcatHeads { a, b, out, .. } => push(self.concat_heads(a, b, out)),
            Op::Rope {
                input,
                head_dim,
                table,
                order,
                out,
            } => push(self.rope(input, head_dim, table, order, out)),
            Op::KvWrite { layer, k, v } => push(self.kv_write(layer, k, v)?),
            Op::Attention { ref attention, out } => {
                self.attention(attention, None, out, program)?
            }
            Op::ShortConv { .. } => push(self.short_conv(op)?),
            Op::DeltaNet { .. } => push(self.delta_net(op)?),
            Op::Glu {
                gate,
                up,
                activation,
                out,
            } => push(self.glu(gate, up, activation, out)),
            Op::Activate {
                input,
                activation,
                out,
            } => push(self.activate(input, activation, out)),
            Op::Scale { input, factor, out } => push(self.scale(input, factor, out)),
            Op::Add { a, b, out } => push(self.add(a, b, out)),
            Op::AddLowRank { .. } => program.launches.extend(self.add_low_rank(op)?),
            Op::StreamMix { .. } => push(self.stream_mix(op)),
            Op::MatchLength { input, like, out } => push(self.match_length(input, like, out)),
            Op::GaussianTopK { input, cutoff, out } => {
                push(self.gaussian_top_k(input, cutoff, out));
            }
            Op::SoftCap { input, cap, out } => push(self.soft_cap(input, cap, out)),
            Op::TopK { input, k } => self.top_k(input, k, program)?,
        }
        Ok(())
    }

    fn embed(&self, op: &Op, shape: &WeightShape, (index, shard): (usize, Shard)) -> Launch {
        let Op::Embed {
            weight,
            row,
            scale,
            out,
        } = *op
        else {
            unreachable!("called for embed");
        };
        let (kind, fixed) = match row {
            EmbedRow::Token => (0, 0),
            EmbedRow::Position => (1, 0),
            EmbedRow::Fixed(row) => (2, row),
        };
        let shader = Shader::new("kernels/embed")
            .joinable(0)
            .number("WG", WORKGROUP)
            .number("ROW_KIND", kind)
            .number("FIXED_ROW", fixed)
            .number("FIRST_ROW", shard.first_row)
            .number("OUT_STRIDE", self.stride(out))
            .float("SCALE", scale);
        Launch {
            shader: self.rows_word(with_weights(shader, shape, shard), Rows::Tokens),
            bindings: vec![
                reads(Slot::Weight(weight, index)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: per_number(shape.layout.spans(), Rows::Tokens),
        }
    }

    /// A kernel that reads rows of tokens and writes those that are wanted.
    fn by_output(&self, kernel: &'static str, input: View, out: BufferId) -> Launch {
        let shader = self
            .elementwise(kernel, input.cols, out)
            .number("X_STRIDE", self.stride(input.buffer))
            .number("X_OFFSET", input.offset);
        self.simple(shader, &[input], input.cols, out)
    }

    fn rope(
        &self,
        input: View,
        head_dim: usize,
        table: usize,
        order: RopeOrder,
        out: BufferId,
    ) -> Launch {
        let half = self.plan.rope_tables[table].half_dim();
        let shader = self
            .elementwise("kernels/rope", input.cols, out)
            .number("X_STRIDE", self.stride(input.buffer))
            .number("X_OFFSET", input.offset)
            .number("HEAD_DIM", head_dim)
            .number("HALF", half)
            .number("TABLE", table)
            .flag("NEOX", order == RopeOrder::Neox);
        let items = input.cols / head_dim * (head_dim - half);
        self.simple(shader, &[input], items, out)
    }

    fn kv_write(&self, layer: usize, k: View, v: View) -> Result<Launch, String> {
        let kv = KvDims {
            keys: k.cols,
            values: v.cols,
        };
        let cache = self.layer(layer, kv)?;
        let rows = self.plan.buffers[k.buffer.0].rows;
        // Two blocks share a word of half floats.
        let (kernel, columns) = match cache.kv_type.is_quantised() {
            true => ("kernels/kv_write_blocks", 2 * KV_BLOCK),
            false => ("kernels/kv_write", 4),
        };
        let shader = with_cache(Shader::new(kernel), cache.kv_type, kv)
            .joinable(0)
            .number("WG", WORKGROUP)
            .number("NO_SLOT", NO_SLOT as usize);
        let shader = self.view(self.view(shader, "K", k), "V", v);
        Ok(Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(self.slot(k.buffer)),
                reads(self.slot(v.buffer)),
                reads(Slot::Batch),
                writes(Slot::Keys(layer)),
                writes(Slot::Values(layer)),
            ],
            grid: per_number(k.cols.max(v.cols).div_ceil(columns), rows),
        })
    }

    fn glu(&self, gate: View, up: View, activation: Activation, out: BufferId) -> Launch {
        let shader = self.elementwise("kernels/glu", gate.cols, out);
        let shader = with_gate(shader, activation);
        let shader = self.view(self.view(shader, "GATE", gate), "UP", up);
        self.simple(shader, &[gate, up], gate.cols, out)
    }

    fn activate(&self, input: View, activation: Activation, out: BufferId) -> Launch {
        let shader = self
            .elementwise("kernels/activate", input.cols, out)
            .parts(activation_parts(activation));
        let shader = swish_numbers(shader, activation);
        let shader = self.view(shader, "X", input);
        self.simple(shader, &[input], input.cols, out)
    }

    fn scale(&self, input: View, factor: f32, out: BufferId) -> Launch {
        let shader = self
            .elementwise("kernels/scale", input.cols, out)
            .float("FACTOR", factor);
        let shader = self.view(shader, "X", input);
        self.simple(shader, &[input], input.cols, out)
    }

    fn add(&self, a: View, b: View, out: BufferId) -> Launch {
        let shader = self.elementwise("kernels/add", a.cols, out);
        let shader = self.view(self.view(shader, "A", a), "B", b);
        self.simple(shader, &[a, b], a.cols, out)
    }

    fn soft_cap(&self, input: View, cap: f32, out: BufferId) -> Launch {
        let shader = self
            .elementwise("kernels/soft_cap", input.cols, out)
            .parts(&["parts/soft_cap"])
            .float("CAP", cap);
        let shader = self.view(shader, "X", input);
        self.simple(shader, &[input], input.cols, out)
    }

    /// A kernel with one invocation per number of `out`.
    fn elementwise(&self, kernel: &'static str, cols: usize, out: BufferId) -> Shader {
        Shader::new(kernel)
            .joinable(0)
            .number("WG", WORKGROUP)
            .number("COLS", cols)
            .number("OUT_STRIDE", self.stride(out))
    }

    /// A launch over views, the batch and `out`.
    fn simple(&self, shader: Shader, inputs: &[View], items: usize, out: BufferId) -> Launch {
        let rows = self.rows(out);
        let mut bindings: Vec<Binding> = inputs
            .iter()
            .map(|view| reads(self.slot(view.buffer)))
            .collect();
        bindings.extend([reads(Slot::Batch), writes(self.slot(out))]);
        Launch {
            shader: self.rows_word(shader, rows),
            bindings,
            grid: per_number(items, rows),
        }
    }

    fn slot(&self, buffer: BufferId) -> Slot {
        Slot::Storage(self.plan.buffers[buffer.0].storage)
    }

    /// All columns of a buffer.
    fn whole(&self, buffer: BufferId) -> View {
        View {
            buffer,
            offset: 0,
            cols: self.stride(buffer),
        }
    }

    fn stride(&self, buffer: BufferId) -> usize {
        self.plan.buffers[buffer.0].cols
    }

    fn rows(&self, buffer: BufferId) -> Rows {
        self.plan.buffers[buffer.0].rows
    }

    fn weight(&self, id: WeightId) -> Result<&WeightShape, String> {
        let weight = self.weights.get(id.0).filter(|w| !w.shards.is_empty());
        weight.ok_or_else(|| format!("weight {} was not loaded", id.0))
    }

    /// A weight with rows of `cols` numbers.
    fn matrix(&self, id: WeightId, cols: usize) -> Result<&WeightShape, String> {
        let weight = self.weight(id)?;
        match weight.layout.cols == cols {
            true => Ok(weight),
            false => Err(format!(
                "{} does not have rows of {cols} numbers",
                weight.name
            )),
        }
    }

    /// The cache, if it has the layer with tokens of these sizes.
    fn layer(&self, layer: usize, kv: KvDims) -> Result<&CacheSpec, String> {
        let cache = self.cache.ok_or("the cache was not allocated")?;
        let least = if cache.kv_type.is_quantised() {
            KV_BLOCK
        } else {
            4
        };
        let whole = [kv.keys, kv.values].iter().all(|n| n.is_multiple_of(least));
        match cache.layers.get(layer) {
            Some(&dims) if dims == kv && whole => Ok(cache),
            Some(dims) => Err(format!(
                "layer {layer} of the cache keeps {dims:?}, the plan has {kv:?}; both must be the \
                 same multiples of {least}"
            )),
            None => Err(format!("the cache has no layer {layer}")),
        }
    }

    /// Numbers `NAME_STRIDE` and `NAME_OFFSET` of a view.
    fn view(&self, shader: Shader, name: &str, view: View) -> Shader {
        shader
            .number(&format!("{name}_STRIDE"), self.stride(view.buffer))
            .number(&format!("{name}_OFFSET"), view.offset)
    }

    /// What is added to a result, if anything.
    fn residual(&self, shader: Shader, residual: Option<View>) -> Shader {
        shader
            .flag("HAS_RESIDUAL", residual.is_some())
            .number(
                "RESIDUAL_STRIDE",
                residual.map_or(0, |r| self.stride(r.buffer)),
            )
            .number("RESIDUAL_OFFSET", residual.map_or(0, |r| r.offset))
    }

    /// Reads the batch, with rows of this kind.
    fn rows_word(&self, shader: Shader, rows: Rows) -> Shader {
        let word = match rows {
            Rows::Tokens => 0,
            Rows::Outputs => 1,
        };
        shader.number("ROWS_WORD", word).parts(&["parts/batch"])
    }

    /// Workgroups of `size` invocations of which `lanes` share a row.
    fn lanes(&self, shader: Shader, size: usize, lanes: usize) -> Shader {
        let shader = shader.number("WG", size).number("LANES", lanes);
        let shader = match self.tuning.reduction {
            Reduction::Subgroups if lanes > 1 => {
                shader.parts(&["parts/lanes_subgroups", "parts/subgroups"])
            }
            Reduction::MadeSubgroups(width) if lanes > 1 => shader
                .number("WIDTH", width)
                .parts(&["parts/lanes_subgroups", "parts/subgroups_made"]),
            _ => shader.parts(&["parts/lanes_memory"]),
        };
        shader.parts(&["parts/lanes"])
    }

    /// Workgroups of `size` invocations with reductions.
    fn reduce(&self, shader: Shader, size: usize) -> Shader {
        let shader = shader.number("WG", size);
        match self.tuning.reduction {
            Reduction::Memory => shader.parts(&["parts/reduce_workgroup"]),
            Reduction::Subgroups => shader.parts(&["parts/reduce_subgroup", "parts/subgroups"]),
            Reduction::MadeSubgroups(width) => shader
                .number("WIDTH", width)
                .parts(&["parts/reduce_subgroup", "parts/subgroups_made"]),
        }
    }
}

/// One invocation per number, rows along the second axis.
fn per_number(numbers: usize, rows: Rows) -> [Extent; 3] {
    [
        Extent::Fixed(numbers.div_ceil(WORKGROUP)),
        Extent::Rows(rows, 1),
        Extent::Fixed(1),
    ]
}
