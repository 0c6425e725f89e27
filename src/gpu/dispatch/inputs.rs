//! What attention of single tokens begins with, in the same launch: norms of queries, keys and values, rope, and the
//! token's place in the cache.

use super::attention::group_rows;
use super::{Dispatch, Program};
use crate::backend::{Attention, BufferId, NO_SLOT, Op, Phase, RopeOrder, View, WeightId};
use crate::gpu::launch::{Binding, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Buffers that a launch with inputs binds.
const BINDINGS: usize = 11;

/// Queries, and the token's keys and values where attention does not read those of another layer.
pub(super) struct Inputs {
    q: Input,
    kv: Option<(Input, Input)>,
}

/// A view, and what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Input {
    view: View,
    norm: Option<InputNorm>,
    turn: Option<Turn>,
    /// Whether the norm is behind the turn.
    norm_last: bool,
}

#[derive(Debug, Clone, Copy)]
struct InputNorm {
    scales: Option<WeightId>,
    group: usize,
    eps: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    table: usize,
    order: RopeOrder,
    half: usize,
}

impl Dispatch<'_> {
    /// Launches the run of ops from `at` on that ends in attention, with what attention can begin with, and says how many
    /// ops it has; none where there is no such run, or nothing to begin with.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn attention_run(
        &self,
        at: usize,
        program: &mut Program,
    ) -> Result<Option<usize>, String> {
        if self.plan.shape.phase != Phase::Decode
            || self.tuning.software
            || self.tuning.max_bindings < BINDINGS
        {
            return Ok(None);
        }
        let ops = &self.plan.ops[at..];
        let before = |op: &Op| {
            matches!(
                op,
                Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::Rope { .. }
            )
        };
        let n_before = ops.iter().take_while(|op| before(op)).count();
        let (write, attention, out, n_ops) = match ops[n_before..] {
            [
                Op::KvWrite { layer, k, v },
                Op::Attention { ref attention, out },
                ..,
            ] if attention.layer == layer => (Some((k, v)), attention, out, n_before + 2),
            [Op::Attention { ref attention, out }, ..] => (None, attention, out, n_before + 1),
            _ => return Ok(None),
        };
        let mut taken = Vec::new();
        let Some(inputs) = self.inputs(attention, write, at..at + n_ops, &mut taken) else {
            return Ok(None);
        };
        if taken.is_empty() && write.is_none() || !self.stands_apart(&inputs, out) {
            return Ok(None);
        }
        for (i, op) in ops[..n_before].iter().enumerate() {
            if !taken.contains(&(at + i)) {
                self.launch(op, program)?;
            }
        }
        for scales in inputs.scales() {
            self.weight(scales)?;
        }
        self.attention(attention, Some(&inputs), out, program)?;
        Ok(Some(n_ops))
    }

    /// The inputs of an attention whose run is `run`, if its kernel can make them; `taken` gets the ops that it does.
    fn inputs(
        &self,
        attention: &Attention,
        write: Option<(View, View)>,
        run: std::ops::Range<usize>,
        taken: &mut Vec<usize>,
    ) -> Option<Inputs> {
        let &Attention {
            layer,
            n_heads,
            n_kv_heads,
            head_dim,
            value_dim,
            ..
        } = attention;
        let (reader, group) = (run.end - 1, n_heads / n_kv_heads);
        let q = self.input(attention.q, head_dim, (run.start, reader), taken);
        let kv = match write {
            None => None,
            Some((k, v)) => {
                let cache = self.cache?;
                let sizes = (n_kv_heads * head_dim, n_kv_heads * value_dim);
                // One workgroup has all heads that read what it writes.
                if cache.kv_type.is_quantised()
                    || cache.layers.get(layer).is_none()
                    || (k.cols, v.cols) != sizes
                    || group_rows(group, head_dim) != group
                {
                    return None;
                }
                let k = self.input(k, head_dim, (run.start, reader - 1), taken);
                let v = self.input(v, value_dim, (run.start, reader - 1), taken);
                let plain = v.turn.is_none()
                    && v.norm
                        .is_none_or(|n| n.scales.is_none() && n.group == value_dim);
                if !plain {
                    return None;
                }
                Some((k, v))
            }
        };
        let inputs = Inputs { q, kv };
        inputs.are_alike().then_some(inputs)
    }

    /// What leads to a view that op `reader` alone reads, back to op `first`, as far as it is a norm and a rope of heads
    /// of `width` columns.
    fn input(
        &self,
        mut view: View,
        width: usize,
        (first, mut reader): (usize, usize),
        taken: &mut Vec<usize>,
    ) -> Input {
        let mut input = Input {
            view,
            norm: None,
            turn: None,
            norm_last: false,
        };
        for at in (first..reader).rev() {
            let op = &self.plan.ops[at];
            let Some(made) = op.out().filter(|out| view == self.whole(*out)) else {
                continue;
            };
            if !self.is_read_by(made, reader) {
                break;
            }
            match *op {
                Op::Rope {
                    input: from,
                    head_dim,
                    table,
                    order,
                    ..
                } if head_dim == width && input.turn.is_none() => {
                    input.norm_last = input.norm.is_some();
                    input.turn = Some(Turn {
                        table,
                        order,
                        half: self.plan.rope_tables[table].half_dim(),
                    });
                    view = from;
                }
                Op::RmsNorm {
                    input: from,
                    weight: scales,
                    group,
                    eps,
                    ..
                } if (group == width || group == from.cols) && input.norm.is_none() => {
                    input.norm = Some(InputNorm { scales, group, eps });
                    view = from;
                }
                _ => break,
            }
            (input.view, reader) = (view, at);
            taken.push(at);
        }
        input
    }

    /// Whether nothing that the launch reads lies where it writes.
    fn stands_apart(&self, inputs: &Inputs, out: BufferId) -> bool {
        let mut views = inputs.views();
        views.all(|view| self.slot(view.buffer) != self.slot(out))
    }

    /// What the kernel binds behind its own.
    pub(super) fn input_bindings(&self, inputs: &Inputs, layer: usize) -> Vec<Binding> {
        let slot = |input: &Input| self.slot(input.view.buffer);
        let (k, v) = match &inputs.kv {
            Some((k, v)) => (slot(k), slot(v)),
            None => (Slot::Nothing, Slot::Nothing),
        };
        let scales = |input: Option<&Input>| {
            let scales = input.and_then(|input| input.norm?.scales);
            scales.map_or(Slot::Nothing, |id| Slot::Weight(id, 0))
        };
        let q_scales = scales(Some(&inputs.q));
        let k_scales = scales(inputs.kv.as_ref().map(|(k, _)| k));
        vec![
            reads(slot(&inputs.q)),
            writes(Slot::Keys(layer)),
            writes(Slot::Values(layer)),
            reads(k),
            reads(v),
            reads(q_scales),
            reads(k_scales),
        ]
    }

    pub(super) fn with_inputs(&self, shader: Shader, inputs: &Inputs) -> Shader {
        let Inputs { q, kv } = *inputs;
        let (k, v) = kv.unwrap_or((q, q));
        let turn = inputs.turn();
        let whole_row = [Some(q), kv.map(|(k, _)| k)].into_iter().flatten();
        let widest = whole_row.filter_map(|input| Some(input.norm?.group)).max();
        let shader = [("Q", q), ("K", k), ("V", v)]
            .iter()
            .fold(shader, |shader, (name, input)| {
                let norm = input.norm;
                self.view(shader, name, input.view)
                    .number(&format!("{name}_GROUP"), norm.map_or(0, |norm| norm.group))
                    .float(&format!("{name}_EPS"), norm.map_or(0.0, |norm| norm.eps))
            });
        let shader = [("Q", q), ("K", k)]
            .iter()
            .fold(shader, |shader, (name, input)| {
                shader
                    .flag(
                        &format!("{name}_HAS_SCALES"),
                        input.norm.is_some_and(|norm| norm.scales.is_some()),
                    )
                    .flag(&format!("{name}_TURNS"), input.turn.is_some())
                    .number(
                        &format!("{name}_TABLE"),
                        input.turn.map_or(0, |turn| turn.table),
                    )
            });
        shader
            .flag("NORM_LAST", q.norm_last || k.norm_last)
            .flag("HAS_KEYS", kv.is_some())
            // A row is many times as long as a head.
            .number("NORM_LANES", if widest > Some(512) { 64 } else { 16 })
            .number("NO_SLOT", NO_SLOT as usize)
            // Where nothing turns, what nobody calls must still be a number to divide by.
            .number("HALF", turn.map_or(1, |turn| turn.half))
            .flag(
                "NEOX",
                turn.is_some_and(|turn| turn.order == RopeOrder::Neox),
            )
            .parts(&["parts/attention_turned", "parts/turned"])
    }
}

impl Inputs {
    fn all(&self) -> impl Iterator<Item = Input> {
        let kv = self.kv.into_iter().flat_map(|(k, v)| [k, v]);
        [self.q].into_iter().chain(kv)
    }

    fn views(&self) -> impl Iterator<Item = View> {
        self.all().map(|input| input.view)
    }

    fn scales(&self) -> impl Iterator<Item = WeightId> {
        self.all().filter_map(|input| input.norm?.scales)
    }

    /// How queries or keys turn.
    fn turn(&self) -> Option<Turn> {
        self.all().find_map(|input| input.turn)
    }

    /// Whether queries and keys turn by pairs of one kind, and have their norms at one place.
    fn are_alike(&self) -> bool {
        let Some((k, _)) = &self.kv else { return true };
        let kinds = |input: &Input| input.turn.map(|turn| (turn.order, turn.half));
        let both = self.q.turn.is_some() && k.turn.is_some();
        !both || kinds(&self.q) == kinds(k) && self.q.norm_last == k.norm_last
    }
}
