//! One model on two devices: the first layers on one, the rest on the other.
//!
//! A plan is cut where the layers change sides; activations go from one device to the other
//! through the host's memory. Weights keep their ids on both sides, and layers and states their
//! numbers: each side is given nothing for those that it does not have.

use std::ops::Range;

use super::storage::share_storage;
use super::{
    Backend, BackendError, Batch, BufferId, CacheSpec, Candidates, DeviceInfo, Plan, PreparedId,
    Rows, WeightId, WeightSpec,
};

/// Which device has a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one with the first layers: a GPU that cannot hold all of them.
    Front,
    /// The one with the other layers, and with what comes before and after all layers.
    Rest,
}

/// The side of a layer, or of what belongs to none.
pub fn side(layer: Option<usize>, n_front: usize) -> Side {
    match layer {
        Some(layer) if layer < n_front => Side::Front,
        _ => Side::Rest,
    }
}

/// Operations in a row that run on one side, as a plan of their own with the buffers' ids of the
/// whole. Its inputs are buffers of earlier pieces, its outputs what later ones or readers need.
#[derive(Debug)]
pub struct Piece {
    pub side: Side,
    pub plan: Plan,
}

/// Cuts a plan where its operations change sides.
pub fn cut(plan: &Plan, n_front: usize) -> Vec<Piece> {
    let sides: Vec<Side> = plan.layers.iter().map(|&l| side(l, n_front)).collect();
    let mut pieces = Vec::new();
    let mut start = 0;
    for run in sides.chunk_by(|a, b| a == b) {
        let ops = start..start + run.len();
        pieces.push(Piece {
            side: run[0],
            plan: part(plan, ops.clone()),
        });
        start = ops.end;
    }
    pieces
}

/// The operations of a range as a plan.
fn part(plan: &Plan, ops: Range<usize>) -> Plan {
    let written =
        |ops: &[super::Op]| -> Vec<BufferId> { ops.iter().filter_map(super::Op::out).collect() };
    let read = |ops: &[super::Op]| -> Vec<BufferId> {
        ops.iter()
            .flat_map(|op| op.inputs().map(|view| view.buffer))
            .collect()
    };
    let own = written(&plan.ops[ops.clone()]);
    let needed = read(&plan.ops[ops.clone()]);
    let later = read(&plan.ops[ops.end..]);
    let mut inputs: Vec<BufferId> = needed
        .iter()
        .copied()
        .filter(|b| !own.contains(b))
        .collect();
    inputs.sort();
    inputs.dedup();
    let is_output = |b: &&BufferId| later.contains(b) || plan.outputs.contains(b);
    let mut buffers = plan.buffers.clone();
    for (i, buffer) in buffers.iter_mut().enumerate() {
        buffer.storage = 0;
        if !own.contains(&BufferId(i)) && !inputs.contains(&BufferId(i)) {
            buffer.cols = 0;
        }
    }
    let mut part = Plan {
        shape: plan.shape,
        ops: plan.ops[ops.clone()].to_vec(),
        labels: plan.labels[ops.clone()].to_vec(),
        layers: plan.layers[ops].to_vec(),
        buffers,
        rope_tables: plan.rope_tables.clone(),
        outputs: own.iter().filter(is_output).copied().collect(),
        inputs,
    };
    share_storage(&mut part);
    part
}

/// Two backends that run one model together.
pub struct SplitBackend {
    front: Box<dyn Backend>,
    rest: Box<dyn Backend>,
    n_front: usize,
    plans: Vec<Vec<Prepared>>,
}

/// A piece that its side has prepared.
struct Prepared {
    side: Side,
    id: PreparedId,
    /// What it takes from earlier pieces: buffer, kind of rows, number of the piece.
    inputs: Vec<(BufferId, Rows, usize)>,
    outputs: Vec<BufferId>,
}

impl SplitBackend {
    /// The first `n_front` layers go to `front`, all else to `rest`.
    pub fn new(front: Box<dyn Backend>, rest: Box<dyn Backend>, n_front: usize) -> SplitBackend {
        SplitBackend {
            front,
            rest,
            n_front,
            plans: Vec::new(),
        }
    }

    fn backend(&mut self, side: Side) -> &mut dyn Backend {
        match side {
            Side::Front => &mut *self.front,
            Side::Rest => &mut *self.rest,
        }
    }

    /// What the side keeps of the cache.
    fn cache(&self, cache: &CacheSpec, wanted: Side) -> CacheSpec {
        let mut own = cache.clone();
        own.keep_layers(|layer| side(Some(layer), self.n_front) == wanted);
        own
    }

    fn run_piece(
        &mut self,
        plan: PreparedId,
        piece: usize,
        batch: &Batch,
    ) -> Result<Vec<Candidates>, BackendError> {
        let inputs = self.plans[plan.0][piece].inputs.clone();
        let (side, id) = self.place(plan, piece);
        for (buffer, rows, from) in inputs {
            let n_rows = match rows {
                Rows::Tokens => batch.n_tokens(),
                Rows::Outputs => batch.outputs.len(),
            };
            let (from_side, from_id) = self.place(plan, from);
            let values = self.backend(from_side).read(from_id, buffer, 0..n_rows)?;
            self.backend(side).write(id, buffer, &values)?;
        }
        self.backend(side).run(id, batch)
    }

