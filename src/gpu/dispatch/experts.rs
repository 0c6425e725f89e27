//! Experts: the choice, products with the matrices of the chosen, their sum.

use super::experts_vec::Finish;
use super::matmul::Columns;
use super::parts::with_weights;
use super::tile::{TileInput, TileShape};
use super::{Dispatch, Program, REDUCED_BYTES, WORKGROUP, per_number};
use crate::backend::{
    BufferId, ExpertProducts, Gating, Heads, Phase, Routing, Rows, View, WeightId,
};
use crate::gpu::buffer::WeightShape;
use crate::gpu::launch::{Extent, Launch, Slot, max_expert_tiles, reads, writes};
use crate::gpu::shader::Shader;

/// Invocations of the workgroup that lists slots by expert.
const GROUP_WORKGROUP: usize = 256;

/// A list of slots by expert that an earlier launch of the plan left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpertGroups {
    route: Option<BufferId>,
    n_used: usize,
    tile_columns: usize,
    scratch: usize,
}

impl Dispatch<'_> {
    pub(super) fn moe_route(
        &self,
        scores: View,
        (bias, factors): (Option<WeightId>, Option<WeightId>),
        routing: &Routing,
        out: BufferId,
    ) -> Result<Launch, String> {
        for id in bias.into_iter().chain(factors) {
            self.weight(id)?;
        }
        let vector = |id: Option<WeightId>| id.map_or(Slot::Nothing, |id| Slot::Weight(id, 0));
        let gating = match routing.gating {
            Gating::Softmax => 0,
            Gating::Sigmoid => 1,
            Gating::SoftmaxOfChosen => 2,
        };
        let shader = self
            .view(Shader::new("kernels/moe_route"), "X", scores)
            .number("N_EXPERTS", scores.cols)
            .number("N_USED", routing.n_used)
            .number("N_GROUPS", routing.n_groups)
            .number("N_GROUPS_USED", routing.n_groups_used)
            .number("GATING", gating)
            .flag("NORMALISE", routing.normalise)
            .flag("HAS_BIAS", bias.is_some())
            .flag("HAS_FACTORS", factors.is_some())
            .float("MIN_SUM", Routing::MIN_SUM)
            .float("SCALE", routing.scale)
            .number("OUT_STRIDE", self.stride(out));
        let rows = self.rows(out);
        let kept = 2 * scores.cols + routing.n_groups + routing.n_used;
        let bytes = size_of::<f32>() * kept + REDUCED_BYTES;
        Ok(Launch {
            shader: self
                .rows_word(self.reduce(shader, WORKGROUP), rows)
                .joinable(bytes),
            bindings: vec![
                reads(self.slot(scores.buffer)),
                reads(vector(bias)),
                reads(vector(factors)),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: [Extent::Rows(rows, 1), Extent::Fixed(1), Extent::Fixed(1)],
        })
    }

    pub(super) fn moe_combine(
        &self,
        experts: View,
        route: View,
        residual: Option<View>,
        out: BufferId,
    ) -> Launch {
        let cols = self.stride(out);
        let shader = self
            .elementwise("kernels/moe_combine", cols, out)
            .number("N_USED", route.cols / 2)
            .flag("HAS_RESIDUAL", residual.is_some());
        let shader = self.view(self.view(shader, "X", experts), "ROUTE", route);
        let shader = self.view(shader, "RESIDUAL", residual.unwrap_or(route));
        let rows = self.rows(out);
        Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(self.slot(experts.buffer)),
                reads(self.slot(route.buffer)),
                reads(residual.map_or(Slot::Nothing, |r| self.slot(r.buffer))),
                reads(Slot::Batch),
                writes(self.slot(out)),
            ],
            grid: per_number(cols, rows),
        }
    }

    pub(super) fn concat_heads(&self, a: Heads, b: Option<Heads>, out: BufferId) -> Launch {
        let shader = self
            .elementwise("kernels/concat_heads", self.stride(out), out)
            .number("A_HEAD", a.stride)
            .number("A_WIDTH", a.width)
            .number("B_HEAD", b.map_or(0, |b| b.stride))
            .number("B_WIDTH", b.map_or(0, |b| b.width));
        let second = b.unwrap_or(a).view;
        let shader = self.view(self.view(shader, "A", a.view), "B", second);
        let mut launch = self.simple(shader, &[a.view, second], self.stride(out), out);
        if b.is_none() {
            launch.bindings[1] = reads(Slot::Nothing);
        }
        launch
    }

    pub(super) fn matmul_experts(
        &self,
        products: &ExpertProducts,
        out: BufferId,
        program: &mut Program,
    ) -> Result<(), String> {
        if let Some(bias) = products.bias {
            self.weight(bias)?;
        }
        let weight = self.weight(products.weight)?;
        if !self.is_tiled_by_expert(out) {
            for shard in 0..weight.shards.len() {
                let launch = self.matmul_experts_vec(
                    products,
                    weight,
                    shard,
                    &Finish::Apart(Columns::Plain),
                    out,
                );
                program.launches.push(launch);
            }
            return Ok(());
        }
        let n_slots = self.plan.shape.n_tokens * products.n_used;
        let shape = TileShape::new(self.tuning, n_slots.div_ceil(weight.n_experts));
        let groups = self.expert_groups(products, weight, shape.columns(), program);
        for shard in 0..weight.shards.len() {
            let launch =
                self.matmul_experts_tile(products, weight, shard, (groups, shape), out, program);
            program.launches.push(launch);
        }
        Ok(())
    }

    /// Whether the products that `out` holds go through `matmul_experts_tile`: as for plain ones,
    /// prompts do whatever their length.
    pub(super) fn is_tiled_by_expert(&self, out: BufferId) -> bool {
        self.plan.shape.phase == Phase::Prefill && self.rows(out) == Rows::Tokens
    }

    fn matmul_experts_tile(
        &self,
        products: &ExpertProducts,
        weight: &WeightShape,
        shard: usize,
        (groups, shape): (ExpertGroups, TileShape),
        out: BufferId,
        program: &mut Program,
    ) -> Launch {
        let input = TileInput {
            first: products.input,
            stride: products.slot_stride,
            n_sources: products.n_used,
        };
        let floats = [self.slot_part(products, weight), "parts/source_slots"];
        let shader = shape.numbers(Shader::new("kernels/matmul_experts_tile"));
        let shader = shader.number("LIST_AT", self.list_at(products, weight, shape.columns()));
        let (shader, input) = self.tile_input(shader, input, weight, &floats, program);
        let expert_rows = weight.rows / weight.n_experts;
        Launch {
            shader: self.expert_product(shader, products, weight, shard, out),
            bindings: vec![
                input,
                reads(Slot::Scratch(groups.scratch)),
                reads(self.bias_slot(products)),
                reads(Slot::Weight(products.weight, shard)),
                writes(self.slot(out)),
            ],
            grid: [
                Extent::Fixed(expert_rows.div_ceil(shape.tile_rows)),
                Extent::ExpertTiles {
                    rows: self.rows(out),
                    n_used: products.n_used,
                    n_experts: weight.n_experts,
                    columns: shape.columns(),
                },
                Extent::Fixed(1),
            ],
        }
    }

    /// Lists the slots by expert, unless the launch before did so for the same route.
    fn expert_groups(
        &self,
        products: &ExpertProducts,
        weight: &WeightShape,
        tile_columns: usize,
        program: &mut Program,
    ) -> ExpertGroups {
        let route = products.route.map(|route| route.buffer);
        let n_slots = self.plan.shape.n_tokens * products.n_used;
        let words = self.list_at(products, weight, tile_columns) + n_slots;
        let scratch = match program.groups {
            Some(groups) => groups.scratch,
            None => program.scratch(0),
        };
        let bytes = &mut program.scratch[scratch];
        *bytes = (*bytes).max(4 * words as u64);
        let groups = ExpertGroups {
            route,
            n_used: products.n_used,
            tile_columns,
            scratch,
        };
        if program.groups.replace(groups) == Some(groups) && route.is_some() {
            return groups;
        }
        let rows = self.rows(products.input.buffer);
        let shader = Shader::new("kernels/moe_group")
            .number("WG", GROUP_WORKGROUP)
            .number("TILE_COLUMNS", tile_columns)
            .number("LIST_AT", self.list_at(products, weight, tile_columns))
            .number("N_USED", products.n_used);
        let shader = self.routed(shader, products, weight);
        program.launches.push(Launch {
            shader: self.rows_word(shader, rows),
            bindings: vec![
                reads(self.route_slot(products)),
                reads(Slot::Batch),
                writes(Slot::Scratch(scratch)),
            ],
            grid: [Extent::Fixed(1); 3],
        });
        groups
    }

    /// Where the list of slots begins, after the tiles.
    fn list_at(&self, products: &ExpertProducts, weight: &WeightShape, columns: usize) -> usize {
        let n_slots = self.plan.shape.n_tokens * products.n_used;
        1 + 3 * max_expert_tiles(n_slots, weight.n_experts, columns)
    }

    /// Which expert a slot goes through.
    pub(super) fn routed(
        &self,
        shader: Shader,
        products: &ExpertProducts,
        weight: &WeightShape,
    ) -> Shader {
        let shader = shader
            .number("N_EXPERTS", weight.n_experts)
            .flag("ROUTED", products.route.is_some())
            .parts(&["parts/experts"]);
        self.view(shader, "ROUTE", products.route.unwrap_or(products.input))
    }

    /// What both kernels share: operands and their numbers.
    pub(super) fn expert_product(
        &self,
        shader: Shader,
        products: &ExpertProducts,
        weight: &WeightShape,
        shard: usize,
        out: BufferId,
    ) -> Shader {
        let expert_rows = weight.rows / weight.n_experts;
        let shader = self
            .view(shader, "X", products.input)
            .number("SLOT_STRIDE", products.slot_stride)
            .number("N_USED", products.n_used)
            .number("EXPERT_ROWS", expert_rows)
            .number("PART_ROWS", expert_rows / weight.parts_per_expert)
            .number("FIRST_ROW", weight.shards[shard].first_row)
            .number("OUT_STRIDE", self.stride(out))
            .flag("HAS_BIAS", products.bias.is_some())
            .parts(&["parts/expert_store"]);
        with_weights(shader, weight, weight.shards[shard])
    }

    /// Vectors where all offsets allow it, single columns elsewhere.
    pub(super) fn slot_part(
        &self,
        products: &ExpertProducts,
        weight: &WeightShape,
    ) -> &'static str {
        let aligned = [
            self.stride(products.input.buffer),
            products.input.offset,
            products.slot_stride,
        ];
        let whole = weight.layout.cols.is_multiple_of(32);
        match whole && aligned.iter().all(|n| n.is_multiple_of(4)) {
            true => "parts/slot_quads",
            false => "parts/slot_columns",
        }
    }

    pub(super) fn route_slot(&self, products: &ExpertProducts) -> Slot {
        let route = products.route.map(|route| self.slot(route.buffer));
        route.unwrap_or(Slot::Nothing)
    }

    pub(super) fn bias_slot(&self, products: &ExpertProducts) -> Slot {
        products.bias.map_or(Slot::Nothing, |b| Slot::Weight(b, 0))
    }
}
