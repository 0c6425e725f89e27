//! Which buffers of a plan share memory: most of what a step needs beside weights and cache.

use super::Phase;
use super::plan::{BufferId, MAX_RUN, Plan, Rows};

/// Ops of a step of single tokens that a backend may do at once, or in another order: what they need is small.
const DECODE_RUN: usize = 24;

/// Ops in a row of which none writes to memory that another reads.
fn run(plan: &Plan) -> usize {
    match plan.shape.phase {
        Phase::Prefill => MAX_RUN,
        Phase::Decode => DECODE_RUN,
    }
}

/// Memory of buffers that never live at the same time.
struct Storage {
    rows: Rows,
    /// First op and the one before which it is free again, by buffer.
    lives: Vec<(usize, usize)>,
}

/// Gives buffers one storage where each is written only a [`run`] of ops after the last reader of the
/// one before. The widest come first, so that narrow ones lie in what they leave free.
/// Only buffers of one kind of rows share, so that sizes fit at every batch.
pub(super) fn share_storage(plan: &mut Plan) {
    let mut lives = lives(plan);
    let mut storages: Vec<Storage> = Vec::new();
    // Inputs keep theirs: making room for a wider buffer would lose what was written.
    for input in &plan.inputs {
        lives[input.0] = None;
        plan.buffers[input.0].storage = storages.len();
        storages.push(Storage {
            rows: plan.buffers[input.0].rows,
            lives: vec![(0, usize::MAX)],
        });
    }
    let mut widest_first: Vec<usize> = (0..plan.buffers.len()).collect();
    widest_first.sort_by_key(|&i| std::cmp::Reverse(plan.buffers[i].cols));
    for i in widest_first {
        let Some(life) = lives[i] else { continue };
        let buffer = &mut plan.buffers[i];
        let fits = |s: &Storage| {
            let mut others = s.lives.iter();
            s.rows == buffer.rows && others.all(|other| life.1 <= other.0 || other.1 <= life.0)
        };
        buffer.storage = match storages.iter().position(fits) {
            Some(storage) => storage,
            None => {
                storages.push(Storage {
                    rows: buffer.rows,
                    lives: Vec::new(),
                });
                storages.len() - 1
            }
        };
        storages[buffer.storage].lives.push(life);
    }
}

/// The ops that need each buffer's memory, from its writer to a [`run`] after its last reader; none
/// where no op writes it.
fn lives(plan: &Plan) -> Vec<Option<(usize, usize)>> {
    let run = run(plan);
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; plan.buffers.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        if let Some(BufferId(out)) = op.out() {
            lives[out] = Some((i, i + run));
        }
        for view in op.inputs() {
            if let Some((_, free)) = &mut lives[view.buffer.0] {
                *free = i + run;
            }
        }
    }
    for output in &plan.outputs {
        if let Some((_, free)) = &mut lives[output.0] {
            *free = usize::MAX;
        }
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BatchShape, EmbedRow, Op, Phase, PlanBuilder, View, WeightId};

    const SHAPE: BatchShape = BatchShape {
        phase: Phase::Prefill,
        n_tokens: 4,
        n_outputs: 4,
    };

    fn embedded(b: &mut PlanBuilder, cols: usize) -> View {
        b.record(Rows::Tokens, cols, |out| Op::Embed {
            weight: WeightId(0),
            row: EmbedRow::Token,
            scale: 1.0,
            out,
        })
    }

    fn chain() -> Plan {
        let mut b = PlanBuilder::new(SHAPE, &[], vec![]);
        let mut x = embedded(&mut b, 8);
        for _ in 0..5 {
            let capped = b.soft_cap(x, 30.0);
            x = b.add(capped, x);
        }
        b.output(x);
        b.finish()
    }

    #[test]
    fn storage_is_shared_but_never_with_an_operand() {
        let plan = chain();
        for op in &plan.ops {
            let out = op.out().expect("these ops write");
            for view in op.inputs() {
                assert_ne!(
                    plan.buffers[view.buffer.0].storage, plan.buffers[out.0].storage,
                    "{op:?}"
                );
            }
        }
        assert!(plan.storage_sizes().len() < plan.buffers.len());
    }

    #[test]
    fn a_wide_buffer_is_not_held_by_narrow_ones() {
        let mut b = PlanBuilder::new(SHAPE, &[], vec![]);
        for _ in 0..4 {
            let narrow = embedded(&mut b, 8);
            for _ in 0..MAX_RUN {
                b.soft_cap(narrow, 30.0);
            }
            let wide = embedded(&mut b, 100);
            b.soft_cap(wide.columns(0, 8), 30.0);
        }
        let floats = b.finish().storage_sizes();
        let wide = floats.iter().filter(|&&n| n == 400).count();
        assert_eq!(wide, 1, "{floats:?}");
    }

    #[test]
    fn keep_all_separates_every_buffer() {
        let plan = chain().keep_all();
        assert_eq!(plan.storage_sizes().len(), plan.buffers.len());
        assert_eq!(plan.outputs.len(), plan.buffers.len());
    }
}