    fn place(&self, plan: PreparedId, piece: usize) -> (Side, PreparedId) {
        let piece = &self.plans[plan.0][piece];
        (piece.side, piece.id)
    }
}

impl Backend for SplitBackend {
    fn device(&self) -> DeviceInfo {
        let (front, rest) = (self.front.device(), self.rest.device());
        DeviceInfo {
            name: format!("{} and {}", front.name, rest.name),
            api: format!("{} and {}", front.api, rest.api),
            is_gpu: front.is_gpu || rest.is_gpu,
            memory_bytes: front.memory_bytes,
        }
    }

    fn load(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        let side = side(weight.layer(), self.n_front);
        let (front, rest) = match side {
            Side::Front => (self.front.load(weight)?, self.rest.skip(weight)?),
            Side::Rest => (self.front.skip(weight)?, self.rest.load(weight)?),
        };
        match front == rest {
            true => Ok(front),
            false => Err(BackendError::Invalid(
                "two backends count weights differently".into(),
            )),
        }
    }

    fn skip(&mut self, weight: &WeightSpec) -> Result<WeightId, BackendError> {
        self.front.skip(weight)?;
        self.rest.skip(weight)
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        let front = self.cache(cache, Side::Front);
        let rest = self.cache(cache, Side::Rest);
        self.front.alloc_cache(&front)?;
        self.rest.alloc_cache(&rest)
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        let mut pieces: Vec<Prepared> = Vec::new();
        for Piece { side, plan } in cut(&plan, self.n_front) {
            let input = |&buffer: &BufferId| {
                let from = pieces.iter().position(|p| p.outputs.contains(&buffer));
                let from = from.ok_or_else(|| {
                    BackendError::Invalid(format!("no operation before writes buffer {}", buffer.0))
                })?;
                Ok((buffer, plan.buffers[buffer.0].rows, from))
            };
            let inputs = plan.inputs.iter().map(input).collect::<Result<_, _>>()?;
            let outputs = plan.outputs.clone();
            let id = self.backend(side).prepare(plan)?;
            pieces.push(Prepared {
                side,
                id,
                inputs,
                outputs,
            });
        }
        self.plans.push(pieces);
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        let n_pieces = self.plans.get(plan.0).map_or(0, Vec::len);
        let mut candidates = Vec::new();
        for piece in 0..n_pieces {
            candidates.extend(self.run_piece(plan, piece, batch)?);
        }
        Ok(candidates)
    }

    fn write(&mut self, _: PreparedId, _: BufferId, _: &[f32]) -> Result<(), BackendError> {
        Err(BackendError::Invalid(
            "only the pieces of a plan have inputs".into(),
        ))
    }

    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        let pieces = self.plans.get(plan.0);
        let piece = pieces.and_then(|p| p.iter().position(|p| p.outputs.contains(&buffer)));
        let invalid = || BackendError::Invalid(format!("buffer {} is not kept", buffer.0));
        let (side, id) = self.place(plan, piece.ok_or_else(invalid)?);
        self.backend(side).read(id, buffer, rows)
    }

    fn decode_equals_prefill(&self) -> bool {
        self.front.decode_equals_prefill() && self.rest.decode_equals_prefill()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BatchShape, BufferInfo, Op, Phase, View};

    /// Four sums in a chain, in no layer, layer 0, layer 1 and no layer; the last adds the first.
    fn chain() -> Plan {
        let view = |buffer| View {
            buffer: BufferId(buffer),
            offset: 0,
            cols: 8,
        };
        let add = |a, b, out| Op::Add {
            a: view(a),
            b: view(b),
            out: BufferId(out),
        };
        let info = BufferInfo {
            rows: Rows::Tokens,
            cols: 8,
            storage: 0,
        };
        Plan {
            shape: BatchShape {
                phase: Phase::Decode,
                n_tokens: 2,
                n_outputs: 2,
            },
            ops: vec![add(0, 0, 1), add(1, 1, 2), add(2, 2, 3), add(3, 1, 4)],
            labels: vec![String::new(); 4],
            layers: vec![None, Some(0), Some(1), None],
            buffers: vec![info; 5],
            rope_tables: vec![],
            outputs: vec![BufferId(4)],
            inputs: vec![BufferId(0)],
        }
    }

    #[test]
    fn pieces_pass_on_what_later_ones_read() {
        let ids = |ids: &[usize]| -> Vec<BufferId> { ids.iter().map(|&i| BufferId(i)).collect() };
        let pieces = cut(&chain(), 1);
        let sides: Vec<Side> = pieces.iter().map(|p| p.side).collect();
        assert_eq!(sides, [Side::Rest, Side::Front, Side::Rest]);
        let passed: Vec<_> = pieces
            .iter()
            .map(|p| (p.plan.inputs.clone(), p.plan.outputs.clone()))
            .collect();
        assert_eq!(passed[0], (ids(&[0]), ids(&[1])));
        assert_eq!(passed[1], (ids(&[1]), ids(&[2])));
        assert_eq!(passed[2], (ids(&[1, 2]), ids(&[4])));
        for piece in &pieces {
            let floats: usize = piece.plan.storage_sizes().iter().sum();
            assert!(floats <= 4 * 2 * 8, "only its own buffers take memory");
        }
    }

    #[test]
    fn all_layers_on_one_side_are_one_piece() {
        assert_eq!(cut(&chain(), 0).len(), 1);
        assert_eq!(cut(&chain(), 2).len(), 3);
    }
}
