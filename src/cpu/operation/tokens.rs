//! Operations that depend on where their rows stand in the batch or in a sequence.

use super::Operation;
use crate::backend::{Attention, EmbedRow, RopeOrder, View, WeightId};
use crate::cpu::attention;
use crate::cpu::pool::PoolError;
use crate::cpu::recurrent::{self, DeltaNet, ShortConv};
use crate::cpu::rowwise::{self, Rope};
use crate::cpu::weight::WeightRows;

impl Operation<'_> {
    pub(super) fn embed(
        self,
        weight: WeightId,
        row: EmbedRow,
        scale: f32,
    ) -> Result<(), PoolError> {
        let weight = WeightRows::new(&self.weights[weight.0]);
        let batch = self.batch;
        self.each_row(|i, out| {
            let row = match row {
                EmbedRow::Token => batch.tokens[i] as usize,
                EmbedRow::Position => batch.positions[i] as usize,
                EmbedRow::Fixed(row) => row,
            };
            rowwise::embed(&weight, row, scale, out);
        })
    }

    pub(super) fn select_rows(self, input: View) -> Result<(), PoolError> {
        let (input, batch) = (self.view(input), self.batch);
        self.each_row(|i, out| out.copy_from_slice(input.row(batch.outputs[i] as usize)))
    }

    pub(super) fn rope(
        self,
        input: View,
        head_dim: usize,
        table: usize,
        order: RopeOrder,
    ) -> Result<(), PoolError> {
        let (isa, input, angles) = (self.isa, self.view(input), &self.angles[table]);
        let half = self.plan.rope_tables[table].half_dim();
        self.each_row(|i, out| {
            isa.run(Rope {
                x: input.row(i),
                angles: &angles[2 * half * i..][..2 * half],
                head_dim,
                order,
                out,
            });
        })
    }

    pub(super) fn attention(self, a: &Attention) -> Result<(), PoolError> {
        let op = attention::Attention {
            q: self.view(a.q),
            n_heads: a.n_heads,
            n_kv_heads: a.n_kv_heads,
            head_dim: a.head_dim,
            value_dim: a.value_dim,
            scale: a.scale,
            causal: a.causal,
            window: a.window,
            soft_cap: a.soft_cap,
            sinks: a.sinks.map(|id| self.vector(id)),
            alibi: a.alibi,
        };
        let cache = &self.layers[a.layer];
        attention::attention(self.isa, self.pool, cache, self.batch, &op, self.out)
    }

    pub(super) fn pool_tokens(self, input: View) -> Result<(), PoolError> {
        let (input, batch) = (self.view(input), self.batch);
        self.each_row(|i, out| {
            let last = batch.outputs[i] as usize;
            rowwise::mean(&input, last - batch.positions[last] as usize..=last, out);
        })
    }

    pub(super) fn short_conv(
        self,
        state: usize,
        input: View,
        weight: WeightId,
        kernel: usize,
        silu: bool,
    ) -> Result<(), PoolError> {
        let op = ShortConv {
            input: self.view(input),
            weight: self.vector(weight),
            kernel,
            silu,
        };
        let state = &mut self.states[state];
        recurrent::short_conv(self.isa, self.pool, state, self.batch, &op, self.out)
    }

    pub(super) fn delta_net(self, state: usize, op: &DeltaNet<'_>) -> Result<(), PoolError> {
        let state = &mut self.states[state];
        recurrent::delta_net(self.isa, self.pool, state, self.batch, op, self.out)
    }
}
