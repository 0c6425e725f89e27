//! Products of single tokens with the matrices of their experts, and what follows them in the same launch.

use super::Dispatch;
use super::matmul::{Columns, Halves, VecShape};
use crate::backend::{BufferId, ExpertProducts, Op, View};
use crate::gpu::buffer::WeightShape;
use crate::gpu::launch::{Extent, Launch, Slot, reads, writes};
use crate::gpu::shader::Shader;

/// Sums of lanes for all slots of a row, at most: they lie in the workgroup's memory, of 16 KiB at least.
const MAX_SUMS: usize = 4096;

/// What becomes of products of single tokens.
pub(super) enum Finish {
    /// Each slot's are kept, as these columns.
    Apart(Columns),
    /// Those of a row's slots are weighted and added, and the residual to them.
    Combined { residual: Option<View> },
}

impl Dispatch<'_> {
    /// Products of single tokens, and what becomes of them.
    pub(super) fn matmul_experts_vec(
        &self,
        products: &ExpertProducts,
        weight: &WeightShape,
        shard: usize,
        finish: &Finish,
        out: BufferId,
    ) -> Launch {
        let expert_rows = weight.rows / weight.n_experts;
        let shape = VecShape::new(self.tuning, expert_rows, weight.layout.spans(), 1);
        let group_rows = shape.workgroup / shape.lanes * shape.rows_per_lane;
        let (columns, combined) = match *finish {
            Finish::Apart(columns) => (columns, None),
            Finish::Combined { residual } => (Columns::Plain, Some(residual)),
        };
        let slots = match combined {
            Some(_) => products.n_used,
            None => 1,
        };
        let parallel = self.parallel_slots(slots);
        let groups = columns
            .count(expert_rows)
            .div_ceil(columns.of_group(group_rows));
        let shader = Shader::new("kernels/matmul_experts_vec")
            .parts(&["parts/fma4", self.slot_part(products, weight)])
            .number("ROWS_PER_LANE", shape.rows_per_lane)
            .number("SLOTS", slots)
            .number("PARALLEL", parallel)
            .flag("COMBINES", combined.is_some());
        let residual = combined.flatten();
        let shader = self.residual(columns.with(shader, expert_rows), residual);
        let sums = shape.workgroup * shape.rows_per_lane * slots;
        let shader = self
            .lanes(shader, shape.workgroup * parallel, shape.lanes)
            .joinable(size_of::<f32>() * sums);
        let rows = self.rows(out);
        let shader = self.routed(shader, products, weight);
        Launch {
            shader: self.rows_word(
                self.expert_product(shader, products, weight, shard, out),
                rows,
            ),
            bindings: vec![
                reads(self.slot(products.input.buffer)),
                reads(self.route_slot(products)),
                reads(self.bias_slot(products)),
                reads(residual.map_or(Slot::Nothing, |r| self.slot(r.buffer))),
                reads(Slot::Weight(products.weight, shard)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: [
                Extent::Fixed(groups),
                Extent::Fixed(products.n_used / slots),
                Extent::Rows(rows, 1),
            ],
        }
    }

    /// Of a workgroup's slots those that it takes at a time.
    fn parallel_slots(&self, slots: usize) -> usize {
        let most = if self.tuning.software { 1 } else { 4 };
        (1..=most)
            .rev()
            .find(|n| slots.is_multiple_of(*n))
            .unwrap_or(1)
    }

    /// Products of single tokens with the gate and the other matrix of each expert, and their gated activation.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn matmul_experts_glu(&self, at: usize) -> Result<Option<Launch>, String> {
        let Op::Glu {
            gate,
            up,
            activation,
            out,
        } = self.plan.ops[at + 1]
        else {
            return Ok(None);
        };
        let Some((products, product, weight)) = self.products_for_one(at)? else {
            return Ok(None);
        };
        let n_columns = weight.rows / weight.n_experts / 2;
        let width = products.n_used * n_columns;
        let part = |view: View| {
            let is_part =
                view.buffer == product && view.cols == width && [0, width].contains(&view.offset);
            is_part.then_some(view.offset / width * n_columns)
        };
        let (Some(gate_row), Some(up_row), 2) = (part(gate), part(up), weight.parts_per_expert)
        else {
            return Ok(None);
        };
        let finish = Finish::Apart(Columns::Gated(Halves {
            n_columns,
            gate_row,
            up_row,
            activation,
        }));
        let launch = self.matmul_experts_vec(&products, weight, 0, &finish, out);
        Ok(Some(launch))
    }

    /// Products of single tokens with a matrix of each expert, and their weighted sum.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn matmul_experts_sum(&self, at: usize) -> Result<Option<Launch>, String> {
        let Op::MoeCombine {
            experts,
            route,
            residual,
            out,
        } = self.plan.ops[at + 1]
        else {
            return Ok(None);
        };
        let Some((products, product, weight)) = self.products_for_one(at)? else {
            return Ok(None);
        };
        let expert_rows = weight.rows / weight.n_experts;
        let shape = VecShape::new(self.tuning, expert_rows, weight.layout.spans(), 1);
        let whole = experts.buffer == product && experts.offset == 0;
        let own_residual = residual.is_none_or(|residual| residual.buffer != product);
        if !whole
            || !own_residual
            || products.route != Some(route)
            || weight.parts_per_expert != 1
            || products.n_used * shape.workgroup * shape.rows_per_lane > MAX_SUMS
        {
            return Ok(None);
        }
        let finish = Finish::Combined { residual };
        let launch = self.matmul_experts_vec(&products, weight, 0, &finish, out);
        Ok(Some(launch))
    }

    /// Products of single tokens with a matrix of each expert, activated.
    ///
    /// # Errors
    /// As for the ops alone.
    pub(super) fn matmul_experts_activate(&self, at: usize) -> Result<Option<Launch>, String> {
        let Op::Activate {
            input,
            activation,
            out,
        } = self.plan.ops[at + 1]
        else {
            return Ok(None);
        };
        let Some((products, product, weight)) = self.products_for_one(at)? else {
            return Ok(None);
        };
        let whole = input == self.whole(product) && weight.parts_per_expert == 1;
        let finish = Finish::Apart(Columns::Activated(activation));
        let launch = || self.matmul_experts_vec(&products, weight, 0, &finish, out);
        Ok(whole.then(launch))
    }

    /// The products of op `at`, their buffer and their weight: if they are those of single tokens, a launch makes them
    /// all, and the next op alone reads them.
    fn products_for_one(
        &self,
        at: usize,
    ) -> Result<Option<(ExpertProducts, BufferId, &WeightShape)>, String> {
        let Op::MatmulExperts { products, out } = self.plan.ops[at] else {
            return Ok(None);
        };
        if let Some(bias) = products.bias {
            self.weight(bias)?;
        }
        let weight = self.weight(products.weight)?;
        let fits = !self.is_tiled_by_expert(out)
            && weight.shards.len() == 1
            && self.is_read_by(out, at + 1);
        Ok(fits.then_some((products, out, weight)))
    }
}
